"""Decides how an interrupted run goes on in another task. Pure.

    a task run that was running, with retries left   Retrying, due now
    one without, if the run may repeat it            Scheduled, due now
    one that was claimed and had not begun           as before its claim, due now
    none of these, and none that waits               the flow run is Scheduled again

The server's queue then has the run again. Task runs that have ended stay as they are.

Guarantee: a resumed run never computes on a result that was not stored. Prefect's
runner loads the result of an ended task run from its location, and takes None where
there is no location (`State.load_result` of Prefect 1.0 to 1.4). So a run is not
resumed if a task that has not ended takes data from such a task run.
"""

from __future__ import annotations

from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ..launch_record import RESCHEDULED_STATES, LaunchRecord

_FAILED = frozenset({"Failed", "TimedOut", "TriggerFailed", "ValidationFailed"})

#: States of task runs that have ended. Looped is between two rounds of a task.
_ENDED = _FAILED | {"Success", "Cached", "Mapped", "Skipped", "Finished", "Cancelled"}

#: States of a task run that a process was at work on.
_AT_WORK = frozenset({"Running", "Looped"})

#: Tasks that Prefect's runner runs again whenever a flow run goes on
#: (`FlowRunner.get_flow_run_state`), besides those whose result is a secret.
_RUN_AGAIN = frozenset(
    f"prefect.tasks.core.resource_manager.Resource{which}Task"
    for which in ("Setup", "Cleanup")
)

#: Tasks whose results are always stored, unless they are None.
_PARAMETERS = frozenset(
    f"prefect.core.parameter.{name}" for name in ("Parameter", "DateTimeParameter")
)

#: How many names a sentence has.
_NAMED = 3


class FlowTask(NamedTuple):
    """A task of a registered flow.

    Attributes:
        id: Its id.
        name: Its name.
        type: Its class, with the module.
        max_retries: How often it may be retried.
        needs_success: Whether it runs only if all tasks before it succeed.
    """

    id: str
    name: str = ""
    type: str = ""
    max_retries: int = 0
    needs_success: bool = True


class Edge(NamedTuple):
    """One task comes before another.

    Attributes:
        upstream: The id of the task that comes first.
        downstream: The id of the other.
        takes_data: Whether the result of the first one is an argument of the other.
    """

    upstream: str
    downstream: str
    takes_data: bool = True


class TaskRun(NamedTuple):
    """A task run of the interrupted run.

    Attributes:
        id: Its id.
        task_id: Its task.
        map_index: Its place among the children of a mapped task; -1 for any other.
        version: The version of its state.
        state: Its serialized state.
        retries: How often it has been Retrying.
    """

    id: str
    task_id: str
    map_index: int = -1
    version: int = 0
    state: Mapping[str, Any] = {}
    retries: int = 0

    @property
    def kind(self) -> str:
        """The type of its state; Pending if it has none."""
        return str(self.state.get("type") or "Pending")


class Progress(NamedTuple):
    """How far a run has got.

    Attributes:
        tasks: The flow's tasks.
        edges: What comes before what.
        task_runs: The task runs of the run.
        keeps_disk: Whether files of the container may outlast it.
    """

    tasks: Sequence[FlowTask]
    edges: Sequence[Edge]
    task_runs: Sequence[TaskRun]
    keeps_disk: bool = True


class Refusal(NamedTuple):
    """Why a run does not go on.

    Attributes:
        reason: Words that fit after "because", with what to do.
        code: The stable code of the message.
    """

    reason: str
    code: str


class Continuation(NamedTuple):
    """What has to be set for a run to go on; nothing, if Prefect queues it by itself.

    Attributes:
        changes: States of task runs, as `AgentClient.set_task_states` takes them.
        restarts: Whether the flow run has to be Scheduled, since nothing else would
            bring it back to the queue.
        repeated: The names of the task runs that were at work.
    """

    changes: Sequence[Mapping[str, Any]] = ()
    restarts: bool = False
    repeated: Sequence[str] = ()


