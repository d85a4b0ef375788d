"""What the agent's own files say about the tasks that it will launch.

The policy names the families, roles, logs and network that the template and the
run_task kwargs of the agent name. The command reads these files with the user's own AWS
credentials. It reports the files that it cannot read; options can replace them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from ... import kwargs, template
from ...aws.session import AWSClients
from ...config import configuration
from ...config.sources import load_mapping
from ...errors import ConfigurationError, PrefectECSError, SourceError
from ...settings import AgentSettings
from . import plan

#: Where a service can read files from.
_SCHEMES = ("s3", "gs", "gcs", "http", "https", "agent")

#: Tells the person at the terminal something.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Flows:
    """What is account of the tasks.

    Attributes:
        families: The families that the agent's template names.
        roles: The roles that template and kwargs name.
        log_groups: Where the template's containers log.
        infers_network: Whether the agent will look for the default VPC.
    """

    families: Tuple[str, ...] = ()
    roles: Tuple[str, ...] = ()
    log_groups: Tuple[str, ...] = ()
    infers_network: bool = True


def read(options: Mapping[str, Any], tell: Tell) -> Flows:
    """Read what the agent will read at its start.

    Args:
        options: Those of the agent, by the names of its parameters.
        tell: Told about a file that cannot be read from here.

    Raises:
        ConfigurationError: if a file is local, or the agent would not start with it.
    """
    path = options.get("task_definition_path")
    definition = _content("--task-definition", path, template.fitted, tell)
    if not path:
        packaged = configuration.DEFAULT_TASK_DEFINITION_PATH
        definition = load_mapping(packaged, _client)
    path = options.get("run_task_kwargs_path")
    run_task_kwargs = _content("--run-task-kwargs", path, kwargs.check, tell)
    settings = AgentSettings(
        task_definition=definition,
        run_task_kwargs=run_task_kwargs,
        launch_type=options.get("launch_type"),
    )
    return Flows(
        families=tuple(filter(None, [definition.get("family")])),
        roles=_roles(definition, run_task_kwargs.get("overrides") or {}),
        log_groups=tuple(dict.fromkeys(_log_groups(definition))),
        infers_network=configuration.infers_network(settings),
    )


def _content(
    option: str, path: Optional[str], check: Callable[[Any], Any], tell: Tell
) -> Dict[str, Any]:
    if not path:
        return {}
    scheme = _scheme(option, path)
    try:
        content = _load(scheme, path)
    except SourceError as error:
        # Whether it was not read or does not parse is all the same to the policy,
        # but a mistake in the file would keep the agent from starting.
        if not str(error).startswith("Cannot read"):
            raise
        tell(_unread(option, str(error).rstrip(".")))
        return {}
    try:
        check(content)
    except PrefectECSError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return content


def _scheme(option: str, path: str) -> str:
    scheme, separator, _ = path.partition("://")
    if not separator or scheme == "file":
        raise ConfigurationError(
            f"{option}: {path} is a file of this machine, which the service will not "
            "have; put it on S3 (s3://...), or into the image (agent:///...)."
        )
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{option}: {path} has the unknown scheme {scheme!r}; use one of "
            f"{', '.join(_SCHEMES)}."
        )
    return scheme


def _load(scheme: str, path: str) -> Dict[str, Any]:
    if scheme == "agent":
        raise SourceError(f"Cannot read {path}: it is in the image.")
    return load_mapping(path, _client)


def _client(service: str) -> Any:
    try:
        return AWSClients()(service)
    except ConfigurationError as error:
        raise SourceError(f"Cannot read it: {error}") from error


def _unread(option: str, reason: str) -> str:
    return (
        f"{option}: {reason}. So the policy does not know what is in it: name the "
        "families, roles and log groups in it with --family, --pass-role and "
        "--flow-log-group."
    )


def _roles(*places: Mapping[str, Any]) -> Tuple[str, ...]:
    keys = ("taskRoleArn", "executionRoleArn")
    found = (names.get(key) for names in places for key in keys)
    return tuple(plan.role_arn("a role in the file", arn) for arn in found if arn)


def _log_groups(definition: Mapping[str, Any]) -> Iterator[str]:
    containers: List[Mapping[str, Any]] = definition.get("containerDefinitions") or []
    for container in containers:
        logging_to = container.get("logConfiguration") or {}
        if logging_to.get("logDriver") == "awslogs":
            yield (logging_to.get("options") or {}).get("awslogs-group", "")
