"""The agent's options, files and default VPC become its frozen settings.

A mistake in any of them stops the agent before it launches anything, with one line:
one in an option or a local file at once, one elsewhere when it has been read.
"""

from __future__ import annotations

import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional

from .. import kwargs, template
from ..aws import network
from ..errors import ConfigurationError, PrefectECSError
from ..settings import AgentSettings
from ..validation.excerpt import shortened
from .sources import ClientFactory, is_remote, load_mapping

#: The template for agents and runs without their own.
DEFAULT_TASK_DEFINITION_PATH = str(
    Path(__file__).resolve().parents[1] / "task_definition.yaml"
)


def settings_reader(
    clients: ClientFactory,
    warn: Callable[[str], object],
    task_definition_path: Optional[str] = None,
    run_task_kwargs_path: Optional[str] = None,
    launch_type: Optional[str] = None,
    cluster: Optional[str] = None,
    task_role_arn: Optional[str] = None,
    execution_role_arn: Optional[str] = None,
    env: Optional[Mapping[str, Any]] = None,
    api_key_secret_arn: Optional[str] = None,
    template_hosts: Iterable[str] = (),
    flow_log_group: Optional[str] = None,
    agent_name: str = "",
    on_files: Callable[[AgentSettings], object] = lambda settings: None,
) -> Callable[[], AgentSettings]:
    """Read the agent's local files; the rest is read later.

    The options are valid by `config.options`.

    Args:
        clients: Makes AWS clients.
        warn: Called with a sentence if only some runs will lack a network.
        task_definition_path: The template's path; None for the packaged one.
        run_task_kwargs_path: The path of the run_task kwargs; None for none.
        launch_type: `FARGATE` or `EC2` in any case; None if it was not given.
        cluster: The cluster's name or ARN.
        task_role_arn: The default task role.
        execution_role_arn: The default execution role.
        env: Variables for every run.
        api_key_secret_arn: The secret that holds the API key for runs.
        template_hosts: The http(s) hosts from which run configs may read a template.
        flow_log_group: The log group of containers without a log configuration.
        agent_name: The agent's name.
        on_files: Called with the settings once all files are read, before the default
            VPC is.

    Returns:
        Reads the files that are elsewhere and the default VPC, which may take a while,
        and returns the settings. It raises a ConfigurationError too.

    Raises:
        ConfigurationError: One line with the file and what to do.
    """
    definition = _file(
        os.fspath(task_definition_path or DEFAULT_TASK_DEFINITION_PATH),
        clients,
        template.coerce_template,
    )
    run_task_kwargs: Callable[[], Dict[str, Any]] = dict
    if run_task_kwargs_path:
        run_task_kwargs = _file(os.fspath(run_task_kwargs_path), clients, kwargs.check)

    def read() -> AgentSettings:
        settings = AgentSettings(
            task_definition=definition(),
            run_task_kwargs=run_task_kwargs(),
            launch_type=launch_type and launch_type.upper(),
            cluster=cluster,
            task_role_arn=task_role_arn,
            execution_role_arn=execution_role_arn,
            env=env or {},
            api_key_secret_arn=api_key_secret_arn,
            template_hosts=tuple(template_hosts),
            flow_log_group=flow_log_group,
            region=clients("ecs").meta.region_name if flow_log_group else "",
            agent_name=agent_name,
        )
        on_files(settings)
        return _with_network(settings, clients, warn)

    return read


def _with_network(
    settings: AgentSettings, clients: ClientFactory, warn: Callable[[str], object]
) -> AgentSettings:
    """The settings with the default VPC's subnets, where runs may need them."""
    if not infers_network(settings):
        return settings
    try:
        return settings.with_subnets(network.default_subnets(clients("ec2")))
    except ConfigurationError as error:
        # On Fargate every run needs a network, so the agent does not start. Elsewhere
        # runs can bring a network or another network mode.
        if _is_on_fargate(settings):
            raise
        warn(f"Runs in network mode awsvpc will fail: {error}")
        return settings


def warnings(settings: AgentSettings) -> Iterator[str]:
    """What an operator should know when the agent starts, a line each."""
    roles = (
        settings.execution_role_arn,
        settings.task_definition.get("executionRoleArn"),
    )
    if settings.flow_log_group and _is_on_fargate(settings) and not any(roles):
        yield (
            "--flow-log-group needs an execution role, with which Fargate writes to "
            "the log group: give --execution-role-arn, or executionRoleArn in the "
            "template. Runs without one will fail. [no-execution-role]"
        )


def _file(
    path: str, clients: ClientFactory, check: Callable[[Dict[str, Any]], object]
) -> Callable[[], Dict[str, Any]]:
    """Returns the mapping in a file; one on this machine is read now."""
    read = lru_cache(maxsize=None)(partial(_checked, path, clients, check))
    if not is_remote(path):
        read()
    return read


def _checked(
    path: str, clients: ClientFactory, check: Callable[[Dict[str, Any]], object]
) -> Dict[str, Any]:
    """The mapping in a file; errors of its check name the file."""
    content = load_mapping(path, clients)
    try:
        check(content)
    except PrefectECSError as error:
        place = shortened(path, 200)
        raise ConfigurationError(
            shortened(f"{place}: {error}"), code=error.code
        ) from error
    return content


def infers_network(settings: AgentSettings) -> bool:
    """Whether runs may need the default VPC, because no network is given."""
    if kwargs.agent_level(settings).get("networkConfiguration"):
        return False
    is_awsvpc = settings.task_definition.get("networkMode") == "awsvpc"
    return is_awsvpc or _is_on_fargate(settings)


def _is_on_fargate(settings: AgentSettings) -> bool:
    return bool(kwargs.agent_level(settings).get("launchType") == "FARGATE")
