"""A Prefect API and an AWS on loopback, where ECS tasks really run.

- `prefect_api`: a Prefect 1 API.
- `aws`: moto behind a strict layer; RunTask starts local processes.
- `access`: which requests the two servers respond to.
- `http_server`: the HTTP server of both.
- `environment`: the whole environment of the sandbox's children.
- `children`: the child processes, started, and stopped in any case.
- `faults`: what AWS does wrong if a user asks for it.
- `flow_files`: the files that a user gives, their flows and parameters (pure).
- `load_flows`: a program that finds out which flows some files have.
- `flows`: flows registered, runs created and read back.
- `interruptions`: tasks that are interrupted, if a user asks for it.
- `display`: what has happened so far, as lines or as a table (pure).
- `command`: `prefect agent ecs sandbox`, which puts these together.

Importing this package imports none of them: they need Python 3.10 and the extra
`prefect-ecs-plugin[sandbox]`, and the command says so where they are missing.
"""
