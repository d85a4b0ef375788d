"""The list of all checks, made one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from prefect import config

from ...flow_run import plain
from ...observability.redaction import redact, redact_text, secrets_in
from ...settings import AgentSettings, PrefectSettings
from . import api, cluster, flows, identity, images, network, rendering, roles, secrets
from . import permissions as rights
from . import settings as agent
from .asking import Unanswered
from .facts import CheckContext
from .findings import Finding, has_failed, skipped
from .output import Lines
from .preview import LaunchPreview


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What it is called.
        make: Makes it; yields what it finds and leaves what it learns in the facts.
        needs: The facts it cannot be made without.
    """

    name: str
    make: Callable[[CheckContext], Iterator[Finding]]
    needs: Tuple[str, ...] = ()


def of_each_launch(
    make: Callable[[CheckContext, LaunchPreview], Iterator[Finding]],
) -> Callable[[CheckContext], Iterator[Finding]]:
    """A check of the facts out of one of a single launch.

    What is the same for all flows is said once.
    """

    def made(facts: CheckContext) -> Iterator[Finding]:
        found: Dict[Finding, List[str]] = {}
        for launch in facts.launches:
            for finding in guarded(make(facts, launch)):
                found.setdefault(finding, []).append(launch.flow)
        for finding, names in found.items():
            is_common = len(names) == len(facts.launches)
            yield finding.of("", "" if is_common else ", ".join(names))

    return made


#: In the order in which one thing depends on another.
CHECKS = (
    Check("Prefect API", api.reachable),
    Check("API key", api.key, ("api",)),
    Check("tenant", api.tenant, ("api",)),
    Check("agent config", api.agent_config, ("api",)),
    Check("AWS settings", identity.settings),
    Check("AWS region", identity.region, ("aws",)),
    Check("AWS identity", identity.identity, ("aws",)),
    Check("clock", identity.clock),
    Check("agent address", agent.agent_address),
    Check("agent settings", agent.settings, ("aws",)),
    Check("flow", flows.runs),
    Check("requests", rendering.launches, ("settings", "rows")),
    Check("cluster", cluster.clusters, ("aws",)),
    Check("capacity", of_each_launch(cluster.capacity), ("launches",)),
    Check("subnets", of_each_launch(network.subnets), ("launches",)),
    Check("security groups", of_each_launch(network.groups), ("launches",)),
    Check("way out", of_each_launch(network.routes), ("launches",)),
    Check("execution role", of_each_launch(roles.execution_role), ("launches",)),
    Check("task role", of_each_launch(roles.task_role), ("launches",)),
    Check("secrets", of_each_launch(secrets.secrets), ("identity", "launches")),
    Check("image", of_each_launch(images.images), ("launches",)),
    Check("permissions", rights.permissions, ("identity", "launches")),
)

#: Options that are secrets of AWS.
_AWS_SECRETS = ("aws_secret_access_key", "aws_session_token")

#: Which check finds a fact out.
_FOUND_BY = {
    "api": "Prefect API",
    "aws": "AWS settings",
    "identity": "AWS identity",
    "settings": "template, run-task kwargs and default network",
    "rows": "flow",
    "launches": "requests",
}


def findings(
    facts: CheckContext, checks: Iterable[Check] = CHECKS
) -> Iterator[Finding]:
    """Make the checks.

    Args:
        facts: What is asked for; filled on the way.
        checks: In their order.

    Yields:
        What each finds. One that lacks what it needs, or breaks off, is skipped.
    """
    for check in checks:
        missing = [need for need in check.needs if not getattr(facts, need)]
        if missing:
            yield skipped(f"It depends on: {_FOUND_BY[missing[0]]}.").of(check.name)
            continue
        for finding in guarded(check.make(facts)):
            yield finding.of(check.name)


def guarded(made: Iterator[Finding]) -> Iterator[Finding]:
    """A check that breaks off is no crash, and no `ok` either."""
    try:
        yield from made
    except Unanswered as error:
        yield skipped(f"It could not be made: {error}.")
    except Exception as error:  # whatever it is, the other checks are still wanted
        yield skipped(f"It could not be made: {type(error).__name__}: {error}.")


class Preflight:
    """Stands where `start` has an agent, so that both get their options alike.

    Args:
        screen: Shows the findings.
        labels: The agent's labels.
        env_vars: What `--env` said.
        options: All others.

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
        address = options.get("agent_address") or config.cloud.agent.get(
            "agent_address"
        )
        self._facts = CheckContext(
            {**options, "agent_address": address},
            _prefect_settings(labels, options.get("no_cloud_logs")),
            plain(env_vars or config.cloud.agent.get("env_vars", {})),
        )
        self.has_failed = False

    def start(self) -> None:
        """Make all checks and show them."""
        shown = []
        for finding in findings(self._facts):
            shown.append(_discreet(finding, self._secrets()))
            self._screen.show(shown[-1])
        self._screen.end(shown, self._requests())
        self.has_failed = has_failed(shown)

    def _requests(self) -> Dict[str, Any]:
        return {
            launch.flow: redact(plain(launch.sent()), self._secrets())
            for launch in self._facts.launches
            if launch.flow
        }

    def _secrets(self) -> List[str]:
        """The keys of Prefect and AWS, and what options, files and flows bring."""
        facts = self._facts
        key = facts.api.key if facts.api else config.cloud.api_key
        settings = facts.settings or AgentSettings()
        brought = secrets_in(
            {"env": facts.env_vars},
            settings.task_definition,
            settings.run_task_kwargs,
            [row.get("run_config") for row in facts.rows or ()],
            [launch.sent() for launch in facts.launches],
        )
        given = (facts.options.get(each) for each in _AWS_SECRETS)
        found = facts.aws.clients.secrets() if facts.aws else []
        return [each for each in (key, *given, *found, *brought) if each]


def _discreet(finding: Finding, secrets: List[str]) -> Finding:
    texts = (redact_text(text, secrets) for text in (finding.message, finding.advice))
    message, advice = texts
    return Finding(finding.status, message, advice, finding.check, finding.about)


def _prefect_settings(
    labels: Optional[List[str]], no_logs: Optional[bool]
) -> PrefectSettings:
    """What every Prefect agent takes from its options and the configuration."""
    return PrefectSettings(
        backend=config.backend,
        api=config.cloud.api,
        labels=tuple(labels or config.cloud.agent.get("labels", [])),
        logging_level=config.logging.level,
        log_to_api=config.cloud.send_flow_run_logs if no_logs is None else not no_logs,
    )
