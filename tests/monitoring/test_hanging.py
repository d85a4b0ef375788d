"""Tasks that hang or run for too long, and runs found too late: through real agents."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any, Callable, Iterator, List, Set

import pendulum
import pytest
from codes import code_of
from prefect import Flow

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from runs import kill, now, reaches, says, set_state, tasks_of
from world import World, eventually

from prefect_ecs_plugin.run_config import ECSRun
from prefect_ecs_plugin.sandbox.aws import Hold, Phases, StartFailure
from prefect_ecs_plugin.sandbox.aws.task import TaskChanged

pytestmark = pytest.mark.slow

RUNTIME = "PREFECT_ECS_MAX_RUNTIME"


@pytest.fixture
def options() -> Any:
    """Options of the `World`, for tests to parametrize."""
    return {}


@pytest.fixture
def world(tmp_path: Path, options: Any) -> Iterator[World]:
    settings = {"locks_submitted": False, "runs_tasks": False, **options}
    with World(tmp_path, **settings).running() as world:
        yield world


@pytest.fixture
def new_run(world: World) -> Callable[..., str]:
    def create(**env: Any) -> str:
        flow = Flow("hangs", run_config=ECSRun(env=env))
        return world.run(world.register(flow))

    return create


class First:
    """Holds the first task of each run PENDING, and no other."""

    def __init__(self) -> None:
        self.held: Set[str] = set()

    def __call__(self, task: Any) -> Any:
        if task.started_by in self.held:
            return None
        self.held.add(task.started_by)
        return Hold()


def never_two(tasks: List[Any]) -> bool:
    """Whether each task was created after the one before had STOPPED."""
    return all(
        before.stopped_at is not None and before.stopped_at <= after.created_at
        for before, after in zip(tasks, tasks[1:])
    )


# -- The start ---------------------------------------------------------------------


def test_guarantee_1_and_2_a_task_that_hangs_is_stopped_and_its_run_launched_again(
    world: World, new_run: Callable[..., str]
) -> None:
    world.aws.before_start = First()
    run_id = new_run()
    with world.quick_agent("--start-deadline", "1"):
        tasks = tasks_of(world, run_id, 2)
        assert reaches(world, tasks[1], "RUNNING")
    tasks = world.tasks_of(run_id)
    assert never_two(tasks)
    assert tasks[0].stop_code == "UserInitiated"
    assert tasks[0].stopped_reason == (
        "Not RUNNING 1 s after its creation (--start-deadline): it is PENDING, and its "
        "image pull has not ended"
    )
    (warning,) = world.log(run_id, "WARNING")
    assert code_of(warning.splitlines()[0]) == "stuck-pulling"
    assert "start 2 of 3" in warning
    assert world.states([run_id]) == ["Submitted"]


@pytest.mark.parametrize(
    "options, code",
    [
        ({"phases": Phases(provisioning=1e6)}, "stuck-provisioning"),
        ({"phases": Phases(activating=1e6)}, "stuck-starting"),
    ],
)
def test_guarantee_2_a_run_whose_tasks_all_hang_is_failed_with_the_phase(
    world: World, new_run: Callable[..., str], code: str
) -> None:
    run_id = new_run()
    with world.quick_agent("--start-deadline", "0.5", "--start-attempts", "2"):
        assert world.finished([run_id]) == ["Failed"]
    assert len(world.tasks_of(run_id)) == 2
    assert never_two(world.tasks_of(run_id))
    assert code_of(world.api.store.flow_run(run_id).state_message) == code


def test_guarantee_1_an_agent_that_is_restarted_keeps_the_deadline(
    world: World, new_run: Callable[..., str]
) -> None:
    world.aws.before_start = First()
    run_id = new_run()
    with world.quick_agent("--start-deadline", "0") as agent:
        (first,) = tasks_of(world, run_id, 1)
        assert reaches(world, first, "PENDING")
        kill(agent, signal.SIGKILL)
    with world.quick_agent("--start-deadline", "0.5"):
        tasks = tasks_of(world, run_id, 2)
        assert reaches(world, tasks[1], "RUNNING")
    assert never_two(world.tasks_of(run_id))


def test_guarantee_1_and_2_an_agent_that_ends_between_stop_and_launch_loses_nothing(
    world: World, new_run: Callable[..., str]
) -> None:
    world.aws.before_start = First()
    runs = [new_run() for _ in range(5)]
    with world.quick_agent("--start-deadline", "1") as agent:
        eventually(
            lambda: any(task.last_status == "STOPPED" for task in world.aws.tasks())
        )
        kill(agent, signal.SIGKILL)
    with world.quick_agent("--start-deadline", "60"):
        # Those that were not stopped yet would have to wait for the new deadline.
        for task in world.aws.tasks():
            if task.last_status == "PENDING":
                world.aws.release(task.task_arn)
        for run_id in runs:
            eventually(
                lambda run_id=run_id: (
                    world.tasks_of(run_id)[-1].last_status == "RUNNING"
                )
            )
    for run_id in runs:
        assert len(world.tasks_of(run_id)) <= 2
        assert never_two(world.tasks_of(run_id))


def test_a_task_that_fails_to_start_before_the_deadline_is_told_as_before(
    world: World, new_run: Callable[..., str]
) -> None:
    world.aws.before_start = lambda _: StartFailure(
        stopped_reason="CannotPullContainerError: x: not found"
    )
    run_id = new_run()
    with world.quick_agent("--start-deadline", "60"):
        assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message
    assert code_of(message) == "image-not-found"


# -- The runtime -------------------------------------------------------------------


def test_guarantee_2_a_task_that_runs_for_too_long_is_stopped_and_its_run_failed(
    world: World, new_run: Callable[..., str]
) -> None:
    """The run's own limit has precedence, 0 for none."""
    limited, exempt, own = new_run(), new_run(**{RUNTIME: 0}), new_run(**{RUNTIME: 0.5})
    with world.quick_agent("--max-runtime", "1"):
        for run_id in (limited, exempt, own):
            (task,) = tasks_of(world, run_id, 1)
            reaches(world, task, "RUNNING")
            set_state(world, run_id, "Running")
        assert world.finished([limited, own]) == ["Failed", "Failed"]
        assert world.states([exempt]) == ["Running"]
    assert [task.last_status for task in world.tasks_of(exempt)] == ["RUNNING"]
    for run_id, limit in ((limited, "1 s"), (own, "0.5 s")):
        (task,) = world.tasks_of(run_id)
        assert f"Ran for longer than {limit}" in task.stopped_reason
        message = world.api.store.flow_run(run_id).state_message
        assert code_of(message) == "max-runtime"


