"""Steps that wait hold no worker; they continue when they are due, in order."""

from __future__ import annotations

import functools
import logging
import threading
from concurrent.futures import Future
from typing import Any, Dict, List, Optional, Tuple

import pytest
from codes import code_of
from deadlines import DEADLINE
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.aws.definition_cache import TaskDefinitionCache
from prefect_ecs_plugin.aws.rate_limiter import LIMITS, RateLimiter
from prefect_ecs_plugin.aws.retrying import (
    _CAUSES,
    WORTH_WAITING,
    Answer,
    AWSCallError,
    RetryBudget,
)
from prefect_ecs_plugin.observability.outage_log import OutageLog, retry_until_success
from prefect_ecs_plugin.scheduling.dispatcher import Dispatcher
from prefect_ecs_plugin.scheduling.poll_interval import PollInterval
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Cause, Pause, Steps, Wait, run_blocking


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100))))
def test_actions_are_done_when_they_are_due_in_order(
    acts: List[Tuple[bool, float]],
) -> None:
    simulation = Simulation()
    waiting: List[Tuple[float, int]] = []
    done: List[Tuple[float, int]] = []
    for number, (adds, seconds) in enumerate(acts):
        time = simulation.now + seconds
        if adds:
            entry = (time, number)
            simulation.dispatcher.call_later(
                seconds, functools.partial(done.append, entry)
            )
            waiting.append(entry)
            continue
        simulation.run_until(time)
        assert done == sorted(entry for entry in waiting if entry[0] <= time)
        waiting = [entry for entry in waiting if entry[0] > time]
        done.clear()
    next_due = simulation.dispatcher.do_due()
    done.clear()
    assert next_due == min(
        (time for time, _ in waiting if time > simulation.now), default=None
    )


@given(st.lists(st.lists(st.floats(0, 10), max_size=4), max_size=20))
def test_steps_continue_exactly_when_they_are_due(pauses: List[List[float]]) -> None:
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
    assert simulation.dispatcher.wait_until_done(0)


#: What was reported: what happened, the exception, the run's id.
Reports = List[Tuple[str, BaseException, Optional[str]]]


def threaded(workers: int, reports: Reports) -> Dispatcher:
    return Dispatcher.threaded(workers, lambda *report: reports.append(report))


def test_guarantee_4_what_waits_holds_no_worker() -> None:
    errors: Reports = []
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


def test_an_uncaught_error_is_reported_and_other_steps_continue() -> None:
    errors: Reports = []
    dispatcher = threaded(1, errors)
    ended = threading.Event()

    def fails() -> Steps[None]:
        yield Pause(0)
        raise ValueError("broken")

    def works() -> Steps[None]:
        yield Pause(0.01)
        ended.set()

    dispatcher.start(fails(), run_id="a")
    dispatcher.start(works())
    assert ended.wait(DEADLINE)
    dispatcher.close()
    ((what, error, run_id),) = errors
    assert what.startswith("Flow run a: ")
    assert (str(error), run_id) == ("broken", "a")


def test_after_close_nothing_continues() -> None:
    dispatcher = threaded(1, [])
    gate: Future[None] = Future()
    continued: List[bool] = []

    def steps() -> Steps[None]:
        yield gate
        continued.append(True)

    dispatcher.start(steps())
    dispatcher.close()
    gate.set_result(None)
    assert not dispatcher.wait_until_done(0)
    assert continued == []


def test_run_blocking_sleeps_and_waits_in_its_own_thread() -> None:
    slept: List[float] = []
    done: Future[None] = Future()
    done.set_result(None)

    def steps() -> Steps[str]:
        yield Pause(3)
        yield done
        return "end"

    assert run_blocking(steps(), slept.append) == "end"
    assert slept == [3]


# -- The timer thread ---------------------------------------------------------------


