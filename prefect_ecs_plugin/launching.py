"""One run's way from the queue to its task, as steps that can wait.

row of the API -> FlowRun, ECSRun     plain, frozen values
               -> kwargs.merge        the agent's and the run's run_task kwargs
               -> template.build      the register_task_definition request
               -> kwargs.build        the RunTask request
               -> overflow            what has no room there goes into the definition
               -> Submission          definition found or registered, task launched
               -> Reporter            a line in the run's log, or Failed
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Set, Tuple

from . import api_key, console, kwargs, overflow, rules, template
from .agent_log import of_run
from .counting import Counts, Outcome, Reason
from .errors import RunConfigError
from .flow_run import FlowRun
from .pacing import Turn
from .reporting import Reporter, seconds_until_start
from .retrying import Patience
from .run_config import ECSRun
from .settings import AgentSettings, PrefectSettings
from .sources import ClientFactory, load_mapping
from .submission import Submission
from .task_state import Launch
from .waiting import Cause, Interrupted, Pause, Result, Steps, Wait, overheard

#: The cluster of those who name none.
DEFAULT_CLUSTER = "default"

#: Told about each task that was started: its ARN, its cluster, its run, its launch.
OnLaunched = Callable[[str, str, str, Launch], object]

#: Seconds after which a run that was free may have been taken, and be Running: on a
#: busy agent a row can wait for a worker.
_OLD = 2.0

#: Seconds of queueing before the run's log says why nothing happens.
_LONG_QUEUE = 10.0


class Started(NamedTuple):
    """A task that was started, and where to look at it."""

    arn: str
    links: str

    def __str__(self) -> str:
        return self.links


class Launcher:
    """Launches runs.

    Args:
        settings: The agent's defaults.
        prefect_settings: Asked for each run what it needs to reach its API.
        clients: Makes AWS clients, for templates on S3.
        submission: Launches tasks.
        reporter: Tells Prefect.
        logger: The agent's own log.
        timeout: Seconds from its start for which a run may be refused.
        on_taken: Called when a run has left the queue.
        on_launched: Called with each task that was started.
        counts: Counts what becomes of them.
        learn: Told the dicts of runs in which secrets may stand.

    Attributes:
        under_way: Runs that are Submitted and have no task yet.
    """

    def __init__(
        self,
        settings: AgentSettings,
        prefect_settings: Callable[[], PrefectSettings],
        clients: ClientFactory,
        submission: Submission,
        reporter: Reporter,
        logger: logging.Logger,
        timeout: float,
        on_taken: Callable[[], object] = lambda: None,
        on_launched: OnLaunched = lambda task_arn, cluster, run_id, launch: None,
        counts: Optional[Counts] = None,
        learn: Callable[..., object] = lambda *structures: None,
    ) -> None:
        self._settings = settings
        self._prefect_settings = prefect_settings
        self._clients = clients
        self._submission = submission
        self._reporter = reporter
        self._logger = logger
        self._timeout = timeout
        self._on_taken = on_taken
        self._on_launched = on_launched
        self._counts = counts or Counts()
        self._learn = learn
        self._run_task_kwargs = kwargs.agent_level(settings)
        self.under_way: Set[str] = set()

    def take_and_launch(self, row: Mapping[str, Any], read: float) -> Steps[None]:
        """Take a run when it is due, and launch it.

        Args:
            row: The run as the API gave it.
            read: When it did, by the monotonic clock.
        """
        if (yield from self._counts.waits.of(row["id"], self._take(row, read))):
            self._on_taken()
            yield from self.launch(row, FlowRun.from_api(row))
        else:
            self._counts.flow_runs.add(Outcome.NOT_TAKEN)

    def _take(self, row: Mapping[str, Any], read: float) -> Steps[bool]:
        seconds = seconds_until_start(row)
        due = time.monotonic() + seconds
        yield Pause(seconds, cause=Cause.NOT_DUE)
        is_old = time.monotonic() - max(read, due) > _OLD
        return (yield from self._reporter.take(row, is_old))

    def launch(self, row: Mapping[str, Any], flow_run: FlowRun) -> Steps[None]:
        """Launch a run that is ours, and tell Prefect how it went.

        Args:
            row: The run as the API gave it.
            flow_run: The same, read.
        """
        steps = self._launch(row, flow_run)
        yield from self._counts.waits.of(flow_run.id, steps)

    def _launch(self, row: Mapping[str, Any], flow_run: FlowRun) -> Steps[None]:
        self.under_way.add(flow_run.id)
        patience = self._patience(row)
        steps = self.deploy(row, flow_run, patience)
        try:
            task = yield from self._told(flow_run.id, steps)
        except Interrupted:
            self._give_back(flow_run, patience)
            raise
        except Exception as error:  # one run's trouble is nobody else's
            self._counts.flow_runs.add(Outcome.LAUNCH_FAILED)
            yield from self._fail(row, error)
        else:
            self._counts.flow_runs.add(Outcome.LAUNCHED)
            self._logger.info(
                "Flow run %s was submitted: %s",
                flow_run.id,
                task,
                extra=of_run(flow_run.id, task.arn),
            )
            self._reporter.log(flow_run.id, f"Submitted for execution: {task}")
        finally:
            self.under_way.discard(flow_run.id)

    def _fail(self, row: Mapping[str, Any], error: Exception) -> Steps[None]:
        message = str(error) or type(error).__name__
        self._learn(row.get("run_config"))  # it may have waited for long
        about = of_run(row["id"])
        self._logger.error(
            "Flow run %s cannot be launched: %s", row["id"], message, extra=about
        )
        self._logger.debug("The error in full", exc_info=error, extra=about)
        state = "Running" if row.get("state") == "Running" else "Submitted"
        yield from self._reporter.mark_failed(
            {"id": row["id"], "state": state}, message
        )

    def _give_back(self, flow_run: FlowRun, patience: Patience) -> None:
        """Return a run, unless it may have a task, which the next start finds."""
        is_returned = not patience.is_uncertain and self._reporter.give_back(
            flow_run.id, flow_run.launch_name
        )
        self._counts.flow_runs.add(Outcome.RETURNED if is_returned else Outcome.LEFT)

    def deploy(
        self,
        row: Mapping[str, Any],
        flow_run: Optional[FlowRun] = None,
        patience: Optional[Patience] = None,
    ) -> Steps[Started]:
        """Launch a run that has been taken.

        Args:
            row: The run as the API gave it.
            flow_run: The same, if it was read already.
            patience: How long it may be refused, if that is counted already.

        Returns:
            The task.

        Raises:
            PrefectECSError: one sentence, if the run cannot be launched.
        """
        self._learn(row.get("run_config"))
        flow_run = flow_run or FlowRun.from_api(row)
        run_config = ECSRun.from_serialized(row.get("run_config"))
        merged = self._merged(run_config)
        patience = patience or self._patience(row)
        if run_config.task_definition_arn:
            name = _own_definition(flow_run, run_config)
            definition = yield from self._submission.described(name, patience)
            self._learn(definition)
            api_key.check_brought(name, definition, self._settings)
            request = self._request(merged, definition, flow_run, run_config)
            kwargs.check_request(request, definition)
            task_arn = yield from self._submission.launch_by_arn(
                name, request, patience
            )
        else:
            definition, request = self._both_requests(merged, flow_run, run_config)
            task_arn = yield from self._submission.launch(definition, request, patience)
        launch = Launch(
            flow_run.attempt, row.get("state") == "Running", flow_run.launch_name
        )
        self._count(launch, patience)
        cluster = str(request.get("cluster") or DEFAULT_CLUSTER)
        self._on_launched(task_arn, cluster, flow_run.id, launch)
        return Started(task_arn, _with_links(task_arn, definition))

    def _count(self, launch: Launch, patience: Patience) -> None:
        """Count a task that was accepted.

        The delay of a run without a start of its own, as one that comes back for the
        retry of a task, counts from when it was taken.
        """
        if launch.attempt > 1:
            self._counts.launches.add(Reason.RESTART)
            return
        self._counts.launches.add(Reason.RETRY if launch.resumed else Reason.SCHEDULED)
        self._counts.launch_delay.observe(max(0.0, time.time() - patience.due))

    def cluster_of(self, row: Mapping[str, Any]) -> str:
        """The cluster that a run is launched in.

        Raises:
            RunConfigError: if its run config cannot be used.
        """
        run_config = ECSRun.from_serialized(row.get("run_config"))
        return str(self._merged(run_config).get("cluster") or DEFAULT_CLUSTER)

    def _merged(self, run_config: ECSRun) -> Dict[str, Any]:
        own = run_config.run_task_kwargs or {}
        kwargs.check(own)
        return kwargs.merge(self._run_task_kwargs, own)

    def _patience(self, row: Mapping[str, Any]) -> Patience:
        """A run that the agent found late is not punished for it."""
        late = max(0.0, -seconds_until_start(row))
        return Patience(time.time() - late, self._timeout, time.monotonic)

    def _template(self, run_config: ECSRun) -> Mapping[str, Any]:
        if run_config.task_definition:
            return run_config.task_definition
        if run_config.task_definition_path:
            loaded = load_mapping(run_config.task_definition_path, self._clients)
            self._learn(loaded)
            return loaded
        return self._settings.task_definition

    def _both_requests(
        self, merged: Mapping[str, Any], flow_run: FlowRun, run_config: ECSRun
    ) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """The definition of a run that names none, and the request to run it."""
        facts = (self._template(run_config), flow_run, run_config, self._settings)
        definition = template.build(*facts, merged)
        request, moved = overflow.relieve(
            self._request(merged, definition, flow_run, run_config), definition
        )
        if moved:
            definition = template.build(*facts, merged, moved)
            self._logger.info(
                "Flow run %s: ECS takes %s characters of overrides, so these variables "
                "go into the task definition: %s",
                flow_run.id,
                rules.MAX_OVERRIDES,
                ", ".join(name for env in moved.values() for name in env),
                extra=of_run(flow_run.id),
            )
        kwargs.check_request(request, definition)
        return definition, request

    def _request(
        self,
        merged: Mapping[str, Any],
        definition: Mapping[str, Any],
        flow_run: FlowRun,
        run_config: ECSRun,
    ) -> Dict[str, Any]:
        for name in kwargs.dropped_overrides(merged, definition):
            self._logger.debug(
                "Flow run %s has no container %r: the agent's override is left out",
                flow_run.id,
                name,
                extra=of_run(flow_run.id),
            )
        request = kwargs.build(
            merged,
            definition,
            flow_run,
            run_config,
            self._settings,
            self._prefect_settings(),
        )
        for note in kwargs.notes(merged, request):
            self._reporter.log(flow_run.id, note)
        return request

    # -- Telling why nothing happens ----------------------------------------------

    def _told(self, run_id: str, steps: Steps[Result]) -> Steps[Result]:
        """Pass on the waits of a run, and say in its log, once, why it waits."""
        told = False

        def tell(wait: Wait) -> None:
            nonlocal told
            reason = "" if told else self._reason(wait)
            if reason:
                told = True
                self._logger.info(
                    "Flow run %s waits: %s", run_id, reason, extra=of_run(run_id)
                )
                self._reporter.log(run_id, f"Waiting for ECS: {reason}")

        result = yield from overheard(steps, tell)
        if told:
            self._reporter.log(run_id, "ECS has accepted the task now")
        return result

    def _reason(self, wait: Wait) -> str:
        if isinstance(wait, Pause):
            return wait.reason
        if isinstance(wait, Turn) and wait.seconds > _LONG_QUEUE:
            return (
                f"AWS limits the rate of launches, and {wait.ahead} others are ahead; "
                f"about {wait.seconds:.0f} s"
            )
        return ""


def _own_definition(flow_run: FlowRun, run_config: ECSRun) -> str:
    """The definition that a run names, if it may name one."""
    if flow_run.has_docker_storage:
        raise RunConfigError(
            "A flow with Docker storage cannot use task_definition_arn, since the "
            "image is part of the storage; give a task_definition, or other storage."
        )
    return str(run_config.task_definition_arn)


def _with_links(task_arn: str, definition: Mapping[str, Any]) -> str:
    links = f"Task {task_arn} ({console.task_url(task_arn)})"
    logs = console.log_url(task_arn, definition)
    return f"{links}; logs: {logs}" if logs else links
