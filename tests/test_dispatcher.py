"""Steps that wait hold no worker; they go on when they are due, in order."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, List, Tuple

import pytest
from deadlines import DEADLINE
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.dispatcher import Dispatcher
from prefect_ecs_plugin.polling import Rhythm
from prefect_ecs_plugin.schedule import Schedule
from prefect_ecs_plugin.simulation import Simulation
from prefect_ecs_plugin.waiting import Pause, Steps, drive


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100))))
def test_schedule_gives_out_what_is_due_in_order_and_nothing_else(
    acts: List[Tuple[bool, float]],
) -> None:
    schedule = Schedule()
    waiting: List[Tuple[float, int]] = []
    taken: List[Tuple[float, int]] = []
    for number, (adds, time) in enumerate(acts):
        entry = (time, number)
        if adds:
            schedule.add(time, lambda entry=entry: taken.append(entry))
            waiting.append(entry)
            continue
        for action in schedule.take_due(time):
            action()
        due = sorted(entry for entry in waiting if entry[0] <= time)
        assert taken == due
        waiting = [entry for entry in waiting if entry[0] > time]
        taken.clear()
    assert len(schedule) == len(waiting)
    assert schedule.next_due == min((time for time, _ in waiting), default=None)


@given(st.lists(st.lists(st.floats(0, 10), max_size=4), max_size=20))
def test_steps_go_on_exactly_when_they_are_due(pauses: List[List[float]]) -> None:
    simulation = Simulation()
    ended: List[float] = []

    def steps(own: List[float]) -> Steps[None]:
        for seconds in own:
            before = simulation.now
            yield Pause(seconds)
            assert simulation.now == before + max(0.0, seconds)
        ended.append(simulation.now)

    for own in pauses:
        simulation.dispatcher.start(steps(own))
    simulation.run()
    assert sorted(ended) == pytest.approx(sorted(sum(own) for own in pauses))
    assert len(simulation.dispatcher) == 0


def threaded(workers: int, errors: List[BaseException]) -> Dispatcher:
    return Dispatcher.threaded(workers, errors.append)


def test_guarantee_4_what_waits_holds_no_worker() -> None:
    errors: List[BaseException] = []
    dispatcher = threaded(2, errors)
    gate: Future[None] = Future()
    done: List[int] = []

    def waits_long(number: int) -> Steps[None]:
        yield gate
        done.append(number)

    def is_quick() -> Steps[None]:
        yield Pause(0.01)
        gate.set_result(None)

    for number in range(500):
        dispatcher.start(waits_long(number))
    dispatcher.start(is_quick())
    assert dispatcher.wait_until_done(DEADLINE)
    assert sorted(done) == list(range(500))
    dispatcher.close()
    assert errors == []


def test_what_steps_let_out_is_reported_and_harms_nobody_else() -> None:
    errors: List[BaseException] = []
    dispatcher = threaded(1, errors)
    ended = threading.Event()

    def fails() -> Steps[None]:
        yield Pause(0)
        raise ValueError("broken")

    def works() -> Steps[None]:
        yield Pause(0.01)
        ended.set()

    dispatcher.start(fails())
    dispatcher.start(works())
    assert ended.wait(DEADLINE)
    dispatcher.close()
    assert [str(error) for error in errors] == ["broken"]


def test_after_close_nothing_goes_on() -> None:
    dispatcher = threaded(1, [])
    gate: Future[None] = Future()
    went_on: List[bool] = []

    def steps() -> Steps[None]:
        yield gate
        went_on.append(True)

    dispatcher.start(steps())
    dispatcher.close()
    gate.set_result(None)
    assert (len(dispatcher), went_on) == (1, [])


def test_drive_sleeps_and_waits_in_its_own_thread() -> None:
    slept: List[float] = []
    done: Future[None] = Future()
    done.set_result(None)

    def steps() -> Steps[str]:
        yield Pause(3)
        yield done
        return "end"

    assert drive(steps(), slept.append) == "end"
    assert slept == [3]


# -- When to look into the queue again ---------------------------------------------

INTERVALS = {0: 0.25, 1: 0.5, 2: 1.0, 3: 10.0}


@pytest.mark.parametrize(
    "looks, pauses",
    [
        ([(0, 0)] * 5, [0.5, 1.0, 10.0, 10.0, 10.0]),
        ([(3, 3), (0, 0), (1, 1)], [0.25, 0.5, 0.25]),
        ([(25, 25), (25, 25), (10, 10)], [0.0, 0.0, 0.25]),
        ([(25, 0), (25, 0)], [0.5, 1.0]),
    ],
)
def test_rhythm(looks: Any, pauses: List[float]) -> None:
    rhythm = Rhythm(INTERVALS)
    assert [rhythm.after(seen, new) for seen, new in looks] == pauses


def test_rhythm_knows_when_something_may_be_behind_the_window() -> None:
    rhythm = Rhythm(INTERVALS)
    rhythm.after(25, 0)
    assert rhythm.window_is_full
    rhythm.after(24, 0)
    assert not rhythm.window_is_full
