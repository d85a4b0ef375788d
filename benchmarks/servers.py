"""The sandbox's Prefect API and AWS, each in a process of its own.

So the agents' CPU is measured apart from theirs, and neither server waits for the
other's lock. Values that cross the border are plain.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple
from urllib.parse import urlsplit

from .wire import Relay

#: How long tasks run.
TASK_SECONDS = 5.0

#: The variable in a task's environment that says which run it is for.
_RUN_ID = "PREFECT__CONTEXT__FLOW_RUN_ID"


@dataclass(frozen=True)
class Latencies:
    """Seconds that answers take; the defaults are typical of AWS and a Cloud API."""

    run_task: float = 0.4
    register: float = 0.15
    other: float = 0.05
    api: float = 0.03

    def of(self, operation: str) -> float:
        """An AWS operation's, named `ecs.RunTask`."""
        known = {
            "ecs.RunTask": self.run_task,
            "ecs.RegisterTaskDefinition": self.register,
        }
        return known.get(operation, self.other)


NO_LATENCY = Latencies(0.0, 0.0, 0.0, 0.0)


_SUCCESS = {"type": "Success", "message": "The flow has run."}


class API:
    """A Prefect API and the runs in it, which succeed as soon as they are launched.

    Args:
        latencies: How long its answers take.
        counts_bytes: Whether agents reach it through a relay that counts.
        https: Whether agents reach it over HTTPS.
    """

    def __init__(self, latencies: Latencies, counts_bytes: bool, https: bool) -> None:
        from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI

        self._api = PrefectAPI(latency=latencies.api).start()
        self._project = self._api.store.create_project("benchmarks")
        self._launched: Set[str] = set()
        self._failed: Dict[str, str] = {}
        self._api.subscribe(self._heard)
        self._claim: Dict[str, Any] = {}
        self._first_look = 0.0
        self._api.fault = self._note
        self._url = urlsplit(self._api.url)
        self._certificate = ""
        if https:
            from . import tls

            context, self._certificate = tls.on_loopback()
            relay = Relay(self._url.port or 0, context)
            self._url = self._url._replace(
                scheme="https", netloc=f"127.0.0.1:{relay.port}"
            )
        self._relay: Optional[Relay] = None
        if counts_bytes:
            self._relay = Relay(self._url.port or 0)
            self._url = self._url._replace(netloc=f"127.0.0.1:{self._relay.port}")

    def url(self) -> str:
        return self._url.geturl()

    def certificate(self) -> str:
        """What agents have to trust, in PEM; empty without HTTPS."""
        return self._certificate

    def cpu(self) -> float:
        """Seconds of CPU of this server's process."""
        return time.process_time()

    def bytes(self) -> int:
        """What went over the wire, both ways; 0 if nothing counts it."""
        return self._relay.bytes if self._relay else 0

    def calls(self) -> Dict[str, int]:
        """How often each root field was asked for."""
        return dict(self._api.calls)

    def register(self, flows: int) -> List[str]:
        """Register flows that differ in their image, and so in their definition."""
        return [
            self._api.store.create_flow(self._project, _flow(number))
            for number in range(flows)
        ]

    def create_runs(
        self, flow_ids: List[str], count: int, due: float, labels: Sequence[str] = ()
    ) -> List[str]:
        """Create runs of these flows in turn, due at a moment in seconds since 1970."""
        start = datetime.fromtimestamp(due, timezone.utc)
        return [
            self._api.store.create_flow_run(
                flow_ids[number % len(flow_ids)],
                scheduled_start_time=start,
                labels=list(labels),
            )
            for number in range(count)
        ]

    def ended(self) -> int:
        """How many runs are launched, as the agent's line in their log says, or
        Failed."""
        return len(self._launched | set(self._failed))

    def failures(self) -> Dict[str, str]:
        """Why runs failed, by id."""
        return dict(self._failed)

    def claim(self) -> Dict[str, Any]:
        """The first change of a flow run's state that was asked for."""
        return self._claim

    def first_look(self) -> float:
        """When the queue was first looked at, on the monotonic clock; 0.0: not yet."""
        return self._first_look

    def _note(self, operation: str, arguments: Dict[str, Any]) -> None:
        """Asked before each request, until the first claim has come."""
        if operation == "get_runs_in_queue":
            self._first_look = self._first_look or time.monotonic()
        elif operation == "set_flow_run_states":
            self._claim = arguments["input"]["states"][0]
            self._api.fault = None

    def _heard(self, event: Any) -> None:
        message = event.message or ""
        if message.startswith("Submitted for execution: "):
            self._launched.add(event.flow_run_id)
            # As the flow's own process would; its task ends `TASK_SECONDS` later.
            self._api.store.set_flow_run_state(event.flow_run_id, _SUCCESS)
        elif getattr(event, "state", "") == "Failed":
            self._failed[event.flow_run_id] = message


