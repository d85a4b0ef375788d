"""Which runs an agent claims under limits: the whole agent on a simulated clock."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Iterator, List

import pendulum
import pytest
import requests

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
sys.path.append(str(Path(__file__).parents[2]))

from codes import codes_of

from benchmarks.simulated import World  # found by the line above
from prefect_ecs_plugin.launch.claims import OVER_LIMIT
from prefect_ecs_plugin.launch.counting import Counting
from prefect_ecs_plugin.launch.slots import Slots
from prefect_ecs_plugin.launch_record import LaunchRecord, read
from prefect_ecs_plugin.limits import Use, parse
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.scheduling.steps import Pause


@pytest.fixture
def world() -> Iterator[World]:
    world = World(task_seconds=1e6, starts_after=1.0)
    with world.running():
        yield world


def go(world: World, seconds: float) -> None:
    world.simulation.run_until(world.simulation.now + seconds)


def launched(world: World) -> List[str]:
    return [task.run_id for task in world.ecs.tasks.values()]


def end(world: World, run_id: str) -> None:
    world.api.store.set_flow_run_state(run_id, {"type": "Success"})


def log(world: World, run_id: str) -> List[str]:
    return [line.message for line in world.api.store.logs(run_id)]


def calls(world: World, field: str) -> int:
    return sum(query.field == field for query in world.api.queries)


def claimed_by_another(world: World, flow_id: str) -> str:
    """A run that an agent of another name has claimed just now."""
    store, run_id = world.api.store, world.run(flow_id)
    agent_id = store.register_agent(type="ECSAgent", name="another")
    record = LaunchRecord(f"{run_id}-1", holder="another", agent_id=agent_id)
    claimed = {"type": "Submitted", "context": dict(record.to_context())}
    store.set_flow_run_state(run_id, claimed, agent_id=agent_id)
    return run_id


# -- Which runs are claimed ------------------------------------------------------------


def test_runs_above_a_limit_stay_scheduled_and_untaken_and_the_earliest_goes_first(
    world: World,
) -> None:
    flow_id, other = world.flow("etl"), world.flow("other")
    runs = [world.run(flow_id, after) for after in (-1, -3, -2, -4)]
    free = world.run(other)
    agent = world.agent(limits=["flow=etl:2"])
    go(world, 10)
    assert set(launched(world)) == {runs[3], runs[1], free}
    waiting = [world.api.store.flow_run(run_id) for run_id in (runs[2], runs[0])]
    assert [(run.state, run.version) for run in waiting] == [("Scheduled", 1)] * 2
    (use,) = agent._slots.uses()
    assert use == Use(
        parse("flow=etl:2"), 2, 2, waiting[0].scheduled_start_time.timestamp()
    )
    end(world, runs[3])
    go(world, 2)
    assert launched(world)[3:] == [runs[2]]
    end(world, runs[1])
    go(world, 2)
    assert launched(world)[4:] == [runs[0]]


@pytest.mark.parametrize(
    "limit, waits",
    [
        ("label=db:1", True),
        ("label=d:1", False),
        ("project=simulated:1", True),
        ("project=other:1", False),
        ("1", True),
        ("0", True),
    ],
)
def test_a_limit_is_about_a_label_a_project_or_all_runs(
    world: World, limit: str, waits: bool
) -> None:
    flow_id = world.flow('a "quoted" name')
    runs = [world.run(flow_id, labels=["db"]) for _ in range(2)]
    world.agent(labels=["db", "x"], limits=[limit, 'flow=a "quoted" name:2'])
    go(world, 5)
    assert len(launched(world)) == 2 - waits - (limit == "0")
    assert world.states()["Scheduled"] == len(runs) - len(launched(world))


def test_runs_that_wait_hide_neither_other_runs_nor_retries(world: World) -> None:
    """The API's queue shows 25 runs, those that wait included."""
    store, flow_id, other = world.api.store, world.flow("etl"), world.flow("other")
    retried = world.run(other)
    agent = world.agent(limits=["flow=etl:1"])
    go(world, 5)
    (task_run,) = store.task_runs(retried)
    start = pendulum.now("UTC").add(seconds=15).isoformat()
    due = {"type": "Retrying", "start_time": start, "run_count": 1}
    store.set_task_run_states([{"task_run_id": task_run.id, "state": due}])
    for _ in range(60):
        world.run(flow_id, -60)
    go(world, 20)
    late = world.run(other)
    go(world, 10)
    assert retried in agent.submitting_flow_runs  # it waits for its task to end
    assert late in launched(world)
    assert len(launched(world)) == 3
    (use,) = agent._slots.uses()
    assert (use.used, use.waiting) == (1, 59)


