"""Tasks in flight are described, at a limited rate, and handed over when stopped."""

from __future__ import annotations

import functools
import json
import logging
import threading
from bisect import bisect_left
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

import pytest
from codes import code_of, codes_of
from deadlines import DEADLINE
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.aws import ecs as ecs_module
from prefect_ecs_plugin.aws.rate_limiter import LIMITS, RateLimiter
from prefect_ecs_plugin.aws.retrying import Answer, AWSCallError
from prefect_ecs_plugin.launch_record import Launch
from prefect_ecs_plugin.monitoring import poll_queue
from prefect_ecs_plugin.monitoring.poll_queue import RUNNING, YOUNG, PollQueue, Watched
from prefect_ecs_plugin.monitoring.watcher import Watcher, _is_about_content
from prefect_ecs_plugin.observability.outage_log import OutageLog
from prefect_ecs_plugin.scheduling.dispatcher import Dispatcher
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps

ARN = "arn:aws:ecs:us-east-1:123456789012:task/{}/{:032x}"


def arns(count: int, cluster: str = "default") -> List[str]:
    return [ARN.format(cluster, number) for number in range(count)]


#: What ECS says about a whole call if one of its tasks is in another cluster.
MISPLACED = "Identifier is for cluster other. Your cluster is default"


class ECS:
    """DescribeTasks, answered to a real client without a socket in between.

    Attributes:
        status: `lastStatus` by task ARN; what is not in it is MISSING.
        more: What is said besides of a task, by its ARN.
        faults: Answers, (status, code), for the next calls; None for a good one.
    misplaced: Tasks of another cluster; a call that names one is refused.
        calls: Time, cluster and tasks of each call.
        latency: Seconds that a call takes.
        during: Called in the middle of each call.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.status: Dict[str, str] = {}
        self.more: Dict[str, Dict[str, Any]] = {}
        self.faults: List[Optional[Tuple[int, str]]] = []
        self.misplaced: Set[str] = set()
        self.calls: List[Tuple[float, str, List[str]]] = []
        self.latency = 0.0
        self.during: Callable[[], None] = lambda: None
        self.client = _client()
        self.client.meta.events.register("before-send.ecs.DescribeTasks", self._answer)

    def _answer(self, request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        asked = json.loads(request.body)
        self.calls.append((self._world.now, asked["cluster"], asked["tasks"]))
        self._world.simulation.now += self.latency
        self.during()
        fault = self.faults.pop(0) if self.faults else None
        status, answer = fault or (200, ""), self._described(asked["tasks"])
        if fault:
            answer = {"__type": fault[1], "message": "on purpose"}
        elif self.misplaced.intersection(asked["tasks"]):
            status = (400, "InvalidParameterException")
            answer = {"__type": status[1], "message": MISPLACED}
        raw = SimpleNamespace(stream=lambda **_: iter([json.dumps(answer).encode()]))
        return AWSResponse(request.url, status[0], {}, raw)

    def close(self) -> None:
        self.client.meta.events.unregister(
            "before-send.ecs.DescribeTasks", self._answer
        )

    def _described(self, names: List[str]) -> Dict[str, Any]:
        return {
            "tasks": [
                {
                    "taskArn": name,
                    "lastStatus": self.status[name],
                    **self.more.get(name, {}),
                }
                for name in names
                if name in self.status
            ],
            "failures": [
                {"arn": name, "reason": "MISSING"}
                for name in names
                if name not in self.status
            ],
        }


@functools.lru_cache(maxsize=None)
def _client() -> Any:
    """A real client; one for all tests, since making one takes a while."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "ecs",
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
        config=Config(retries={"total_max_attempts": 1}),
    )


class RegionalECS(ecs_module.ECS):
    """One client for all regions, which notes the region of each call.

    Attributes:
        regions: The region and the tasks of each call.
    """

    def __init__(self, client: Any, pacer: RateLimiter) -> None:
        super().__init__(client, pacer)
        self.regions: List[Tuple[Optional[str], List[str]]] = []

    def call(self, *args: Any, region: Optional[str] = None, **kwargs: Any) -> Any:
        self.regions.append((region, args[1]["tasks"]))
        return super().call(*args, **kwargs)