def test_an_agent_that_is_restarted_keeps_the_maximum_runtime(
    world: World, new_run: Callable[..., str]
) -> None:
    run_id = new_run(**{RUNTIME: 2})
    with world.quick_agent() as agent:
        (task,) = tasks_of(world, run_id, 1)
        reaches(world, task, "RUNNING")
        set_state(world, run_id, "Running")
        kill(agent, signal.SIGKILL)
    with world.quick_agent():
        assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message
    assert code_of(message) == "max-runtime"


def test_a_run_that_ends_by_itself_keeps_its_state(
    world: World, new_run: Callable[..., str]
) -> None:
    """Its container, such as one with a sidecar, goes on and is stopped."""
    run_id, other = new_run(), new_run(**{RUNTIME: 0.5})
    with world.quick_agent("--max-runtime", "1"):
        for each, state in ((run_id, "Success"), (other, "Cancelled")):
            tasks_of(world, each, 1)
            set_state(world, each, state)
        for each in (run_id, other):
            assert reaches(world, world.tasks_of(each)[0], "STOPPED")
        third = new_run()  # by whose end both were dealt with
        assert world.finished([third]) == ["Failed"]
    assert world.states([run_id, other]) == ["Success", "Cancelled"]


@pytest.mark.parametrize("options", [{"phases": Phases(deprovisioning=1.0)}])
@pytest.mark.parametrize("state", ["Cancelled", "Failed"])
def test_a_flow_that_ends_otherwise_because_of_the_stop_is_failed_with_the_reason(
    world: World, new_run: Callable[..., str], state: str
) -> None:
    run_id = new_run(**{RUNTIME: 0.5})

    def on_signal(event: Any) -> None:
        if isinstance(event, TaskChanged) and event.task.last_status == "STOPPING":
            set_state(world, run_id, state, message="Interrupted")

    world.aws.subscribe(on_signal)
    with world.quick_agent():
        (task,) = tasks_of(world, run_id, 1)
        reaches(world, task, "RUNNING")
        set_state(world, run_id, "Running")
        store = world.api.store
        assert eventually(
            lambda: code_of(store.flow_run(run_id).state_message) == "max-runtime"
        )
    assert world.states([run_id]) == ["Failed"]