def test_runs_that_wait_hide_no_runs_from_agents_of_other_labels(world: World) -> None:
    """The API takes 75 runs and leaves out those whose labels are not the agent's."""
    flow_id, other = world.flow("etl"), world.flow("other")
    for _ in range(80):
        world.run(flow_id, -60, labels=["a"])
    limits = ["label=a:1", "label=b:1"]
    world.agent("first", labels=["a"], limits=limits)
    world.agent("second", labels=["b"], limits=limits)
    go(world, 10)
    hidden = [world.run(other, -1, labels=["b"]) for _ in range(2)]
    go(world, 125)
    assert len(launched(world)) == 2
    assert hidden[0] in launched(world) or hidden[1] in launched(world)
    end(world, launched(world)[1])
    go(world, 3)
    assert set(hidden) < set(launched(world))


def test_a_run_that_waits_and_is_cancelled_is_forgotten(world: World) -> None:
    flow_id = world.flow("etl")
    first, second, third = (world.run(flow_id, after) for after in (-3, -2, -1))
    agent = world.agent(limits=["1"])
    go(world, 5)
    world.api.store.cancel_flow_run(second)
    go(world, 3)
    assert agent._slots.waiting() == {third}
    end(world, first)
    go(world, 2)
    assert launched(world) == [first, third]


def test_a_run_that_is_not_due_takes_no_slot_and_starts_in_time(world: World) -> None:
    flow_id = world.flow("etl")
    later = world.run(flow_id, 6.3)
    agent = world.agent(limits=["1"])
    go(world, 6)
    assert launched(world) == []
    assert agent._slots.waiting() == {later}
    go(world, 0.6)
    assert launched(world) == [later]


def test_runs_of_other_kinds_of_agents_do_not_count(world: World) -> None:
    store, flow_id = world.api.store, world.flow("etl")
    run_id = world.run(flow_id, 3600)
    agent_id = store.register_agent(type="KubernetesAgent", name="k8s")
    store.set_flow_run_state(run_id, {"type": "Submitted"}, agent_id=agent_id)
    mine = world.run(flow_id)
    world.agent(limits=["1"])
    go(world, 3)
    assert launched(world) == [mine]
    second = world.run(flow_id)
    claimed_by_another(world, flow_id)
    end(world, mine)
    go(world, 3)
    assert second not in launched(world)


def test_a_run_that_takes_turns_with_others_is_not_passed_over_for_ever(
    world: World,
) -> None:
    a, b = world.flow("a"), world.flow("b")
    taken = [world.run(a, -9, labels=["x"]), world.run(b, -9, labels=["db"])]
    agent = world.agent(labels=["db", "x"], limits=["flow=a:1", "label=db:1"])
    go(world, 3)
    both = world.run(a, -8, labels=["db"])
    for _ in range(3):  # one of the limits is always full
        for flow_id, labels, old in ((a, ["x"], 0), (b, ["db"], 1)):
            new = world.run(flow_id, labels=labels)
            end(world, taken[old])
            go(world, 3)
            if new in launched(world):
                taken[old] = new
    assert agent._slots.waiting()
    assert both in launched(world)


# -- The log of a run ------------------------------------------------------------------


def test_the_log_of_a_run_says_once_which_limit_it_waits_for(world: World) -> None:
    flow_id = world.flow("etl")
    world.run(flow_id, -9)
    waiting = world.run(flow_id)
    said = "Waiting for other runs to end: the limit flow=etl:1 is reached"
    first = world.agent("first", limits=["flow=etl:1"])
    go(world, 8)
    assert log(world, waiting) == [said]
    first.kill()
    world.agent("second", limits=["flow=etl:1"])
    go(world, 60)
    assert log(world, waiting) == [said]


def test_a_run_that_waited_for_a_limit_is_not_too_late_for_another_agent(
    world: World,
) -> None:
    flow_id = world.flow("etl")
    runs = [world.run(flow_id, after) for after in (-2, -1)]
    first = world.agent("first", limits=["1"], max_delay=30)
    go(world, 8)
    first.kill()
    go(world, 60)
    world.agent("second", limits=["1"], max_delay=30)
    go(world, 5)
    end(world, runs[0])
    go(world, 5)
    assert launched(world) == runs


# -- Claims that race ------------------------------------------------------------------