def read(
    tasks: Iterable[Mapping[str, Any]],
    edges: Iterable[Mapping[str, Any]],
    task_runs: Iterable[Mapping[str, Any]],
    keeps_disk: bool,
) -> Progress:
    """The progress of a run from rows of the API, see `AgentClient`."""
    return Progress(
        [
            FlowTask(
                id=row["id"],
                name=str(row.get("name") or row.get("slug") or row["id"]),
                type=str(row.get("type") or ""),
                max_retries=int(row.get("max_retries") or 0),
                needs_success="all_successful" in str(row.get("trigger")),
            )
            for row in tasks
        ],
        [
            Edge(row["upstream_task_id"], row["downstream_task_id"], bool(row["key"]))
            for row in edges
        ],
        [
            TaskRun(
                id=row["id"],
                task_id=row["task_id"],
                map_index=-1 if row.get("map_index") is None else int(row["map_index"]),
                version=int(row.get("version") or 0),
                state=row.get("serialized_state") or {},
                retries=len(row.get("states") or ()),
            )
            for row in task_runs
        ],
        keeps_disk,
    )


def continuation(
    progress: Progress,
    record: LaunchRecord,
    message: str,
    now: str,
    may_repeat: bool = False,
) -> Union[Continuation, Refusal]:
    """Decide how a run goes on.

    Args:
        progress: How far it has got.
        record: The launch that it goes on with.
        message: For the new states.
        now: The time in ISO 8601, at which they are due.
        may_repeat: Whether task runs without retries left run once more too.
    """
    tasks = {task.id: task for task in progress.tasks}
    at_work = [each for each in progress.task_runs if each.kind in _AT_WORK]
    claimed = [each for each in progress.task_runs if each.kind == "Submitted"]
    waiting = [each for each in progress.task_runs if each.kind in RESCHEDULED_STATES]
    if waiting and not at_work and not claimed:
        return Continuation()
    retried = [
        each
        for each in at_work
        if each.task_id in tasks and each.retries < tasks[each.task_id].max_retries
    ]
    exhausted = [each for each in at_work if each not in retried]
    if exhausted and not may_repeat:
        return Refusal(
            f"{_named(exhausted, tasks)} was running and has no retries left; give the "
            "task max_retries, or set PREFECT_ECS_ON_INTERRUPTION=resume in the run's "
            "env if it may run twice",
            "no-retries-left",
        )
    missing = next(_missing(progress, tasks), None)
    if missing:
        return missing
    common: Mapping[str, Any] = {"message": message, "start_time": now}
    changes = [
        *(
            _change(each, record, "Retrying", run_count=each.retries + 1, **common)
            for each in retried
        ),
        *(
            _change(each, record, "Scheduled", context=_count(each), **common)
            for each in exhausted
        ),
        *(_returned(each, record, now) for each in claimed),
    ]
    names = tuple(_name(each, tasks) for each in at_work)
    return Continuation(tuple(changes), not changes, names)


# -- The new states ----------------------------------------------------------------


def _change(
    task_run: TaskRun,
    record: LaunchRecord,
    kind: str,
    context: Mapping[str, Any] = {},
    **more: Any,
) -> Mapping[str, Any]:
    before = task_run.state
    state = {
        "type": kind,
        "_result": {"type": "NoResultType"},
        "cached_inputs": before.get("cached_inputs") or {},
        "context": {
            **(before.get("context") or {}),
            **context,
            **record.to_context(),
        },
        **more,
    }
    return {"task_run_id": task_run.id, "version": task_run.version, "state": state}


def _count(task_run: TaskRun) -> Mapping[str, Any]:
    """What tells Prefect's runner that this is not a task run's first attempt."""
    return {"task_run_count": task_run.retries + 1}


def _returned(task_run: TaskRun, record: LaunchRecord, now: str) -> Mapping[str, Any]:
    """A task run that was claimed and had not begun: the state before its claim."""
    state: Mapping[str, Any] = task_run.state
    while state.get("type") == "Submitted" and isinstance(state.get("state"), Mapping):
        state = state["state"]
    if state.get("type") not in RESCHEDULED_STATES:  # damaged; it had not begun
        state = {"type": "Scheduled", "message": task_run.state.get("message")}
    context = {**(state.get("context") or {}), **record.to_context()}
    state = {**state, "start_time": now, "context": context}
    return {"task_run_id": task_run.id, "version": task_run.version, "state": state}


