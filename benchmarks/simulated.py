"""The whole agent on a clock that jumps, with the sandbox's API and an ECS with limits.

The agent is the real `ECSAgent` with all its components; its dispatcher is that of a
`Simulation`. Its requests go to the sandbox's API in this process, through the real
GraphQL, without HTTP. ECS is a stand-in for the boto3 client: AWS's documented request
limits, clientTokens, pages of 100, tasks that start, run and stop.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Counter, Dict, Iterator, List, Optional, Tuple

import pendulum
import requests
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin import agent as agents
from prefect_ecs_plugin.agent import ECSAgent
from prefect_ecs_plugin.prefect_api.client import AgentClient
from prefect_ecs_plugin.sandbox.aws.buckets import Limits
from prefect_ecs_plugin.sandbox.prefect_api import Store
from prefect_ecs_plugin.sandbox.prefect_api.graphql_request import Request
from prefect_ecs_plugin.sandbox.prefect_api.resolvers import Caller
from prefect_ecs_plugin.scheduling.dispatcher import Dispatcher, OnWait
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps

#: When simulations begin, in seconds since 1970.
EPOCH = 1_790_000_000.0

#: Seconds from a task's creation to its start, from StopTask to its end, and of a flow
#: that the API does not answer to its next attempt.
STARTS_AFTER, STOPS_AFTER, ASKS_AGAIN = 20.0, 10.0, 10.0

#: Seconds between two heartbeats of an agent.
_HEARTBEAT = 15.0

#: Seconds between two looks whether the poller was woken.
_WAKES = 0.25

_ACCOUNT = "arn:aws:ecs:us-east-1:123456789012"


@dataclass(frozen=True)
class Query:
    """One request to the API.

    Attributes:
        field: The first root field that it asks for.
        rows: How many rows the answer has at its top.
        sent: Bytes of the request.
        received: Bytes of the answer.
    """

    field: str
    rows: int
    sent: int
    received: int


class API:
    """The sandbox's API, asked without HTTP.

    Args:
        simulation: Tells the time.
        latency: See below.
        locks_submitted: As for the sandbox's.

    Attributes:
        store: Its rows.
        latency: Seconds that a request takes. The clock jumps by it, as if nothing
            else happened meanwhile.
        queries: All requests that were answered.
        is_down: Whether it cannot be reached.
    """

    def __init__(
        self, simulation: Simulation, latency: float, locks_submitted: bool
    ) -> None:
        self._simulation = simulation
        self.latency = latency
        self.store = Store(
            locks_submitted=locks_submitted,
            clock=lambda: datetime.fromtimestamp(EPOCH + simulation.now, timezone.utc),
        )
        self.queries: List[Query] = []
        self.is_down = False

    def answer(
        self, params: Dict[str, Any], headers: Dict[str, str]
    ) -> requests.Response:
        """Answer as the server does.

        Raises:
            requests.ConnectionError: if it is down.
        """
        if self.is_down:
            raise requests.ConnectionError("Connection refused")
        self._simulation.now += self.latency
        request = Request.from_json(params)
        answer = request.respond(
            Caller(
                self.store,
                agent_id=headers.get("X-PREFECT-AGENT-ID"),
                core_version=headers.get("X-PREFECT-CORE-VERSION"),
            )
        )
        if answer.status != 200:
            raise AssertionError(f"the agent sends what the API refuses: {answer}")
        response = requests.Response()
        response.status_code = answer.status
        response._content = json.dumps(answer.body).encode()
        sent = len(json.dumps(params))
        self._note(request, answer.body, sent, len(response.content))
        return response

    def _note(self, request: Request, body: Any, sent: int, received: int) -> None:
        field = request.names[0]
        found = (body.get("data") or {}).get(field)
        rows = len(found) if isinstance(found, list) else 1
        self.queries.append(Query(field, rows, sent, received))


class _Events:
    def register(self, name: str, handler: Any) -> None:
        """botocore makes one attempt here, so nothing is about to be retried."""


class _Meta:
    region_name = "us-east-1"
    events = _Events()
    service_model = ServiceModel(Loader().load_service_model("ecs", "service-2"))


class _Task:
    __slots__ = (
        "arn",
        "created",
        "definition",
        "reason",
        "run_id",
        "started",
        "status",
    )

    def __init__(self, arn: str, run_id: str, created: float, definition: str) -> None:
        self.arn = arn
        self.run_id = run_id
        self.created = created
        self.definition = definition
        self.status = "PENDING"
        self.started: Optional[float] = None
        self.reason = ""  # that of StopTask

    def described(self) -> Dict[str, Any]:
        seen: Dict[str, Any] = {
            "taskArn": self.arn,
            "startedBy": self.run_id,
            "createdAt": datetime.fromtimestamp(self.created, timezone.utc),
            "taskDefinitionArn": self.definition,
            "lastStatus": self.status,
            "containers": [{"name": "flow", "lastStatus": self.status}],
        }
        if self.started is not None:
            seen["startedAt"] = datetime.fromtimestamp(self.started, timezone.utc)
        if self.status == "STOPPED" and self.reason:
            seen["stopCode"] = "UserInitiated"
            seen["stoppedReason"] = self.reason
        elif self.status == "STOPPED":
            seen["stopCode"] = "EssentialContainerExited"
            seen["stoppedReason"] = "Essential container in task exited"
            seen["containers"][0]["exitCode"] = 0
        return seen


class ECS:
    """What boto3's ECS client is to the agent.

    Args:
        simulation: Tells the time.
        latency: Seconds that a call to list or describe takes, as for the API.

    Attributes:
        calls: How often each operation was called, refused calls included.
        throttled: How many calls were refused because of a limit.
        tasks: The tasks by their ARN.
        on_task: Called with the run of each new task, and its ARN.
        hangs: Whether a task never starts, given its number from 0.
        most_alive: The most tasks that one run has had at a time.
        alive: When tasks began and ended, and how many there were then.
        is_down: Whether it cannot be reached.
    """

    meta = _Meta()

    def __init__(self, simulation: Simulation, latency: float) -> None:
        self._simulation = simulation
        self._latency = latency
        self._limits = Limits(lambda: simulation.now)
        self._tokens: Dict[str, str] = {}
        self._definitions: Dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.throttled = 0
        self.tasks: Dict[str, _Task] = {}
        self.on_task: Callable[[str, str], object] = lambda run_id, arn: None
        self.hangs: Callable[[int], bool] = lambda number: False
        self._alive: Counter[str] = Counter()
        self.most_alive = 0
        self.alive: List[Tuple[float, int]] = []
        self.is_down = False

    def add_task(self, run_id: str, status: str, ago: float = 0.0) -> str:
        """Add a task as it is; its ARN."""
        arn = f"{_ACCOUNT}:task/default/{len(self.tasks):032x}"
        definition = f"{_ACCOUNT}:task-definition/prefect:1"
        task = self.tasks[arn] = _Task(arn, run_id, time.time() - ago, definition)
        task.status = status
        self._alive[run_id] += 1
        self.most_alive = max(self.most_alive, self._alive[run_id])
        self._note_alive(1)
        return arn

    def _note_alive(self, change: int) -> None:
        before = self.alive[-1][1] if self.alive else 0
        self.alive.append((self._simulation.now, before + change))

    def end(self, task_arn: str) -> None:
        """Have a task be STOPPED."""
        task = self.tasks[task_arn]
        if task.status != "STOPPED":
            task.status = "STOPPED"
            self._alive[task.run_id] -= 1
            self._note_alive(-1)

    # -- Operations ------------------------------------------------------------------

    def run_task(self, **request: Any) -> Dict[str, Any]:
        self._begin("RunTask")
        if not self._limits.allow_launch("FARGATE", 1):
            self._refuse("RunTask", "ThrottlingException", "Rate exceeded")
        arn = self._tokens.get(request["clientToken"])
        if arn is None:
            does_hang = self.hangs(len(self.tasks))
            arn = self.add_task(request["startedBy"], "PENDING")
            self._tokens[request["clientToken"]] = arn
            if not does_hang:
                self.on_task(request["startedBy"], arn)
        return {"tasks": [self.tasks[arn].described()], "failures": []}

    def register_task_definition(self, **request: Any) -> Dict[str, Any]:
        self._begin("RegisterTaskDefinition")
        family = request["family"]
        arn = f"{_ACCOUNT}:task-definition/{family}:1"
        self._definitions[family] = arn
        return {"taskDefinition": {"taskDefinitionArn": arn}}

    def describe_task_definition(self, **request: Any) -> Dict[str, Any]:
        self._begin("DescribeTaskDefinition")
        arn = self._definitions.get(request["taskDefinition"])
        if arn is None:
            message = "Unable to describe task definition."
            self._refuse("DescribeTaskDefinition", "ClientException", message)
        return {"taskDefinition": {"taskDefinitionArn": arn, "status": "ACTIVE"}}

    def list_tasks(self, **request: Any) -> Dict[str, Any]:
        self._begin("ListTasks")
        wants_stopped = request["desiredStatus"] == "STOPPED"
        arns = [
            task.arn
            for task in self.tasks.values()
            if (task.status == "STOPPED") is wants_stopped
            and request.get("startedBy") in (None, task.run_id)
        ]
        first = int(request.get("nextToken", 0))
        answer: Dict[str, Any] = {"taskArns": arns[first : first + 100]}
        if len(arns) > first + 100:
            answer["nextToken"] = str(first + 100)
        return answer

    def describe_tasks(self, **request: Any) -> Dict[str, Any]:
        self._begin("DescribeTasks")
        assert len(request["tasks"]) <= 100
        known = [self.tasks[arn] for arn in request["tasks"] if arn in self.tasks]
        missing = [arn for arn in request["tasks"] if arn not in self.tasks]
        return {
            "tasks": [task.described() for task in known],
            "failures": [{"arn": arn, "reason": "MISSING"} for arn in missing],
        }

    def stop_task(self, **request: Any) -> Dict[str, Any]:
        self._begin("StopTask")
        task = self.tasks[request["task"]]
        if task.status not in ("STOPPING", "STOPPED"):
            task.status, task.reason = "STOPPING", request["reason"]
            call_later = self._simulation.dispatcher.call_later
            call_later(STOPS_AFTER, lambda: self.end(task.arn))
        return {"task": task.described()}

    def describe_clusters(self, **request: Any) -> Dict[str, Any]:
        return {"clusters": [{"status": "ACTIVE"}]}

    def _begin(self, operation: str) -> None:
        self.calls[operation] += 1
        if self.is_down:
            raise EndpointConnectionError(endpoint_url="https://ecs.us-east-1")
        if operation in ("ListTasks", "DescribeTasks"):
            self._simulation.now += self._latency
        if not self._limits.allow_call(operation):
            self._refuse(operation, "ThrottlingException", "Rate exceeded")

    def _refuse(self, operation: str, code: str, message: str) -> None:
        self.throttled += code == "ThrottlingException"
        answer: Any = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        }
        raise ClientError(answer, operation)


class _EC2:
    """A default VPC with one subnet."""

    meta = _Meta()

    def describe_vpcs(self, **_: Any) -> Dict[str, Any]:
        return {"Vpcs": [{"VpcId": "vpc-1"}]}

    def get_paginator(self, _: str) -> _EC2:
        return self

    def paginate(self, **_: Any) -> List[Dict[str, Any]]:
        return [{"Subnets": [{"SubnetId": "subnet-1"}]}]


class Lines(logging.Handler):
    """What an agent says in its own log, from INFO on.

    Attributes:
        lines: (when in seconds, level, text) of each line.
    """

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(logging.INFO)
        self._simulation = simulation
        self.lines: List[Tuple[float, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = (self._simulation.now, record.levelname, record.getMessage())
        self.lines.append(line)

    def since(self, moment: float, level: str) -> List[str]:
        """The texts of one level from a moment on."""
        return [line for at, of, line in self.lines if at >= moment and of == level]


class Life(Dispatcher):
    """The simulation's dispatcher, until one of its agents is killed.

    Attributes:
        is_over: Whether it is.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.__dict__.update(dispatcher.__dict__)
        self._whole = dispatcher
        self.is_over = False
        self._dead: List[Steps[None]] = []

    def start(self, steps: Steps[None], **options: Any) -> None:  # type: ignore[override]
        self._whole.start(self._while_alive(steps), **options)

    def call_later(self, seconds: float, action: Callable[[], object]) -> None:
        self._whole.call_later(seconds, lambda: self.is_over or action())

    def observe_waits(self, on_wait: OnWait) -> None:
        self._whole.observe_waits(on_wait)

    def _while_alive(self, steps: Steps[None]) -> Steps[None]:
        for wait in steps:
            yield wait
            if self.is_over:
                self._dead.append(steps)  # closing it would run what a kill does not
                return


