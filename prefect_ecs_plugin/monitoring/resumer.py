"""Has interrupted runs go on in another task: reads how far they got, sets states.

`resumption` decides what is set. The run then comes back through the queue, as one does
for a task retry, and brings its launch record with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Mapping, NamedTuple, Optional, Tuple, Union

import pendulum

from ..errors import PrefectECSError, reason, with_code
from ..flow_run import FLOW_CONTAINER
from ..launch.claims import Claims
from ..launch.launcher import Launcher
from ..launch.run_options import RunOptions
from ..launch_record import (
    LaunchRecord,
    claimed_task_runs,
    unchanged_since,
    version_of,
)
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import OWN_RETRY, AgentClient
from ..prefect_api.reporter import STATES
from ..scheduling.steps import Steps
from ..settings import ResumeSettings
from ..validation import rules
from . import resumption, stop_reasons
from .decision import Decision, Task, Verdict, flow_container, is_unchanged
from .resumption import Continuation, Refusal
from .stop_reasons import OUT_OF_MEMORY


class StoppedTask(NamedTuple):
    """A task whose run may go on.

    Attributes:
        arn: Its ARN.
        task: As ECS describes it.
        definition: Its definition; None if it is not known.
        decision: What was decided, with the verdict RESUME.
        run: The run as it was when that was decided.
    """

    arn: str
    task: Task
    definition: Optional[Mapping[str, Any]]
    decision: Decision
    run: Mapping[str, Any]

    @property
    def lacked_memory(self) -> bool:
        """Whether it was killed for memory; if not, it was interrupted."""
        return self.decision.stop_reason.code == OUT_OF_MEMORY


class Resumer:
    """Has runs go on.

    Args:
        client: The client of the Prefect API.
        claims: Reads launch records.
        launcher: Knows what runs ask for.
        outages: Logs when the API does not answer.
        settings: The agent's options.
        poll_soon: Has the agent look into the queue at once.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        claims: Claims,
        launcher: Launcher,
        outages: OutageLog,
        settings: ResumeSettings,
        poll_soon: Callable[[], object],
    ) -> None:
        self._client = client
        self._claims = claims
        self._launcher = launcher
        self._outages = outages
        self._settings = settings
        self._poll_soon = poll_soon

    def resume(self, stopped: StoppedTask) -> Steps[Decision]:
        """Have the run of a task go on, if that is safe and wanted.

        Args:
            stopped: The task.

        Returns:
            The decision with RESUME if the run goes on, with FAIL and the reason if it
            does not, with LEAVE if Prefect queues the run again by itself, with
            LOOK_AGAIN if the run has changed since.
        """
        run_id = stopped.run["id"]

        def attempt() -> Steps[Decision]:
            yield from ()
            row = self._client.row(run_id)
            if row is None or not is_unchanged(row, stopped.run):
                return replace(stopped.decision, verdict=Verdict.LOOK_AGAIN)
            try:
                return self._resume(row, stopped)
            except Exception as error:
                if not self._client.blames(error):
                    raise
                return _refused(stopped.decision, _refused_by_api(error))

        return (yield from retry_until_success(attempt, self._outages, STATES))

    def _resume(self, row: Mapping[str, Any], stopped: StoppedTask) -> Decision:
        try:
            options = self._launcher.options_of(row)
            if not self._is_wanted(options, stopped):
                return _as_before(stopped)
            again = self._next(row, options, stopped)
        except PrefectECSError as error:  # the run config cannot be read
            again = Refusal(error.message, code=error.code)
        if isinstance(again, Refusal):
            return _refused(stopped.decision, again)
        how = self._how(again, stopped)
        message = f"Interrupted because {stopped.decision.stop_reason.cause}; {how}"
        found = resumption.continuation(
            self._progress(row, stopped.definition),
            again,
            message,
            _now(-OWN_RETRY),  # the process that had them is gone
            may_repeat=options.on_interruption == "resume"
            or self._wish(options) == "resume-all",
        )
        if isinstance(found, Refusal):
            return _refused(stopped.decision, found)
        if not found.changes and not found.restarts:
            return replace(stopped.decision, verdict=Verdict.LEAVE)
        # Another agent of this name may have had it go on, and launched it, meanwhile.
        now = self._client.states_of([row["id"]]).get(row["id"])
        if now is None or not unchanged_since(stopped.run)(now):
            return replace(stopped.decision, verdict=Verdict.LOOK_AGAIN)
        self._set(row, again, message, found)
        self._poll_soon()
        if found.repeated:
            how = f"{how}; started again: {resumption.listed(found.repeated)}"
        return replace(stopped.decision, resumption=how)

    # -- Whether, and how ----------------------------------------------------------

    def _wish(self, options: RunOptions) -> str:
        return options.on_interruption or self._settings.on_interruption

    def _most_memory(self, options: RunOptions) -> Optional[int]:
        return options.max_memory or self._settings.max_memory

    def _is_wanted(self, options: RunOptions, stopped: StoppedTask) -> bool:
        if stopped.lacked_memory and self._most_memory(options) is None:
            return False
        return self._wish(options) != "fail"

    def _next(
        self, row: Mapping[str, Any], options: RunOptions, stopped: StoppedTask
    ) -> Union[LaunchRecord, Refusal]:
        """The launch with which a run goes on, or why it does not."""
        record = self._claims.latest(row)
        if record is None:
            return _NO_RECORD
        again = replace(record, attempt=1, after=stopped.arn, recoveries=0, time=_now())
        if stopped.lacked_memory:
            size = _larger(stopped, self._most_memory(options) or 0)
            if isinstance(size, Refusal):
                return size
            again = replace(again, cpu=size[0], memory=size[1])
        elif record.interruptions >= self._settings.max_interruptions:
            return _too_many(record.interruptions)
        else:
            number = record.interruptions + 1
            is_last = number == self._settings.max_interruptions
            falls_back = is_last and self._launcher.may_fall_back(row, record)
            again = replace(
                again,
                interruptions=number,
                on_demand=record.on_demand or falls_back,
            )
        name = f"{row['id']}-{version_of(row)}-i{again.interruptions}"
        return replace(again, name=f"{name}-m{again.memory}" if again.memory else name)

    def _how(self, again: LaunchRecord, stopped: StoppedTask) -> str:
        if stopped.lacked_memory:
            return (
                f"the run goes on in another task with {again.memory} MiB of memory "
                f"and cpu {again.cpu}"
            )
        count = f"{again.interruptions} of {self._settings.max_interruptions}"
        words = f"the run goes on in another task (interruption {count})"
        return f"{words} on FARGATE" if again.on_demand else words

    # -- Reading and setting -------------------------------------------------------

    def _progress(
        self, row: Mapping[str, Any], definition: Optional[Mapping[str, Any]]
    ) -> resumption.Progress:
        flow_id = row["flow"]["id"]
        return resumption.read(
            self._client.tasks_of_flow(flow_id),
            self._client.edges_of_flow(flow_id),
            self._client.task_runs_of(row["id"]),
            keeps_disk=definition is None or _has_volumes(definition),
        )

    def _set(
        self,
        row: Mapping[str, Any],
        record: LaunchRecord,
        message: str,
        found: Continuation,
    ) -> None:
        if found.changes:
            self._client.set_task_states(found.changes)
            return
        scheduled = {
            "type": "Scheduled",
            "message": message,
            "start_time": _now(),
            "_result": {"type": "NoResultType"},
            "cached_inputs": {},
            "context": dict(record.to_context()),
        }
        self._client.set_run_state(row["id"], None, scheduled)


