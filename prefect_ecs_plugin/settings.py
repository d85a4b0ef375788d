"""The agent's settings, frozen, so that building a request is pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Mapping, Optional, Tuple

#: The defaults of `ECSAgent` and of the options of `start`; all but START_ATTEMPTS in
#: seconds. ECS kills a container 30 s after SIGTERM, so SHUTDOWN_GRACE is below that. 0
#: is no limit for the other three.
DEFAULT_START_DEADLINE = 1800.0
DEFAULT_MAX_RUNTIME = 0.0
DEFAULT_MAX_DELAY = 0.0
DEFAULT_LAUNCH_TIMEOUT = 1800.0
DEFAULT_START_ATTEMPTS = 3
DEFAULT_CANCEL_GRACE = 60.0
DEFAULT_SHUTDOWN_GRACE = 25.0

#: Where the agent gets the prices of tasks from, see `monitoring.prices`.
PRICES = ("table", "aws", "off")
DEFAULT_PRICES = "table"

#: What the agent does about interrupted runs, see `ResumeSettings`.
ON_INTERRUPTION = ("resume", "resume-all", "fail")
DEFAULT_ON_INTERRUPTION = "resume"
DEFAULT_MAX_INTERRUPTIONS = 3
DEFAULT_SPOT_PATIENCE = 300.0


@dataclass(frozen=True)
class ResumeSettings:
    """What the agent does about runs whose task is interrupted.

    Attributes:
        on_interruption: `resume`: the run goes on if the task runs that were running
            have retries left; `resume-all`: without retries too; `fail`: the run is
            Failed.
        max_interruptions: How often one run goes on.
        spot_fallback: Whether the task of a run that asks for FARGATE_SPOT runs on
            FARGATE if Spot has failed it.
        spot_patience: Seconds without Spot capacity after which it does.
        max_memory: The MiB that a task may have at most after one was killed for
            memory; None: the run is Failed.
    """

    on_interruption: str = DEFAULT_ON_INTERRUPTION
    max_interruptions: int = DEFAULT_MAX_INTERRUPTIONS
    spot_fallback: bool = True
    spot_patience: float = DEFAULT_SPOT_PATIENCE
    max_memory: Optional[int] = None


@dataclass(frozen=True)
class PrefectSettings:
    """What a flow run needs to find its API.

    Attributes:
        backend: `server` or `cloud`.
        api: The API's URL.
        api_key: The key for flow runs; None where the API needs none.
        tenant_id: The tenant; a run gets it only together with a key.
        labels: The agent's labels.
        logging_level: The level at which flow runs log.
        log_to_api: Whether flow runs may send their logs to the API.
    """

    backend: str
    api: str
    api_key: Optional[str] = None
    tenant_id: Optional[str] = None
    labels: Tuple[str, ...] = ()
    logging_level: str = "INFO"
    log_to_api: bool = True


@dataclass(frozen=True)
class AgentSettings:
    """The agent's own defaults for every run.

    Attributes:
        task_definition: The template for runs without one of their own.
        run_task_kwargs: The content of `--run-task-kwargs`, as written.
        launch_type: The value of `--launch-type`; None if it was not given.
        cluster: The value of `--cluster`; None if it was not given.
        task_role_arn: The task role for runs and templates that name none.
        execution_role_arn: The execution role for runs and templates that name none.
        env: What `--env` and the Prefect config add to every run.
        subnets: The default VPC's subnets, where the network is inferred.
        api_key_secret_arn: The secret from which ECS gives runs their API key.
        flow_log_group: The CloudWatch log group of containers without a log
            configuration; None to leave them without one.
        region: The region of tasks, for that log group; empty without one.
        agent_name: The agent's name, for the definitions that it registers.
        template_hosts: The http(s) hosts at which run configs may name a template; all
            hosts if there are none.
    """

    task_definition: Mapping[str, Any] = field(default_factory=dict)
    run_task_kwargs: Mapping[str, Any] = field(default_factory=dict)
    launch_type: Optional[str] = None
    cluster: Optional[str] = None
    task_role_arn: Optional[str] = None
    execution_role_arn: Optional[str] = None
    env: Mapping[str, Any] = field(default_factory=dict)
    subnets: Tuple[str, ...] = ()
    api_key_secret_arn: Optional[str] = None
    template_hosts: Tuple[str, ...] = ()
    flow_log_group: Optional[str] = None
    region: str = ""
    agent_name: str = ""

    def with_subnets(self, subnets: Tuple[str, ...]) -> AgentSettings:
        """The same settings with an inferred network."""
        return replace(self, subnets=subnets)


def environment_entries(env: Mapping[str, Any]) -> Dict[str, str]:
    """Environment values as strings, as ECS requires; None means not given.

    `True` becomes `true`, as Prefect itself writes booleans for its containers.
    """
    return {
        str(name): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in env.items()
        if value is not None
    }
