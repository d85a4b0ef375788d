"""An AWS on loopback in which ECS tasks really run.

operations  which operation of which service a request asks for
dispatch    a request is counted, throttled, delayed, spoilt by a fault, responded to
responses   refusals in the shape of each service, pages, faults
buckets     AWS's documented request limits
ecs_limits  what RegisterTaskDefinition and RunTask refuse
account     the regions, ECS in each of them, and what moves tasks in all of them
definitions, tasks, placement   its operations
task, lifecycle   a task's record and events, and its way through its states
container, running   what a container runs and finds, and running it
other_services   moto: EC2, S3, IAM, logs, secrets, clusters
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any, ClassVar, Dict, List, Optional, Tuple

from ..http_server import HttpServer
from .account import Account, Settings
from .dispatch import CallLog, Dispatcher
from .lifecycle import ESSENTIAL_EXITED, SPOT_INTERRUPTION
from .task import Events, Subscriber, TaskView, view


class AWS(Settings):
    """AWS for one process, on 127.0.0.1 and a free port.

    There can be one at a time in a process, because moto's state belongs to the
    process; starting one begins with an empty account that has an ACTIVE cluster
    `default` and, as every account, a default VPC with subnets and an internet
    gateway. Nothing here calls the real AWS, whatever credentials are around.

    What it is not: images are not pulled, roles and rights are not checked, ENIs
    are only shown. Only the `flow` container has a process (`running`).

    Guarantees:
        * Nothing that a task started is alive after the task, or after `stop`.
        * A process sees its container's effective environment and nothing else of
          this process's.
        * A request refused has no effect.
        * Only requests with this AWS's access key are answered, and none that a web
          page can send (`access`).

    Its arguments and attributes are those of `Settings`.
    """

    _one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._calls = CallLog()
        self._subscribers: List[Subscriber] = []
        self._stopping = ExitStack()
        self._session: Any = None
        self._session_lock = threading.Lock()

    # Starting and stopping

    def start(self) -> AWS:
        """Start listening.

        Raises:
            RuntimeError: Another AWS runs in this process.
            ImportError: The `sandbox` extra is not installed.
        """
        if not AWS._one_at_a_time.acquire(blocking=False):
            raise RuntimeError(
                "An AWS runs in this process already; moto serves one only: stop it "
                "before you start another."
            )
        with ExitStack() as stopping:
            stopping.callback(AWS._one_at_a_time.release)
            self._open(stopping)
            self._stopping = stopping.pop_all()
        return self

    def _open(self, stopping: ExitStack) -> None:
        events = Events(self._subscribers)
        stopping.callback(events.stop)
        self._server = HttpServer()
        self._account = Account(self, self._server.url, events)
        stopping.callback(self._account.close)
        dispatcher = Dispatcher(self._account, self._calls)
        self._server.start(dispatcher)
        stopping.callback(self._server.stop)

    def stop(self) -> None:
        """Stop listening and kill what still runs; it may be called twice."""
        self._stopping.close()

    def __enter__(self) -> AWS:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

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
        given: Dict[str, Any] = {
            "region_name": self.region,
            "endpoint_url": self.url,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
        }
        # Kept, because each session reads all models anew; not safe in two threads.
        with self._session_lock:
            self._session = self._session or _session_without_files()
            return self._session.client(service, **{**given, **settings})

    def tasks(self) -> List[TaskView]:
        """All tasks there were, in the order of their launches, as they are now."""
        with self._account.lock:
            return [view(task) for task in self._account.tasks()]

    def task(self, task_arn: str) -> TaskView:
        """One task as it is now.

        Raises:
            KeyError: There is no such task.
        """
        with self._account.lock:
            return view(self._account.task(task_arn))

    @property
    def calls(self) -> Counter[str]:
        """How often each operation was asked for: `calls["ecs.RunTask"]`."""
        return self._calls.calls

    @property
    def throttled(self) -> Counter[str]:
        """How often each was refused by a token bucket."""
        return self._calls.throttled

    @property
    def requests(self) -> List[Tuple[str, Dict[str, Any]]]:
        """Every request to ECS in order: `("ecs.RunTask", {...})`."""
        return self._calls.requests

    def sent(self, operation: str) -> List[Dict[str, Any]]:
        """The parameters of every request for one of ECS's operations (`RunTask`)."""
        return self._calls.sent(operation)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have `subscriber` called with each `TaskChanged` and `LineWritten`.

        They come in order, on a thread of their own, before or after `start`.
        """
        self._subscribers.append(subscriber)

    def make_up_secret(self, value_from: str, value: str) -> None:
        """Let tasks get a value for a `valueFrom` of an account that is not here."""
        self._account.moto.made_up_secrets[value_from] = value

    def make_bucket(self, name: str) -> None:
        """Create an S3 bucket that an account has which is not here."""
        self._account.moto.make_bucket(name)

    def interrupt(self, task_arn: str) -> None:
        """Take a Spot task's capacity away: SIGTERM, then SIGKILL after stopTimeout."""
        self._account.lifecycle.stop(
            self._account.task(task_arn),
            SPOT_INTERRUPTION,
            "Your Spot Task was interrupted.",
        )

    def release(self, task_arn: str) -> None:
        """Let a task go on that `before_start` holds PENDING."""
        self._account.lifecycle.release(self._account.task(task_arn))

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
        task = self._account.task(task_arn)
        self._account.lifecycle.exited(
            task, exit_code, container_reason, stop_code, stopped_reason
        )
        self._account.runner.abandon(task)


def _session_without_files() -> Any:
    """A boto3 session that reads no profile and no file of the user's."""
    import boto3
    from botocore.session import Session

    nothing = (None, None, os.devnull, None)
    variables = {"config_file": nothing, "credentials_file": nothing}
    session = Session({"profile": (None, None, None, None), **variables})
    return boto3.session.Session(botocore_session=session)
