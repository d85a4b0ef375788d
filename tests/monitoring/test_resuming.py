"""An agent has runs go on in other tasks: on FARGATE, with more memory, or not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pendulum
import pytest
from codes import code_of, codes_of
from prefect import Flow, task

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from runs import NO_CAPACITY, says, set_state
from stopped_tasks import OUT_OF_MEMORY
from world import World, eventually

from prefect_ecs_plugin import ECSRun
from prefect_ecs_plugin.sandbox.aws import Hold, StartFailure
from prefect_ecs_plugin.sandbox.prefect_api import Fault as APIFault

pytestmark = pytest.mark.slow

SPOT = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
KILLED: Dict[str, Any] = {"exit_code": 137, "container_reason": OUT_OF_MEMORY}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, locks_submitted=False, runs_tasks=False).running() as world:
        yield world


NewRun = Callable[..., str]


@pytest.fixture
def new_run(world: World) -> NewRun:
    """Creates a run of a flow with one task, given options of its run config."""

    @task(max_retries=9, retry_delay=timedelta(minutes=30))
    def work() -> None: ...

    with Flow("work") as flow:
        work()

    def create(**run_config: Any) -> str:
        flow.run_config = ECSRun(**run_config)
        return world.run(world.register(flow))

    return create


def begun(world: World, run_id: str, count: int = 1) -> Any:
    """The run's latest task, once its flow is at work in it."""
    eventually(lambda: len(world.tasks_of(run_id)) == count)
    arn = world.tasks_of(run_id)[-1].task_arn
    eventually(lambda: world.aws.task(arn).last_status == "RUNNING")
    (task_run,) = world.api.store.task_runs(run_id)
    set_state(world, run_id, "Running")
    running = {"task_run_id": task_run.id, "state": {"type": "Running"}}
    world.api.store.set_task_run_states([running])
    return world.aws.task(arn)


def size_of(started: Any) -> Any:
    return started.description["cpu"], started.description["memory"]


def request_of(world: World, number: int) -> Dict[str, Any]:
    return dict(world.aws.sent("RunTask")[number])


# -- Where no task run was at work ----------------------------------------------------


@pytest.mark.parametrize("state", ["Submitted", "Running"])
def test_a_run_that_was_interrupted_between_its_tasks_starts_again(
    world: World, new_run: NewRun, state: str
) -> None:
    run_id = new_run()
    with world.quick_agent():
        eventually(lambda: world.tasks_of(run_id))
        (started,) = world.tasks_of(run_id)
        eventually(lambda: world.aws.task(started.task_arn).last_status == "RUNNING")
        if state == "Running":
            set_state(world, run_id, "Running")
        world.aws.interrupt(started.task_arn)
        second = begun(world, run_id, 2)
        assert world.aws.task(second.task_arn).desired_status == "RUNNING"
    (warning,) = world.log(run_id, "WARNING")
    assert "interruption 1 of 3" in warning


def test_a_run_that_waits_for_a_task_retry_is_left_to_prefect(
    world: World, new_run: NewRun
) -> None:
    run_id = new_run()
    with world.quick_agent() as agent:
        started = begun(world, run_id)
        (task_run,) = world.api.store.task_runs(run_id)
        later = {"type": "Retrying", "start_time": "2100-01-01T00:00:00+00:00"}
        change = {"task_run_id": task_run.id, "state": later}
        world.api.store.set_task_run_states([change])
        world.aws.interrupt(started.task_arn)
        stopped = world.aws.task
        eventually(lambda: stopped(started.task_arn).last_status == "STOPPED")
        other = new_run()  # by the time that it has failed, the first is dealt with
        world.aws.finish(begun(world, other).task_arn, exit_code=1)
        assert world.finished([other]) == ["Failed"]
        del agent
    assert world.states([run_id]) == ["Running"]
    assert not world.log(run_id, "WARNING")


