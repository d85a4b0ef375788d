"""The list of all checks, and the code that makes them one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from prefect import config

from ...flow_run import plain
from ...observability.redaction import redact, redact_text, secrets_in
from ...settings import AgentSettings, PrefectSettings
from ..aws_client import AWSUnavailable
from . import (
    api,
    cluster,
    flows,
    identity,
    images,
    network,
    permissions,
    rendering,
    roles,
    secrets,
    settings,
)
from .context import CheckContext, LaunchPreview
from .findings import Finding, Status, depends, has_failed, skipped
from .output import Lines


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name.
        make: Yields findings, and stores what it finds out in the context.
        needs: The attributes of the context without which the check is skipped.
        gives: The attributes of the context that the check sets and others need.
    """

    name: str
    make: Callable[[CheckContext], Iterator[Finding]]
    needs: Tuple[str, ...] = ()
    gives: Tuple[str, ...] = ()


def of_each_launch(
    make: Callable[[CheckContext, LaunchPreview], Iterator[Finding]],
) -> Callable[[CheckContext], Iterator[Finding]]:
    """Make a check of all launches out of a check of one.

    A finding that is the same for several flows is reported once.
    """

    def made(context: CheckContext) -> Iterator[Finding]:
        found: Dict[Finding, List[str]] = {}
        for launch in context.launches:
            for finding in guarded(make(context, launch)):
                found.setdefault(finding, []).append(launch.flow)
        for finding, names in found.items():
            is_common = len(names) == len(context.launches)
            yield finding if is_common else finding.of("", flows=tuple(names))

    return made


_USABLE = ("aws_is_usable",)
_OF_IDENTITY = ("aws_is_usable", "identity")

#: A check comes after those that it depends on.
CHECKS = (
    Check("Prefect API", api.reachable, gives=("api",)),
    Check("API key", api.key, ("api",)),
    Check("tenant", api.tenant, ("api",)),
    Check("agent config", api.agent_config, ("api",)),
    Check("AWS settings", identity.settings, gives=("aws",)),
    # After the AWS settings: with them the agent's secrets are known.
    Check("options", settings.options),
    Check("AWS region", identity.region, ("aws",)),
    Check("AWS identity", identity.identity, ("aws",), _OF_IDENTITY),
    Check("clock", identity.clock),
    Check("agent address", settings.agent_address),
    Check("agent settings", settings.settings, _USABLE, ("settings",)),
    Check("limits", settings.limits, _USABLE),
    Check("flow", flows.runs, gives=("rows",)),
    Check("requests", rendering.launches, ("settings", "rows"), gives=("launches",)),
    Check("cluster", cluster.clusters, _USABLE),
    Check("capacity", of_each_launch(cluster.capacity), ("launches",)),
    Check("subnets", of_each_launch(network.subnets), ("launches",)),
    Check("security groups", of_each_launch(network.groups), ("launches",)),
    Check("internet egress", of_each_launch(network.egress), ("launches",)),
    Check("execution role", of_each_launch(roles.execution_role), ("launches",)),
    Check("task role", of_each_launch(roles.task_role), ("launches",)),
    Check("secrets", of_each_launch(secrets.secrets), ("identity", "launches")),
    Check("image", of_each_launch(images.images), ("launches",)),
    Check("permissions", permissions.permissions, ("identity", "launches")),
)

#: Options that are secrets of AWS.
_AWS_SECRETS = ("aws_secret_access_key", "aws_session_token")


def findings(
    context: CheckContext, checks: Iterable[Check] = CHECKS
) -> Iterator[Finding]:
    """Make the checks.

    Args:
        context: The options; the checks add their results.
        checks: In their order.

    Yields:
        The findings of each check. A check that raises an error is skipped. After a
        check that did not find out what others need, those are reported as skipped.
    """
    waiting = list(checks)
    while waiting:
        check = waiting.pop(0)
        made: List[Finding] = []
        for finding in guarded(check.make(context)):
            made.append(finding.of(check.name))
            yield made[-1]
        missing = {each for each in check.gives if not getattr(context, each)}
        blocked = _dependent(waiting, missing)
        waiting = [each for each in waiting if each not in blocked]
        because = depends(*_causes(made) or [check.name])
        for each in blocked:
            yield because.of(each.name)


def _causes(made: Iterable[Finding]) -> List[str]:
    """The names of the checks that failed."""
    failures = [each.check for each in made if each.status is Status.FAILED]
    return list(dict.fromkeys(failures))


def _dependent(checks: Iterable[Check], missing: Iterable[str]) -> List[Check]:
    """The checks that need what is missing, or what another of them would give."""
    lost, found = set(missing), []
    for check in checks:
        if lost.intersection(check.needs):
            found.append(check)
            lost.update(check.gives)
    return found


def guarded(made: Iterator[Finding]) -> Iterator[Finding]:
    """Report an error of a check as a skipped check."""
    try:
        yield from made
    except AWSUnavailable as error:
        yield skipped(f"The check could not be made: {error}.", code=error.code)
    except Exception as error:  # any error: the other checks are still made
        yield skipped(
            f"The check could not be made: {type(error).__name__}: {error}.",
            code="check-error",
        )


class CheckRunner:
    """Takes the place of the agent in Prefect's `start_agent`, to get its options.

    Args:
        screen: Shows the findings.
        labels: The agent's labels.
        env_vars: The variables of `--env`.
        options: All other options.

    Attributes:
        has_failed: Whether a check has failed.
    """

    def __init__(
        self,
        screen: Lines,
        labels: Optional[List[str]] = None,
        env_vars: Optional[Dict[str, str]] = None,
        **options: Any,
    ) -> None:
        self._screen = screen
        agent = config.cloud.agent
        no_logs = options.get("no_cloud_logs")
        with_logs = config.cloud.send_flow_run_logs if no_logs is None else not no_logs
        address = options.get("agent_address") or agent.get("agent_address")
        self._context = CheckContext(
            {**options, "agent_address": address},
            PrefectSettings(
                backend=config.backend,
                api=config.cloud.api,
                labels=tuple(labels or agent.get("labels", [])),
                logging_level=config.logging.level,
                log_to_api=with_logs,
            ),
            plain(env_vars or agent.get("env_vars", {})),
        )
        self.has_failed = False

    def start(self) -> None:
        """Make all checks and show their findings without secrets."""
        shown: List[Finding] = []

        def redacted() -> Iterator[Finding]:
            for finding in findings(self._context):
                known = self._secrets()
                message = redact_text(finding.message, known)
                advice = redact_text(finding.advice, known)
                shown.append(replace(finding, message=message, advice=advice))
                yield shown[-1]

        self._screen.show_all(redacted())
        requests = {
            launch.flow: redact(plain(launch.sent()), self._secrets())
            for launch in self._context.launches
            if launch.flow
        }
        files = self._context.options.get("flow_files") or ()
        self._screen.end(shown, requests, len(files) < 2)
        self.has_failed = has_failed(shown)

    def _secrets(self) -> List[str]:
        """The keys of Prefect and AWS, and the secrets of options, files and flows."""
        context = self._context
        key = context.api.key if context.api else config.cloud.api_key
        settings = context.settings or AgentSettings()
        found = secrets_in(
            {"env": context.env_vars},
            settings.task_definition,
            settings.run_task_kwargs,
            [row.get("run_config") for row in (context.rows or {}).values()],
            [launch.sent() for launch in context.launches],
        )
        given = (context.options.get(each) for each in _AWS_SECRETS)
        of_aws = context.aws.clients.secrets() if context.aws else []
        return [each for each in (key, *given, *of_aws, *found) if each]
