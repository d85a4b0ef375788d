"""What happens to runs when a task does not start, an agent stops or dies, or the API
or AWS is away: the real agent with its real pauses, on the sandbox's servers.

    python -m benchmarks.supervision                       all cases
    python -m benchmarks.supervision answers_held_back     these only
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from prefect import Flow, task

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from world import World, eventually

from prefect_ecs_plugin.sandbox.aws import Fault, Hold, StartFailure
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault
from prefect_ecs_plugin.sandbox.prefect_api import RandomFaults
from prefect_ecs_plugin.sandbox.prefect_api.store import StateChanged, StepDone

NOT_FOUND = StartFailure(
    stop_code="TaskFailedToStart",
    stopped_reason=(
        "CannotPullContainerError: failed to resolve ref "
        "docker.io/library/nope:1: docker.io/library/nope:1: not found"
    ),
)

#: A case: its name, what it must show, and what was seen.
Row = Tuple[str, str, str]


class Case:
    """A world of its own, with a flow whose runs can be made."""

    def __init__(self, **options: Any) -> None:
        home = Path(tempfile.mkdtemp())
        self.world = World(home, **{"runs_tasks": False, **options})

    def __enter__(self) -> Case:
        self._running = self.world.running()
        self._running.__enter__()
        with Flow("case") as flow:
            pass
        self._flow_id = self.world.register(flow)
        return self

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)

    def runs(self, count: int) -> List[str]:
        store = self.world.api.store
        return [store.create_flow_run(flow_id=self._flow_id) for _ in range(count)]

    def outcome(self, runs: List[str]) -> str:
        """Wait until each run has a task, and say what is wrong if anything is."""
        tasks: Callable[[], Dict[str, int]] = lambda: Counter(  # noqa: E731
            task.started_by for task in self.world.aws.tasks()
        )
        with contextlib.suppress(AssertionError):  # what is lost is said below
            eventually(lambda: set(tasks()) >= set(runs), seconds=150)
        time.sleep(3)  # in which a second task would show itself
        seen = tasks()
        lost = sum(1 for run_id in runs if not seen.get(run_id))
        doubled = sum(1 for run_id in runs if seen.get(run_id, 0) > 1)
        failed = self.world.states(runs).count("Failed")
        return f"{lost} lost, {doubled} doubled, {failed} Failed"


def kill(agent: Any, number: int) -> Tuple[int, float]:
    began = time.monotonic()
    os.kill(agent._process.pid, number)
    code = agent._process.wait(timeout=60)
    return code, time.monotonic() - began


def never_starts() -> Row:
    with Case() as case:
        case.world.aws.before_start = lambda _: NOT_FOUND
        (run_id,) = case.runs(1)
        with case.world.agent():
            case.world.finished([run_id], 90)
            run = case.world.api.store.flow_run(run_id)
            (task,) = case.world.tasks_of(run_id)
    seconds = run.state_timestamp.timestamp() - task.stopped_at
    return (
        "task that never starts for a final cause",
        "Failed within 30 s of its stop",
        f"{run.state} after {seconds:.1f} s",
    )


def sigterm() -> Row:
    with Case(limits=True) as case:
        runs = case.runs(60)
        with case.world.agent() as agent:
            eventually(lambda: len(case.world.aws.tasks()) >= 20)
            code, seconds = kill(agent, signal.SIGTERM)
        with case.world.agent():
            outcome = case.outcome(runs)
    return (
        "SIGTERM in a burst of 60, then a new agent",
        "0 lost, 0 doubled, exit 0 within 25 s",
        f"{outcome}; exit {code} after {seconds:.1f} s",
    )


def sigkill() -> Row:
    with Case(limits=True) as case:
        runs = case.runs(60)
        with case.world.agent() as agent:
            eventually(lambda: len(case.world.aws.tasks()) >= 20)
            kill(agent, signal.SIGKILL)
        began = time.time()
        with case.world.agent():
            outcome = case.outcome(runs)
            last = max(task.created_at for task in case.world.aws.tasks())
    return (
        "SIGKILL in a burst of 60, restart",
        "0 lost, 0 doubled within 60 s",
        f"{outcome}; the last task {last - began:.1f} s after the restart",
    )


def api_down() -> Row:
    with Case(limits=True) as case:
        runs = case.runs(60)
        with case.world.agent():
            eventually(lambda: len(case.world.aws.tasks()) >= 10)
            case.world.api.stop()
            time.sleep(60)
            case.world.api.start()
            outcome = case.outcome(runs)
    return "API down for 60 s in a burst of 60", "0 lost", outcome


def answers_lost() -> Row:
    lost = Fault(drop_connection=True, after_effect=True)
    with Case(limits=True) as case:
        runs = case.runs(60)
        case.world.aws.fault = lambda operation, _: (
            lost if operation == "ecs.RunTask" else None
        )
        with case.world.agent():
            eventually(lambda: case.world.aws.calls["ecs.RunTask"] > 0)
            time.sleep(10)
            case.world.aws.fault = None
            outcome = case.outcome(runs)
    return (
        "RunTask's answers lost for 10 s, the tasks created",
        "0 Failed, 0 doubled",
        outcome,
    )


def two_agents() -> Row:
    with Case(limits=True, locks_submitted=False) as case:
        with case.world.agent(), case.world.agent("--name", "second"):
            eventually(lambda: len(case.world.api.store.agents()) == 2)
            runs = case.runs(60)
            outcome = case.outcome(runs)
        calls = case.world.aws.calls["ecs.RunTask"]
    return (
        "two agents, an API that does not lock, 60 runs",
        "0 doubled",
        f"{outcome}; {calls} RunTask calls",
    )


def cancelled() -> Row:
    with Case() as case:
        case.world.aws.before_start = lambda _: Hold()
        (run_id,) = case.runs(1)
        with case.world.agent():
            eventually(lambda: case.world.tasks_of(run_id))
            began = time.time()
            case.world.client.cancel_flow_run(run_id)
            eventually(lambda: case.world.tasks_of(run_id)[0].stopped_at, 90)
            seconds = case.world.tasks_of(run_id)[0].stopped_at - began
    return (
        "run cancelled while its task is PENDING",
        "task stopped within 30 s",
        f"stopped after {seconds:.1f} s",
    )


def answers_held_back() -> Row:
    """The client gives up a request after 15 s; the API did what it asked."""
    with Case(limits=True) as case:
        fault = RandomFaults(
            0.3, APIFault(answer_delay=16.0), operations={"set_flow_run_states"}
        )
        case.world.api.fault = fault
        runs = case.runs(60)
        with case.world.agent():
            outcome = case.outcome(runs)
    return (
        "a burst of 60, answers to claims held back for 16 s at random",
        "0 lost, 0 doubled, without a restart",
        f"{outcome}; {fault.drawn} answers held back",
    )


def agent_is_told_late() -> Row:
    """The server sets a run's agent some time after its state."""
    chance, held = random.Random(1), []

    def wait(done: StepDone) -> None:
        if done.state == "Submitted" and chance.random() < 0.25:
            held.append(done)
            time.sleep(9.0)

    with Case(limits=True) as case:
        case.world.api.store.between_steps = wait
        case.world.api.fault = RandomFaults(
            0.2, APIFault(answer_delay=16.0), operations={"set_flow_run_states"}
        )
        runs = case.runs(60)
        with case.world.agent():
            outcome = case.outcome(runs)
    return (
        "the same, and the API sets a run's agent up to 18 s after its state",
        "0 lost, 0 doubled, without a restart",
        f"{outcome}; {len(held)} pauses between the API's steps",
    )