def test_an_api_that_drops_the_context_has_the_run_failed(
    world: World, new_run: NewRun
) -> None:
    world.api.store.keeps_context = False
    run_id = new_run()
    with world.quick_agent():
        world.aws.interrupt(begun(world, run_id).task_arn)
        assert world.finished([run_id]) == ["Failed"]
    (log,) = world.log(run_id, "ERROR")
    assert "no-launch-record" in codes_of(log.splitlines())


def test_an_api_that_refuses_has_the_run_failed(world: World, new_run: NewRun) -> None:
    refused = APIFault(status=400, body=b'{"errors": [{"message": "no edges"}]}')
    run_id = new_run()
    with world.quick_agent():
        started = begun(world, run_id)
        world.api.fault = lambda asked, _: refused if asked == "edge" else None
        world.aws.interrupt(started.task_arn)
        assert world.finished([run_id]) == ["Failed"]
    (log,) = world.log(run_id, "ERROR")
    assert "resumption-refused" in codes_of(log.splitlines())


def test_an_outage_of_the_api_delays_a_resumption(
    world: World, new_run: NewRun
) -> None:
    run_id = new_run()
    with world.quick_agent() as agent:
        started = begun(world, run_id)
        world.api.fault = lambda asked, _: APIFault(status=503)
        world.aws.interrupt(started.task_arn)
        assert says(agent, "The agent tries again")
        world.api.fault = None
        begun(world, run_id, 2)


def test_a_lost_answer_resumes_a_run_once(world: World, new_run: NewRun) -> None:
    lost = APIFault(body=b"rubbish", after_effect=True)
    run_id = new_run()
    answers = [lost]

    def lose_first(asked: str, _: Any) -> Any:
        return answers.pop() if asked == "set_task_run_states" and answers else None

    with world.quick_agent():
        started = begun(world, run_id)
        world.api.fault = lose_first
        world.aws.interrupt(started.task_arn)
        begun(world, run_id, 2)
    assert not answers
    states = world.api.store.tables["task_run_state"]
    (task_run,) = world.api.store.task_runs(run_id)
    kinds = [each["state"] for each in states.having("task_run_id", [task_run.id])]
    assert kinds.count("Retrying") == 1


def test_heartbeats_and_task_states_keep_the_servers_services_away(
    world: World, new_run: NewRun
) -> None:
    """Between the resumption of a run and its claim, and while its task starts."""
    run_id, store = new_run(), world.api.store
    later = {"now": pendulum.now("UTC").add(hours=1), "stale_after": timedelta(0)}
    unread = APIFault(status=500)
    with world.quick_agent():
        started = begun(world, run_id)
        world.api.fault = lambda asked, _: (
            unread if asked == "get_runs_in_queue" else None
        )
        world.aws.interrupt(started.task_arn)
        eventually(lambda: store.task_runs(run_id)[0].state == "Retrying")
        assert store.run_lazarus(**later) == store.run_zombie_killer(**later) == []
        world.aws.before_start = lambda _: Hold()
        world.api.fault = None
        eventually(lambda: len(world.tasks_of(run_id)) == 2)
        assert store.run_lazarus() == store.run_zombie_killer(**later) == []
    assert store.flow_run(run_id).times_resurrected == 0


# -- Spot, then On-Demand -------------------------------------------------------------


def test_the_last_resumption_of_a_run_on_spot_is_on_demand(
    world: World, new_run: NewRun
) -> None:
    run_id = new_run(run_task_kwargs=SPOT)
    with world.quick_agent("--max-interruptions", "2"):
        for count in (1, 2, 3):
            started = begun(world, run_id, count)
            if count < 3:
                assert started.capacity_provider == "FARGATE_SPOT"
                world.aws.interrupt(started.task_arn)
        assert (started.launch_type, started.capacity_provider) == ("FARGATE", None)
    first, last = request_of(world, 0), request_of(world, 2)
    changed = {"launchType", "capacityProviderStrategy", "clientToken"}
    assert {key: first[key] for key in first.keys() - changed} == {
        key: last[key] for key in last.keys() - changed
    }
    assert "on FARGATE" in world.log(run_id, "WARNING")[1]
    assert any("not on FARGATE_SPOT" in line for line in world.log(run_id))


