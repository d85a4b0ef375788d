"""The template, the run-task kwargs and the default VPC, as the agent reads them."""

from __future__ import annotations

import inspect
import logging
from typing import Any, Dict, Iterator, List, Mapping

from ...config.configuration import agent_settings
from ...errors import ConfigurationError
from ...launch import api_key
from ...observability.health import listen
from ...settings import AgentSettings
from .facts import CheckContext
from .findings import Finding, failed, ok, sentence, skipped, warning

#: The files: what each is called, what counts where none is given, and the option.
_FILES = {
    "task_definition_path": ("template", "the packaged one", "--task-definition"),
    "run_task_kwargs_path": ("run-task kwargs", "none are given", "--run-task-kwargs"),
}


def settings(facts: CheckContext) -> Iterator[Finding]:
    """Whether the agent would start with its files and the default VPC."""
    options = _options(facts)
    heard: List[str] = []
    try:
        facts.settings = _read(facts, options, heard)
    except ConfigurationError as error:
        yield from _blamed(facts, options, error)
        return
    for name in _FILES:
        yield _read_well(name, options)
    for text in heard:
        yield warning(text).of("default network")
    has_key = facts.api is not None and bool(facts.api.key)
    for text in api_key.warnings(facts.settings, has_key):
        yield warning(text).of("API key of runs")
    if facts.settings.subnets:
        count = len(facts.settings.subnets)
        plural = "s" if count > 1 else ""
        yield ok(f"{count} subnet{plural} of the default VPC").of("default network")


def agent_address(facts: CheckContext) -> Iterator[Finding]:
    """Whether the agent could serve its health check where it is told to."""
    address = facts.options.get("agent_address")
    if not address:
        return
    try:
        for each in listen(address):
            each.close()
    except ConfigurationError as error:
        yield failed(str(error))
    else:
        yield ok(f"{address} is free")


def _options(facts: CheckContext) -> Dict[str, Any]:
    """What the agent takes its settings from, by the names of their parameters."""
    known = set(inspect.signature(agent_settings).parameters) - {"clients", "logger"}
    given = {name: value for name, value in facts.options.items() if name in known}
    return {**dict.fromkeys(_FILES), **given, "env": facts.env_vars}


def _read(
    facts: CheckContext, options: Mapping[str, Any], heard: List[str]
) -> AgentSettings:
    assert facts.aws is not None  # preflight asks only where it is known
    logger = logging.Logger("prefect_ecs_plugin.cli.check", logging.WARNING)
    logger.addHandler(_Keeping(heard))
    return agent_settings(facts.aws.clients, logger, **options)


def _blamed(
    facts: CheckContext, options: Mapping[str, Any], error: ConfigurationError
) -> Iterator[Finding]:
    """Which part it is: each file is read once more, without the other."""
    guilty: List[str] = []
    for name, (check, _, option) in _FILES.items():
        # On EC2 a network that is missing is no reason not to start.
        alone = {**options, **dict.fromkeys(_FILES), "launch_type": "EC2"}
        try:
            _read(facts, {**alone, name: options[name]}, [])
        except ConfigurationError as own:
            guilty.append(check)
            advice = f"Set it right, or name another file with {option}."
            yield failed(sentence(own), advice).of(check)
        else:
            yield _read_well(name, options)
    finding = failed(sentence(error))
    if guilty:
        finding = skipped(f"It depends on: {' and '.join(guilty)}.")
    yield finding.of("default network")


def _read_well(name: str, options: Mapping[str, Any]) -> Finding:
    check, default, _ = _FILES[name]
    return ok(str(options[name] or default)).of(check)


class _Keeping(logging.Handler):
    """Keeps what the agent would write into its log."""

    def __init__(self, kept: List[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())