def _now(seconds: float = 0.0) -> str:
    """The time so many seconds from now, in ISO 8601."""
    return str(pendulum.now("UTC").add(seconds=seconds).isoformat())


# -- Runs that do not go on --------------------------------------------------------


_NO_RECORD = Refusal(
    "the Prefect API does not keep the agent's launch record, which counts how often a "
    "run was interrupted",
    code="no-launch-record",
)


def _too_many(times: int) -> Refusal:
    return Refusal(
        f"it has gone on {times} times already, and --max-interruptions allows no more",
        code="too-many-interruptions",
    )


def _refused_by_api(error: Exception) -> Refusal:
    return Refusal(
        "the Prefect API refuses to say how far it has got, or to set its states: "
        f"{reason(error)}",
        code="resumption-refused",
    )


def _refused(decision: Decision, refusal: Refusal) -> Decision:
    words = f"the run does not go on in another task, because {refusal.reason}"
    return replace(
        decision, verdict=Verdict.FAIL, resumption=with_code(words, refusal.code)
    )


def _as_before(stopped: StoppedTask) -> Decision:
    """What is done about a run that is not to go on."""
    waits = stopped.run.get("task_runs") and not claimed_task_runs(stopped.run)
    is_queued = stopped.run["state"] == "Running" and waits
    verdict = Verdict.LEAVE if is_queued else Verdict.FAIL
    return replace(stopped.decision, verdict=verdict)


# -- What a task has ---------------------------------------------------------------


def _has_volumes(definition: Mapping[str, Any]) -> bool:
    """Whether the flow's container has files that may outlast it."""
    return any(
        container.get("mountPoints") or container.get("volumesFrom")
        for container in definition.get("containerDefinitions") or ()
        if container.get("name") == FLOW_CONTAINER
    )


def _larger(stopped: StoppedTask, most: int) -> Union[Refusal, Tuple[int, int]]:
    """CPU units and MiB of a task with more memory, or why there is none."""
    task = stopped.task
    said = str(flow_container(task).get("reason") or "")
    if stop_reasons.find(said).code != OUT_OF_MEMORY:
        return Refusal(
            "the container that was killed is not the flow's; give it more memory in "
            "the task definition template",
            code="other-container-killed",
        )
    if task.get("launchType") != "FARGATE":
        return Refusal(
            "the agent gives more memory to tasks on Fargate only",
            code="no-larger-size",
        )
    size = rules.more_memory(task.get("cpu"), task.get("memory"), most)
    return size or Refusal(
        f"its task has {task.get('memory')} MiB, and there is no larger size up to "
        f"{most} MiB (--max-memory or PREFECT_ECS_MAX_MEMORY)",
        code="no-larger-size",
    )