@pytest.mark.parametrize(
    "options, kwargs",
    [
        (["--no-spot-fallback"], SPOT),
        (
            [],
            {
                "capacityProviderStrategy": [
                    {"capacityProvider": "FARGATE_SPOT", "weight": 3},
                    {"capacityProvider": "FARGATE", "weight": 1},
                ]
            },
        ),
    ],
)
def test_a_strategy_is_kept_unless_it_is_spot_alone(
    world: World, new_run: NewRun, options: List[str], kwargs: Dict[str, Any]
) -> None:
    run_id = new_run(run_task_kwargs=kwargs)
    with world.quick_agent("--max-interruptions", "1", *options):
        world.aws.interrupt(begun(world, run_id).task_arn)
        begun(world, run_id, 2)
    strategies = [each["capacityProviderStrategy"] for each in map(dict, sent(world))]
    assert strategies == [kwargs["capacityProviderStrategy"]] * 2


def sent(world: World) -> List[Dict[str, Any]]:
    return world.aws.sent("RunTask")


def no_spot(world: World) -> None:
    """Have AWS answer that there is no Spot capacity."""

    def answer(operation: str, request: Dict[str, Any]) -> Any:
        is_spot = operation == "ecs.RunTask" and request.get("capacityProviderStrategy")
        return NO_CAPACITY if is_spot else None

    world.aws.fault = answer


def test_a_run_that_spot_has_no_capacity_for_is_launched_on_demand(
    world: World, new_run: NewRun
) -> None:
    no_spot(world)
    run_id = new_run(run_task_kwargs=SPOT)
    with world.quick_agent("--spot-patience", "0.5"):
        started = begun(world, run_id)
    assert (started.launch_type, started.capacity_provider) == ("FARGATE", None)
    tokens = [request["clientToken"] for request in sent(world)]
    assert tokens[-1] == f"{tokens[0]}-2"
    (warning,) = world.log(run_id, "WARNING")
    assert code_of(warning) == "spot-fallback"


def test_without_the_fallback_it_waits_for_spot(world: World, new_run: NewRun) -> None:
    no_spot(world)
    run_id = new_run(run_task_kwargs=SPOT)
    options = ("--spot-patience", "0", "--no-spot-fallback", "--launch-timeout", "1")
    with world.quick_agent(*options):
        assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message
    assert code_of(message) == "no-capacity"


def test_the_last_start_of_a_task_that_spot_never_ran_is_on_demand(
    world: World, new_run: NewRun
) -> None:
    no_start = StartFailure("SpotInterruption", "Your Spot Task was interrupted.")
    world.aws.before_start = lambda task: no_start if task.capacity_provider else None
    run_id = new_run(run_task_kwargs=SPOT)
    with world.quick_agent():
        started = begun(world, run_id, 3)
    assert (started.launch_type, started.capacity_provider) == ("FARGATE", None)


# -- Too little memory -----------------------------------------------------------------


def test_a_run_whose_task_was_killed_for_memory_goes_on_with_more(
    world: World, new_run: NewRun
) -> None:
    run_id = new_run(cpu=256, memory=1024)
    with world.quick_agent("--max-memory", "8192"):
        world.aws.finish(begun(world, run_id).task_arn, **KILLED)
        second = begun(world, run_id, 2)
        assert size_of(second) == ("256", "2048")
        world.aws.finish(second.task_arn, **KILLED)
        third = begun(world, run_id, 3)
        assert size_of(third) == ("512", "4096")
        set_state(world, run_id, "Success")
        world.aws.finish(third.task_arn)
        eventually(lambda: any("succeeded with" in each for each in world.log(run_id)))
    assert world.aws.calls["ecs.RegisterTaskDefinition"] == 1
    (line,) = [each for each in world.log(run_id) if "succeeded with" in each]
    assert "ECSRun(cpu=512, memory=4096)" in line
    warnings = world.log(run_id, "WARNING")
    assert ["with 2048 MiB" in warnings[0], "with 4096 MiB" in warnings[1]] == [
        True
    ] * 2