def test_guarantee_6_a_maximum_runtime_that_cannot_be_read_fails_its_run(
    world: World, new_run: Callable[..., str]
) -> None:
    bad, good = new_run(**{RUNTIME: "an hour"}), new_run(**{RUNTIME: 3600})
    with world.quick_agent():
        tasks_of(world, good, 1)
        assert world.finished([bad]) == ["Failed"]
    message = world.api.store.flow_run(bad).state_message or ""
    assert code_of(message) == "invalid-max-runtime"
    assert "\n" not in message
    assert world.tasks_of(bad) == []


# -- How long it took --------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"runs_tasks": True, "phases": Phases(provisioning=0.2, pending=0.3)}]
)
def test_the_log_of_a_run_says_once_how_long_each_phase_took(
    world: World, new_run: Callable[..., str]
) -> None:
    run_id = new_run()
    with world.quick_agent():
        assert world.finished([run_id]) == ["Success"]
        says_so = "What took how long in ECS task"
        (line,) = eventually(
            lambda: [each for each in world.log(run_id, "INFO") if says_so in each]
        )
    taken = dict(re.findall(r"([a-z'A-Z ]+) ([0-9.]+) s", line.partition(": ")[2]))
    assert [name.strip() for name in taken] == [
        *("waiting for AWS", "provisioning", "image pull"),
        *("start of the flow", "run"),
    ]
    assert float(taken[" provisioning"]) >= 0.2
    assert float(taken[" image pull"]) >= 0.3


@pytest.mark.parametrize("end", ["hangs", "fails"])
def test_a_task_that_never_ran_has_the_line_too(
    world: World, new_run: Callable[..., str], end: str
) -> None:
    fails = StartFailure(stopped_reason="CannotPullContainerError: x: not found")
    world.aws.before_start = lambda _: Hold() if end == "hangs" else fails
    run_id = new_run()
    with world.quick_agent("--start-deadline", "0.5", "--start-attempts", "1"):
        assert world.finished([run_id]) == ["Failed"]
        lines = eventually(
            lambda: [each for each in world.log(run_id) if "What took" in each]
        )
    assert len(lines) == 1
    assert "provisioning" in lines[0]
    assert "image pull" not in lines[0]


# -- The delay ---------------------------------------------------------------------


def test_a_run_that_is_found_too_late_is_cancelled(world: World) -> None:
    store, flow_id = world.api.store, world.register(Flow("hourly"))

    def due(minutes: int) -> str:
        start = pendulum.now("UTC").subtract(minutes=minutes)
        return str(store.create_flow_run(flow_id, scheduled_start_time=start))

    late, in_time, again = due(65), due(5), due(65)
    # A user has started it again, with the start that it had.
    set_state(world, again, "Failed")
    set_state(world, again, "Scheduled", start_time=now(minutes=65))
    with world.quick_agent("--max-delay", "3600") as agent:
        for run_id in (in_time, again):
            tasks_of(world, run_id, 1)
        assert world.finished([late]) == ["Cancelled"]
        assert says(agent, "[too-late]")
    assert world.tasks_of(late) == []
    assert code_of(store.flow_run(late).state_message) == "too-late"
    (line,) = world.log(late, "WARNING")
    assert code_of(line) == "too-late"


def test_a_run_that_was_returned_to_the_queue_is_launched_however_late(
    world: World,
) -> None:
    store, flow_id = world.api.store, world.register(Flow("hourly"))
    start = pendulum.now("UTC").subtract(minutes=30)
    run_id = str(store.create_flow_run(flow_id, scheduled_start_time=start))
    world.aws.limits = True
    with world.quick_agent("--launches-per-second", "0.001") as agent:
        first = str(store.create_flow_run(flow_id))
        eventually(lambda: world.aws.tasks())
        eventually(lambda: world.states([first, run_id]) == ["Submitted"] * 2)
        os.kill(agent._process.pid, signal.SIGTERM)
        agent._process.wait()
    (waiting,) = (each for each in (first, run_id) if not world.tasks_of(each))
    set_state(world, waiting, "Scheduled", start_time=now(minutes=30))
    with world.quick_agent("--max-delay", "60"):
        tasks_of(world, waiting, 1)
