"""An AWS on loopback in which ECS tasks really run.

    http        requests in, answers out, connections kept open
    operations  which operation of which service a request asks for
    faults      trouble on purpose
    buckets     AWS's documented request limits
    ecs         ECS in one region: definitions and tasks ours, the rest moto's
    definitions, tasks, placement, idempotency, paging   its operations
    task, lifecycle, timers   a task's record, and its way through its states
    container, running, processes   what a container runs, and running it
    metadata    what a container asks for at its link-local addresses
    neighbours  moto: EC2, S3, IAM, logs, secrets, clusters
    events      what happened, for displays and tests

A request passes through `AWS._answer`: counted, throttled, delayed, spoilt if a
test wants that, and answered by ECS's own rooms or by moto.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Tuple

from . import metadata, operations
from .answers import THROTTLED, Refusal, json_answer, refusal_answer
from .ecs import Model, RegionalECS
from .events import Events, Subscriber
from .faults import Fault, FaultHook
from .http import DropConnection, HttpServer, Request, Response
from .lifecycle import (
    ESSENTIAL_EXITED,
    SPOT_INTERRUPTION,
    BeforeStart,
    Lifecycle,
    Outcome,
    Phases,
    Runner,
    Slots,
)
from .neighbours import SERVED, Moto, Neighbours
from .operations import Operation
from .processes import default_most
from .running import ProcessRunner
from .task import Task, TaskView, view
from .timers import Timers

logger = logging.getLogger(__name__)


class AWS:
    """AWS for one process, on 127.0.0.1 and a free port.

    There can be one at a time in a process, because moto's state belongs to the
    process; starting one begins with an empty account that has an ACTIVE cluster
    `default` and, as every account, a default VPC with subnets. Nothing here calls
    the real AWS, whatever credentials are around.

    What it is not: images are not pulled, roles and rights are not checked, ENIs
    are only shown. Only the `flow` container has a process (`running`).

    Guarantees:
        * Nothing that a task started is alive after the task, or after `stop`.
        * A process sees its container's effective environment and nothing else of
          this process's.
        * A request refused has no effect.

    Args:
        region: Where the default cluster is. Other regions are served, empty.
        runs_tasks: False: tasks go to RUNNING without a process.
        container_environment: What the "image" brings: PATH, HOME, ... The
            task definition's environment and overrides lie over it.
        limits: Refuse with ThrottlingException what is over AWS's documented
            token buckets.
        latency: Seconds to wait before an operation (`ecs.RunTask`) takes effect.
        task_seconds: Without processes: how long a task runs before it exits 0.
            None: until it is stopped.
        max_processes: How many tasks may run at once; further ones wait
            PROVISIONING. By default max(4, 2 x cpus) with processes, without: any
            number.
        phases: How long tasks stay in each state on their way.
        visible_after: Seconds for which DescribeTasks and ListTasks do not know a
            new task (ECS is eventually consistent).
        clock: Seconds that only grow, for the token buckets.
        now: The time of day in seconds since 1970.

    Attributes:
        calls: How often each operation was asked for: `calls["ecs.RunTask"]`.
        throttled: How often each was refused by a token bucket.
        requests: Every request to ECS as (operation, parameters), in order:
            `("ecs.RunTask", {...})`.
        fault: Asked with operation and parameters before each request; its answer,
            if any, is what goes wrong.
        before_start: Asked with the task before it starts; its answer, if any, is
            how it fails (`StartFailure`) or waits (`Hold`).
    """

    _one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        *,
        region: str = "us-east-1",
        runs_tasks: bool = True,
        container_environment: Optional[Mapping[str, str]] = None,
        limits: bool = False,
        latency: Optional[Callable[[str], float]] = None,
        task_seconds: Optional[float] = None,
        max_processes: Optional[int] = None,
        phases: Optional[Phases] = None,
        visible_after: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.region = region
        self.runs_tasks = runs_tasks
        self.container_environment = dict(container_environment or {})
        self.limits = limits
        self.latency = latency
        self.task_seconds = task_seconds
        self.max_processes = max_processes
        self.phases = phases or Phases()
        self.visible_after = visible_after
        self.fault: Optional[FaultHook] = None
        self.before_start: Optional[BeforeStart] = None
        self.calls: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.requests: List[Tuple[str, Dict[str, Any]]] = []
        self._clock = clock
        self._now = now
        self._started = False
        self._counting = threading.Lock()
        self._making_clients = threading.Lock()
        self._session: Any = None
        self._lock = threading.RLock()
        self._regions: Dict[str, RegionalECS] = {}

    # Starting and stopping

    def start(self) -> AWS:
        """Start listening.

        Raises:
            RuntimeError: Another AWS runs in this process.
            ImportError: The `sandbox` extra is not installed.
        """
        if not AWS._one_at_a_time.acquire(blocking=False):
            raise RuntimeError(
                "An AWS runs in this process already; moto has room for one: stop it "
                "before you start another."
            )
        try:
            self._open()
        except BaseException:
            AWS._one_at_a_time.release()
            raise
        self._started = True
        return self

    def _open(self) -> None:
        self._moto = Moto()
        self._model = Model()
        self._server = HttpServer(self._serve)
        self._timers = Timers()
        self._events = Events()
        self._runner = self._make_runner()
        self._lifecycle = Lifecycle(
            lock=self._lock,
            timers=self._timers,
            events=self._events,
            phases=self.phases,
            slots=Slots(self._most_tasks()),
            runner=self._runner,
            released=lambda task: self._neighbours(task).leave(task),
            before_start=self._ask_before_start,
            now=self._now,
        )
        self._region(self.region).neighbours.create_default_cluster()
        self._server.start()

    def stop(self) -> None:
        """Stop listening and kill everything that still runs. Twice is no harm."""
        if not self._started:
            return
        self._started = False
        try:
            self._server.stop()
            self._timers.stop()
            self._runner.close()
            self._events.stop()
        finally:
            AWS._one_at_a_time.release()

    def __enter__(self) -> AWS:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _make_runner(self) -> Runner:
        if not self.runs_tasks:
            return Runner(self._timers, self.task_seconds)
        return ProcessRunner(
            self._lock,
            self._timers,
            self._events,
            self.container_environment,
            self.url,
            self._neighbours,
        )

    def _most_tasks(self) -> Optional[int]:
        if self.max_processes is None and self.runs_tasks:
            return default_most()
        return self.max_processes

    # What tests and displays use

    @property
    def url(self) -> str:
        """The endpoint for every service: `http://127.0.0.1:PORT`."""
        return self._server.url

    def client(self, service: str, **settings: Any) -> Any:
        """A boto3 client of this AWS that knows no other credentials.

        Args:
            service: `ecs`, `s3`, ...
            settings: As for `boto3.client`, `region_name` or `config` say.
        """
        import boto3

        given: Dict[str, Any] = {
            "region_name": self.region,
            "endpoint_url": self.url,
            "aws_access_key_id": "sandbox",
            "aws_secret_access_key": "sandbox",
        }
        with self._making_clients:
            # Kept, because each session reads the service models anew.
            self._session = self._session or boto3.session.Session(
                botocore_session=_nobodys_session()
            )
            return self._session.client(service, **{**given, **settings})

    def tasks(self) -> List[TaskView]:
        """All tasks there were, in the order of their launches, as they are now."""
        with self._lock:
            return [view(task) for task in self._all_tasks()]

    def task(self, task_arn: str) -> TaskView:
        """One task as it is now.

        Raises:
            KeyError: There is no such task.
        """
        with self._lock:
            return view(self._task(task_arn))

    def sent(self, operation: str) -> List[Dict[str, Any]]:
        """The parameters of every request for one of ECS's operations (`RunTask`)."""
        with self._counting:
            return [
                params for name, params in self.requests if name == f"ecs.{operation}"
            ]

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have `subscriber` called with each `TaskChanged` and `LineWritten`."""
        self._events.subscribe(subscriber)

    def interrupt(self, task_arn: str) -> None:
        """Take a Spot task's capacity away: SIGTERM, then SIGKILL after stopTimeout."""
        self._lifecycle.stop(
            self._task(task_arn), SPOT_INTERRUPTION, "Your Spot Task was interrupted."
        )

    def release(self, task_arn: str) -> None:
        """Let a task go on that `before_start` holds PENDING."""
        self._lifecycle.release(self._task(task_arn))

    def finish(
        self,
        task_arn: str,
        exit_code: Optional[int] = 0,
        container_reason: Optional[str] = None,
        stop_code: str = ESSENTIAL_EXITED,
        stopped_reason: str = "Essential container in task exited",
    ) -> None:
        """End a task here and now, whatever its container does.

        Args:
            task_arn: Which task.
            exit_code: Its main container's; 137 with the reason
                "OutOfMemoryError: Container killed due to memory usage", say.
            container_reason: The reason at that container.
            stop_code: The task's stopCode.
            stopped_reason: The task's stoppedReason.
        """
        task = self._task(task_arn)
        self._lifecycle.exited(
            task, exit_code, container_reason, stop_code, stopped_reason
        )
        self._runner.abandon(task)

    def _task(self, task_arn: str) -> Task:
        for region in list(self._regions.values()):
            task = region.tasks.get(task_arn)
            if task is not None:
                return task
        raise KeyError(f"There is no task {task_arn}.")

    def _all_tasks(self) -> List[Task]:
        return [
            task
            for region in list(self._regions.values())
            for task in region.tasks.all()
        ]

    def _neighbours(self, task: Task) -> Neighbours:
        return self._region(task.region).neighbours

    def _region(self, name: str) -> RegionalECS:
        with self._lock:
            if name not in self._regions:
                self._regions[name] = RegionalECS(
                    region=name,
                    lock=self._lock,
                    moto=self._moto,
                    lifecycle=self._lifecycle,
                    limited=self.limits,
                    visible_after=lambda: self.visible_after,
                    clock=self._clock,
                    now=self._now,
                )
            return self._regions[name]

    def _ask_before_start(self, task: TaskView) -> Outcome:
        return self.before_start(task) if self.before_start else None

    # A request's way

    def _serve(self, request: Request) -> Response:
        if request.path.startswith(metadata.PREFIXES):
            return metadata.answer(request.path, self._all_tasks())
        try:
            operation = operations.read(request)
        except Refusal as refusal:
            speaks_json = "x-amz-target" in request.headers
            return refusal_answer("s3", speaks_json, refusal)
        try:
            return self._answer(operation, request)
        except DropConnection:
            raise
        except Refusal as refusal:
            return self._refuse(operation, refusal)
        except Exception as error:
            logger.exception("The sandbox could not answer %s.", operation.full_name)
            return self._refuse(operation, Refusal("InternalFailure", repr(error), 500))

    def _refuse(self, operation: Operation, refusal: Refusal) -> Response:
        if refusal is THROTTLED:
            with self._counting:
                self.throttled[operation.full_name] += 1
        return refusal_answer(operation.service, operation.speaks_json, refusal)

    def _answer(self, operation: Operation, request: Request) -> Response:
        self._count(operation)
        if operation.service == "ecs":
            self._region(operation.region).throttle(operation.name)
        if self.latency:
            time.sleep(self.latency(operation.full_name))
        fault = self._fault(operation)
        if fault is None:
            return self._effect(operation, request)
        time.sleep(fault.delay)
        if fault.changes_answer and not fault.after_effect:
            return _spoilt(fault)
        answer = self._effect(operation, request)
        return _spoilt(fault) if fault.changes_answer else answer

    def _fault(self, operation: Operation) -> Optional[Fault]:
        return self.fault and self.fault(operation.full_name, operation.params)

    def _count(self, operation: Operation) -> None:
        with self._counting:
            self.calls[operation.full_name] += 1
            if operation.service == "ecs":
                self.requests.append((operation.full_name, operation.params))

    def _effect(self, operation: Operation, request: Request) -> Response:
        if operation.service not in SERVED:
            raise Refusal(
                "NotImplemented",
                f"The sandbox does not serve {operation.service}.",
                501,
            )
        if operation.service == "ecs":
            self._model.check(operation.name, operation.params)
            region = self._region(operation.region)
            handler = region.handler(operation.name, operation.params)
            if handler is not None:
                return json_answer(handler(operation.params))
        return self._moto.answer(request)


def _nobodys_session() -> Any:
    """A botocore session that reads no profile and no file of the user's."""
    from botocore.session import Session

    nothing = (None, None, os.devnull, None)
    variables = {"config_file": nothing, "credentials_file": nothing}
    return Session({"profile": (None, None, None, None), **variables})


def _spoilt(fault: Fault) -> Response:
    """What the client gets in place of the answer."""
    if fault.drop_connection:
        raise DropConnection
    if fault.failures is not None:
        return json_answer({"tasks": [], "failures": list(fault.failures)})
    raise fault.refusal()