# -- Results that a resumed run would lack --------------------------------------------


def _missing(progress: Progress, tasks: Mapping[str, FlowTask]) -> Iterator[Refusal]:
    """The results of ended task runs that a task still needs, and that are lost."""
    runs: Dict[str, List[TaskRun]] = {}
    for each in progress.task_runs:
        runs.setdefault(each.task_id, []).append(each)
    for edge in progress.edges:
        before, after = tasks.get(edge.upstream), tasks.get(edge.downstream)
        if before is None or after is None:
            continue
        if not _will_run(after, runs.get(after.id, ())):
            continue
        if before.type in _RUN_AGAIN or not _has_ended(runs.get(before.id, ())):
            continue
        for each in runs[before.id]:
            how = _lost(each, before, after, edge.takes_data, progress.keeps_disk)
            if how:
                yield Refusal(
                    f"{_name(after, tasks)} needs the result of {_name(each, tasks)}, "
                    f"which {how}; give the flow or the task a `result=` that outlasts "
                    "the container, such as S3Result, and leave checkpointing on",
                    "result-not-stored",
                )


def _has_ended(task_runs: Sequence[TaskRun]) -> bool:
    """Whether a task is not run as a whole; some children of a mapped one may be."""
    return any(each.map_index == -1 and each.kind in _ENDED for each in task_runs)


def _will_run(task: FlowTask, task_runs: Sequence[TaskRun]) -> bool:
    """Whether a task, or a child of it, runs when the flow run goes on.

    One that is Cached may: Prefect's runner compares its inputs again.
    """
    if task.type in _RUN_AGAIN or not _has_ended(task_runs):
        return True
    children = sum(each.map_index != -1 for each in task_runs)
    return any(
        each.kind not in _ENDED
        or each.kind == "Cached"
        or _result(each).get("type") == "SecretResult"
        or (each.kind == "Mapped" and children < _width(each))
        for each in task_runs
    )


def _lost(
    task_run: TaskRun,
    before: FlowTask,
    after: FlowTask,
    takes_data: bool,
    keeps_disk: bool,
) -> Optional[str]:
    """How the result of a task run was lost, if it has one that a task needs."""
    kind, result = task_run.kind, _result(task_run)
    if kind not in _ENDED or kind == "Mapped":
        return None
    if result.get("type") in (None, "NoResultType", "SecretResult"):
        return None  # nothing was to be stored; secrets are read again
    if kind in _FAILED and after.needs_success:
        return None  # the task will not run
    if result.get("location") is None:
        if not takes_data or before.type in _PARAMETERS:
            return None
        return "was not stored (neither is a result of None)"
    if result.get("type") == "LocalResult" and not keeps_disk:
        return "was on the disk of the container"  # the runner reads it for any edge
    return None


def _result(task_run: TaskRun) -> Mapping[str, Any]:
    result = task_run.state.get("_result")
    return result if isinstance(result, Mapping) else {}


def _width(mapped: TaskRun) -> int:
    """How many children a mapped task has."""
    return int(mapped.state.get("n_map_states") or 0)


# -- Names ----------------------------------------------------------------------------


def _name(what: Union[FlowTask, TaskRun], tasks: Mapping[str, FlowTask]) -> str:
    if isinstance(what, FlowTask):
        return f"task {what.name!r}"
    task = tasks.get(what.task_id)
    name = task.name if task else what.task_id
    return (
        f"task {name!r}"
        if what.map_index == -1
        else (f"task {name!r}[{what.map_index}]")
    )


def _named(task_runs: Sequence[TaskRun], tasks: Mapping[str, FlowTask]) -> str:
    return listed([_name(each, tasks) for each in task_runs])


def listed(names: Sequence[str]) -> str:
    """Some names, in words; no more than a sentence can have."""
    shown: Tuple[str, ...] = tuple(names[:_NAMED])
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