def _limited(runs: int, agents: int, kills: bool) -> Row:
    """Real tasks that sleep for 2 s, of which 10 may go at once."""

    @task
    def nap() -> None:
        time.sleep(2.0)

    most, taken, free_since, longest = 10, set(), [0.0], [0.0]
    waiting, begun = [runs], [False]

    def see(event: Any) -> None:
        if not isinstance(event, StateChanged):
            return
        is_taken = event.state in ("Submitted", "Running")
        if is_taken != (event.flow_run_id in taken):
            taken.symmetric_difference_update([event.flow_run_id])
            waiting[0] += (event.state == "Scheduled") - (event.state == "Submitted")
        if free_since[0]:
            longest[0] = max(longest[0], time.monotonic() - free_since[0])
        begun[0] = begun[0] or len(taken) == most  # an idle agent looks every 2 s
        is_free = begun[0] and len(taken) < most and waiting[0] > 0
        free_since[0] = (free_since[0] or time.monotonic()) if is_free else 0.0

    with Case(runs_tasks=True) as case, contextlib.ExitStack() as stack:
        world = case.world
        with Flow("nap") as flow:
            nap()
        flow_id = world.register(flow)
        names = [("--name", f"agent-{number}") for number in range(agents)]
        started = [world.agent(*name, "--limit", str(most)) for name in names]
        for agent in started:
            stack.enter_context(agent)
        eventually(lambda: len(world.api.store.agents()) == agents)
        store = world.api.store
        store.subscribe(see)
        ids = [store.create_flow_run(flow_id=flow_id) for _ in range(runs)]
        if kills:
            eventually(lambda: len(world.aws.tasks()) >= runs // 3)
            kill(started[0], signal.SIGKILL)
            time.sleep(5)
            stack.enter_context(world.agent(*names[0], "--limit", str(most)))
        world.finished(ids, 1200)
        eventually(lambda: all(each.stopped_at for each in world.aws.tasks()))
        tasks = world.aws.tasks()
        states = world.states(ids)
    events = [(each.created_at, 1) for each in tasks]
    events += [(each.stopped_at, -1) for each in tasks]
    alive = list(itertools.accumulate(change for _, change in sorted(events)))
    doubled = len(tasks) - len({each.started_by for each in tasks})
    words = "one killed" if kills else f"{agents} agent{'s' * (agents > 1)}"
    return (
        f"{runs} runs at one moment, `--limit 10`, tasks of 2 s, {words}",
        "never an 11th live task; a free slot is taken within 2 s; 0 lost",
        f"at most {max(alive)}; {longest[0]:.2f} s; "
        f"{len(ids) - states.count('Success')} lost, {doubled} doubled",
    )


def limited() -> Row:
    return _limited(100, 1, kills=False)


def limited_two() -> Row:
    return _limited(100, 2, kills=False)


def limited_killed() -> Row:
    return _limited(100, 2, kills=True)


CASES: Dict[str, Callable[[], Row]] = {
    case.__name__: case
    for case in (
        never_starts,
        cancelled,
        sigterm,
        sigkill,
        answers_lost,
        answers_held_back,
        agent_is_told_late,
        two_agents,
        api_down,
        limited,
        limited_two,
        limited_killed,
    )
}


def rows(names: Sequence[str]) -> Iterator[Row]:
    for name in names or CASES:
        yield CASES[name]()


def main() -> None:
    print("| case | must | measured |\n|---|---|---|")
    for row in rows(sys.argv[1:]):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
