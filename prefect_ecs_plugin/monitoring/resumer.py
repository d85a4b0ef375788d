"""Has interrupted runs go on in another task: reads how far they got, sets states.

`resumption` decides what is set. The run then comes back through the queue, as one does
for a task retry, and brings its launch record with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Optional

import pendulum

from ..errors import PrefectECSError, with_code
from ..flow_run import FLOW_CONTAINER
from ..launch.claims import Claims
from ..launch.launcher import Launcher
from ..launch_record import LaunchRecord, claimed_task_runs, version_of
from ..observability.outage_log import OutageLog, retry_until_success
from ..prefect_api.client import AgentClient
from ..prefect_api.reporter import STATES
from ..scheduling.steps import Steps
from ..settings import ResumeSettings
from . import resumption
from .decision import Decision, Verdict, is_unchanged
from .resumption import Continuation, Refusal


class Resumer:
    """Has runs go on.

    Args:
        client: The client of the Prefect API.
        claims: Reads launch records.
        launcher: Knows what runs ask for.
        outages: Logs when the API does not answer.
        settings: The agent's options.
    """

    def __init__(
        self,
        *,
        client: AgentClient,
        claims: Claims,
        launcher: Launcher,
        outages: OutageLog,
        settings: ResumeSettings,
    ) -> None:
        self._client = client
        self._claims = claims
        self._launcher = launcher
        self._outages = outages
        self._settings = settings

    def resume(
        self,
        run_id: str,
        task_arn: str,
        definition: Optional[Mapping[str, Any]],
        decision: Decision,
        seen: Mapping[str, Any],
    ) -> Steps[Decision]:
        """Have a run go on, if that is safe and wanted.

        Args:
            run_id: The run.
            task_arn: Its task, which was interrupted.
            definition: The task's definition, if it is known.
            decision: What was decided, with the verdict RESUME.
            seen: The run as it was when that was decided.

        Returns:
            The decision with RESUME if the run goes on, with FAIL and the reason if it
            does not, with LEAVE if Prefect queues the run again by itself, with
            LOOK_AGAIN if the run has changed since.
        """

        def attempt() -> Steps[Decision]:
            yield from ()
            row = self._client.row(run_id)
            if row is None or not is_unchanged(row, seen):
                return replace(decision, verdict=Verdict.LOOK_AGAIN)
            return self._resume(row, task_arn, definition, decision, seen)

        return (yield from retry_until_success(attempt, self._outages, STATES))

    def _resume(
        self,
        row: Mapping[str, Any],
        task_arn: str,
        definition: Optional[Mapping[str, Any]],
        decision: Decision,
        seen: Mapping[str, Any],
    ) -> Decision:
        try:
            options = self._launcher.options_of(row)
        except PrefectECSError as error:
            return _refused(decision, Refusal(error.message, code=error.code))
        wish = options.on_interruption or self._settings.on_interruption
        if wish == "fail":
            waits = seen.get("task_runs") and not claimed_task_runs(seen)
            return replace(decision, verdict=Verdict.LEAVE if waits else Verdict.FAIL)
        record = self._claims.latest(row)
        if record is None:
            return _refused(decision, _NO_RECORD)
        again = self._next(row, record, task_arn)
        if again.interruptions > self._settings.max_interruptions:
            return _refused(decision, _too_many(record.interruptions))
        message = (
            f"Interrupted because {decision.stop_reason.cause}; the run goes on in "
            f"another task ({self._count(again)})"
        )
        found = resumption.continuation(
            self._progress(row, definition),
            again,
            message,
            pendulum.now("UTC").isoformat(),
            may_repeat=wish == "resume-all" or options.on_interruption == "resume",
        )
        if isinstance(found, Refusal):
            return _refused(decision, found)
        if not found.changes and not found.restarts:
            return replace(decision, verdict=Verdict.LEAVE)
        self._set(row, again, message, found)
        words = f"the run goes on in another task ({self._count(again)})"
        if found.repeated:
            words = f"{words}; started again: {resumption.listed(found.repeated)}"
        return replace(decision, resumption=words)

    def _count(self, record: LaunchRecord) -> str:
        return (
            f"interruption {record.interruptions} of {self._settings.max_interruptions}"
        )

    def _next(
        self, row: Mapping[str, Any], record: LaunchRecord, task_arn: str
    ) -> LaunchRecord:
        """The launch with which a run goes on."""
        interruptions = record.interruptions + 1
        return replace(
            record,
            name=f"{row['id']}-{version_of(row)}-i{interruptions}",
            attempt=1,
            after=task_arn,
            recoveries=0,
            interruptions=interruptions,
            time=pendulum.now("UTC").isoformat(),
        )

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
            "start_time": pendulum.now("UTC").isoformat(),
            "_result": {"type": "NoResultType"},
            "cached_inputs": {},
            "context": dict(record.to_context()),
        }
        self._client.set_run_state(row["id"], None, scheduled)


_NO_RECORD = Refusal(
    "the Prefect API does not keep the agent's launch record, which counts how often a "
    "run was interrupted",
    code="no-launch-record",
)


def _too_many(times: int) -> Refusal:
    return Refusal(
        f"it has been interrupted {times} times already; raise --max-interruptions if "
        "it should go on more often",
        code="too-many-interruptions",
    )


def _refused(decision: Decision, refusal: Refusal) -> Decision:
    words = f"the run does not go on in another task, because {refusal.reason}"
    return replace(
        decision, verdict=Verdict.FAIL, resumption=with_code(words, refusal.code)
    )


def _has_volumes(definition: Mapping[str, Any]) -> bool:
    """Whether the flow's container has files that may outlast it."""
    return any(
        container.get("mountPoints") or container.get("volumesFrom")
        for container in definition.get("containerDefinitions") or ()
        if container.get("name") == FLOW_CONTAINER
    )
