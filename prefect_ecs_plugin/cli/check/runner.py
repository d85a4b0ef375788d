"""The list of all checks, and the code that makes them one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from prefect import config

from ...flow_run import plain
from ...observability.redaction import redact, redact_text, secrets_in
from ...settings import AgentSettings, PrefectSettings
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
from .aws_client import AWSUnavailable
from .context import CheckContext, LaunchPreview
from .findings import Finding, has_failed, skipped
from .output import Lines


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name.
        make: Yields findings, and stores what it finds out in the context.
        needs: The attributes of the context without which the check is skipped.
    """

    name: str
    make: Callable[[CheckContext], Iterator[Finding]]
    needs: Tuple[str, ...] = ()


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
            yield finding.of("", "" if is_common else ", ".join(names))

    return made


#: A check comes after those that it depends on.
CHECKS = (
    Check("Prefect API", api.reachable),
    Check("API key", api.key, ("api",)),
    Check("tenant", api.tenant, ("api",)),
    Check("agent config", api.agent_config, ("api",)),
    Check("AWS settings", identity.settings),
    Check("AWS region", identity.region, ("aws",)),
    Check("AWS identity", identity.identity, ("aws",)),
    Check("clock", identity.clock),
    Check("agent address", settings.agent_address),
    Check("agent settings", settings.settings, ("aws",)),
    Check("flow", flows.runs),
    Check("requests", rendering.launches, ("settings", "rows")),
    Check("cluster", cluster.clusters, ("aws",)),
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

#: The check that sets each attribute of the context.
_FOUND_BY = {
    "api": "Prefect API",
    "aws": "AWS settings",
    "identity": "AWS identity",
    "settings": "template, run-task kwargs and default network",
    "rows": "flow",
    "launches": "requests",
}


def findings(
    context: CheckContext, checks: Iterable[Check] = CHECKS
) -> Iterator[Finding]:
    """Make the checks.

    Args:
        context: The options; the checks add their results.
        checks: In their order.

    Yields:
        The findings of each check. A check that lacks its needs, or raises an error, is
        skipped.
    """
    for check in checks:
        missing = [need for need in check.needs if not getattr(context, need)]
        if missing:
            yield skipped(
                f"It depends on: {_FOUND_BY[missing[0]]}.",
                code="depends-on-failed-check",
            ).of(check.name)
            continue
        for finding in guarded(check.make(context)):
            yield finding.of(check.name)


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
        shown = []
        for finding in findings(self._context):
            known = self._secrets()
            shown.append(
                replace(
                    finding,
                    message=redact_text(finding.message, known),
                    advice=redact_text(finding.advice, known),
                )
            )
            self._screen.show(shown[-1])
        requests = {
            launch.flow: redact(plain(launch.sent()), self._secrets())
            for launch in self._context.launches
            if launch.flow
        }
        self._screen.end(shown, requests)
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
            [row.get("run_config") for row in context.rows or ()],
            [launch.sent() for launch in context.launches],
        )
        given = (context.options.get(each) for each in _AWS_SECRETS)
        of_aws = context.aws.clients.secrets() if context.aws else []
        return [each for each in (key, *given, *of_aws, *found) if each]
