"""One use of the sandbox, from the first server to the last summary line.

    home -> files looked at -> PrefectAPI, AWS -> `prefect register` -> runs created
    -> `prefect agent ecs start` -> events watched until every run has ended

Whatever is started is pushed on one stack, so it is stopped in the opposite order:
the agent, AWS with its tasks, the API, the home directory.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import click

from prefect_ecs_plugin.errors import PrefectECSError
from prefect_ecs_plugin.sandbox import aws, flow_files, flows, prefect_api
from prefect_ecs_plugin.sandbox import environment as env
from prefect_ecs_plugin.sandbox.children import Child, Interrupted, StopSignals
from prefect_ecs_plugin.sandbox.display import Screen, cause, summary
from prefect_ecs_plugin.sandbox.faults import FAULTS
from prefect_ecs_plugin.sandbox.flow_files import FlowError, FlowFile, Param
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
        paths: Files with flows and folders of such files, as given; none means the
            packaged example.
        params: Values of the flows' parameters.
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
    params: Tuple[Param, ...] = ()
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
        The exit code: 0 only if no file was skipped and every flow run ended Success.

    Raises:
        click.BadParameter: No flow has a parameter of that name.
    """
    with StopSignals() as signals, Session(plan, screen, signals) as session:
        try:
            session.look_at_files()
            if session.has_flows:
                session.register()
            if session.has_runs:
                session.start_agent()
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
        self._files: Dict[str, FlowFile] = {}
        self._problems: List[FlowError] = []
        self._lacking: Set[Tuple[str, str]] = set()
        self._runs: List[str] = []
        self._aws: Optional[aws.AWS] = None
        self._interruptions: Optional[Interruptions] = None

    def __enter__(self) -> Session:
        self._home = self._stack.enter_context(_home())
        return self

    def __exit__(self, *exception: object) -> None:
        self._screen.close()
        self._stack.close()

    # Looking at the files ------------------------------------------------------------

    def look_at_files(self) -> None:
        """Find out which flows there are, before any server starts.

        Raises:
            click.BadParameter: No flow has a parameter of that name.
        """
        files = self._loaded(
            flow_files.expanded(self._plan.paths or (str(EXAMPLE_FLOW),))
        )
        self._check_params(files)
        for file in files:
            problem = flow_files.problem_of(file, self._plan.paths, files)
            if problem:
                self._skip(problem)
            self._look_at(file)
        if not self._files and not self._problems:
            self._skip(
                FlowError(
                    f"There is no flow in {', '.join(self._plan.paths)}. Assign the "
                    "flow to a variable of the module.",
                    code="no-flow",
                )
            )

    def _check_params(self, files: Sequence[FlowFile]) -> None:
        unknown = flow_files.unknown(self._plan.params, files)
        there = [flow for file in files for flow in file.flows]
        known = sorted({name for flow in there for name in flow.parameters})
        if unknown and any(file.error for file in files):  # which may have it
            self.say(f"No flow that was loaded has the parameter {', '.join(unknown)}.")
        elif unknown:
            raise click.BadParameter(
                f"no flow has the parameter {', '.join(unknown)}; there are: "
                f"{', '.join(known) or 'none'} [unknown-parameter]",
                param_hint="'--param'",
            )

    def _loaded(self, paths: List[str]) -> List[FlowFile]:
        report = self._home / "flows.json"
        report.touch()
        # The files' own imports may make clients; there is no server yet.
        environment = env.sandbox_environment(NOWHERE, NOWHERE, NO_KEY, self._home)
        with Child(env.load_command(report, paths), environment) as child:
            exit_code = self._signals.wait_for(child)
        if exit_code:
            last = " ".join(child.lines[-1:]) or f"exit code {exit_code}"
            raise FlowError(
                f"The flows cannot be loaded: {last}", code="flow-not-loaded"
            )
        return flow_files.read(report.read_text(encoding="utf-8"))

    def _look_at(self, file: FlowFile) -> None:
        if file.flows:
            self._files[file.path] = file
        for flow in file.flows:
            problem = flow_files.lacks_values(file, flow, self._plan.params)
            if problem:
                self._skip(problem)
                self._lacking.add((file.path, flow.name))
        if file.flows and file.siblings:
            self.say(
                f"{file.path} imports {', '.join(file.siblings)} from its folder. On "
                "AWS the image has to have that."
            )

    def _skip(self, problem: FlowError) -> None:
        self._problems.append(problem)
        self._watch.note(str(problem), "ERROR")
        self._watch.refresh(0)

    # Opening -------------------------------------------------------------------------

    @property
    def has_flows(self) -> bool:
        """Whether a flow can run, or other terminals may register some."""
        flows_there = sum(len(file.flows) for file in self._files.values())
        return flows_there > len(self._lacking) or self._plan.keep_running

    def register(self) -> None:
        """Start the servers, register the flows and create a run of each."""
        self._busy("Starting a Prefect API and an AWS.")
        self._start_servers()
        api = flows.API(self._api.url)
        api.create_project()
        self._make_buckets()
        for path, flow_id in self._registered():
            env.remember_folder(self._home, flow_id, path)
            self._create_run(api, path, api.flow(flow_id))

    @property
    def has_runs(self) -> bool:
        """Whether there is a run, or other terminals may create some."""
        return bool(self._runs) or self._plan.keep_running

    def start_agent(self) -> None:
        """Start the agent, after the runs: it finds them at its first look."""
        self._busy("Starting prefect agent ecs start.")
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

    def _make_buckets(self) -> None:
        """Flows with S3 storage are stored in buckets that the user's account has."""
        assert self._aws is not None
        loaded = (flow for file in self._files.values() for flow in file.flows)
        for bucket in {flow.bucket for flow in loaded if flow.bucket}:
            self._aws.make_bucket(bucket)

    def _registered(self) -> Iterator[Tuple[str, str]]:
        """Register the flows of each file; pairs of a path and a flow's id."""
        self._busy("Registering the flows.")
        folders: Dict[Path, List[str]] = {}
        for path in self._files:
            folders.setdefault(Path(path).resolve().parent, []).append(path)
        # One process for each folder: two folders may have different modules of one
        # name.
        for paths in folders.values():
            with self._child(flows.register_arguments(paths)) as child:
                exit_code = self._signals.wait_for(child)
                pairs, problems = flows.registered(paths, exit_code, child.lines)
            for problem in problems:
                self._skip(problem)
            # Prefect takes the files in any order.
            yield from sorted(pairs, key=lambda pair: paths.index(pair[0]))

    def _create_run(self, api: flows.API, path: str, flow: flows.Flow) -> None:
        if (path, flow.name) in self._lacking:
            return
        labels, loaded = self._plan.labels, self._files[path].flows
        # A file may give its flow another name each time.
        named = next((each for each in loaded if each.name == flow.name), loaded[0])
        self.say(f"Registered flow {flow.name!r}.")
        if set(labels) != set(flow.labels):
            self.say(
                f"Its run gets the agent's labels {sorted(labels)}, not the flow's "
                f"{sorted(flow.labels)}, so that the agent takes it."
            )
        try:
            values = flow_files.values(named, self._plan.params)
            self._runs.append(api.create_run(flow, labels, values))
        except FlowError as error:
            self._skip(error)

    def _child(
        self,
        arguments: Sequence[str],
        on_line: Callable[[str], None] = lambda line: None,
    ) -> Child:
        command = env.prefect_command(self._home) + list(arguments)
        return Child(command, self._environment, on_line)

    def _busy(self, text: str) -> None:
        """Show what is being started."""
        self._screen.busy(text, self._watch.now)

    def say(self, text: str) -> None:
        """Show a line that belongs to no run."""
        self._watch.note(text)
        self._watch.refresh(0)

    # Watching ------------------------------------------------------------------------

    def watch(self) -> None:
        """Show what happens until every run has ended, or for ever if so asked."""
        if self._plan.keep_running:
            self._screen.say(self._how_to_join(), whole=True)
            if not self._runs:
                self._busy("Waiting for flow runs.")
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
        names = [flow.name for file in self._files.values() for flow in file.flows]
        name = shlex.quote(names[0] if names else "my-flow")
        script.write_text("".join(f"{line}\n" for line in lines))
        return [
            "",
            "In another terminal, first of all:",
            "",
            f"  . {script}",
            "",
            "Then, for example:",
            "",
            f"  prefect register --project {env.PROJECT} --path my_flow.py",
            f"  prefect run --project {env.PROJECT} --name {name} --watch",
            "",
            "The first line is short for these. Ctrl-C here stops everything.",
            "",
            *lines,
            "",
        ]

    # Closing -------------------------------------------------------------------------

    def close(self, failed: bool = False) -> int:
        """Show the last events and the summary, and return the exit code."""
        self._watch.refresh(0)
        self._screen.close()
        rows, now = self._screen.rows, self._watch.now
        if self._aws is not None and rows:
            causes = {run_id: self._cause(run_id) for run_id in rows}
            self._screen.say(["", *summary(rows, self._aws.calls, now, causes)])
            # Again, since they have passed by.
            self._screen.say([str(problem) for problem in self._problems])
        is_good = self._watch.all_succeeded and not self._problems
        return 0 if is_good and not failed else 1

    def _cause(self, run_id: str) -> str:
        """The exception of a run's first failed task; empty if there is none."""
        failed = [
            task_run
            for task_run in self._api.store.task_runs(run_id)
            if task_run.state in ("Failed", "TimedOut", "ValidationFailed")
        ]
        if not failed:
            return ""
        return cause(failed[0].task_slug, failed[0].state_message or "", len(failed))

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
