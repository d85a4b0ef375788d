"""One use of the sandbox, from the first server to the last summary line.

    home, environment -> PrefectAPI, AWS -> `prefect register` -> runs created
    -> `prefect agent ecs start` -> events watched until every run has ended

Whatever is started is pushed on one stack, so it is stopped in the opposite order:
the agent, AWS with its tasks, the API, the home directory.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from prefect_ecs_plugin.errors import PrefectECSError
from prefect_ecs_plugin.sandbox import aws, flows, prefect_api
from prefect_ecs_plugin.sandbox import environment as env
from prefect_ecs_plugin.sandbox.children import Child, Interrupted, StopSignals
from prefect_ecs_plugin.sandbox.display import Screen, summary
from prefect_ecs_plugin.sandbox.faults import FAULTS
from prefect_ecs_plugin.sandbox.interruptions import Interruptions
from prefect_ecs_plugin.sandbox.watch import WORD, Watch

EXAMPLE_FLOW = Path(__file__).with_name("example_flow.py")

#: Where boto3 in this process would go if it were asked before AWS is up: nowhere.
NOWHERE = "http://127.0.0.1:9"
NO_KEY = ("none", "none")

#: What a task gets from the secret of `--api-key-secret-arn`; the API takes any key.
MADE_UP_KEY = "made-up-by-the-sandbox"

#: How many lines are shown of an agent that ended by itself, or of a task.
LAST_LINES = 15

#: Seconds within which the agent has to look at the queue; the slowest machine seen
#: took 20.
START_DEADLINE = 600.0


@dataclass(frozen=True)
class Plan:
    """What the user asked for.

    Attributes:
        paths: Files with flows, as given; none means the packaged example.
        agent_arguments: Options for `prefect agent ecs start`.
        labels: The agent's labels.
        api_key_secret_arn: The secret that tasks ask for; a made-up one has to do.
        keep_running: Go on when all runs have ended.
        timeout: Seconds that a run may take without anything happening to it, counted
            from the agent's first look at the queue.
        verbose: Show every line of the agent and of Prefect's runners.
        faults: What goes wrong, by the names of `command.FAULTS`.
        fault_after: How many seconds after a flow has begun.
    """

    paths: Tuple[str, ...] = ()
    agent_arguments: Tuple[str, ...] = ()
    labels: Tuple[str, ...] = ()
    api_key_secret_arn: Optional[str] = None
    keep_running: bool = False
    timeout: float = 300.0
    verbose: bool = False
    faults: Tuple[str, ...] = ()
    fault_after: float = 5.0


def run(plan: Plan, screen: Screen) -> int:
    """Use the sandbox once.

    Returns:
        The exit code: 0 only if every flow run ended Success.
    """
    with StopSignals() as signals, Session(plan, screen, signals) as session:
        try:
            session.open()
            session.watch()
        except Interrupted as interrupted:
            session.say(f"Stopping everything, as asked by {interrupted}.")
        except PrefectECSError as error:
            session.say(str(error))
            return session.close(failed=True)
        return session.close()


class Session:
    """The servers, the agent and the runs of one use.

    Args:
        plan: What the user asked for.
        screen: Where it is shown.
        signals: Says when to stop.
    """

    def __init__(self, plan: Plan, screen: Screen, signals: StopSignals) -> None:
        self._plan = plan
        self._screen = screen
        self._signals = signals
        self._stack = contextlib.ExitStack()
        self._watch = Watch(screen, plan.verbose)
        self._aws: Optional[aws.AWS] = None
        self._interruptions: Optional[Interruptions] = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._screen.close()
        self._stack.close()

    # Opening -------------------------------------------------------------------------

    def open(self) -> None:
        """Start everything, the agent last: it finds the runs at its first look."""
        self._home = self._stack.enter_context(_home())
        self._start_servers()
        for flow in self._registered_flows():
            self._create_run(flow)
        self.say("Starting prefect agent ecs start.")
        self._agent_started = self._watch.now
        self._agent = self._stack.enter_context(
            self._child(
                ["agent", "ecs", "start", *self._plan.agent_arguments],
                self._watch.agent_line,
            )
        )

    def _start_servers(self) -> None:
        container = env.container_environment(self._home)
        self._stack.enter_context(
            env.only({**container, **env.aws_settings(NOWHERE, NO_KEY, self._home)})
        )
        self._api = self._stack.enter_context(prefect_api.PrefectAPI())
        self._aws = self._stack.enter_context(aws.AWS(container_environment=container))
        for fault in FAULTS.keys() & set(self._plan.faults):
            FAULTS[fault](self._aws)
        if self._plan.api_key_secret_arn:
            self._aws.make_up_secret(self._plan.api_key_secret_arn, MADE_UP_KEY)
        self._interruptions = Interruptions(
            self._aws, self._plan.faults, self._plan.fault_after
        )
        self._stack.callback(self._interruptions.close)
        self._api.subscribe(self._on_api)
        self._aws.subscribe(self._on_aws)
        self._environment = env.sandbox_environment(
            self._api.url,
            self._aws.url,
            (self._aws.access_key, self._aws.secret_key),
            self._home,
        )
        self.say(f"Prefect API on {self._api.address}, AWS on {self._aws.url}.")

    def _registered_flows(self) -> List[flows.Flow]:
        api = flows.API(self._api.url)
        api.create_project()
        paths = self._plan.paths or (str(EXAMPLE_FLOW),)
        self.say(f"Registering {', '.join(self._plan.paths) or 'the example flow'}.")
        arguments = flows.register_arguments(paths)
        with self._child(arguments) as child:
            exit_code = self._signals.wait_for(child)
            ids = flows.registered(paths, exit_code, child.lines)
        return [api.flow(flow_id) for flow_id in ids]

    def _create_run(self, flow: flows.Flow) -> None:
        labels = self._plan.labels
        self.say(f"Registered flow {flow.name!r}.")
        if set(labels) != set(flow.labels):
            self.say(
                f"Its run gets the agent's labels {sorted(labels)}, not the flow's "
                f"{sorted(flow.labels)}, so that the agent takes it."
            )
        flows.API(self._api.url).create_run(flow, labels)

    def _child(
        self,
        arguments: Sequence[str],
        on_line: Callable[[str], None] = lambda line: None,
    ) -> Child:
        command = env.prefect_command(self._home) + list(arguments)
        return Child(command, self._environment, on_line)

    def say(self, text: str) -> None:
        """Show a line that belongs to no run."""
        self._watch.note(text)
        self._watch.refresh(0)

    # Watching ------------------------------------------------------------------------

    def watch(self) -> None:
        """Show what happens until every run has ended, or for ever if so asked."""
        if self._plan.keep_running:
            self._screen.say(self._how_to_join())
        while self._plan.keep_running or not self._watch.is_over:
            self._signals.check()
            self._watch.refresh()
            self._check_agent()
            self._watch.give_up(self._plan.timeout)

    def _check_agent(self) -> None:
        """Tell the watch that the agent has looked at the queue, once it has.

        Raises:
            AgentFailed: It has ended, or has not looked for too long.
        """
        if self._agent.exit_code is not None:
            self._show_last_lines()
            raise AgentFailed(
                f"The agent ended with exit code {self._agent.exit_code} before the "
                "flow runs did. Its last lines are above.",
                code="agent-ended",
            )
        if self._api.calls["get_runs_in_queue"]:
            self._watch.agent_looked()
        elif self._watch.now - self._agent_started > START_DEADLINE:
            self._show_last_lines()
            raise AgentFailed(
                f"The agent has not asked for flow runs within {START_DEADLINE:.0f} s "
                "of its start. Its last lines are above.",
                code="agent-silent",
            )

    def _show_last_lines(self) -> None:
        lines = [line for line in self._agent.lines if WORD.search(line)]
        for line in lines[-LAST_LINES:]:
            self.say(f"agent | {line}")

    def _how_to_join(self) -> List[str]:
        lines = env.exports(self._environment)
        script = self._home / "sandbox.env"
        script.write_text("".join(f"{line}\n" for line in lines))
        return [
            "",
            "Other terminals talk to this sandbox after these lines:",
            "",
            *lines,
            "",
            f"or, all of them at once:  . {script}",
            f"Register flows in the project {env.PROJECT!r}. Ctrl-C stops everything.",
            "",
        ]

    # Closing -------------------------------------------------------------------------

    def close(self, failed: bool = False) -> int:
        """Show the last events and the summary, and return the exit code."""
        self._watch.refresh(0)
        self._screen.close()
        rows, now = self._screen.rows, self._watch.now
        if self._aws is not None and rows:
            self._screen.say(["", *summary(rows, self._aws.calls, now)])
        return 0 if self._watch.all_succeeded and not failed else 1

    # Events of the servers, in their threads -----------------------------------------

    def _on_api(self, event: prefect_api.Event) -> None:
        if isinstance(event, prefect_api.StateChanged):
            if self._interruptions and event.state == "Running":
                self._interruptions.begin(event.flow_run_id)
            self._watch.run_state(
                event.flow_run_id,
                event.flow_run_name,
                event.flow_name,
                event.state,
                event.message or "",
            )
        else:
            self._watch.log(
                event.flow_run_id, event.name or "", event.level, event.message
            )

    def _on_aws(self, event: aws.Event) -> None:
        if not isinstance(event, aws.TaskChanged) or not event.task.started_by:
            return
        task, run_id = event.task, event.task.started_by
        reason = task.container_reason or task.stopped_reason or ""
        if task.last_status == "STOPPED" and task.exit_code != 0:
            # It crashed, perhaps before it could write the reason into the run's log.
            for line in task.lines[-LAST_LINES:]:
                self._watch.task_output(run_id, line)
        self._watch.task(run_id, task.last_status, task.exit_code, reason)


class AgentFailed(PrefectECSError):
    """The agent ended by itself, or did not look at the queue."""


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A new home directory, gone afterwards whatever tasks have left in it."""
    with tempfile.TemporaryDirectory(prefix="prefect-ecs-sandbox-") as path:
        home = Path(path).resolve()
        env.furnish(home)
        yield home
