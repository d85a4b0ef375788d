"""`prefect agent ecs check`: reports what would fail, before the agent starts.

command         the options, which include those of `start`, and the exit code
runner          the list of all checks, made one after the other
context         the options, and the results of earlier checks
findings        one line of the report: ok, warning, failed or skipped; how several
                become one for people  (pure)
output          the report as a table, plain lines or JSON

api             the Prefect API, its key and tenant
identity        the AWS settings, the agent's identity at AWS, the clock
settings        the template, the run-task kwargs, the default VPC
flow_files      the files that `--flow` names
flows           the flows in these files
rendering       the requests of a launch, built by the agent's own code
cluster         the cluster and its capacity
network         subnets, security groups and internet egress
roles           execution role and task role
secrets         the secrets of containers
images          images in ECR
permissions     the permissions of the agent's identity

The calls themselves are in `cli.prefect_client` and `cli.aws_client`, which other
commands share.

No check starts, registers, changes or deletes anything. A check that could not be made
is `skipped`, never `ok`.
"""
