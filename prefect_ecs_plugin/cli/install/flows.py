"""The agent's own files: the resources that they name, for its policy.

The template and the run_task kwargs of the agent name families, roles, log groups and
the network. The command reads these files with the user's own AWS credentials. It warns
of a file that it cannot read; options can name the resources instead.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ... import kwargs, template
from ...aws.session import AWSClients
from ...config import configuration
from ...config.limits_file import LimitsFile
from ...config.sources import load_mapping
from ...errors import ConfigurationError, PrefectECSError, SourceError
from ...settings import AgentSettings
from . import plan

#: The schemes of files that the service can read.
_SCHEMES = ("s3", "gs", "gcs", "http", "https", "agent")

#: Prints a warning.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Flows:
    """The resources that tasks will use.

    Attributes:
        families: The families that the agent's template names.
        roles: The roles that the template and the kwargs name.
        log_groups: The log groups of the template's containers.
        infers_network: Whether the agent would look for the default VPC.
    """

    families: Tuple[str, ...] = ()
    roles: Tuple[str, ...] = ()
    log_groups: Tuple[str, ...] = ()
    infers_network: bool = True


def read(options: Mapping[str, Any], tell: Tell) -> Flows:
    """Read the files that the agent will read when it starts.

    Args:
        options: The agent's options, by parameter name.
        tell: Prints a warning about a file that cannot be read from here.

    Raises:
        ConfigurationError: if a file is local, or the agent would not start with it.
    """
    path = options.get("task_definition_path")
    if path:
        definition = _content("--task-definition", path, template.coerce_template, tell)
    else:
        definition = load_mapping(configuration.DEFAULT_TASK_DEFINITION_PATH, _client)
    path = options.get("run_task_kwargs_path")
    run_task_kwargs = _content("--run-task-kwargs", path, kwargs.check, tell)
    settings = AgentSettings(
        task_definition=definition,
        run_task_kwargs=run_task_kwargs,
        launch_type=options.get("launch_type"),
    )
    infers_network = configuration.infers_network(settings)
    if run_task_kwargs and infers_network:
        tell(
            f"--run-task-kwargs: {path} has no networkConfiguration, so flows run in "
            "the default VPC; add one, or omit the option and give flows the agent's "
            "subnets [flows-in-default-vpc]"
        )
    roles = [
        holder.get(key)
        for holder in (definition, run_task_kwargs.get("overrides") or {})
        for key in ("taskRoleArn", "executionRoleArn")
    ]
    logs = [
        container.get("logConfiguration") or {}
        for container in definition.get("containerDefinitions") or []
    ]
    groups = [
        (log.get("options") or {}).get("awslogs-group", "")
        for log in logs
        if log.get("logDriver") == "awslogs"
    ]
    return Flows(
        families=tuple(filter(None, [definition.get("family")])),
        roles=tuple(plan.checked("a role in the file", arn) for arn in roles if arn),
        log_groups=tuple(dict.fromkeys(groups)),
        infers_network=infers_network,
    )


def check_limits(options: Mapping[str, Any], tell: Tell) -> None:
    """Read the file of limits that the agent will read when it starts.

    Args:
        options: The agent's options, by parameter name.
        tell: Prints a warning if it cannot be read from here.

    Raises:
        ConfigurationError: if it is local, or the agent would not start with it.
        SourceError: if it does not parse.
    """
    path = options.get("limits_path")
    if not path:
        return
    _check_scheme("--limits", path)
    if path.startswith("agent://"):  # in the image
        return
    try:
        LimitsFile(options["limits"], path, (), _client, logging.getLogger(__name__))
    except SourceError as error:
        if not error.message.startswith("Cannot read"):
            raise
        tell(
            f"--limits: {error.message.rstrip('.')}. The agent does not start before "
            "it can read this file [limits-not-checked]"
        )


def _content(
    option: str, path: Optional[str], check: Callable[[Any], Any], tell: Tell
) -> Dict[str, Any]:
    if not path:
        return {}
    _check_scheme(option, path)
    try:
        content = _load(path)
    except SourceError as error:
        # A file that does not parse would keep the agent from starting.
        if not error.message.startswith("Cannot read"):
            raise
        tell(
            f"{option}: {error.message.rstrip('.')}. Therefore the policy does not "
            "cover the resources that it names: give them with --family, --pass-role "
            "and --read-log-group [policy-without-file]"
        )
        return {}
    try:
        check(content)
    except PrefectECSError as error:
        raise ConfigurationError(f"{path}: {error}", code=error.code) from error
    return content


def _check_scheme(option: str, path: str) -> None:
    scheme, separator, _ = path.partition("://")
    if not separator or scheme == "file":
        raise ConfigurationError(
            f"{option}: {path} is a file on this machine, which the service cannot "
            "read; put it on S3 (s3://...) or into the image (agent:///...).",
            code="local-file",
        )
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{option}: {path} has the unknown scheme {scheme!r}; use one of "
            f"{', '.join(_SCHEMES)}.",
            code="unknown-scheme",
        )


def _load(path: str) -> Dict[str, Any]:
    if path.startswith("agent://"):
        raise SourceError(
            f"Cannot read {path}: the file is in the image.", code="file-in-image"
        )
    return load_mapping(path, _client)


def _client(service: str) -> Any:
    try:
        return AWSClients()(service)
    except ConfigurationError as error:
        raise SourceError(f"Cannot read it: {error}", code=error.code) from error
