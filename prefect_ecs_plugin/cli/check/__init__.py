"""`prefect agent ecs check`: what would fail, said before anything runs.

command      the options, which are those of `start`, and the exit code
preflight    the list of all checks, and making them one after the other
facts        what the checks have found out so far
findings     what a check says: ok, warning, failed or skipped       (pure)

api          the Prefect API, its key and tenant; `api_access` asks it
identity     the AWS settings, who we are there, and the clock
settings     the template, the run-task kwargs, the default VPC
flows        the flows of `--flow`
rendering    the requests of a launch, by the code of a launch, sent nowhere:
             each a `preview`
cluster      the cluster, and whether it has what the requests ask for
network      subnets, security groups and the way out
roles        execution role and task role
secrets      what containers get as secrets
images       what is in ECR
permissions  what the agent's identity may do

asking       read-only questions to AWS; the only module here that uses botocore
output       a table, plain lines or JSON                            (pure)

Nothing here starts, registers, changes or deletes anything. A check that cannot be
made is `skipped`, never `ok`.
"""