def _flow(number: int) -> Dict[str, Any]:
    return {
        "name": f"flow-{number}",
        "parameters": [],
        "tasks": [{"name": "work", "slug": "work-1"}],
        "edges": [],
        "storage": {
            "type": "Local",
            "__version__": "1.4.1",
            "directory": "/flows",
            "flows": {f"flow-{number}": f"/flows/{number}.prefect"},
            "secrets": [],
        },
        "run_config": {
            "type": "ECSRun",
            "__version__": "1.4.1",
            "image": f"example/flow:{number}",
            "env": {"STAGE": "benchmark"},
            "labels": [],
            "cpu": "512",
            "memory": "1024",
            "task_definition": None,
            "task_definition_arn": None,
            "task_definition_path": None,
            "task_role_arn": None,
            "execution_role_arn": "arn:aws:iam::123456789012:role/execution",
            "run_task_kwargs": None,
        },
        "__version__": "1.4.1",
    }


class AWS:
    """An AWS whose tasks have no processes.

    Args:
        latencies: How long its answers take.
        limits: Whether AWS's documented request limits hold.
        refused_for: Seconds from the first RunTask for which there is no capacity.
    """

    def __init__(self, latencies: Latencies, limits: bool, refused_for: float) -> None:
        from prefect_ecs_plugin.sandbox import aws

        self._aws = aws.AWS(
            runs_tasks=False,
            limits=limits,
            latency=latencies.of,
            task_seconds=TASK_SECONDS,
        )
        self._run_task: Dict[str, Any] = {}
        self._aws.fault = (
            _NoCapacity(refused_for) if refused_for else self._note_run_task
        )
        self._aws.start()

    def url(self) -> str:
        return self._aws.url

    def cpu(self) -> float:
        """Seconds of CPU of this server's process."""
        return time.process_time()

    def access_key(self) -> Tuple[str, str]:
        """The access key that it answers to: id and secret."""
        return self._aws.access_key, self._aws.secret_key

    def calls(self) -> Dict[str, int]:
        """How often each operation was asked for, `ecs.RunTask`."""
        return dict(self._aws.calls)

    def throttled(self) -> int:
        """How many requests were over a limit."""
        return sum(self._aws.throttled.values())

    def run_task(self) -> Dict[str, Any]:
        """The latest RunTask request."""
        return self._run_task

    def _note_run_task(self, operation: str, params: Dict[str, Any]) -> None:
        if operation == "ecs.RunTask":
            self._run_task = params

    def starts(self) -> List[Tuple[str, float]]:
        """For each task the id of its run, and when it was created."""
        return [(_run_of(task), task.created_at) for task in self._aws.tasks()]


class _NoCapacity:
    """Makes RunTask find no capacity for a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: Optional[float] = None
        self._lock = threading.Lock()

    def __call__(self, operation: str, params: Dict[str, Any]) -> Any:
        from prefect_ecs_plugin.sandbox.aws import Fault

        if operation != "ecs.RunTask":
            return None
        now = time.monotonic()
        with self._lock:
            self._until = self._until or now + self._seconds
        reason = "Capacity is unavailable at this time. Please try again later"
        return Fault(failures=[{"reason": reason}]) if now < self._until else None


def _run_of(task: Any) -> str:
    for container in task.description["overrides"]["containerOverrides"]:
        for entry in container.get("environment", ()):
            if entry["name"] == _RUN_ID:
                return str(entry["value"])
    return ""


class _Manager(BaseManager):
    """Makes one of these servers in a new process and talks to it."""

    API: Callable[[Latencies, bool, bool], API]
    AWS: Callable[[Latencies, bool, float], AWS]


#: Imported once instead of for each measurement; moto takes its time.
_PRELOADED = [
    "prefect_ecs_plugin.sandbox.aws.server",
    "prefect_ecs_plugin.sandbox.prefect_api",
]

_Manager.register("API", API)
_Manager.register("AWS", AWS)


@contextmanager
def serving(
    latencies: Latencies,
    limits: bool = False,
    refused_for: float = 0.0,
    counts_bytes: bool = False,
    https: bool = False,
) -> Iterator[Tuple[API, AWS]]:
    """Both servers, new and empty, until the end of the block."""
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _Manager(ctx=context) as first, _Manager(ctx=context) as second:
        api = first.API(latencies, counts_bytes, https)
        yield api, second.AWS(latencies, limits, refused_for)
