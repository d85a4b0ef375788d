"""What would be sent for a run: the agent's launch code, run without sending."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Optional, cast

from ...errors import LaunchError, PrefectECSError
from ...launch.launcher import Launcher
from ...observability.outage_log import OutageLog
from ...scheduling.steps import Steps, drive
from ...settings import PrefectSettings
from ...validation import rules
from .asking import AWS, Refused
from .facts import CheckContext
from .findings import Finding, failed, ok, sentence, warning
from .preview import LaunchPreview

#: The ARN of the task that is not started.
_NO_TASK = "arn:aws:ecs:nowhere:000000000000:task/none/0"


def launches(facts: CheckContext) -> Iterator[Finding]:
    """Whether a run of each flow could be sent to ECS."""
    for row in facts.rows or []:
        named = facts.options.get("flow_path") is not None
        name = str(row["flow"]["name"]) if named else ""
        try:
            launch = render(row, name, facts)
        except PrefectECSError as error:
            yield failed(sentence(error), _correct(named), name)
            continue
        facts.launches.append(launch)
        yield from _judged(launch)


def _correct(is_of_a_flow: bool) -> str:
    own = "the flow's run config, " if is_of_a_flow else ""
    return f"Correct it in {own}the template or the run-task kwargs."


def render(row: Mapping[str, Any], name: str, facts: CheckContext) -> LaunchPreview:
    """The requests of one run.

    Raises:
        PrefectECSError: what the run would fail with.
        Unanswered: if AWS does not say what it has to be asked for.
    """
    assert facts.settings is not None
    assert facts.aws is not None
    recorder = _Recorder(facts.aws)
    logger = logging.Logger("prefect_ecs_plugin.cli.check", logging.CRITICAL)
    launcher = Launcher(
        settings=facts.settings,
        prefect_settings=lambda: _prefect_settings(facts),
        clients=facts.aws.clients,
        submission=cast(Any, recorder),
        claims=cast(Any, None),  # a launch that is only rendered claims no run
        reporter=cast(Any, None),  # and Prefect is not told about it
        logger=logger,
        outages=OutageLog(logger),
        timeout=0.0,
        agent_id=lambda: None,
        other_tasks=cast(Any, None),  # nor does it look for other tasks
    )
    drive(launcher.deploy(row), time.sleep)
    return LaunchPreview(
        name, recorder.request, recorder.definition, recorder.task_definition
    )


def _prefect_settings(facts: CheckContext) -> PrefectSettings:
    """What the agent would tell a run; `facts.prefect` has the rest of it."""
    api = facts.api
    if api is None:
        return facts.prefect
    return PrefectSettings(
        backend=facts.prefect.backend,
        api=api.url,
        api_key=api.key,
        tenant_id=api.tenant if api.key else None,
        labels=facts.prefect.labels,
        logging_level=facts.prefect.logging_level,
        log_to_api=facts.prefect.log_to_api,
    )


def _judged(launch: LaunchPreview) -> Iterator[Finding]:
    """What ECS must refuse has been raised; what it only may refuse is a warning."""
    whole = {"taskDefinition": launch.family, **launch.request}
    problems = rules.check_run_task(whole, launch.definition)
    if not launch.task_definition:  # ECS has taken the other one already
        problems += rules.check_definition(launch.definition)
    for problem in dict.fromkeys(problems):
        yield warning(f"ECS may refuse this: {problem}.", about=launch.flow)
    if not problems:
        yield ok("both requests fit ECS's model and rules", about=launch.flow)


@dataclass
class _Recorder:
    """Stands where `Submission` does; takes the requests and sends nothing."""

    aws: AWS
    request: Mapping[str, Any] = field(default_factory=dict)
    definition: Mapping[str, Any] = field(default_factory=dict)
    task_definition: Optional[str] = None

    def launch(
        self,
        definition: Mapping[str, Any],
        request: Mapping[str, Any],
        budget: Any,
        confirm: Any = None,
        after: Any = None,
    ) -> Steps[str]:
        self.definition, self.request = definition, request
        yield from ()
        return _NO_TASK

    def launch_by_arn(
        self,
        task_definition: str,
        request: Mapping[str, Any],
        budget: Any,
        confirm: Any = None,
        after: Any = None,
    ) -> Steps[str]:
        self.task_definition, self.request = task_definition, request
        yield from ()
        return _NO_TASK

    def described(self, task_definition: str, budget: Any) -> Steps[Any]:
        yield from ()
        try:
            answer = self.aws.ask(
                "ecs", "describe_task_definition", taskDefinition=task_definition
            )
        except Refused as error:
            raise LaunchError(
                f"The task definition {task_definition} cannot be used: {error}"
            ) from error
        self.definition = answer["taskDefinition"]
        return self.definition
