"""Runs whose task is interrupted go on in another task, with `prefect execute`."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
from codes import code_of, codes_of
from prefect import Flow, task
from prefect.engine.result import Result
from prefect.engine.results import LocalResult, PrefectResult, S3Result
from runs import now

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from world import World, eventually

from prefect_ecs_plugin import ECSRun
from prefect_ecs_plugin.launch_record import read

RETRIES: Dict[str, Any] = {
    "max_retries": 2,
    "retry_delay": datetime.timedelta(minutes=30),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with World(home, locks_submitted=False).running() as world:
        yield world


@pytest.fixture(scope="module")
def agent(world: World) -> Iterator[Any]:
    with world.quick_agent() as child:
        yield child


class Diary:
    """What the tasks of a flow do, in files that they and the test share."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._lines, self._go = directory / "lines", directory / "go"
        self._lines.touch()

    def write(self, line: str) -> None:
        with self._lines.open("a") as file:
            file.write(f"{line}\n")

    @property
    def lines(self) -> List[str]:
        return self._lines.read_text().splitlines()

    def has(self, line: str, times: int = 1) -> bool:
        return bool(eventually(lambda: self.lines.count(line) >= times))

    def let_go(self) -> None:
        self._go.touch()

    def wait(self) -> None:
        while not self._go.exists():
            time.sleep(0.02)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def three_steps(
    diary: Diary,
    result: Optional[Result] = None,
    retries: Dict[str, Any] = RETRIES,
    **run_config: Any,
) -> Flow:
    """A flow whose second task waits; each needs the result of the one before."""
    path = str(diary._lines.parent)
    write, wait = _diary_functions(path)

    @task
    def first() -> int:
        write("first")
        return 21

    @task(**retries)
    def second(number: int) -> int:
        write("second")
        wait()
        return 2 * number

    @task
    def third(number: int) -> None:
        write(f"third {number}")

    with Flow(f"three steps {path}", result=result) as flow:
        third(second(first()))
    flow.run_config = ECSRun(**run_config)
    return flow


def _diary_functions(path: str) -> Any:
    """What flows write with: their process has no access to this module."""

    def write(line: str) -> None:
        with open(f"{path}/lines", "a") as file:
            file.write(f"{line}\n")

    def wait() -> None:
        import os
        import time

        while not os.path.exists(f"{path}/go"):
            time.sleep(0.02)

    return write, wait


def interrupt(world: World, run_id: str) -> None:
    """As AWS takes the capacity of the run's latest task; its process has ended."""
    arn = world.tasks_of(run_id)[-1].task_arn
    world.aws.interrupt(arn)
    eventually(lambda: world.aws.task(arn).last_status == "STOPPED")


def next_task(world: World, run_id: str, count: int = 2) -> Any:
    eventually(lambda: len(world.tasks_of(run_id)) >= count)
    tasks = world.tasks_of(run_id)
    assert [each.desired_status for each in tasks[:-1]] == ["STOPPED"] * (count - 1)
    return tasks[-1]


def test_an_interrupted_run_goes_on_where_it_was(
    world: World, agent: Any, diary: Diary
) -> None:
    run_id = world.run(world.register(three_steps(diary, PrefectResult())))
    assert diary.has("second")
    interrupt(world, run_id)
    assert diary.has("second", times=2)
    diary.let_go()
    assert world.finished([run_id]) == ["Success"]
    assert diary.lines == ["first", "second", "second", "third 42"]
    task = next_task(world, run_id)
    (warning,) = world.log(run_id, "WARNING")
    assert "interruption 1 of 3" in warning
    assert "task 'second'" in warning
    assert codes_of(warning.splitlines()[:1]) == ["spot-interruption"]
    assert any("after interruption 1" in line for line in world.log(run_id))
    assert any(task.task_arn in line for line in world.log(run_id))