def race(world: World, flow_id: str, monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Have another agent claim a run between the agent's count and its claim."""
    claimed: List[str] = []
    count = Slots._count

    def counted(slots: Any, limits: Any, due: Any) -> Any:
        found = count(slots, limits, due)
        if not claimed:
            claimed.append(claimed_by_another(world, flow_id))
        return found

    monkeypatch.setattr(Slots, "_count", counted)
    return claimed


def test_a_claim_above_a_limit_is_given_back_to_its_place_in_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_id = world.flow("etl")
    run_id = world.run(flow_id, -5)
    before = world.api.store.flow_run(run_id)
    others = race(world, flow_id, monkeypatch)
    agent = world.agent(limits=["1"])
    go(world, 5)
    run = world.api.store.flow_run(run_id)
    assert (run.state, launched(world)) == ("Scheduled", [])
    state = world.api.store.row("flow_run", run_id)["serialized_state"]
    assert state["start_time"][:19] == before.scheduled_start_time.isoformat()[:19]
    record = read(state)
    assert record
    assert record.name == f"{run_id}-1"
    assert agent._counts.flow_runs["over_limit"] == 1
    end(world, *others)
    go(world, 15)
    assert launched(world) == []  # the API refuses a second claim for 30 s
    go(world, 20)
    assert launched(world) == [run_id]
    assert world.api.store.flow_run(run_id).state == "Running"


def test_a_claim_waits_for_those_behind_it_to_be_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_id = world.flow("etl")
    run_id = world.run(flow_id, -5)
    world.agent(limits=["1"])
    found: List[str] = []
    read_taken = Counting.read

    def read_again(counting: Any, limits: Any) -> Any:
        if world.api.store.flow_run(run_id).state == "Submitted" and not found:
            found.append(claimed_by_another(world, flow_id))
            call_later = world.simulation.dispatcher.call_later
            call_later(0.3, lambda: end(world, found[0]))
        return read_taken(counting, limits)

    monkeypatch.setattr(Counting, "read", read_again)
    go(world, 3)
    assert found
    assert launched(world) == [run_id]


def test_a_run_that_is_cancelled_after_its_claim_is_not_launched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = world.run(world.flow("etl"))
    count = Counting.count_claims

    def cancelled(counting: Any, run_ids: Any) -> None:
        world.api.store.cancel_flow_run(run_id)
        count(counting, run_ids)

    monkeypatch.setattr(Counting, "count_claims", cancelled)
    agent = world.agent(limits=["1"])
    go(world, 5)
    assert world.api.store.flow_run(run_id).state == "Cancelled"
    assert launched(world) == []
    assert agent._counts.flow_runs["abandoned"] == 1
    assert agent._counts.flow_runs["over_limit"] == 0


def test_a_run_is_launched_although_limits_change_while_it_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = world.run(world.flow("etl"))
    agent = world.agent(limits=["flow=etl:1"])
    read_taken = Counting.read

    def changed(counting: Any, limits: Any) -> Any:
        if world.api.store.flow_run(run_id).state == "Submitted":
            agent._limits_file.limits = (parse("flow=other:1"),)
            limits = agent._limits()
        return read_taken(counting, limits)

    monkeypatch.setattr(Counting, "count_claims", lambda counting, run_ids: None)
    monkeypatch.setattr(Counting, "read", changed)
    go(world, 5)
    assert launched(world) == [run_id]


def test_a_claim_that_the_api_does_not_count_yet_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API sets a run's agent last; it was an agent of another kind before."""
    run_id = world.run(world.flow("etl"))
    read_taken = Counting.read

    def early(counting: Any, limits: Any) -> Any:
        found = read_taken(counting, limits)
        if world.api.store.flow_run(run_id).version > 2:
            return found
        others = {key: each for key, each in found.taken.items() if key != run_id}
        return found._replace(taken=others)

    monkeypatch.setattr(Counting, "read", early)
    agent = world.agent(limits=["1"])
    go(world, 5)
    assert world.api.store.flow_run(run_id).state == "Scheduled"
    assert agent._counts.flow_runs["over_limit"] == 1
    go(world, 40)
    assert launched(world) == [run_id]


def test_a_run_that_another_agent_gave_back_is_not_claimed_too_early(
    world: World,
) -> None:
    store, flow_id = world.api.store, world.flow("etl")
    first = world.run(flow_id, -9)
    given_back = world.run(flow_id, -8)
    agent = world.agent(limits=["1"])
    go(world, 5)
    assert launched(world) == [first]
    start_time = store.row("flow_run", given_back)["serialized_state"]["start_time"]
    agent_id = store.register_agent(type="ECSAgent", name="another")
    store.set_flow_run_state(given_back, {"type": "Submitted"}, agent_id=agent_id)
    back = {"type": "Scheduled", "message": OVER_LIMIT, "start_time": start_time}
    store.set_flow_run_state(given_back, back)
    later = world.run(flow_id, -7)
    go(world, 1)
    end(world, first)
    go(world, 5)
    assert launched(world) == [first, later]
    end(world, later)
    go(world, 40)
    assert launched(world) == [first, later, given_back]
    assert agent.lines.since(0.0, "WARNING") == []


def test_runs_without_limits_are_launched_while_runs_cannot_be_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(client: Any, *args: Any, **options: Any) -> Any:
        raise requests.Timeout("no answer")

    limited, free = world.run(world.flow("etl")), world.run(world.flow("free"))
    with monkeypatch.context() as patch:
        patch.setattr(AgentClient, "taken_runs", refused)
        agent = world.agent(limits=["flow=etl:1"])
        go(world, 5)
        assert launched(world) == [free]
    go(world, 20)
    assert launched(world) == [free, limited]
    (error,) = agent.lines.since(0.0, "ERROR")
    assert codes_of([error]) == ["runs-not-counted"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_claim_that_an_agent_left_behind_is_counted_again(
    world: World, taken: bool
) -> None:
    """It was killed between its claim and its second count."""
    store, flow_id = world.api.store, world.flow("etl")
    agent_id = store.register_agent(type="Agent", name="agent", labels=[])
    run_id = world.run(flow_id)
    record = LaunchRecord(f"{run_id}-1", holder="killed", agent_id=agent_id)
    claimed = {"type": "Submitted", "context": dict(record.to_context())}
    if taken:
        claimed_by_another(world, flow_id)
    store.set_flow_run_state(run_id, claimed, agent_id=agent_id)
    world.agent(limits=["1"])
    go(world, 60)
    assert launched(world) == ([] if taken else [run_id])
    assert store.flow_run(run_id).state == ("Scheduled" if taken else "Running")


# -- Cost ------------------------------------------------------------------------------


def test_limits_cost_an_idle_agent_a_query_in_two_minutes(world: World) -> None:
    world.agent(limits=["5"])
    go(world, 40)
    world.api.queries.clear()
    go(world, 250)
    assert calls(world, "flow_run") == 2


def test_while_runs_are_under_way_there_is_a_count_every_minute(world: World) -> None:
    world.run(world.flow("etl"))
    world.agent(limits=["5"], watch=False)
    go(world, 40)
    world.api.queries.clear()
    go(world, 180)
    assert calls(world, "flow_run") == 3 + 1  # and a look behind the queue


def test_runs_that_are_due_together_are_counted_together(world: World) -> None:
    flow_id = world.flow("etl")
    for _ in range(20):
        world.run(flow_id)
    world.agent(limits=["50"])
    go(world, 1)
    assert len(launched(world)) == 20
    # Recovery reads twice; then rows, a count and a second count; confirmations are
    # the states of runs.
    assert calls(world, "flow_run") <= 7


# -- Files -----------------------------------------------------------------------------


def test_a_file_of_limits_is_read_again_when_it_changes(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("total: 1\n", encoding="utf-8")
    flow_id = world.flow("etl")
    for _ in range(4):
        world.run(flow_id)
    agent = world.agent(limits=["flow=etl:3"], limits_path=str(path))
    watch = agent._limits_file.watch(str(path))
    next(watch)
    go(world, 2)
    assert len(launched(world)) == 1
    use(watch, path, "total: 2\n")
    go(world, 2)
    assert len(launched(world)) == 2
    for _ in range(2):
        use(watch, path, "total: two\n")
    use(watch, path, "flow:\n  etl: 4\n")
    go(world, 2)
    assert len(launched(world)) == 2
    warnings = agent.lines.since(0.0, "WARNING")
    assert [line[-18:] for line in warnings] == ["[limits-unchanged]"] * 2
    use(watch, path, "label: {db: 1}\n")
    go(world, 2)
    assert len(launched(world)) == 3


def test_runs_that_wait_go_when_the_last_limit_is_removed(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("total: 0\n", encoding="utf-8")
    flow_id = world.flow("etl")
    runs = {world.run(flow_id) for _ in range(3)}
    agent = world.agent(limits_path=str(path))
    watch = agent._limits_file.watch(str(path))
    next(watch)
    go(world, 2)
    assert agent._slots.waiting() == runs
    use(watch, path, "{}\n")
    go(world, 2)
    assert set(launched(world)) == runs
    assert agent._slots.uses() == ()


def use(watch: Any, path: Path, content: str) -> None:
    """Go through one round of the background loop, which waits for a thread."""
    path.write_text(content, encoding="utf-8")
    reading = next(watch)
    reading.exception()
    assert isinstance(next(watch), Pause)


# -- vCPUs -----------------------------------------------------------------------------


def test_vcpus_are_added_up_from_launch_records(world: World) -> None:
    flow_id = world.flow("etl")
    sizes = (("2 vCPU", 4096), (1024, 2048), ("512", 1024), (4096, 8192))
    configs = [{"cpu": cpu, "memory": memory} for cpu, memory in sizes]
    base = world.api.store.row("flow", flow_id)["run_config"]
    runs = [
        world.run(flow_id, n - 9, run_config={**base, **config})
        for n, config in enumerate(configs)
    ]
    agent = world.agent(max_vcpus=4)
    go(world, 8)
    assert set(launched(world)) == set(runs[:3])
    (found,) = agent._slots.uses()
    assert (found.used, found.waiting) == (3.5, 1)
    for run_id in runs[:3]:
        end(world, run_id)
    go(world, 3)
    assert launched(world)[3:] == runs[3:]


def test_launch_records_of_runs_under_way_are_not_read_at_each_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[str] = []
    states_of = AgentClient.states_of

    def noted(client: Any, run_ids: Any) -> Any:
        asked.extend(run_ids)
        return states_of(client, run_ids)

    runs = [world.run(world.flow("etl"), after) for after in (-2, -1)]
    world.agent(max_vcpus=1, watch=False)
    go(world, 5)
    monkeypatch.setattr(AgentClient, "states_of", noted)
    go(world, 30)
    assert calls(world, "flow_run") > 60
    assert asked == []
    go(world, 40)  # they are all read again once a minute
    assert asked == runs[:1]


def test_a_run_that_asks_for_more_than_there_is_says_so(world: World) -> None:
    flow_id = world.flow("etl")
    base = world.api.store.row("flow", flow_id)["run_config"]
    large = world.run(flow_id, -9, run_config={**base, "cpu": 4096, "memory": 8192})
    small = world.run(flow_id, run_config={**base, "cpu": 256, "memory": 512})
    agent = world.agent(max_vcpus="2")
    go(world, 10)
    assert launched(world) == [small]
    assert [line[-20:] for line in log(world, large)] == [" [larger-than-limit]"]
    assert len(agent.lines.since(0.0, "WARNING")) == 1


def test_the_size_of_a_template_at_a_path_is_learned(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "template.yaml"
    path.write_text("networkMode: awsvpc\ncpu: 2048\nmemory: 4096\n", encoding="utf-8")
    flow_id = world.flow("etl")
    base = world.api.store.row("flow", flow_id)["run_config"]
    config = {**base, "task_definition_path": str(path)}
    first = world.run(flow_id, -9, run_config=config)
    agent = world.agent(max_vcpus=4)
    go_until(world, lambda: agent._counts.flow_runs["over_limit"])
    assert launched(world) == []
    go(world, 40)
    go_until(world, lambda: launched(world))
    assert launched(world) == [first]
    (found,) = agent._slots.uses()
    assert found.used == 2


def test_a_run_that_comes_back_for_a_retry_is_launched_whatever_its_size(
    world: World, tmp_path: Path
) -> None:
    """It is under way already, and an agent that has started anew knows no sizes."""
    path = tmp_path / "template.yaml"
    path.write_text("networkMode: awsvpc\ncpu: 2048\nmemory: 4096\n", encoding="utf-8")
    store, flow_id = world.api.store, world.flow("etl")
    base = store.row("flow", flow_id)["run_config"]
    run_id = world.run(flow_id, run_config={**base, "task_definition_path": str(path)})
    store.set_flow_run_state(run_id, {"type": "Running"})
    task_run = store.task_runs(run_id)[0]
    due = {"type": "Retrying", "start_time": "2020-01-01T00:00:00Z", "run_count": 1}
    store.set_task_run_states([{"task_run_id": task_run.id, "state": due}])
    agent = world.agent(max_vcpus=4)
    go_until(world, lambda: launched(world) or agent._counts.flow_runs["over_limit"])
    assert launched(world) == [run_id]


def go_until(world: World, is_so: Any) -> None:
    """Let threads that read files go on beside the simulated time."""
    for _ in range(1000):
        go(world, 0.5)
        if is_so():
            return
        REAL_SLEEP(0.01)
    raise AssertionError("that did not happen")


REAL_SLEEP = time.sleep