def test_an_exception_in_a_timed_action_does_not_end_the_timer() -> None:
    reports: Reports = []
    dispatcher = threaded(1, reports)
    continued = threading.Event()

    def fails() -> None:
        raise ValueError("broken")

    def steps() -> Steps[None]:
        yield Pause(0.02)
        continued.set()

    dispatcher.call_later(0.01, fails)
    dispatcher.start(steps())
    assert continued.wait(DEADLINE)
    assert dispatcher.problem() is None
    dispatcher.close()
    assert [(str(error), run_id) for _, error, run_id in reports] == [("broken", None)]


def test_not_even_a_failing_report_ends_the_timer() -> None:
    def report(what: str, error: BaseException, run_id: Optional[str]) -> None:
        raise error

    dispatcher = Dispatcher.threaded(1, report)
    continued = threading.Event()

    def fails() -> None:
        raise SystemExit("broken")

    dispatcher.call_later(0.0, fails)
    dispatcher.call_later(0.0, continued.set)
    assert continued.wait(DEADLINE)
    dispatcher.close()


def test_of_several_actions_due_together_a_failing_one_affects_no_other() -> None:
    reports: Reports = []
    simulation = Simulation(lambda *report: reports.append(report))
    done: List[int] = []

    def act(number: int) -> None:
        done.append(number)
        if number == 1:
            raise ValueError("broken")

    for number in range(3):
        simulation.dispatcher.call_later(1.0, functools.partial(act, number))
    simulation.run()
    assert done == [0, 1, 2]
    assert len(reports) == 1


def test_a_timer_thread_that_has_ended_is_a_problem() -> None:
    dispatcher = threaded(1, [])
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    timer, dispatcher._timer = dispatcher._timer, ended
    assert code_of(dispatcher.problem()) == "timer-ended"
    dispatcher._timer = timer
    assert dispatcher.problem() is None
    dispatcher.close()
    assert dispatcher.problem() is None


def test_a_timer_thread_that_is_stuck_is_a_problem() -> None:
    simulation = Simulation()
    dispatcher = simulation.dispatcher
    seen: List[Optional[str]] = []

    def is_slow() -> None:
        for _ in range(2):
            simulation.now += 60.0
            seen.append(dispatcher.problem())

    dispatcher.call_later(0.0, is_slow)
    simulation.run()
    assert seen[0] is None
    assert "120 s" in (seen[1] or "")
    assert code_of(seen[1]) == "timer-stuck"
    assert dispatcher.problem() is None


# -- Background loops ---------------------------------------------------------------


class Loop:
    """A background loop on a simulated clock that fails after given times.

    Attributes:
        lives: Seconds for which it runs until it fails; without one it does not fail.
        starts: When it was started.
        reports: What was reported.
    """

    def __init__(self, lives: List[float], error: BaseException) -> None:
        self.lives, self.error = lives, error
        self.starts: List[float] = []
        self.reports: Reports = []
        self.simulation = Simulation(lambda *report: self.reports.append(report))
        self.simulation.dispatcher.keep_running("sweeper", self.steps)

    def steps(self) -> Steps[None]:
        self.starts.append(self.simulation.now)
        if self.lives:
            yield Pause(self.lives.pop(0))
            raise self.error
        while True:
            yield Pause(1000.0)

    def problem_at(self, moment: float) -> Optional[str]:
        self.simulation.run_until(moment)
        return self.simulation.dispatcher.problem()


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit("broken")])
def test_a_background_loop_survives_any_exception(error: BaseException) -> None:
    loop = Loop([0.0] * 8, error)
    loop.simulation.run_until(1000.0)
    pauses = [after - before for before, after in zip(loop.starts, loop.starts[1:])]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    what, reported, run_id = loop.reports[1]
    assert "sweeper" in what
    assert "2 s" in what
    assert (reported, run_id) == (error, None)
    assert len(loop.reports) == 8


def test_a_loop_that_has_run_for_a_minute_starts_from_scratch() -> None:
    loop = Loop([0.0, 0.0, 60.0, 0.0], ValueError("broken"))
    loop.simulation.run_until(1000.0)
    assert loop.starts == [0.0, 1.0, 3.0, 64.0, 66.0]


