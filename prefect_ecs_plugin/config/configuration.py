"""The agent's options, files and default VPC become its frozen settings.

Whatever is wrong here keeps the agent from starting, with one line.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Tuple

from .. import kwargs, template
from ..aws import network, secret_arn
from ..errors import ConfigurationError, PrefectECSError
from ..settings import AgentSettings
from ..validation.excerpt import quoted, shortened
from .sources import ClientFactory, load_mapping

#: The template for runs and agents that bring none.
DEFAULT_TASK_DEFINITION_PATH = str(
    Path(__file__).resolve().parents[1] / "task_definition.yaml"
)

#: A name or an IP address.
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\Z")

_LAUNCH_TYPES = ("FARGATE", "EC2")


def agent_settings(
    clients: ClientFactory,
    logger: logging.Logger,
    task_definition_path: Optional[str] = None,
    run_task_kwargs_path: Optional[str] = None,
    launch_type: Optional[str] = None,
    cluster: Optional[str] = None,
    task_role_arn: Optional[str] = None,
    execution_role_arn: Optional[str] = None,
    env: Optional[Mapping[str, Any]] = None,
    api_key_secret_arn: Optional[str] = None,
    template_hosts: Iterable[str] = (),
    agent_name: str = "",
) -> AgentSettings:
    """Read and check everything the agent was told.

    Args:
        clients: Makes AWS clients.
        logger: Told about a network that will be missed only by some runs.
        task_definition_path: The template's path; None for the packaged one.
        run_task_kwargs_path: The path of the run_task kwargs; None for none.
        launch_type: `FARGATE` or `EC2` in any case; None if it was not given.
        cluster: The cluster's name or ARN.
        task_role_arn: The default task role.
        execution_role_arn: The default execution role.
        env: Variables for every run.
        api_key_secret_arn: The secret that holds the API key for runs.
        template_hosts: The http(s) hosts that run configs may name a template at.
        agent_name: The agent's name.

    Raises:
        ConfigurationError: one line with the file or option and what to do.
    """
    if api_key_secret_arn is not None:
        secret_arn.parse("api_key_secret_arn", api_key_secret_arn)
    settings = AgentSettings(
        task_definition=_template(task_definition_path, clients),
        run_task_kwargs=_run_task_kwargs(run_task_kwargs_path, clients),
        launch_type=_checked_launch_type(launch_type),
        cluster=cluster,
        task_role_arn=task_role_arn,
        execution_role_arn=execution_role_arn,
        env=env or {},
        api_key_secret_arn=api_key_secret_arn,
        template_hosts=_host_names(template_hosts),
        agent_name=agent_name,
    )
    return settings.with_subnets(_inferred_subnets(settings, clients, logger))


def _host_names(hosts: Iterable[str]) -> Tuple[str, ...]:
    for host in hosts:
        if not _HOST.match(host):
            raise ConfigurationError(
                f"--template-host {quoted(host)} is no host's name; give one such as "
                "templates.example.com, without scheme, port and path."
            )
    return tuple(hosts)


def _template(path: Optional[str], clients: ClientFactory) -> Dict[str, Any]:
    path = path or DEFAULT_TASK_DEFINITION_PATH
    content = load_mapping(path, clients)
    _check(path, lambda: template.fitted(content))
    return content


def _run_task_kwargs(path: Optional[str], clients: ClientFactory) -> Dict[str, Any]:
    if not path:
        return {}
    content = load_mapping(path, clients)
    _check(path, lambda: kwargs.check(content))
    return content


def _check(path: str, check: Any) -> None:
    """Say which file it is that has something wrong."""
    try:
        check()
    except PrefectECSError as error:
        place = shortened(path, 200)
        raise ConfigurationError(shortened(f"{place}: {error}")) from error


def _checked_launch_type(launch_type: Optional[str]) -> Optional[str]:
    if launch_type is None or launch_type.upper() in _LAUNCH_TYPES:
        return launch_type and launch_type.upper()
    raise ConfigurationError(
        f"The launch type {launch_type!r} is not known; use FARGATE or EC2, or a "
        "capacityProviderStrategy in the file of --run-task-kwargs."
    )


def _inferred_subnets(
    settings: AgentSettings, clients: ClientFactory, logger: logging.Logger
) -> Tuple[str, ...]:
    """The default VPC's subnets where a run may need them.

    On Fargate every run does, so an agent without them does not start. Elsewhere
    runs can bring a network or another network mode, so it only warns.
    """
    if not infers_network(settings):
        return ()
    try:
        return network.default_subnets(clients("ec2"))
    except ConfigurationError as error:
        if _is_on_fargate(settings):
            raise
        logger.warning("Runs in network mode awsvpc will fail: %s", error)
        return ()


def infers_network(settings: AgentSettings) -> bool:
    """Whether the default VPC is looked for: none is given, and runs may need one."""
    if kwargs.agent_level(settings).get("networkConfiguration"):
        return False
    is_awsvpc = settings.task_definition.get("networkMode") == "awsvpc"
    return is_awsvpc or _is_on_fargate(settings)


def _is_on_fargate(settings: AgentSettings) -> bool:
    return bool(kwargs.agent_level(settings).get("launchType") == "FARGATE")