class World:
    """A watcher on a simulated clock, and what it hands over.

    Args:
        options: Those of the watcher besides.
    """

    def __init__(self, **options: Any) -> None:
        self.reports: List[str] = []
        self.simulation = Simulation(lambda what, *_: self.reports.append(what))
        self.ecs = ECS(self)
        dispatcher = self.simulation.dispatcher
        self.handed: List[Tuple[float, str, Optional[str]]] = []
        self.handle: Callable[[], Steps[None]] = lambda: iter(())  # type: ignore[assignment,return-value]
        self.pacer = RateLimiter(LIMITS, dispatcher.clock, dispatcher.call_later)
        logger = logging.getLogger("agent")
        self.regional = RegionalECS(self.ecs.client, self.pacer)
        self.outages = OutageLog(logger, dispatcher.clock)
        self.watcher = Watcher(
            ecs=self.regional,
            dispatcher=dispatcher,
            on_stopped=self._on_stopped,
            outages=self.outages,
            logger=logger,
            **options,
        )
        dispatcher.keep_running("watcher", self.watcher.watch)

    def _on_stopped(
        self, watched: Watched, task: Optional[Mapping[str, Any]]
    ) -> Steps[None]:
        status = task["lastStatus"] if task else None
        self.handed.append((self.now, watched.task_arn, status))
        yield from self.handle()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exception: object) -> None:
        self.ecs.close()
        assert self.reports == []

    @property
    def now(self) -> float:
        return self.simulation.now

    def add(
        self, task_arns: List[str], status: str = "RUNNING", **options: Any
    ) -> None:
        for number, arn in enumerate(task_arns):
            self.ecs.status[arn] = status
            cluster = arn.split("/")[1]
            self.watcher.add(arn, cluster, f"run-{number}", **options)

    def run_until(self, then: float) -> None:
        self.simulation.run_until(then)

    def looks_at(self, task_arn: str) -> List[float]:
        return self.looks().get(task_arn, [])

    def looks(self) -> Dict[str, List[float]]:
        looks: Dict[str, List[float]] = {}
        for at, _, names in self.ecs.calls:
            for name in names:
                looks.setdefault(name, []).append(at)
        return looks


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# -- The queue ---------------------------------------------------------------------


@dataclass
class Life:
    """What happens to one task, at which times in seconds; None for never."""

    place: str
    added: float
    status: str
    asked_to_stop: Optional[float]
    forgotten: Optional[float]
    is_refused: bool


lives = st.builds(
    Life,
    place=st.sampled_from(["us-east-1:1:task/a", "us-east-1:1:task/b", "eu:1:task/a"]),
    added=st.floats(0, 60),
    status=st.sampled_from(["PENDING", "RUNNING"]),
    asked_to_stop=st.none() | st.floats(0, 120),
    forgotten=st.none() | st.floats(0, 120),
    is_refused=st.sampled_from([False] * 9 + [True]),
)

SPACING = 0.21