@pytest.mark.parametrize(
    "lives, moment, is_problem",
    [
        ([], 999.0, False),
        ([0.0], 0.5, False),
        ([0.0, 0.0], 2.0, False),
        ([0.0] * 3, 3.0, True),
        ([0.0] * 3, 7.0 + 59.0, True),
        ([0.0] * 3, 7.0 + 60.0, False),
        ([59.0, 59.0], 120.5, True),
        ([59.0, 59.0], 122.5, False),
    ],
)
def test_a_loop_that_keeps_failing_is_a_problem_until_it_has_run_for_a_minute(
    lives: List[float], moment: float, is_problem: bool
) -> None:
    problem = Loop(lives, ValueError("broken")).problem_at(moment)
    assert code_of(problem) == ("loop-failing" if is_problem else "")


def test_a_loop_that_has_ended_is_a_problem() -> None:
    simulation = Simulation()
    simulation.dispatcher.keep_running("sweeper", iter_steps)
    problem = simulation.dispatcher.problem()
    assert code_of(problem) == "loop-ended"
    assert "sweeper" in (problem or "")


def test_an_interrupted_loop_ends_and_is_no_problem() -> None:
    loop = Loop([], ValueError("broken"))
    loop.simulation.dispatcher.interrupt()
    loop.simulation.run()
    assert (loop.starts, loop.reports) == ([0.0], [])
    assert loop.simulation.dispatcher.problem() is None


# -- Which runs wait, and for what -------------------------------------------------


def waiting(dispatcher: Dispatcher) -> Dict[Cause, int]:
    """The causes for which a run waits."""
    return {cause: n for cause, n in dispatcher.waits().items() if n}


def test_all_causes_are_counted() -> None:
    assert Simulation().dispatcher.waits() == dict.fromkeys(Cause, 0)


def test_a_run_is_counted_while_it_waits_and_no_longer() -> None:
    simulation = Simulation()
    seen: List[Dict[Cause, int]] = []

    def look() -> None:
        seen.append(waiting(simulation.dispatcher))

    def steps() -> Steps[None]:
        yield Pause(0, cause=Cause.OUTAGE)
        look()
        yield Pause(5, cause=Cause.NOT_DUE)
        look()
        yield Pause(5, cause=Cause.CAPACITY)

    simulation.dispatcher.call_later(2, look)
    simulation.dispatcher.call_later(7, look)
    simulation.dispatcher.start(steps(), run_id="run")
    simulation.run()
    look()
    assert seen == [{}, {Cause.NOT_DUE: 1}, {}, {Cause.CAPACITY: 1}, {}]


def test_runs_are_counted_and_not_their_steps() -> None:
    dispatcher = Simulation().dispatcher
    for run_id in ("one", "one", "other", None):
        dispatcher.start(iter_steps(Pause(5)), run_id=run_id)
    assert waiting(dispatcher) == {Cause.OTHER: 2}


def test_a_run_that_is_interrupted_waits_no_longer() -> None:
    dispatcher = Simulation().dispatcher
    dispatcher.start(iter_steps(Pause(5)), run_id="run")
    assert waiting(dispatcher) == {Cause.OTHER: 1}
    dispatcher.interrupt()
    assert waiting(dispatcher) == {}


def test_each_wait_of_a_run_is_observed_before_it_begins() -> None:
    simulation = Simulation()
    seen: List[Tuple[str, Wait, Dict[Cause, int]]] = []
    gate: Future[None] = Future()
    simulation.dispatcher.observe_waits(
        lambda run_id, wait: seen.append((run_id, wait, waiting(simulation.dispatcher)))
    )
    simulation.dispatcher.start(iter_steps(Pause(0), Pause(5), gate), run_id="run")
    simulation.dispatcher.start(iter_steps(Pause(5)))
    simulation.run()
    assert seen == [("run", Pause(5), {}), ("run", gate, {})]
    assert waiting(simulation.dispatcher) == {Cause.OTHER: 1}