def test_a_task_has_never_more_memory_than_the_cap(
    world: World, new_run: NewRun
) -> None:
    run_id = new_run(cpu=256, memory=1024, env={"PREFECT_ECS_MAX_MEMORY": "1500"})
    other = new_run(cpu=1024, memory=2048, env={"PREFECT_ECS_MAX_MEMORY": "3 GB"})
    with world.quick_agent("--max-memory", "8192"):
        world.aws.finish(begun(world, run_id).task_arn, **KILLED)
        assert world.finished([run_id]) == ["Failed"]
        world.aws.finish(begun(world, other).task_arn, **KILLED)
        second = begun(world, other, 2)
        assert size_of(second) == ("1024", "3072")
        world.aws.finish(second.task_arn, **KILLED)
        assert world.finished([other]) == ["Failed"]
    assert len(world.tasks_of(run_id)) == 1
    for each in (run_id, other):
        message = world.api.store.flow_run(each).state_message
        assert code_of(message) == "out-of-memory"
        (log,) = world.log(each, "ERROR")
        assert "no-larger-size" in codes_of(log.splitlines())


@pytest.mark.parametrize(
    "options, end, code",
    [
        ([], KILLED, "out-of-memory"),
        (["--max-memory", "8192"], {"exit_code": 137}, "flow-killed"),
        (
            ["--max-memory", "8192"],
            {
                "exit_code": 137,
                "stop_code": "UserInitiated",
                "stopped_reason": "Task stopped by user",
            },
            "stopped-by-user",
        ),
        (
            ["--max-memory", "8192", "--on-interruption", "fail"],
            KILLED,
            "out-of-memory",
        ),
    ],
)
def test_what_is_not_said_to_be_memory_gets_no_more_of_it(
    world: World,
    new_run: NewRun,
    options: List[str],
    end: Dict[str, Any],
    code: str,
) -> None:
    run_id = new_run(cpu=256, memory=1024)
    with world.quick_agent(*options):
        world.aws.finish(begun(world, run_id).task_arn, **end)
        assert world.finished([run_id]) == ["Failed"]
    assert len(world.tasks_of(run_id)) == 1
    message = world.api.store.flow_run(run_id).state_message or ""
    assert code_of(message) == code
    assert "another task" not in message


def test_a_limit_of_the_flows_container_grows_with_the_task(
    world: World, new_run: NewRun
) -> None:
    template = {
        "containerDefinitions": [{"name": "flow", "memory": 512}],
        "cpu": "256",
        "memory": "1024",
        "networkMode": "awsvpc",
    }
    run_id = new_run(task_definition=template)
    with world.quick_agent("--max-memory", "8192"):
        world.aws.finish(begun(world, run_id).task_arn, **KILLED)
        begun(world, run_id, 2)
    overrides = request_of(world, 1)["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == ("256", "2048")
    (flow,) = overrides["containerOverrides"]
    assert flow["memory"] == 512 + 1024


@pytest.mark.parametrize("most", ["lots", "0", "512"])
def test_a_cap_that_makes_no_sense_fails_the_run_at_its_launch(
    world: World, new_run: NewRun, most: str
) -> None:
    run_id = new_run(cpu=256, memory=1024, env={"PREFECT_ECS_MAX_MEMORY": most})
    with world.quick_agent():
        assert world.finished([run_id]) == ["Failed"]
    message = world.api.store.flow_run(run_id).state_message
    assert code_of(message) == "invalid-run-option"
    assert not world.tasks_of(run_id)