class Looks:
    """A queue that is emptied as the watcher does it.

    Attributes:
        batches: The time and the tasks of each call.
    """

    def __init__(self, lives: List[Life]) -> None:
        self.queue = PollQueue()
        self.names = [
            f"arn:aws:ecs:{life.place}/{number}" for number, life in enumerate(lives)
        ]
        self.lives = dict(zip(self.names, lives))
        self.batches: List[Tuple[float, List[Watched]]] = []
        self.events = sorted(
            (at, what, name)
            for name, life in self.lives.items()
            for what, at in enumerate((life.added, life.asked_to_stop, life.forgotten))
            if at is not None and at >= life.added
        )

    def run(self, until: float) -> None:
        now = 0.0
        while now < until:
            while self.events and self.events[0][0] <= now:
                self._happen(*self.events.pop(0))
            batch = self.queue.take(now, 100)
            if batch:
                self._see(now, batch)
                now += SPACING
            else:
                due = self.queue.next_due()
                times = [
                    until if due is None else due,
                    *(at for at, _, _ in self.events),
                ]
                now = min(max(now, min(times)), until)

    def _happen(self, at: float, what: int, name: str) -> None:
        if what == 0:
            cluster = name.split("/")[1]
            self.queue.add(Watched(name, cluster, "run", Launch()), at)
        elif what == 1:
            self.queue.look_soon(name, at)
        else:
            self.queue.forget(name)

    def _see(self, now: float, batch: List[Watched]) -> None:
        self.batches.append((now, batch))
        for watched in batch:
            life = self.lives[watched.task_arn]
            watched.last_status, watched.is_refused = life.status, life.is_refused
        self.queue.put_back(batch, now)

    def calls_for_all(self) -> int:
        """How many calls it takes to see every task once."""
        count = Counter(
            life.place for life in self.lives.values() if not life.is_refused
        )
        alone = sum(1 for life in self.lives.values() if life.is_refused)
        return sum(-(-tasks // 100) for tasks in count.values()) + alone


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lives, max_size=40), st.integers(1, 9))
def test_law_every_live_task_is_looked_at_in_time(some: List[Life], times: int) -> None:
    looks = Looks(some * times)
    looks.run(180.0)
    slack = SPACING * (looks.calls_for_all() + 1) + 1e-6
    seen: Dict[str, List[float]] = {name: [] for name in looks.names}
    for at, batch in looks.batches:
        assert 1 <= len(batch) <= 100
        assert len({watched.location for watched in batch}) == 1
        assert len({watched.task_arn for watched in batch}) == len(batch)
        for watched in batch:
            seen[watched.task_arn].append(at)
    for name, life in looks.lives.items():
        end = life.forgotten if (life.forgotten or 0) >= life.added else None
        end = 180.0 if end is None else end
        asked = life.asked_to_stop
        assert not [at for at in seen[name] if at > end + SPACING or at < life.added]
        usual = RUNNING if life.status == "RUNNING" or life.is_refused else YOUNG
        if asked is not None and asked >= life.added and not life.is_refused:
            soon = [at for at in (asked, *seen[name], end) if at >= asked]
            assert longest(soon) <= YOUNG + slack
        assert longest([life.added, *seen[name], end]) <= usual + slack


def longest(times: List[float]) -> float:
    """The longest time from one moment to the next."""
    return max((after - seen for seen, after in zip(times, times[1:])), default=0.0)


# -- The pace -----------------------------------------------------------------------


def most_in_a_second(times: List[float]) -> int:
    return max(
        (bisect_left(times, at + 1) - first for first, at in enumerate(times)),
        default=0,
    )


