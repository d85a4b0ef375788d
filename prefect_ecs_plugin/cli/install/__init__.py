"""What it takes to run the agent as an ECS service, printed to be reviewed.

    command           `prefect agent ecs install`: options in, text out
    flows             what the agent's own files say of the tasks it will launch
    plan              what was asked for, checked and frozen         (pure)
    names             account, region, roles in a format's own words (pure)
    policy            the rights of the agent and of ECS, as a table (pure)
    service           the agent's task definition and service        (pure)
    cloudformation, terraform, plain        one format each          (pure)
    hcl               values -> text as `terraform fmt` writes it    (pure)

Nothing here makes anything: AWS's own tools apply what is printed. One plan, one
policy and one task definition serve every format, so they cannot drift apart.
"""
