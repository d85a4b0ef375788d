"""A Prefect API, an AWS where tasks really run, and the real command line."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence
from unittest import mock

import forking
import prefect
from deadlines import DEADLINE
from prefect.client import Client
from prefect.utilities.configuration import set_temporary_config

from prefect_ecs_plugin.launch_record import LaunchRecord
from prefect_ecs_plugin.sandbox import children, environment
from prefect_ecs_plugin.sandbox.aws import AWS, running
from prefect_ecs_plugin.sandbox.aws.running import ContainerProcess
from prefect_ecs_plugin.sandbox.children import Child
from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI

#: Runs `prefect` with pauses of seconds made pauses of moments.
QUICK = """
from prefect.agent.agent import Agent

from prefect_ecs_plugin import submission
from prefect_ecs_plugin.launch import claims, launcher, other_tasks
from prefect_ecs_plugin.monitoring import poll_queue, recovery, supervisor, task_finder
from prefect_ecs_plugin.monitoring import watcher
from prefect_ecs_plugin.observability import outage_log
from prefect_ecs_plugin.prefect_api import reporter
from prefect_ecs_plugin.scheduling.backoff import Backoff
from prefect_ecs_plugin.aws.retrying import BACKOFF

moment = Backoff(0.1, 0.1)
recovery.SETTLE = recovery._UNSEEN = supervisor.GRACE = 0.2
poll_queue.YOUNG, poll_queue.RUNNING = 0.1, 0.2
watcher.SPACING = supervisor._CANCEL_INTERVAL = 0.1
reporter._COLLECT = task_finder._COLLECT = 0.1
submission.CONFIRM_AFTER = 0.05
launcher._AT_WORK, launcher._LATE, other_tasks._LATE = 0.2, 1.0, (1.0,)
supervisor.RELAUNCH_BACKOFF = outage_log.OUTAGE = claims._UNCLEAR = moment
BACKOFF.update(dict.fromkeys(BACKOFF, moment))
Agent._loop_intervals = {0: 0.1, 1: 0.2, 2: 0.4}
Agent._stop_heartbeat_thread = lambda self: None  # it would take a second

from prefect.cli import cli