class Agent(ECSAgent):
    """The real agent; its poller and its heartbeats are steps here."""

    simulation: Simulation
    lines: Lines
    life: Life
    is_woken = False

    def kill(self) -> None:
        """Have it do nothing more, as SIGKILL does."""
        self.life.is_over = True

    def begin(self) -> None:
        """Do what `start` does, up to the poller, which is driven with the rest."""
        self._setup_api_connection()
        self.on_startup()
        start = self._dispatcher.start
        start(self._polls(), background=True)
        start(self._beats(), background=True)

    def _polls(self) -> Steps[None]:
        clock = self._dispatcher.clock
        while True:
            due = clock() + self._poll()
            while clock() < due and not self.is_woken:
                yield Pause(min(_WAKES, due - clock()))
            self.is_woken = False

    def _beats(self) -> Steps[None]:
        while True:
            yield Pause(_HEARTBEAT)
            self.heartbeat()

    def _poll_soon(self) -> None:
        self.is_woken = True


class World:
    """A Prefect API, an ECS, a clock, and agents.

    Args:
        aws_latency: Seconds of a call that lists or describes tasks, which the agent
            makes one after the other.
        api_latency: Seconds of a request to the API, likewise.
        task_seconds: Seconds for which a flow runs.
        starts_after: Seconds from a task's creation to its start.
        locks_submitted: As for the sandbox's API.

    Attributes:
        simulation: The clock.
        api: The API.
        ecs: ECS.
    """

    def __init__(
        self,
        *,
        aws_latency: float = 0.0,
        api_latency: float = 0.0,
        task_seconds: float = 60.0,
        starts_after: float = STARTS_AFTER,
        locks_submitted: bool = True,
    ) -> None:
        self.simulation = Simulation()
        self.api = API(self.simulation, api_latency, locks_submitted)
        self._starts_after = starts_after
        self.ecs = ECS(self.simulation, aws_latency)
        self.ecs.on_task = self._task_was_created
        self._task_seconds = task_seconds
        self._project = self.api.store.create_project("simulated")

    @contextmanager
    def running(self) -> Iterator[World]:
        """Have the time of this process be that of the simulation."""
        simulation = self.simulation

        def now(tz: Any = "UTC") -> Any:
            return pendulum.from_timestamp(EPOCH + simulation.now, tz or "UTC")

        with tempfile.TemporaryDirectory() as home, set_temporary_config(
            {
                "backend": "server",
                "cloud.api": "http://simulated",
                "cloud.graphql": "http://simulated",
                "cloud.api_key": None,
                "cloud.tenant_id": None,
                "home_dir": str(Path(home)),
            }
        ), _replaced(
            (time, "time", lambda: EPOCH + simulation.now),
            (time, "monotonic", lambda: simulation.now),
            (pendulum, "now", now),
        ):
            yield self

    def agent(self, name: str = "agent", **options: Any) -> Agent:
        """Start an agent.

        Args:
            name: Its name.
            options: Those of `ECSAgent`.
        """
        world = self

        class Client(AgentClient):
            def _lean_answer(self, *_: Any) -> None:
                """Nothing, so that each request goes the way below."""

            def _send_request(
                self,
                session: Any,
                method: str,
                url: str,
                params: Any = None,
                headers: Any = None,
                **_: Any,
            ) -> requests.Response:
                return world.api.answer(params, headers)

        class Clients:
            def __init__(self, **_: Any) -> None: ...

            def __call__(self, service: str, region: Optional[str] = None) -> Any:
                return {"ecs": world.ecs, "ec2": _EC2()}[service]

            def secrets(self) -> List[str]:
                return []

        life = Life(self.simulation.dispatcher)
        simulated = lambda workers, report: life  # noqa: E731
        with _replaced(
            (agents, "AgentClient", Client),
            (agents, "AWSClients", Clients),
            (Dispatcher, "threaded", simulated),
        ):
            agent = Agent(name=name, **options)
        agent.life = life
        agent.lines = Lines(self.simulation)
        agent.logger.handlers = [agent.lines]
        agent.logger.propagate = False
        agent.client.logger.handlers = []
        agent.client.logger.propagate = False
        agent.begin()
        return agent

    # -- Flows and runs ----------------------------------------------------------------

    def flow(self, name: str, image: str = "example/flow:1", tasks: int = 1) -> str:
        """Register a flow; its id."""
        serialized = {
            "name": name,
            "parameters": [],
            "tasks": [{"name": f"t{n}", "slug": f"t{n}-1"} for n in range(tasks)],
            "edges": [],
            "storage": {
                "type": "Local",
                "__version__": "1.4.1",
                "directory": "/flows",
                "flows": {name: f"/flows/{name}"},
                "secrets": [],
            },
            "run_config": {
                "type": "ECSRun",
                "__version__": "1.4.1",
                "image": image,
                "labels": [],
                "execution_role_arn": "arn:aws:iam::123456789012:role/execution",
            },
            "__version__": "1.4.1",
        }
        return self.api.store.create_flow(self._project, serialized)

    def run(self, flow_id: str, after: float = 0.0, **options: Any) -> str:
        """Create a run that is due after some seconds; its id."""
        due = datetime.fromtimestamp(EPOCH + self.simulation.now + after, timezone.utc)
        return self.api.store.create_flow_run(
            flow_id, scheduled_start_time=due, **options
        )

    def states(self) -> Counter[str]:
        """How many runs are in each state."""
        counted = self.api.store.tables["flow_run"].count("state")
        return Counter({state: count for state, count in counted.items() if count})

    def tasks_of_runs(self) -> Counter[str]:
        """How many tasks each run has had."""
        return Counter(task.run_id for task in self.ecs.tasks.values())

    def outcome(self, run_ids: List[str]) -> Tuple[int, int]:
        """How many of some runs have no task, and how many more than one."""
        tasks = self.tasks_of_runs()
        lost = sum(1 for run_id in run_ids if not tasks[run_id])
        return lost, sum(1 for run_id in run_ids if tasks[run_id] > 1)

    # -- What a flow's own process does ----------------------------------------------

    def _task_was_created(self, run_id: str, arn: str) -> None:
        self._after(self._starts_after, lambda: self._starts(run_id, arn))

    def _starts(self, run_id: str, arn: str) -> None:
        task = self.ecs.tasks[arn]
        if task.status == "PENDING":
            task.status, task.started = "RUNNING", time.time()
        if task.status != "RUNNING":
            return
        if self._waits_for_api(lambda: self._starts(run_id, arn)):
            return
        self.api.store.set_flow_run_state(run_id, {"type": "Running"})
        self._after(self._task_seconds, lambda: self._ends(run_id, arn))

    def _ends(self, run_id: str, arn: str) -> None:
        if self._waits_for_api(lambda: self._ends(run_id, arn)):
            return
        self.api.store.set_flow_run_state(run_id, {"type": "Success"})
        self.ecs.end(arn)

    def _waits_for_api(self, again: Callable[[], None]) -> bool:
        if self.api.is_down:
            self._after(ASKS_AGAIN, again)
        return self.api.is_down

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self.simulation.dispatcher.call_later(seconds, action)


@contextmanager
def _replaced(*changes: Tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes of modules and classes, replaced until the end of the block."""
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