def test_results_may_be_on_s3(world: World, agent: Any, diary: Diary) -> None:
    world.aws.client("s3", region_name="us-east-1").create_bucket(Bucket="results")
    role = "arn:aws:iam::123456789012:role/flow"
    flow = three_steps(diary, S3Result("results"), task_role_arn=role)
    run_id = world.run(world.register(flow))
    assert diary.has("second")
    interrupt(world, run_id)
    diary.let_go()
    assert world.finished([run_id]) == ["Success"]
    assert diary.lines == ["first", "second", "second", "third 42"]


@pytest.mark.parametrize("where", ["nowhere", "on the container's disk"])
def test_guarantee_9_a_run_whose_results_are_lost_fails_and_says_so(
    world: World, agent: Any, diary: Diary, tmp_path: Path, where: str
) -> None:
    result = Result() if where == "nowhere" else LocalResult(str(tmp_path))
    run_id = world.run(world.register(three_steps(diary, result)))
    assert diary.has("second")
    interrupt(world, run_id)
    diary.let_go()
    assert world.finished([run_id]) == ["Failed"]
    assert diary.lines == ["first", "second"]
    assert len(world.tasks_of(run_id)) == 1
    message = world.api.store.flow_run(run_id).state_message
    assert code_of(message) == "spot-interruption"
    assert "task 'second' needs the result of task 'first'" in message
    (log,) = world.log(run_id, "ERROR")
    assert "result-not-stored" in codes_of(log.splitlines())


def test_results_on_a_volume_outlast_the_container(
    world: World, agent: Any, diary: Diary, tmp_path: Path
) -> None:
    template = {
        "volumes": [{"name": "results"}],
        "containerDefinitions": [
            {
                "name": "flow",
                "mountPoints": [
                    {"sourceVolume": "results", "containerPath": "/results"}
                ],
            }
        ],
        "cpu": "1024",
        "memory": "2048",
        "networkMode": "awsvpc",
    }
    flow = three_steps(diary, LocalResult(str(tmp_path)), task_definition=template)
    run_id = world.run(world.register(flow))
    assert diary.has("second")
    interrupt(world, run_id)
    diary.let_go()
    assert world.finished([run_id]) == ["Success"]
    assert diary.lines == ["first", "second", "second", "third 42"]


def test_what_prefects_runner_makes_of_a_result_that_was_not_stored(
    world: World, agent: Any, diary: Diary
) -> None:
    """None, without a word: what the agent must never let happen."""
    once = {**RETRIES, "max_retries": 1}
    run_id = world.run(world.register(three_steps(diary, Result(), once)))
    assert diary.has("second")
    store = world.api.store
    (second,) = [each for each in store.task_runs(run_id) if each.state == "Running"]
    soon = now(seconds=-1)  # when its task has stopped, for an agent that is quick
    retrying = {"type": "Retrying", "start_time": soon, "run_count": 1}
    store.set_task_run_states([{"task_run_id": second.id, "state": retrying}])
    interrupt(world, run_id)
    diary.let_go()
    assert world.finished([run_id]) == ["Failed"]
    assert diary.lines == ["first", "second", "second"]
    eventually(  # 2 * None
        lambda: any("'NoneType'" in line for line in world.log(run_id, "ERROR"))
    )


def test_only_the_children_of_a_mapped_task_that_were_running_run_again(
    world: World, agent: Any, diary: Diary
) -> None:
    write, wait = _diary_functions(str(diary._lines.parent))

    @task
    def numbers() -> List[int]:
        write("numbers")
        return [1, 2, 3]

    @task(**RETRIES)
    def square(number: int) -> int:
        write(f"square {number}")
        if number == 2:
            wait()
        return number * number

    @task
    def total(squares: List[int]) -> None:
        write(f"total {sum(squares)}")

    with Flow(f"mapped {diary._lines}", result=PrefectResult()) as flow:
        total(square.map(numbers()))
    run_id = world.run(world.register(flow))
    assert diary.has("square 2")
    interrupt(world, run_id)
    diary.let_go()
    assert world.finished([run_id]) == ["Success"]
    assert diary.lines == [
        *("numbers", "square 1", "square 2", "square 2", "square 3", "total 14")
    ]
    assert "task 'square'[1]" in world.log(run_id, "WARNING")[0]