clusters = st.lists(
    st.tuples(st.integers(0, 350), st.sampled_from(["PENDING", "RUNNING"])),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # to shrink an example takes minutes
)
@given(clusters, st.sampled_from([0.0, 0.05, 0.3]))
def test_laws_of_the_pace(groups: List[Tuple[int, str]], latency: float) -> None:
    with World() as world:
        for number, (count, status) in enumerate(groups):
            world.add(arns(count, f"c{number}"), status)
        world.ecs.latency = latency
        world.run_until(120.0)
        looks = world.looks()
    for _, cluster, names in world.ecs.calls:
        assert 1 <= len(names) <= 100
        assert {name.split("/")[1] for name in names} == {cluster}
        assert len(set(names)) == len(names)
    assert most_in_a_second([at for at, _, _ in world.ecs.calls]) <= 5
    sweep = sum(-(-count // 100) for count, _ in groups) * max(0.21, latency)
    for arn, status in world.ecs.status.items():
        times = [0.0, *looks[arn], 120.0]
        longest = max(after - before for before, after in zip(times, times[1:]))
        interval = 30.0 if status == "RUNNING" else 5.0
        assert longest <= interval + sweep + latency + 1e-6


def test_ten_thousand_tasks_at_five_calls_a_second(world: World) -> None:
    world.add(arns(10_000), "PENDING")
    world.run_until(60.0)
    times = [at for at, _, _ in world.ecs.calls]
    assert most_in_a_second(times) == 5
    first_seen = {name: at for at, _, names in world.ecs.calls[:100] for name in names}
    assert len(first_seen) == 10_000
    assert max(first_seen.values()) <= 5 + 100 * 0.21


def test_many_other_calls_do_not_bring_looks_closer(world: World) -> None:
    world.add(arns(2000), "PENDING")
    world.run_until(4.9)
    for _ in range(250):
        world.pacer.ticket("ListTasks")
    world.run_until(30.0)
    times = [at for at, _, _ in world.ecs.calls]
    gaps = [after - before for before, after in zip(times, times[1:])]
    assert max(gaps) > 0.3
    assert min(gaps) >= 0.21 - 1e-9


def test_ten_thousand_running_tasks_cost_less(world: World) -> None:
    world.add(arns(10_000), "RUNNING")
    world.run_until(60.0)
    world.ecs.calls.clear()
    world.run_until(120.0)
    assert 3.0 < len(world.ecs.calls) / 60 < 3.5


def test_a_loop_that_waits_for_the_first_task_holds_no_timer(world: World) -> None:
    steps = world.watcher.until_occupied()
    occupied = next(steps)
    assert isinstance(occupied, Future)
    assert not occupied.done()
    world.add(arns(1), "PENDING")
    assert occupied.done()
    assert list(steps) == []
    assert list(world.watcher.until_occupied()) == []


def test_nothing_in_flight_costs_nothing(world: World) -> None:
    world.run_until(3600.0)
    assert world.ecs.calls == []
    world.add(arns(1), "STOPPED")
    world.run_until(7200.0)
    assert len(world.ecs.calls) == 1
    assert world.simulation.dispatcher.do_due() is None


def test_a_young_task_is_looked_at_more_often_than_a_running_one(world: World) -> None:
    (arn,) = arns(1)
    world.add([arn], "PENDING")
    world.run_until(21.0)
    assert world.looks_at(arn) == [5.0, 10.0, 15.0, 20.0]
    world.ecs.status[arn] = "RUNNING"
    world.run_until(90.0)
    assert world.looks_at(arn)[4:] == [25.0, 55.0, 85.0]


def test_a_look_includes_other_tasks_of_the_cluster(world: World) -> None:
    world.add(arns(50), "RUNNING")
    world.run_until(6.0)
    world.ecs.calls.clear()
    pending = ARN.format("default", 77_777)
    world.add([pending], "PENDING")
    world.run_until(11.5)
    assert [len(names) for _, _, names in world.ecs.calls] == [51]


def test_a_new_task_is_seen_in_time_while_the_watch_sleeps(world: World) -> None:
    old, new = arns(2)
    world.add([old], "RUNNING")
    world.run_until(6.0)  # the next look at it is at 35
    world.add([new], "PENDING")
    world.run_until(12.0)
    assert world.looks_at(new) == [11.0]


@pytest.mark.parametrize("running", [0, 3000])
@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_task_that_was_asked_to_stop_is_looked_at_soon_and_often(
    world: World, running: int, status: str
) -> None:
    world.add(arns(running), "RUNNING")
    arn = ARN.format("default", 99_999)
    world.add([arn], status)
    world.run_until(101.3)
    before = len(world.looks_at(arn))
    world.watcher.look_soon(arn)
    world.watcher.look_soon("unknown")
    world.run_until(131.0)
    looks = [101.3, *world.looks_at(arn)[before:], 131.0]
    assert max(after - seen for seen, after in zip(looks, looks[1:])) <= 5 + 0.21 * 31
    assert looks[1] <= 101.3 + 5 or running
    world.ecs.status[arn] = "STOPPED"
    world.run_until(143.0)
    assert [handed for _, handed, _ in world.handed] == [arn]


def test_a_task_that_was_asked_to_stop_is_seen_within_5_s_among_many(
    world: World,
) -> None:
    world.add(arns(1000), "RUNNING")
    world.run_until(100.0)
    for arn in arns(1000)[::100]:
        world.watcher.look_soon(arn)
    world.run_until(105.0)
    seen = {name for at, _, names in world.ecs.calls if at > 100.0 for name in names}
    assert seen >= set(arns(1000)[::100])


def test_tasks_of_two_regions_are_never_in_one_call(world: World) -> None:
    near, far = arns(150), [arn.replace("us-east-1", "eu-west-1") for arn in arns(150)]
    for number in range(150):
        world.add([near[number], far[number]], "RUNNING")
    world.run_until(7.0)
    assert {region for region, _ in world.regional.regions} == {
        "us-east-1",
        "eu-west-1",
    }
    for region, names in world.regional.regions:
        assert {name.split(":")[3] for name in names} == {region}
    assert world.looks().keys() == {*near, *far}


# -- What has stopped ---------------------------------------------------------------


@pytest.mark.parametrize("running", [0, 3000])
def test_guarantee_2_a_task_that_never_starts_is_handed_over_soon(
    world: World, running: int
) -> None:
    world.add(arns(running, "default"), "RUNNING")
    arn = ARN.format("default", 99_999)
    world.run_until(100.0)
    world.add([arn], "PENDING")
    world.run_until(131.0)
    world.ecs.status[arn] = "STOPPED"
    world.run_until(200.0)
    ((at, handed, status),) = world.handed
    assert (handed, status) == (arn, "STOPPED")
    assert at - 131 <= 15


def test_a_stopped_task_is_handed_over_once_and_then_forgotten(world: World) -> None:
    world.add(arns(2), "RUNNING")
    world.ecs.status[arns(1)[0]] = "STOPPED"
    world.run_until(100.0)
    assert [arn for _, arn, _ in world.handed] == arns(1)
    assert [watched.task_arn for watched in world.watcher.in_flight()] == [arns(2)[1]]


def test_a_task_is_in_flight_while_its_end_is_dealt_with(world: World) -> None:
    world.handle = lambda: iter([Pause(20.0)])  # type: ignore[assignment,return-value]
    world.add(arns(1), "STOPPED")
    world.run_until(10.0)
    (watched,) = world.watcher.in_flight()
    assert watched.is_stopped
    world.run_until(26.0)
    assert len(world.watcher) == 0
    assert len(world.handed) == len(world.ecs.calls) == 1


def test_guarantee_2_a_task_is_handed_over_again_when_that_failed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Iterator[Any]:
        raise RuntimeError("the API is down")
        yield

    world.handle = fail  # type: ignore[assignment]
    world.add(arns(1), "STOPPED")
    world.run_until(10.0)
    world.handle = lambda: iter(())  # type: ignore[assignment,return-value]
    world.run_until(120.0)
    assert [at for at, _, _ in world.handed] == [5.0, 40.0]
    assert len(world.watcher) == 0
    (record,) = caplog.records
    message = record.getMessage()
    assert code_of(message) == "stopped-task-not-handled"
    for value in ("run-0", arns(1)[0], "30 s", "RuntimeError: the API is down"):
        assert value in message


def test_what_is_known_about_a_task(world: World) -> None:
    launch = Launch(attempt=2)
    world.add(arns(1), "PENDING", launch=launch)
    (watched,) = world.watcher.in_flight()
    assert (watched.last_status, watched.has_started) == ("", False)
    world.run_until(6.0)
    assert (watched.last_status, watched.has_started) == ("PENDING", False)
    world.ecs.status[watched.task_arn] = "RUNNING"
    world.run_until(11.0)
    assert (watched.last_status, watched.has_started) == ("RUNNING", True)
    assert watched.launch is launch
    assert watched.flow_run_id == "run-0"


def test_a_forgotten_task_is_neither_looked_at_nor_handed_over(world: World) -> None:
    world.add(arns(1), "STOPPED")
    world.watcher.forget(arns(1)[0])
    world.watcher.forget("unknown")
    world.run_until(60.0)
    assert (world.handed, world.ecs.calls, len(world.watcher)) == ([], [], 0)


def test_a_task_may_be_forgotten_at_the_last_moment(world: World) -> None:
    def forget_all() -> Steps[None]:
        for watched in world.watcher.in_flight():
            world.watcher.forget(watched.task_arn)
        yield Pause(1.0)

    world.handle = forget_all
    world.add(arns(5), "STOPPED")
    world.run_until(60.0)
    assert [arn for _, arn, _ in world.handed] == arns(1)


def test_a_task_may_be_added_twice_and_anew(world: World) -> None:
    world.add(arns(1), "RUNNING")
    world.add(arns(1), "RUNNING")
    assert len(world.watcher) == 1
    world.watcher.forget(arns(1)[0])
    world.add(arns(1), "RUNNING")
    world.run_until(6.0)
    assert [names for _, _, names in world.ecs.calls] == [arns(1)]


# -- MISSING ------------------------------------------------------------------------


def test_a_task_may_be_missing_at_first(world: World) -> None:
    (arn,) = arns(1)
    world.watcher.add(arn, "default", "run-0")
    world.run_until(250.0)
    world.ecs.status[arn] = "RUNNING"
    world.run_until(330.0)
    del world.ecs.status[arn]
    world.run_until(600.0)
    assert world.handed == []


def test_guarantee_2_a_task_that_stays_missing_is_handed_over_as_gone(
    world: World,
) -> None:
    (arn,) = arns(1)
    world.watcher.add(arn, "default", "run-0")
    world.run_until(1000.0)
    assert world.handed == [(305.0, arn, None)]


def test_the_tasks_of_a_deleted_cluster_are_gone(world: World) -> None:
    world.add(arns(3), "RUNNING")
    world.ecs.faults = [(400, "ClusterNotFoundException")] * 1000
    world.run_until(1000.0)
    assert sorted(arn for _, arn, _ in world.handed) == arns(3)
    assert {status for _, _, status in world.handed} == {None}


# -- A task because of which ECS refuses a call ---------------------------------------


@pytest.mark.parametrize("bad", [[17], [17, 18, 140], [0, 99, 100, 199], range(3)])
def test_a_task_that_ecs_refuses_is_described_alone_and_the_others_together(
    world: World, bad: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    names = arns(200)
    world.ecs.misplaced = {names[number] for number in bad}
    world.add(names, "RUNNING")
    world.run_until(5.0 + 0.21 * 2 * 7 * 2 * len(bad))
    seen = {
        watched.task_arn for watched in world.watcher.in_flight() if watched.last_status
    }
    assert seen == set(names) - world.ecs.misplaced
    world.run_until(280.0)
    assert world.handed == []
    messages = [record.getMessage() for record in caplog.records]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert codes_of(messages) == ["task-unreadable"] * len(bad)
    for number in bad:
        (message,) = [each for each in messages if names[number] in each]
        assert f"run-{number}:" in message
        assert MISPLACED in message


def test_a_task_that_ecs_refuses_costs_one_call_per_look(
    world: World,
) -> None:
    world.ecs.misplaced = set(arns(1))
    world.add(arns(100), "RUNNING")
    world.run_until(50.0)
    world.ecs.calls.clear()
    world.run_until(200.0)
    assert [len(names) for _, _, names in world.ecs.calls].count(1) == 5
    assert len(world.ecs.calls) == 10


def test_a_task_that_ecs_refuses_for_long_is_handed_over_as_gone(
    world: World,
) -> None:
    world.ecs.misplaced = {arns(100)[42]}
    world.add(arns(100), "RUNNING")
    world.run_until(2000.0)
    ((at, arn, status),) = world.handed
    assert (arn, status) == (arns(100)[42], None)
    assert 305 <= at <= 340
    assert len(world.watcher) == 99


def test_a_task_that_ecs_refused_for_a_while_is_described_with_the_others_again(
    world: World,
) -> None:
    world.ecs.misplaced = {arns(100)[42]}
    world.add(arns(100), "RUNNING")
    world.run_until(100.0)
    world.ecs.misplaced = set()
    world.run_until(200.0)
    world.ecs.calls.clear()
    world.run_until(500.0)
    assert [len(names) for _, _, names in world.ecs.calls] == [100] * 10
    assert world.handed == []


@pytest.mark.parametrize(
    "fault",
    [
        (503, "ServiceUnavailable"),
        (400, "ThrottlingException"),
        (400, "ExpiredTokenException"),
        (400, "AccessDeniedException"),
        (400, "ClusterNotFoundException"),
        (400, "UnknownException"),
        (408, "RequestTimeout"),
    ],
)
def test_what_is_not_about_the_request_does_not_split_it(
    world: World, fault: Tuple[int, str]
) -> None:
    world.add(arns(100), "RUNNING")
    world.ecs.faults = [fault] * 1000
    world.run_until(60.0)
    assert {len(names) for _, _, names in world.ecs.calls} == {100}


@pytest.mark.parametrize(
    "code, message, splits",
    [
        ("InvalidParameterException", MISPLACED, True),
        ("ClientException", "taskId length should be one of [32,36]", True),
        ("InvalidParameterException", "Rate exceeded (ErrorCode: Throttling)", False),
        ("ReadTimeoutError", "", False),
        ("ConnectTimeoutError", "", False),
        ("EndpointConnectionError", "", False),
        ("NoCredentialsError", "", False),
        ("AccessDeniedException", "", False),
        ("ClusterNotFoundException", "", False),
    ],
)
def test_which_answers_split_a_call(code: str, message: str, splits: bool) -> None:
    refused = AWSCallError("DescribeTasks", Answer(code, message))
    assert _is_about_content(refused) is splits


def test_an_outage_ends_the_search_for_a_refused_task_and_loses_none(
    world: World,
) -> None:
    refused = (400, "InvalidParameterException")
    world.add(arns(100), "RUNNING")
    world.ecs.faults = [refused, refused, *[(503, "ServiceUnavailable")] * 2]
    world.run_until(7.0)
    assert [len(names) for _, _, names in world.ecs.calls] == [100, 50, 25]
    world.run_until(60.0)
    assert world.looks().keys() == set(arns(100))
    assert len(world.watcher) == 100


def test_no_exception_loses_a_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        monkeypatch.undo()
        raise RuntimeError("a mistake")

    monkeypatch.setattr(world.outages, "end", fail)
    world.add(arns(150), "RUNNING")
    world.ecs.status[arns(1)[0]] = "STOPPED"
    world.run_until(60.0)
    (report,) = world.reports
    assert "loop watcher" in report
    world.reports.clear()
    assert world.looks().keys() == set(arns(150))
    assert [arn for _, arn, _ in world.handed] == arns(1)
    assert len(world.watcher) == 149


# -- Outages ------------------------------------------------------------------------

FAULTS = [
    (503, "ServiceUnavailable"),
    (400, "ThrottlingException"),
    (400, "ExpiredTokenException"),
    (400, "AccessDeniedException"),
    (400, "UnknownException"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_logged_once_and_once_when_it_is_over(
    world: World, fault: Tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.add(arns(1), "RUNNING")
    world.ecs.faults = [fault] * 12
    world.run_until(900.0)
    begun, ended = [record.getMessage() for record in caplog.records]
    assert "in cluster default (us-east-1): DescribeTasks failed because " in begun
    assert f"{fault[1]}: on purpose" in begun
    assert "over after" in ended


def test_an_outage_makes_pauses_longer_until_it_is_over(world: World) -> None:
    world.add(arns(100), "RUNNING")
    world.ecs.faults = [(503, "ServiceUnavailable")] * 8
    world.run_until(300.0)
    times = [at for at, _, _ in world.ecs.calls]
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert pauses == pytest.approx([5, 5, 5, 8, 15, 15, 15, 15] + [30] * 7)


def test_after_an_outage_every_task_is_described_again(world: World) -> None:
    world.add(arns(350), "RUNNING")
    world.ecs.faults = [(503, "ServiceUnavailable")] * 20
    world.run_until(180.0)
    world.ecs.calls.clear()
    world.run_until(700.0)
    assert len(world.looks()) == 350


def test_each_kind_of_failure_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.add(arns(1), "RUNNING")
    world.ecs.faults = FAULTS[:3] * 3  # type: ignore[assignment]
    world.run_until(600.0)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


def test_a_few_throttles_are_not_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.add(arns(1), "RUNNING")
    throttle = (400, "ThrottlingException")
    world.ecs.faults = [throttle, throttle, throttle, None] * 5
    world.run_until(900.0)
    assert world.ecs.faults == []
    assert caplog.records == []


def test_an_outage_of_a_cluster_ends_with_its_last_task(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        world.add(arns(2), "RUNNING")
        world.ecs.faults = [(400, "AccessDeniedException")] * 1000
        world.run_until(world.now + 60.0)
        for arn in arns(2):
            world.watcher.forget(arn)
        world.run_until(world.now + 60.0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"] * 2


def test_the_last_task_of_a_cluster_may_be_forgotten_during_a_call(
    world: World,
) -> None:
    world.add(arns(1, "bad"), "RUNNING")
    world.ecs.during = lambda: world.watcher.forget(arns(1, "bad")[0])
    world.ecs.faults = [(503, "ServiceUnavailable")]
    world.run_until(60.0)
    world.ecs.during = lambda: None
    world.add(arns(1), "RUNNING")
    world.run_until(120.0)
    assert world.looks_at(arns(1)[0]) == [65.0, 95.0]


def test_an_outage_in_one_cluster_does_not_delay_another(world: World) -> None:
    (bad,), (good,) = arns(1, "bad"), arns(1, "good")
    world.add([bad], "PENDING")
    world.run_until(0.3)
    world.add([good], "PENDING")
    world.ecs.faults = [
        (400, "AccessDeniedException") if number % 2 == 0 else None
        for number in range(2)
    ]
    world.run_until(7.0)
    assert len(world.looks_at(good)) == 1


def test_an_outage_of_many_clusters_is_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(5):
        world.add(arns(1, f"c{number}"), "PENDING")
    world.ecs.faults = [(503, "ServiceUnavailable")] * 20
    world.run_until(180.0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_throttle_slows_the_rate_limiter_down(world: World) -> None:
    world.add(arns(1), "RUNNING")
    world.ecs.faults = [(400, "ThrottlingException")]
    before = world.pacer.pace("DescribeTasks")
    world.run_until(5.5)
    assert world.pacer.pace("DescribeTasks") == before / 2


@pytest.mark.parametrize(
    "answer", [{}, {"tasks": [{}]}, {"tasks": "x"}, {"tasks": [], "failures": [{}]}]
)
def test_malformed_answers_end_neither_the_watch_nor_any_task(
    world: World, answer: Dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    world.add(arns(1), "RUNNING")
    events, malformed = world.ecs.client.meta.events, [answer] * 100

    def spoil(parsed: Any, **_: Any) -> None:
        if malformed:
            parsed.clear()
            parsed.update(malformed.pop())

    events.register("after-call.ecs.DescribeTasks", spoil)
    caplog.set_level(logging.INFO)
    world.run_until(900.0)
    malformed.clear()
    world.run_until(960.0)
    events.unregister("after-call.ecs.DescribeTasks", spoil)
    begun, _ = [record.getMessage() for record in caplog.records]
    assert "in cluster default (us-east-1): DescribeTasks failed because AWS " in begun
    assert world.handed == []


def test_a_task_that_ecs_does_not_mention_is_looked_at_again(world: World) -> None:
    world.add(arns(1), "RUNNING")

    def say_nothing(parsed: Any, **_: Any) -> None:
        parsed.update(tasks=[], failures=[])

    events = world.ecs.client.meta.events
    events.register("after-call.ecs.DescribeTasks", say_nothing)
    world.run_until(900.0)
    events.unregister("after-call.ecs.DescribeTasks", say_nothing)
    assert (world.handed, len(world.watcher)) == ([], 1)


# -- Threads, the sandbox's ECS -------------------------------------------


def test_with_threads_and_the_strict_ecs(
    aws: Any,
    client_of: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poll_queue, "YOUNG", 0.1)
    ecs = client_of("ecs")
    subnets = client_of("ec2").describe_subnets()["Subnets"]
    network = {"awsvpcConfiguration": {"subnets": [subnets[0]["SubnetId"]]}}
    ecs.register_task_definition(
        family="x",
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "flow", "image": "x"}],
    )
    tasks = ecs.run_task(
        taskDefinition="x",
        launchType="FARGATE",
        networkConfiguration=network,
        count=3,
    )["tasks"]
    handed: Dict[str, Any] = {}
    seen = threading.Event()

    def on_stopped(watched: Watched, task: Any) -> Steps[None]:
        yield Pause(0)
        handed[watched.task_arn] = task
        seen.set()

    dispatcher = Dispatcher.threaded(2, lambda *report: None)
    logger = logging.getLogger("agent")
    paced = ecs_module.ECS(
        ecs, RateLimiter(LIMITS, dispatcher.clock, dispatcher.call_later)
    )
    watcher = Watcher(
        ecs=paced,
        dispatcher=dispatcher,
        on_stopped=on_stopped,
        outages=OutageLog(logger),
        logger=logger,
    )
    dispatcher.start(watcher.watch())
    aws.finish(tasks[1]["taskArn"], 137)
    for task in tasks:
        watcher.add(task["taskArn"], "default", "run")
    assert seen.wait(DEADLINE)
    dispatcher.interrupt()
    assert dispatcher.wait_until_done(DEADLINE)
    dispatcher.close()
    (described,) = handed.values()
    assert described["taskArn"] == tasks[1]["taskArn"]
    assert described["stopCode"] == "EssentialContainerExited"
    assert len(watcher) == 2
    assert caplog.records == []