def test_an_exception_in_the_observer_is_reported_and_affects_no_steps() -> None:
    reports: Reports = []
    simulation = Simulation(lambda *report: reports.append(report))
    done: List[bool] = []

    def observe(run_id: str, wait: Wait) -> None:
        raise ValueError("broken")

    def steps() -> Steps[None]:
        yield Pause(5)
        done.append(True)

    simulation.dispatcher.observe_waits(observe)
    simulation.dispatcher.start(steps(), run_id="run")
    simulation.run()
    assert done == [True]
    assert [(str(error), run_id) for _, error, run_id in reports] == [("broken", "run")]


def iter_steps(*waits: Wait) -> Steps[None]:
    yield from waits


def _after(answer: Answer) -> Any:
    """The first wait of a launch that got an answer."""
    budget = RetryBudget(0, 3600, lambda: 0.0, lambda: 0.5)

    def attempt() -> Steps[None]:
        yield from ()
        raise AWSCallError("RunTask", answer)

    return next(budget.attempts(attempt))


def _outage() -> Any:
    def attempt() -> Steps[None]:
        yield from ()
        raise OSError("refused")

    return next(
        retry_until_success(attempt, OutageLog(logging.getLogger("agent")), "It fails")
    )


def _turn() -> Any:
    """A turn behind as many as the bucket has tokens for."""
    pacer = RateLimiter(LIMITS, lambda: 0.0, lambda seconds, action: None)
    return [pacer.ticket("RunTask") for _ in range(200)][-1]


@pytest.mark.parametrize(
    "wait, cause",
    [
        (lambda: _after(Answer("ThrottlingException", "")), Cause.RATE_LIMIT),
        (lambda: _after(Answer("ServerException", "")), Cause.OUTAGE),
        (lambda: _after(Answer("failures", "RESOURCE:MEMORY")), Cause.CAPACITY),
        (
            lambda: _after(
                Answer(
                    "ClientException",
                    "Too many concurrent attempts to create a new revision",
                )
            ),
            Cause.DEFINITION,
        ),
        (_outage, Cause.OUTAGE),
        (_turn, Cause.RATE_LIMIT),
        (lambda: TaskDefinitionCache().reserve("family")[0], Cause.DEFINITION),
        (lambda: Pause(1), Cause.OTHER),
        (Future, Cause.OTHER),
    ],
)
def test_every_wait_has_its_cause(wait: Any, cause: Cause) -> None:
    dispatcher = Simulation().dispatcher
    dispatcher.start(iter_steps(wait()), run_id="run")
    assert waiting(dispatcher) == {cause: 1}


def test_every_verdict_worth_waiting_for_has_a_cause() -> None:
    assert set(_CAUSES) == WORTH_WAITING


# -- When to look into the queue again ---------------------------------------------

INTERVALS = {0: 0.25, 1: 0.5, 2: 1.0, 3: 10.0}

FAILED, NOTHING, RUNS = None, False, True


@pytest.mark.parametrize(
    "looks, pauses",
    [
        ([NOTHING] * 5, [0.5, 1.0, 2.0, 2.0, 2.0]),
        ([FAILED] * 5, [0.5, 1.0, 10.0, 10.0, 10.0]),
        ([FAILED, FAILED, FAILED, NOTHING, FAILED], [0.5, 1.0, 10.0, 2.0, 10.0]),
        ([FAILED, FAILED, RUNS, FAILED], [0.5, 1.0, 0.25, 0.5]),
        ([RUNS, NOTHING, RUNS], [0.25, 0.5, 0.25]),
    ],
)
def test_poll_interval(looks: Any, pauses: List[float]) -> None:
    rhythm = PollInterval(INTERVALS)
    assert pauses == [
        rhythm.after_failure() if look is FAILED else rhythm.after(look)
        for look in looks
    ]
