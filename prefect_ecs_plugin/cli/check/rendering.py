"""The requests of a run: the agent's own launch code, which here sends nothing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any, Iterator, Mapping, Optional, cast

from ...config.sources import Reader
from ...errors import LaunchError, PrefectECSError
from ...launch.launcher import Launcher
from ...observability.outage_log import OutageLog
from ...scheduling.steps import Steps, run_blocking
from ...settings import PrefectSettings
from ...validation import rules
from ..aws_client import AWS, AWSRefusal
from .context import CheckContext, LaunchPreview
from .findings import Finding, failed_with, ok, warning

#: Stands for the ARN of the task, which is not started.
_NO_TASK = "arn:aws:ecs:nowhere:000000000000:task/none/0"


def launches(context: CheckContext) -> Iterator[Finding]:
    """Whether a run of each flow could be sent to ECS."""
    for name, row in (context.rows or {}).items():
        flows = (name,) if name else ()
        try:
            launch = render(row, name, context)
        except PrefectECSError as error:
            own = "the flow's run config, " if name else ""
            advice = f"Correct it in {own}the template or the run-task kwargs."
            yield failed_with(error, advice).of("", flows=flows)
            continue
        context.launches.append(launch)
        for finding in _evaluate(launch):
            yield finding.of("", flows=flows)


def render(row: Mapping[str, Any], name: str, context: CheckContext) -> LaunchPreview:
    """Build the requests of one run.

    Raises:
        PrefectECSError: the error with which the run would fail.
        AWSUnavailable: if AWS does not describe the definition that the run names.
    """
    recorder = _Recorder(context.known_aws)
    logger = logging.Logger("prefect_ecs_plugin.cli.check", logging.CRITICAL)
    launcher = Launcher(
        settings=lambda: context.known_settings,
        prefect_settings=lambda: _prefect_settings(context),
        files=Reader(context.known_aws.clients, context.known_settings.template_hosts),
        submission=cast(Any, recorder),
        claims=cast(Any, None),  # the run is not claimed
        reporter=cast(Any, None),  # and Prefect gets no report
        logger=logger,
        outages=OutageLog(logger),
        timeout=0.0,
        agent_id=lambda: None,
        other_tasks=cast(Any, None),  # nor does it look for other tasks
    )
    run_blocking(launcher.deploy(row), time.sleep)
    return LaunchPreview(
        name, recorder.request, recorder.definition, recorder.task_definition
    )


def _prefect_settings(context: CheckContext) -> PrefectSettings:
    api = context.api
    if api is None:
        return context.prefect
    return replace(
        context.prefect,
        api=api.url,
        api_key=api.key,
        tenant_id=api.tenant if api.key else None,
    )


def _evaluate(launch: LaunchPreview) -> Iterator[Finding]:
    """Warn of what ECS may refuse; `render` has raised what it always refuses."""
    whole = {"taskDefinition": launch.family, **launch.request}
    problems = rules.check_run_task(whole, launch.definition)
    if not launch.task_definition:  # ECS has accepted a registered one
        problems += rules.check_definition(launch.definition)
    for problem in dict.fromkeys(problems):
        where = f"{problem.place}: " if problem.place else ""
        yield warning(
            f"ECS may refuse this: {where}{problem.message}.",
            code=problem.code,
        )
    if not problems:
        yield ok("both requests fit ECS's model and rules")


@dataclass
class _Recorder:
    """Takes the requests in place of `Submission`, and sends nothing."""

    aws: AWS
    request: Mapping[str, Any] = field(default_factory=dict)
    definition: Mapping[str, Any] = field(default_factory=dict)
    task_definition: Optional[str] = None

    def launch(
        self,
        definition: Mapping[str, Any],
        request: Mapping[str, Any],
        *_: Any,
        **__: Any,
    ) -> Steps[str]:
        self.definition, self.request = definition, request
        yield from ()
        return _NO_TASK

    def launch_by_arn(
        self, task_definition: str, request: Mapping[str, Any], *_: Any, **__: Any
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
        except AWSRefusal as error:
            raise LaunchError(
                f"The task definition {task_definition} cannot be used: {error}",
                code="no-task-definition",
            ) from error
        self.definition = answer["taskDefinition"]
        return self.definition
