"""The template, the run-task kwargs and the default VPC, as the agent reads them."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Any, Iterator, List, Mapping

from ...config import summary
from ...config.configuration import settings_reader
from ...config.limits_file import LimitsFile
from ...errors import ConfigurationError
from ...launch import api_key
from ...limits import QUOTA, vcpu_limits
from ...observability.health import listen
from ...settings import AgentSettings
from ..option_sources import unknown_variables
from .context import CheckContext
from .findings import Finding, depends, failed_with, ok, warned_with, warning

#: The agent's files: the check's name, the text if no file is given, and the option.
_FILES = {
    "task_definition_path": ("template", "the packaged one", "--task-definition"),
    "run_task_kwargs_path": ("run-task kwargs", "none are given", "--run-task-kwargs"),
}


def options(context: CheckContext) -> Iterator[Finding]:
    """What came from where, and variables that look like options and are none."""
    for source, given in context.options["sources"].items():
        yield ok(f"from {source}: {', '.join(given)}")
    for name, meant in unknown_variables(sorted(os.environ)).items():
        yield warning(
            f"The variable {name} belongs to no option.",
            f"Did you mean {' or '.join(meant)}?" if meant else "Remove it.",
            code="unknown-variable",
        )


def settings(context: CheckContext) -> Iterator[Finding]:
    """Whether the agent would start with its files and the default VPC."""
    known = set(inspect.signature(settings_reader).parameters)
    given = {name: value for name, value in context.options.items() if name in known}
    options = {**dict.fromkeys(_FILES), **given, "env": context.env_vars}
    logged: List[str] = []
    try:
        context.settings = _read(context, options, logged)
    except ConfigurationError as error:
        yield from _failures(context, options, error)
        return
    for name in _FILES:
        yield _accepted(name, options)
    for text in logged:
        yield warned_with(text).of("default network")
    has_key = context.api is not None and bool(context.api.key)
    for text in api_key.warnings(context.settings, has_key):
        yield warned_with(text).of("API key of runs")
    if context.settings.subnets:
        count = len(context.settings.subnets)
        plural = "s" if count > 1 else ""
        yield ok(f"{count} subnet{plural} of the default VPC").of("default network")


def limits(context: CheckContext) -> Iterator[Finding]:
    """Whether the agent would start with its limits, and what they are."""
    options, clients = context.options, context.known_aws.clients
    most = options.get("max_vcpus")
    try:
        found = LimitsFile(
            options.get("limits") or (),
            options.get("limits_path"),
            vcpu_limits(most),
            clients,
            logging.getLogger(__name__),
        )
    except ConfigurationError as error:
        yield failed_with(error, "Correct it, or name another file with --limits.")
        return
    shown = summary.limits_in_words(found.limits, most == QUOTA)
    if shown:
        yield ok(shown)


def agent_address(context: CheckContext) -> Iterator[Finding]:
    """Whether the agent could serve its health check at its address."""
    address = context.options.get("agent_address")
    if not address:
        return
    try:
        for each in listen(address):
            each.close()
    except ConfigurationError as error:
        yield failed_with(error)
    else:
        yield ok(f"{address} is free")


def _read(
    context: CheckContext, options: Mapping[str, Any], logged: List[str]
) -> AgentSettings:
    """Read the settings; the warnings that the agent would log go into `logged`."""
    clients = context.known_aws.clients
    return settings_reader(clients, logged.append, **options)()


def _failures(
    context: CheckContext, options: Mapping[str, Any], error: ConfigurationError
) -> Iterator[Finding]:
    """Read each file again without the other, to find the one with the mistake."""
    broken: List[str] = []
    for name, (check, _, option) in _FILES.items():
        # On EC2 the agent starts without a network too.
        alone = {**options, **dict.fromkeys(_FILES), "launch_type": "EC2"}
        try:
            _read(context, {**alone, name: options[name]}, [])
        except ConfigurationError as own:
            broken.append(check)
            yield failed_with(
                own, f"Correct it, or name another file with {option}."
            ).of(check)
        else:
            yield _accepted(name, options)
    finding = depends(*broken) if broken else failed_with(error)
    yield finding.of("default network")


def _accepted(name: str, options: Mapping[str, Any]) -> Finding:
    check, default, _ = _FILES[name]
    return ok(str(options[name] or default)).of(check)