cli()
"""

#: Tests look at what a child does when it ends; it is not killed while it does it.
children.GRACE = DEADLINE

FINISHED = ("Success", "Failed", "Cancelled")


def eventually(check: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Ask again and again until the answer is true, and return it.

    Raises:
        AssertionError: if it is not after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:.0f} s"
        time.sleep(0.05)


def claim(store: Any, run_id: str, agent_id: str, holder: str) -> None:
    """Claim a run as another process of the agent does, with a launch record."""
    version = store.flow_run(run_id).version
    record = LaunchRecord(f"{run_id}-{version}", holder=holder, agent_id=agent_id)
    state = {"type": "Submitted", "context": record.to_context()}
    store.set_flow_run_state(run_id, state, agent_id=agent_id)


class ForkedChild(Child):
    """A child that starts at once, see `forking`."""

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> Any:
        return forking.Forked(command, environment)


class ForkedContainer(ContainerProcess):
    """A container whose flow run starts at once; other commands start as ever."""

    def _start(
        self, command: List[str], environment: Mapping[str, str], directory: str
    ) -> Any:
        if command != ["/bin/sh", "-c", "prefect execute flow-run"]:
            return super()._start(command, environment, directory)
        prefect = shutil.which("prefect", path=environment["PATH"])
        command = [sys.executable, str(prefect), "execute", "flow-run"]
        program = forking.Forked(command, environment, directory)
        program.stdout = program.stdout.detach()  # bytes
        return program


class World:
    """Everything a flow run meets, on loopback.

    Args:
        home: An empty directory for all children.
        forks: Whether children and flow runs are forked from a process with Prefect's
            packages, or are started as users start them.
        aws: Options of the `AWS`; its tasks are processes by default.
    """

    def __init__(
        self,
        home: Path,
        locks_submitted: bool = True,
        forks: bool = forking.POSSIBLE,
        **aws: Any,
    ) -> None:
        environment.furnish(home)
        self._forks = forks
        self.home = home
        image = environment.container_environment(home)
        if forks:  # another process for each run's heartbeats costs as much as the run
            image["PREFECT__CLOUD__HEARTBEAT_MODE"] = "thread"
        self.api = PrefectAPI(locks_submitted=locks_submitted)
        self.aws = AWS(container_environment=image, **aws)

    @contextlib.contextmanager
    def running(self) -> Iterator[World]:
        """Both servers up, and this process's Prefect client talking to them."""
        container = ForkedContainer if self._forks else ContainerProcess
        with mock.patch.object(
            running, "ContainerProcess", container
        ), self.api, self.aws, set_temporary_config(self._prefect_config()):
            self.client = Client(api_server=self.api.url)
            self.client.create_project("tests")
            yield self

    def _prefect_config(self) -> Dict[str, Any]:
        return {
            "backend": "server",
            "cloud.api": self.api.url,
            "cloud.graphql": self.api.url,
            "cloud.api_key": None,
            "cloud.tenant_id": None,
            "home_dir": str(self.home / ".prefect"),
        }

    @property
    def environment(self) -> Dict[str, str]:
        """What a child sees."""
        return environment.sandbox_environment(
            self.api.url,
            self.aws.url,
            (self.aws.access_key, self.aws.secret_key),
            self.home,
        )

    # -- Children ----------------------------------------------------------------

    def agent(self, *options: str, **variables: str) -> Child:
        """Start `prefect agent ecs start`."""
        command = environment.prefect_command(self.home)
        return self.child([*command, "agent", "ecs", "start", *options], **variables)

    def quick_agent(self, *options: str, **variables: str) -> Child:
        """Start an agent whose long pauses are short, for tests that wait for them."""
        return self.agent_of(QUICK, *options, **variables)

    def agent_of(self, code: str, *options: str, **variables: str) -> Child:
        """Start an agent from Python code that runs `prefect`, as `QUICK` is."""
        command = [sys.executable, "-c", code, "agent", "ecs", "start", *options]
        return self.child(command, **variables)

    def child(
        self,
        command: Sequence[str],
        on_line: Callable[[str], None] = lambda line: None,
        **variables: str,
    ) -> Child:
        """Start Python with a script or code."""
        kind = ForkedChild if self._forks else Child
        return kind(command, {**self.environment, **variables}, on_line)

    def prefect(self, *arguments: str, **variables: str) -> Any:
        """Run a `prefect` command to its end."""
        command = [*environment.prefect_command(self.home), *arguments]
        return self.run_to_its_end(command, merges=True, **variables)

    def run_to_its_end(
        self,
        command: Sequence[str],
        cwd: Optional[Path] = None,
        merges: bool = False,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with a script or code, as `subprocess.run` does.

        Args:
            command: Python, a script or code, and arguments.
            cwd: Where; by default where this process is.
            merges: Whether its standard error goes to its standard output.
            variables: Variables of its environment besides.
        """
        seen = {**self.environment, **variables}
        if self._forks:
            return forking.run(command, seen, DEADLINE, cwd, merges)
        return subprocess.run(
            command,
            env=seen,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merges else subprocess.PIPE,
            encoding="utf-8",
            timeout=DEADLINE,
            check=False,
        )

    # -- Flows and runs ----------------------------------------------------------

    def register(self, flow: prefect.Flow) -> str:
        """Register a flow with Local storage through the real client."""
        flow.storage = prefect.storage.Local(
            directory=str(self.home / "flows"), add_default_labels=False
        )
        return str(flow.register(project_name="tests", set_schedule_active=False))

    def run(self, flow_id: str, **options: Any) -> str:
        """Create a run that is due at once."""
        return str(self.client.create_flow_run(flow_id=flow_id, **options))

    def run_stored(self, flow_id: str, run_config: Any) -> str:
        """Create a run with a run config that no client would register."""
        store = self.api.store
        with store.transaction():  # no agent sees it before it is as it has to be
            run_id = store.create_flow_run(flow_id=flow_id)
            store.update(
                "flow_run", store.row("flow_run", run_id), run_config=run_config
            )
        return run_id

    def states(self, run_ids: Sequence[str]) -> List[str]:
        return [self.api.store.flow_run(run_id).state for run_id in run_ids]

    def finished(self, run_ids: Sequence[str], seconds: float = DEADLINE) -> List[str]:
        """Wait until all runs have ended, and return their states."""
        eventually(
            lambda: all(state in FINISHED for state in self.states(run_ids)), seconds
        )
        return self.states(run_ids)

    def log(self, run_id: str, level: Optional[str] = None) -> List[str]:
        """The messages of a run's log."""
        lines = self.api.store.logs(run_id)
        return [line.message for line in lines if level in (None, line.level)]

    def tasks_of(self, run_id: str) -> List[Any]:
        return [task for task in self.aws.tasks() if task.started_by == run_id]

    def ecs_calls(self) -> Dict[str, int]:
        """How often each ECS operation was called, but for those that only watch."""
        return {
            name.partition(".")[2]: count
            for name, count in self.aws.calls.items()
            if name.startswith("ecs.") and name != "ecs.DescribeTasks"
        }
