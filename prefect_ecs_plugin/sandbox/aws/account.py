"""The account: its regions, and the one machinery that moves tasks in all of them."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional

from prefect_ecs_plugin.sandbox import access

from .ecs import RegionalECS
from .events import Events
from .lifecycle import BeforeStart, Lifecycle, Phases, Runner, Slots
from .neighbours import Moto, OtherServices
from .processes import default_most
from .running import ProcessRunner
from .task import Task
from .timers import Timers


@dataclass(frozen=True)
class Settings:
    """What an account is started with; `AWS` says what each means."""

    region: str
    access_key: str
    secret_key: str
    runs_tasks: bool
    container_environment: Mapping[str, str]
    limits: bool
    task_seconds: Optional[float]
    max_processes: Optional[int]
    phases: Phases
    clock: Callable[[], float]
    now: Callable[[], float]

    @property
    def most_tasks(self) -> Optional[int]:
        """How many tasks may be past PROVISIONING, None: any number."""
        if self.max_processes is None and self.runs_tasks:
            return default_most()
        return self.max_processes


class Account:
    """An account that starts empty but for the cluster `default`.

    Args:
        settings: What it is started with.
        url: Where its containers find their metadata, and AWS.
        events: Told what happens.
        before_start: Asked before a task leaves PENDING.
        visible_after: How many seconds a new task is MISSING.

    Attributes:
        lock: Held whenever a task is changed.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        events: Events,
        before_start: BeforeStart,
        visible_after: Callable[[], float],
    ) -> None:
        self.lock = threading.RLock()
        self.moto = Moto()
        self._settings = settings
        self._url = url
        self._events = events
        self._visible_after = visible_after
        self._regions: Dict[str, RegionalECS] = {}
        self._timers = Timers()
        self.runner = self._make_runner()
        self.lifecycle = self._make_lifecycle(before_start)
        with ExitStack() as closing:
            closing.callback(self.close)
            self.region(settings.region).neighbours.create_default_cluster()
            closing.pop_all()

    def close(self) -> None:
        """Kill everything that still runs."""
        self._timers.stop()
        self.runner.close()

    def region(self, name: str) -> RegionalECS:
        """ECS in that region.

        Raises:
            Refusal: There is no such region.
        """
        with self.lock:
            if name not in self._regions:
                self._regions[name] = RegionalECS(
                    region=name,
                    lock=self.lock,
                    moto=self.moto,
                    lifecycle=self.lifecycle,
                    limited=self._settings.limits,
                    visible_after=self._visible_after,
                    clock=self._settings.clock,
                    now=self._settings.now,
                )
            return self._regions[name]

    def knows_key(self, access_key: str) -> bool:
        """Whether requests may be signed with this key: the session's own, or one that
        its STS or IAM has issued."""
        if access.same(access_key, self._settings.access_key):
            return True
        return self.moto.has_issued(access_key)

    def credentials(self) -> Dict[str, str]:
        """What the containers of a task with a role get."""
        return {
            "AccessKeyId": self._settings.access_key,
            "SecretAccessKey": self._settings.secret_key,
        }

    def tasks(self) -> List[Task]:
        """Every task there was, in the order of their launches."""
        regions = list(self._regions.values())
        return [task for region in regions for task in region.tasks.all()]

    def task(self, arn: str) -> Task:
        """A task by its ARN.

        Raises:
            KeyError: There is no such task.
        """
        for region in list(self._regions.values()):
            task = region.tasks.get(arn)
            if task is not None:
                return task
        raise KeyError(f"There is no task {arn}.")

    def _make_runner(self) -> Runner:
        if not self._settings.runs_tasks:
            return Runner(self._timers, self._settings.task_seconds)
        return ProcessRunner(
            self.lock,
            self._timers,
            self._events,
            self._settings.container_environment,
            self._url,
            self._neighbours,
        )

    def _make_lifecycle(self, before_start: BeforeStart) -> Lifecycle:
        return Lifecycle(
            lock=self.lock,
            timers=self._timers,
            events=self._events,
            phases=self._settings.phases,
            slots=Slots(self._settings.most_tasks),
            runner=self.runner,
            released=lambda task: self._neighbours(task).leave(task),
            before_start=before_start,
            now=self._settings.now,
        )

    def _neighbours(self, task: Task) -> OtherServices:
        return self.region(task.region).neighbours
