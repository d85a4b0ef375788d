"""`prefect agent ecs install`: prints templates that run the agent as an ECS service.

    command           the options, the output and the warnings
    diff              what differs from an earlier output            (pure)
    flows             the resources that the agent's own files name
    plan              the options, checked and frozen                (pure)
    placeholders      account, region and roles in a format's terms  (pure)
    policy            the policies of the agent and of ECS           (pure)
    service           the agent's task definition and service        (pure)
    parameters        parameters and outputs of both templates       (pure)
    cloudformation, terraform, plain        one format each          (pure)

The command creates nothing: AWS's own tools apply its output. All formats use the same
plan, policies and task definition, so they always agree.
"""
