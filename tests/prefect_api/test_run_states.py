"""States are read from and set at a real API: many at a time, never too early."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any, Dict, Iterator, List, Optional

import pytest
from prefect.exceptions import ClientError
from prefect.utilities.configuration import set_temporary_config

pytest.importorskip("graphql", reason="the sandbox needs its extra and Python 3.10")

from deadlines import DEADLINE
from sandbox_prefect import new_flow

from prefect_ecs_plugin.errors import code_of, without_code
from prefect_ecs_plugin.observability.outage_log import OutageLog
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.prefect_api.run_states import READING, RunStates
from prefect_ecs_plugin.sandbox.prefect_api import Fault, PrefectAPI
from prefect_ecs_plugin.scheduling.dispatcher import Dispatcher
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Interrupted, Steps


class World:
    """An API with runs, and those who ask about them on a simulated clock.

    Attributes:
        queries: The ids that each query was about, refused ones included.
        mutations: The ids that each mutation was about.
        faults: What goes wrong with the next queries.
        slow: A run about which every query takes too long.
        answers: The state of each run that was asked about, None if it is gone.
        refused: Why the state of a run was not set, by its id.
    """

    def __init__(self, api: PrefectAPI, client: AgentClient) -> None:
        self.store = api.store
        self.flow_id = new_flow(api.store)
        self.simulation = Simulation()
        dispatcher = self.simulation.dispatcher
        outages = OutageLog(logging.getLogger("agent"), dispatcher.clock)
        self.client, self.outages = client, outages
        self.states = RunStates(client, outages, dispatcher.start)
        self.queries: List[List[str]] = []
        self.mutations: List[List[str]] = []
        self.refused: Dict[str, str] = {}
        self.faults: List[Optional[Fault]] = []
        self.slow = ""
        self.answers: Dict[str, Optional[str]] = {}
        api.fault = self._hear

    def _hear(self, operation: str, arguments: Dict[str, Any]) -> Optional[Fault]:
        if operation == "set_flow_run_states":
            changes = arguments["input"]["states"]
            self.mutations.append([each["flow_run_id"] for each in changes])
            return None
        ids = arguments["where"]["id"]["_in"]
        self.queries.append(ids)
        if self.slow in ids:
            return Fault(status=504)
        return self.faults.pop(0) if self.faults else None

    def runs(self, count: int) -> List[str]:
        return [self.store.create_flow_run(self.flow_id) for _ in range(count)]

    def set_state(self, run_id: str, state: str) -> None:
        self.store.set_flow_run_state(run_id, {"type": state})

    def ask(self, run_ids: List[str]) -> None:
        for run_id in run_ids:
            self.simulation.dispatcher.start(self._ask(run_id))

    def submit(self, run_ids: List[str]) -> None:
        """Set the runs Submitted, each in steps of its own."""
        for run_id in run_ids:
            self.simulation.dispatcher.start(self._submit(run_id))

    def _submit(self, run_id: str) -> Steps[None]:
        try:
            yield from self.states.set(run_id, 1, {"type": "Submitted"})
        except ClientError as error:
            self.refused[run_id] = str(error)

    def _ask(self, run_id: str) -> Steps[None]:
        row = yield from self.states.of(run_id)
        self.answers[run_id] = row["state"] if row else None


@pytest.fixture
def world() -> Iterator[World]:
    with PrefectAPI() as api, set_temporary_config({"backend": "server"}):
        yield World(api, AgentClient(api_server=api.url))


def test_runs_that_are_asked_about_together_take_one_query(world: World) -> None:
    runs = world.runs(20)
    for run_id in runs[:10]:
        world.set_state(run_id, "Running")
    world.ask(runs)
    world.simulation.run()
    expected = [*["Running"] * 10, *["Scheduled"] * 10]
    assert world.answers == dict(zip(runs, expected))
    assert [sorted(ids) for ids in world.queries] == [sorted(runs)]
    assert world.simulation.now == 0.25


def test_who_asks_after_a_while_is_answered_too(world: World) -> None:
    first, second = world.runs(2)
    for run_id in (first, second):
        world.ask([run_id])
        world.simulation.run()
    assert world.answers == {first: "Scheduled", second: "Scheduled"}
    assert world.queries == [[first], [second]]


def test_a_query_is_about_a_hundred_runs_at_most(world: World) -> None:
    runs = world.runs(250)
    world.ask(runs)
    world.simulation.run()
    assert set(world.answers) == set(runs)
    assert [len(ids) for ids in world.queries] == [100, 100, 50]


def test_guarantee_5_what_is_answered_was_read_after_it_was_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_id,) = world.runs(1)
    ask = AgentClient.states_of

    def slowly(client: AgentClient, run_ids: Any) -> Any:
        rows = ask(client, run_ids)
        monkeypatch.undo()
        world.set_state(run_id, "Success")
        world.ask([run_id])  # a caller that knows of the new state
        return rows

    monkeypatch.setattr(AgentClient, "states_of", slowly)
    seen = []
    world.simulation.dispatcher.start(_see(world.states, run_id, seen))
    world.simulation.run()
    assert seen == ["Scheduled"]
    assert world.answers == {run_id: "Success"}


def _see(states: RunStates, run_id: str, seen: List[str]) -> Steps[None]:
    row = yield from states.of(run_id)
    seen.append(row["state"] if row else "gone")


def test_guarantee_2_an_outage_is_told_once_and_all_are_answered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runs = world.runs(30)
    world.faults = [Fault(status=503), Fault(drop_connection=True)] * 3
    for number, run_id in enumerate(runs):
        later = lambda run_id=run_id: world.ask([run_id])  # noqa: E731
        world.simulation.dispatcher.call_later(number / 10, later)
    world.simulation.run()
    assert world.answers == dict.fromkeys(runs, "Scheduled")
    assert len(world.queries) <= 10
    begun, ended = [each.message for each in caplog.records if each.name == "agent"]
    assert code_of(begun) == code_of(READING)
    assert ended.startswith(f"{without_code(READING)}: over after")


def test_a_run_that_is_gone(world: World) -> None:
    first, second = world.runs(2)
    world.store.delete_flow_run(first)
    world.ask([first, second])
    world.simulation.run()
    assert world.answers == {first: None, second: "Scheduled"}


def test_guarantee_2_a_run_that_is_left_out_of_an_answer_is_not_gone(
    world: World,
) -> None:
    runs = world.runs(3)
    nothing: Dict[str, Any] = {"data": {"flow_run": []}}
    world.faults = [Fault(body=json.dumps(nothing).encode())]
    world.ask(runs)
    world.simulation.run()
    assert world.answers == dict.fromkeys(runs, "Scheduled")


@pytest.mark.parametrize(
    "state, shown", [("Retrying", [{"state": "Retrying"}]), ("Success", [])]
)
def test_of_its_task_runs_those_are_told_that_wait(
    world: World, state: str, shown: List[Any]
) -> None:
    (run_id,) = world.runs(1)
    (task_run,) = world.store.task_runs(run_id)
    change = {"task_run_id": task_run.id, "state": {"type": state}}
    world.store.set_task_run_states([change])
    row = world.simulation.result_of(world.states.of(run_id))
    assert row is not None
    assert row["task_runs"] == shown


def test_one_run_that_the_api_refuses_does_not_delay_the_others(
    world: World,
) -> None:
    refused: List[Exception] = []

    def ask_for_nonsense() -> Steps[None]:
        try:
            yield from world.states.of("no uuid")
        except ClientError as error:
            refused.append(error)

    runs = world.runs(20)
    world.ask(runs[:7])
    world.simulation.dispatcher.start(ask_for_nonsense())
    world.ask(runs[7:])
    world.simulation.run()
    assert world.answers == dict.fromkeys(runs, "Scheduled")
    assert len(refused) == 1
    # Halved five times; before each, an API that is well has to say so.
    assert len(world.queries) <= 3 * 5 + 1


def test_after_a_query_that_took_too_long_half_as_many_are_asked_about(
    world: World,
) -> None:
    runs = world.runs(20)
    world.faults = [Fault(status=504)] * 2
    world.ask(runs)
    world.simulation.run()
    assert world.answers == dict.fromkeys(runs, "Scheduled")
    assert [len(ids) for ids in world.queries] == [20, 10, 5, 10, 5]


def test_a_run_that_is_too_slow_by_itself_holds_up_no_other(world: World) -> None:
    world.slow, *others = world.runs(21)
    world.ask([world.slow, *others])
    world.simulation.run_until(600)
    assert world.answers == dict.fromkeys(others, "Scheduled")


NO_DATABASE = Fault(
    body=json.dumps(
        {
            "data": {"flow_run": None},
            "errors": [
                {
                    "message": "connect ECONNREFUSED",
                    "extensions": {"code": "INTERNAL_SERVER_ERROR"},
                }
            ],
        }
    ).encode()
)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=503), Fault(drop_connection=True)],
        [NO_DATABASE] * 6,  # reported as a bad request is
    ],
)
def test_an_outage_splits_nothing(world: World, faults: List[Fault]) -> None:
    runs = world.runs(20)
    world.faults = list(faults)
    world.ask(runs)
    world.simulation.run()
    assert world.answers == dict.fromkeys(runs, "Scheduled")
    assert {len(ids) for ids in world.queries} <= {0, 20}


# -- Setting them --------------------------------------------------------------------


def test_states_that_are_set_together_take_one_mutation(world: World) -> None:
    runs = world.runs(20)
    world.submit(runs)
    world.simulation.run()
    assert {world.store.flow_run(each).state for each in runs} == {"Submitted"}
    assert world.mutations == [runs]
    assert world.simulation.now == 0.01


def test_a_mutation_sets_fifty_states_at_most(world: World) -> None:
    runs = world.runs(120)
    world.submit(runs)
    world.simulation.run()
    assert [len(ids) for ids in world.mutations] == [50, 50, 20]
    assert {world.store.flow_run(each).state for each in runs} == {"Submitted"}


def test_a_state_that_is_set_later_goes_with_another_mutation(world: World) -> None:
    first, second = world.runs(2)
    for run_id in (first, second):
        world.submit([run_id])
        world.simulation.run()
    assert world.mutations == [[first], [second]]


def test_a_refusal_is_that_of_all_states_that_were_set_with_it(world: World) -> None:
    """The API says which state it refuses, and sets the others."""
    runs = world.runs(3)
    world.set_state(runs[1], "Submitted")
    world.submit(runs)
    world.simulation.run()
    assert set(world.refused) == set(runs)
    assert all("already been submitted" in each for each in world.refused.values())
    assert {world.store.flow_run(each).state for each in runs} == {"Submitted"}


def test_states_whose_steps_are_interrupted_before_they_are_sent_are_not_set(
    world: World,
) -> None:
    runs = world.runs(3)
    world.submit(runs)
    world.simulation.dispatcher.interrupt()
    world.simulation.run()
    assert world.mutations == []
    assert world.simulation.dispatcher.wait_until_done(0)


def test_guarantee_2_steps_interrupted_while_a_state_is_set_end_after_its_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is read then, to return it to the queue."""
    (run_id,) = world.runs(1)
    is_sent, may_answer = threading.Event(), threading.Event()
    send = AgentClient.set_run_states

    def slowly(client: AgentClient, changes: Any) -> None:
        is_sent.set()
        assert may_answer.wait(DEADLINE)
        send(client, changes)

    monkeypatch.setattr(AgentClient, "set_run_states", slowly)
    dispatcher = Dispatcher.threaded(4, lambda *_: None)
    states = RunStates(world.client, world.outages, dispatcher.start)
    seen: List[str] = []

    def steps() -> Steps[None]:
        try:
            yield from states.set(run_id, 1, {"type": "Submitted"})
        except Interrupted:
            seen.append(world.store.flow_run(run_id).state)
            raise

    dispatcher.start(steps())
    assert is_sent.wait(DEADLINE)
    dispatcher.interrupt()
    assert not dispatcher.wait_until_done(0)
    may_answer.set()
    assert dispatcher.wait_until_done(DEADLINE)
    dispatcher.close()
    assert seen == ["Submitted"]