@pytest.mark.parametrize(
    "retries, wish, state",
    [
        ({}, None, "Failed"),
        ({}, "resume", "Success"),
        ({}, "resume-all", "Success"),
        (RETRIES, "fail", "Failed"),
    ],
)
def test_what_a_run_wishes(
    world: World,
    agent: Any,
    diary: Diary,
    retries: Dict[str, Any],
    wish: Optional[str],
    state: str,
) -> None:
    env = {"PREFECT_ECS_ON_INTERRUPTION": wish} if wish else {}
    flow = three_steps(diary, PrefectResult(), retries, env=env)
    run_id = world.run(world.register(flow))
    assert diary.has("second")
    interrupt(world, run_id)
    diary.let_go()
    assert world.finished([run_id]) == [state]
    message = world.api.store.flow_run(run_id).state_message or ""
    if state == "Success":
        assert diary.lines == ["first", "second", "second", "third 42"]
    else:
        assert code_of(message) == "spot-interruption"
        assert diary.lines == ["first", "second"]
        assert ("no retries left" in message) == (wish is None)


def test_a_wish_that_cannot_be_read_fails_the_run_at_its_launch(
    world: World, agent: Any, diary: Diary
) -> None:
    env = {"PREFECT_ECS_ON_INTERRUPTION": "perhaps"}
    run_id = world.run(world.register(three_steps(diary, env=env)))
    assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message
    assert code_of(message) == "invalid-run-option"
    assert not world.tasks_of(run_id)


def test_a_run_goes_on_as_often_as_the_agent_allows(world: World, diary: Diary) -> None:
    options = ("--label", "twice", "--max-interruptions", "2")
    retries = {**RETRIES, "max_retries": 5}
    flow = three_steps(diary, PrefectResult(), retries, labels=["twice"])
    run_id = world.run(world.register(flow))
    with world.quick_agent(*options):
        for times in (1, 2, 3):
            assert diary.has("second", times=times)
            interrupt(world, run_id)
        assert world.finished([run_id]) == ["Failed"]
    assert diary.lines == ["first", *["second"] * 3]
    assert len(world.tasks_of(run_id)) == 3
    message = world.api.store.flow_run(run_id).state_message or ""
    assert "gone on 2 times already" in message
    (log,) = world.log(run_id, "ERROR")
    assert "too-many-interruptions" in codes_of(log.splitlines())


def test_interruptions_are_counted_across_task_retries_and_agents(
    world: World, diary: Diary
) -> None:
    options = ("--label", "counted", "--max-interruptions", "1")
    retries = {**RETRIES, "max_retries": 5}
    flow = three_steps(diary, PrefectResult(), retries, labels=["counted"])
    run_id = world.run(world.register(flow))
    with world.quick_agent(*options):
        assert diary.has("second")
        interrupt(world, run_id)
        assert diary.has("second", times=2)
    store = world.api.store
    (second,) = [each for each in store.task_runs(run_id) if each.state == "Running"]
    retrying = {"type": "Retrying", "start_time": now(minutes=1), "run_count": 2}
    world.aws.finish(world.tasks_of(run_id)[-1].task_arn)
    store.set_task_run_states([{"task_run_id": second.id, "state": retrying}])
    with world.quick_agent(*options):  # it comes back for the retry
        assert diary.has("second", times=3)
        (record,) = {read(each) for each in claims_of(world, second.id)[-1:]}
        assert record is not None
        assert record.interruptions == 1
        interrupt(world, run_id)
        assert world.finished([run_id]) == ["Failed"]


def claims_of(world: World, task_run_id: str) -> List[Any]:
    rows = world.api.store.tables["task_run_state"].having("task_run_id", [task_run_id])
    return [each["serialized_state"] for each in rows if each["state"] == "Submitted"]
