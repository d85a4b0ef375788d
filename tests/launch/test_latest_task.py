"""Which task of a run is its latest one, whatever the order in which launches hear of
theirs. The API's answers are made here; time is simulated."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest

from prefect_ecs_plugin.launch.claims import Claims
from prefect_ecs_plugin.launch.launcher import Started
from prefect_ecs_plugin.launch_record import Launch, LaunchRecord
from prefect_ecs_plugin.monitoring.supervisor import Supervisor
from prefect_ecs_plugin.monitoring.watcher import Watched
from prefect_ecs_plugin.observability.outage_log import OutageLog
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps

RUN = "run"

#: Seconds that the API takes to answer.
SLOW = 3.0


def task(name: str, launch: str, attempt: int = 1, is_late: bool = False) -> Started:
    arn = f"arn:aws:ecs:eu-west-1:123456789012:task/default/{name}"
    return Started(arn, "default", RUN, Launch(attempt, False, launch), is_late)


class States:
    """Tells which launch has claimed the run last."""

    def __init__(self, record: LaunchRecord) -> None:
        state = {"type": "Submitted", "context": dict(record.to_context())}
        self._row: Dict[str, Any] = {
            "id": RUN,
            "state": "Submitted",
            "version": 2,
            "serialized_state": state,
        }

    def of(self, run_id: str) -> Steps[Any]:
        yield Pause(SLOW)
        return self._row


class World:
    """A supervisor of which only the tasks matter.

    Attributes:
        forgotten: The runs whose secrets were forgotten.
    """

    def __init__(self, record: LaunchRecord) -> None:
        self.simulation = Simulation()
        self.forgotten: List[str] = []
        dispatcher, logger = self.simulation.dispatcher, logging.getLogger("agent")
        outages = OutageLog(logger, dispatcher.clock)
        states: Any = States(record)
        nothing: Any = SimpleNamespace(
            pending_run_ids=set(), agent_id="agent", cancelled_of=lambda run_ids: {}
        )
        self.supervisor = Supervisor(
            client=nothing,
            states=states,
            claims=Claims(
                client=nothing, states=states, outages=outages, logger=logger
            ),
            ecs=nothing,
            submission=nothing,
            launcher=nothing,
            resumer=nothing,
            reporter=nothing,
            outages=outages,
            logger=logger,
            read_log=lambda task_arn, definition: [],
            dispatcher=dispatcher,
            start_attempts=3,
            cancel_grace=60.0,
            forget=self.forgotten.append,
        )

    def to_stop(self) -> List[str]:
        return [watched.task_arn for watched, _ in self.supervisor._to_stop()]

    def watched(self, started: Started) -> Watched:
        (found,) = [
            each
            for each in self.supervisor.watcher.in_flight()
            if each.task_arn == started.arn
        ]
        return found


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("newest_last", [False, True])
def test_guarantee_1_the_task_of_the_latest_claim_is_kept_in_whatever_order(
    is_late: bool, newest_last: bool
) -> None:
    world = World(LaunchRecord("run-4"))
    old, new = task("old", "run-2", is_late=is_late), task("new", "run-4")
    for each in (old, new) if newest_last else (new, old):
        world.supervisor.watch(each)
    assert world.to_stop() == []  # it is not known yet
    world.simulation.run()
    assert world.to_stop() == [old.arn]
    assert world.supervisor.is_watched(RUN)


def test_a_run_whose_relaunch_is_late_keeps_its_secrets() -> None:
    """The end of its first task is dealt with until the second one is started."""
    world = World(LaunchRecord("run-2", attempt=2))
    first = task("first", "run-2")
    world.supervisor.watch(first)
    steps = world.supervisor.on_stopped(
        world.watched(first), {"taskArn": first.arn, "lastStatus": "STOPPED"}
    )
    next(steps)
    second = task("second", "run-2", 2, is_late=True)
    world.supervisor.watch(second)
    world.simulation.dispatcher.start(steps)
    world.simulation.run_until(10 * SLOW)
    assert world.supervisor._latest == {RUN: second.arn}
    assert world.forgotten == []


def test_a_late_task_that_has_ended_already_is_not_the_latest_one() -> None:
    world = World(LaunchRecord("run-2"))
    late = task("late", "run-2", is_late=True)
    world.supervisor.watch(late)
    world.supervisor.watcher.forget(late.arn)
    world.simulation.run()
    assert not world.supervisor.is_watched(RUN)
    assert world.forgotten == [RUN]
