"""One run's way from the queue to its task, as steps that can wait.

row of the API -> claims              the launch record, in the state of the run
               -> FlowRun, ECSRun     plain, frozen values
               -> kwargs.merge        the agent's and the run's run_task kwargs
               -> template.build      the register_task_definition request
               -> kwargs.build        the RunTask request
               -> overflow            variables beyond 8,192 characters: definition
               -> Submission          definition found or registered, task launched
               -> Reporter            a line in the run's log, or Failed
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import (
    Any,
    Callable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Union,
)

from .. import kwargs
from ..aws import console_links
from ..aws.rate_limiter import RateLimitTicket
from ..aws.retrying import NoCapacity, RetryBudget
from ..config.sources import Reader
from ..errors import ConfigurationError, PrefectECSError, RunConfigError
from ..flow_run import FlowRun
from ..launch_record import (
    Launch,
    LaunchRecord,
    holds,
    is_same_claim,
    launch_of,
    unchanged_since,
    version_of,
)
from ..observability.counters import AgentCounters, Outcome, Reason
from ..observability.log_formats import log_context, log_full_error
from ..observability.outage_log import OutageLog
from ..prefect_api.reporter import Reporter, seconds_until_start
from ..run_config import ECSRun
from ..scheduling.steps import Cause, Interrupted, Pause, Steps, Wait
from ..settings import (
    DEFAULT_MAX_DELAY,
    AgentSettings,
    PrefectSettings,
    ResumeSettings,
)
from ..submission import LaunchUncertain, Submission
from ..validation.excerpt import shortened
from . import api_key, run_options
from .claims import Claims, was_claimed_before
from .other_tasks import EarlierTasks, OtherTasks, up_to
from .requests import Plan, Requests
from .run_options import RunOptions
from .sizes import Size, Sizes
from .slots import OverLimit, Slots

#: The service of an outage in which tasks cannot be started.
AWS = "AWS"

STARTING = "Tasks cannot be started [tasks-not-started]"

#: The cluster of runs that name none.
DEFAULT_CLUSTER = "default"

#: Seconds after which another agent may have claimed a run that was free when it was
#: read: on a busy agent a row can wait for a worker.
_OLD = 2.0

#: Seconds since this launch was last known to hold the run after which the answer to
#: RunTask is late: the run may have been cancelled and started anew meanwhile.
_LATE = 5.0

#: Seconds until a run that comes back for a task retry is read again, if its task is
#: still running.
_AT_WORK = 30.0

#: Seconds of queueing before the run's log says why nothing happens.
_LONG_QUEUE = 10.0


class Started(NamedTuple):
    """A task that was started.

    Attributes:
        arn: The task.
        cluster: Its cluster's name or ARN.
        run_id: Its flow run.
        launch: How it came to be.
        is_late: Whether the run may have been started anew meanwhile.
        was_listed: Whether it was found in the list of the run's tasks, and may be that
            of another launch.
        links: Where to look at it, in words.
        notes: What the run's log should say besides.
    """

    arn: str
    cluster: str
    run_id: str
    launch: Launch
    is_late: bool = False
    was_listed: bool = False
    links: str = ""
    notes: Tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.links


#: Called with each task that was started.
OnLaunched = Callable[[Started], object]


class LaunchAbandoned(Exception):
    """This launch does not hold the run any more and has started no task for it."""


class Launcher:
    """Launches runs.

    Args:
        settings: Returns the agent's defaults; called per run.
        prefect_settings: Returns what a run needs to reach its API; called per run.
        files: Reads the templates that run configs name.
        submission: Launches tasks.
        claims: Claims runs at the Prefect API.
        reporter: Writes states and logs to Prefect.
        logger: The agent's own log.
        outages: Logs when tasks cannot be started because AWS does not answer.
        timeout: Seconds for which a launch that ECS refuses is retried.
        max_delay: Seconds after its start in which a run may be launched for the first
            time; 0 for any.
        agent_id: Returns the agent's id at the API.
        region: The region that tasks are launched in.
        other_tasks: Finds and stops the other tasks of a run.
        resume_settings: What the agent does where Spot has no capacity.
        slots: Keeps the limits; None for no limits.
        on_claimed: Called with the id of a run that has left the queue.
        on_launched: Called with each task that was started.
        counts: Counts launches and their outcomes.
        learn: Called with a run's id and dicts that may contain secrets to redact.
        forget: Called with the id of a run whose launch has ended.

    Attributes:
        region: As given.
        pending_run_ids: Runs that are claimed and have no task yet.
        being_read: Runs whose requests are not made yet.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], AgentSettings],
        prefect_settings: Callable[[], PrefectSettings],
        files: Reader,
        submission: Submission,
        claims: Claims,
        reporter: Reporter,
        logger: logging.Logger,
        outages: OutageLog,
        timeout: float,
        max_delay: float = DEFAULT_MAX_DELAY,
        agent_id: Callable[[], Optional[str]],
        other_tasks: OtherTasks,
        resume_settings: ResumeSettings = ResumeSettings(),  # noqa: B008  # frozen
        slots: Optional[Slots] = None,
        region: str = "",
        on_claimed: Callable[[str], object] = lambda run_id: None,
        on_launched: OnLaunched = lambda started: None,
        counts: Optional[AgentCounters] = None,
        learn: Callable[..., object] = lambda run_id, *structures: None,
        forget: Callable[[str], object] = lambda run_id: None,
    ) -> None:
        self._settings = settings
        self._requests = Requests(
            settings=settings,
            prefect_settings=prefect_settings,
            files=files,
            logger=logger,
            learn=learn,
        )
        self._submission = submission
        self._claims = claims
        self._reporter = reporter
        self._logger = logger
        self._outages = outages
        self._timeout = timeout
        self._max_delay = max_delay
        self._agent_id = agent_id
        self.region = region
        self._others = other_tasks
        self._resume_settings = resume_settings
        self._slots = slots
        self._sizes = Sizes()
        self._on_claimed = on_claimed
        self._on_launched = on_launched
        self._counts = counts or AgentCounters()
        self._learn = learn
        self._forget = forget
        self._told: Set[str] = set()
        self.pending_run_ids: Set[str] = set()
        self.being_read: Set[str] = set()

    # -- From the queue ------------------------------------------------------------

    def claim_and_launch(self, row: Mapping[str, Any], read: float) -> Steps[None]:
        """Claim a run when it is due, and launch it.

        Args:
            row: The run as the API gave it.
            read: When it did, by the monotonic clock.
        """
        yield Pause(seconds_until_start(row), cause=Cause.NOT_DUE)
        found = self._slots.found(row["id"]) if self._slots else None
        waited = time.monotonic() - (read if found is None else found)
        if _is_too_late(row, self._max_delay, waited):
            asked = self._slots.has_waited(row["id"]) if self._slots else None
            if not (asked and (yield from asked)):
                yield from self._cancel_late(row)
                return
        latest = None
        if row.get("state") == "Running":
            now = yield from self._claims.read(row["id"])
            if (yield from self._others.has_task(row, now)):
                yield Pause(_AT_WORK)  # it takes up all that is due when it starts
                return
            latest = self._claims.latest(now) if now else None
        launch = launch_of(row, latest)
        earlier = yield from self._others.earlier(row)
        if earlier:
            launch = replace(launch, after=earlier.last)
        record = self.record_of(row, launch)
        is_old = was_claimed_before(row) or time.monotonic() - read > _OLD
        yield from self.launch(row, record, is_old, earlier)

    def _cancel_late(self, row: Mapping[str, Any]) -> Steps[None]:
        """Cancel a run that was found too late, unless another agent has claimed it."""
        message = (
            f"The run was found {-seconds_until_start(row):.0f} s after its scheduled "
            f"start, later than the agent's --max-delay of {self._max_delay:g} s; it "
            "is not launched. Set it to Scheduled to run it nevertheless. [too-late]"
        )
        seen = (row.get("state"), version_of(row))
        is_cancelled = yield from self._reporter.mark_cancelled(
            row["id"], lambda now: (now["state"], version_of(now)) == seen, message
        )
        if is_cancelled:
            self._counts.flow_runs.add(Outcome.TOO_LATE)
            self._logger.warning(
                "Flow run %s: %s", row["id"], message, extra=log_context(row["id"])
            )

    def record_of(self, row: Mapping[str, Any], launch: LaunchRecord) -> LaunchRecord:
        """The launch record of a run that this process is about to launch.

        Args:
            row: The run as the API gave it.
            launch: Its name, attempt and `after` are kept.
        """
        cluster, definition, size = DEFAULT_CLUSTER, None, Size()
        with suppress(Exception):  # the launch itself reports a damaged run config
            run_config, merged = self._requests.read(row.get("run_config"))
            definition = run_config.task_definition_arn
            cluster = str(merged.get("cluster") or cluster)
            if self._slots and self._slots.of_vcpus():
                template = self._settings().task_definition
                size = self._sizes.of(run_config, merged, template, launch)
        return replace(
            launch,
            cluster=cluster,
            region=self.region,
            definition=definition,
            holder=self._claims.holder,
            agent_id=self._agent_id(),
            task_cpu=size.units,
            capacity=size.capacity,
            time=datetime.fromtimestamp(time.time(), timezone.utc).isoformat(),
        )

    def options_of(self, row: Mapping[str, Any]) -> RunOptions:
        """The options that a run sets for itself.

        Args:
            row: The run as the API gave it.

        Raises:
            RunConfigError: if its run config or an option cannot be read.
        """
        run_config, _ = self._requests.read(row.get("run_config"))
        return run_options.read(run_config)

    def size_of(self, row: Mapping[str, Any]) -> Size:
        """What the task of a run in the queue asks for, as far as it is known.

        Args:
            row: The run as the API gave it.
        """
        record = self.record_of(row, launch_of(row))
        return Size(record.task_cpu, record.capacity)

    def may_fall_back(self, row: Mapping[str, Any], record: LaunchRecord) -> bool:
        """Whether a run on FARGATE_SPOT may run on FARGATE instead.

        Args:
            row: The run as the API gave it.
            record: Its latest launch.
        """
        if record.on_demand or not self._resume_settings.spot_fallback:
            return False
        with suppress(Exception):  # the launch itself reports a damaged run config
            _, merged = self._requests.read(row.get("run_config"))
            return kwargs.asks_for_spot(merged)
        return False

    def launch(
        self,
        row: Mapping[str, Any],
        record: LaunchRecord,
        is_old: bool = True,
        earlier: Optional[EarlierTasks] = None,
        is_counted: bool = False,
    ) -> Steps[None]:
        """Claim a run and launch it, and tell Prefect how that went.

        Args:
            row: The run as the API gave it.
            record: The launch.
            is_old: Whether another agent may have claimed the run since it was read.
            earlier: The tasks of an earlier launch; those at work are stopped.
            is_counted: Whether the run was found to be within all limits before, and
                has been taken since.
        """
        if row.get("state") == "Cancelling":  # no container can end it
            yield from self._end_cancelled(row["id"], is_same_claim(row))
            return
        if row.get("state") == "Running" and not row.get("task_runs"):
            yield from self._end_without_task_runs(row)
            return
        if self._slots:
            self._slots.claiming(row["id"])
        try:
            is_claimed = yield from self._claims.claim(row, record, is_old)
        except Interrupted:  # the claim may have succeeded nevertheless
            if self._claims.requeue(row, record):
                self._counts.flow_runs.add(Outcome.RETURNED)
            raise
        if not is_claimed:
            self._counts.flow_runs.add(Outcome.NOT_TAKEN)
            return
        self.pending_run_ids.add(row["id"])
        try:
            self._on_claimed(row["id"])
            yield from self._launch_claimed(row, record, earlier, is_counted)
        finally:
            for run_ids in (self.pending_run_ids, self.being_read, self._told):
                run_ids.discard(row["id"])
            self._forget(row["id"])

    def _launch_claimed(
        self,
        row: Mapping[str, Any],
        record: LaunchRecord,
        earlier: Optional[EarlierTasks],
        is_counted: bool,
    ) -> Steps[None]:
        run_id, budget = row["id"], self._budget(row)
        try:
            yield from self._before_reading(row, record, earlier, budget, is_counted)
            self.being_read.add(run_id)
            task = yield from self.deploy(row, record, budget)
        except Interrupted:
            # A run that may have a task stays as it is; the next start finds the task.
            is_returned = not budget.is_uncertain and self._claims.requeue(row, record)
            self._counts.flow_runs.add(
                Outcome.RETURNED if is_returned else Outcome.LEFT
            )
            raise
        except LaunchAbandoned as abandoned:
            yield from self._abandon(row, record, abandoned)
        except OverLimit as over:
            yield from self._give_back(row, record, over)
        except NoCapacity as refused:
            yield from self._fall_back(row, record, refused)
        except LaunchUncertain as uncertain:
            self._counts.flow_runs.add(Outcome.LEFT)
            self._logger.warning(
                "Flow run %s may have a task that this agent cannot see; if the run "
                "stays Submitted, set it to Scheduled: %s",
                run_id,
                uncertain,
                extra=log_context(run_id),
            )
        except Exception as error:  # it concerns this run only
            self._counts.flow_runs.add(Outcome.LAUNCH_FAILED)
            yield from self.fail(row, record, error)
        else:
            self._count(record, row, budget)
            self._outages.end(STARTING)
            self._others.stop_late(run_id, record, task.arn)
            self._tell(task)

    def _before_reading(
        self,
        row: Mapping[str, Any],
        record: LaunchRecord,
        earlier: Optional[EarlierTasks],
        budget: RetryBudget,
        is_counted: bool,
    ) -> Steps[None]:
        """What is done for a run that was claimed, before it is read."""
        run_id = row["id"]
        if row.get("state") == "Running":
            # The server counts task runs that are Submitted as dead, and a claim of
            # task runs sets no heartbeat: Lazarus would start the run again.
            self._reporter.heartbeats([run_id])
        elif self._slots and not is_counted:
            counting = self._slots.confirm(row, record)
            yield from budget.uncounted(counting)
        if earlier is None and record.after:
            earlier = up_to(record.after)
        if earlier:
            yield from budget.uncounted(self._others.stop(run_id, earlier))

    def _give_back(
        self, row: Mapping[str, Any], record: LaunchRecord, over: OverLimit
    ) -> Steps[None]:
        """Return a run to the queue that is above a limit, if it is still claimed."""
        if not (yield from self._claims.give_back(row, record)):
            lost = LaunchAbandoned("it was cancelled, finished or rescheduled")
            yield from self._abandon(row, record, lost)
            return
        self._counts.flow_runs.add(Outcome.OVER_LIMIT)
        self._logger.info(
            "Flow run %s waits in the queue: %s",
            row["id"],
            over,
            extra=log_context(row["id"]),
        )

    def _fall_back(
        self, row: Mapping[str, Any], record: LaunchRecord, refused: NoCapacity
    ) -> Steps[None]:
        """Launch a run on FARGATE for which FARGATE_SPOT has no capacity.

        It is claimed again, since another request needs another clientToken.
        """
        run_id = row["id"]
        now = yield from self._claims.held(row, record)
        whole = (yield from self._claims.read_whole(run_id)) if now else None
        if now is None or whole is None:
            yield from self._abandon(row, record, LaunchAbandoned("it has changed"))
            return
        words = f"It is launched on FARGATE, not on FARGATE_SPOT. {refused.message}"
        self._logger.warning(
            "Flow run %s: %s [spot-fallback]", run_id, words, extra=log_context(run_id)
        )
        self._reporter.log(run_id, f"{words} [spot-fallback]", "WARNING")
        again = replace(record, attempt=record.attempt + 1, on_demand=True)
        yield from self.launch(whole, self.record_of(whole, again), is_counted=True)

    def _tell(self, task: Started) -> None:
        for note in task.notes:
            self._reporter.log(task.run_id, note)
        about = log_context(task.run_id, task.arn)
        self._logger.info(
            "Flow run %s was submitted: %s", task.run_id, task, extra=about
        )
        if task.run_id in self._told:
            self._reporter.log(task.run_id, "ECS has accepted the task now")
        self._reporter.log(task.run_id, f"Submitted for execution: {task}")

    def _abandon(
        self,
        row: Mapping[str, Any],
        record: LaunchRecord,
        abandoned: LaunchAbandoned,
    ) -> Steps[None]:
        """Leave the run as it is now; end a resumed one that is Cancelling."""
        run_id = row["id"]
        self._counts.flow_runs.add(Outcome.ABANDONED)
        self._logger.info(
            "Flow run %s is not launched: %s",
            run_id,
            abandoned,
            extra=log_context(run_id),
        )
        if row.get("state") == "Running":  # no container can end it
            yield from self._end_cancelled(run_id, lambda now: holds(row, now, record))

    def _end_cancelled(
        self, run_id: str, is_ours: Callable[[Mapping[str, Any]], bool]
    ) -> Steps[None]:
        yield from self._reporter.mark_cancelled(
            run_id,
            lambda now: now["state"] == "Cancelling" and is_ours(now),
            "The run was cancelled before a task was started for it.",
        )

    def _end_without_task_runs(self, row: Mapping[str, Any]) -> Steps[None]:
        """End a run that was to be resumed, if no task run is left to run."""
        now = yield from self._claims.read_idle(row["id"])
        if now is None or now["state"] != "Running":
            return
        yield from self._reporter.mark_failed(
            row["id"],
            unchanged_since(now),
            "The task runs to retry have other states now, and no task of the run is "
            "running; restart the run. [no-task-runs-to-retry]",
        )

    def fail(
        self, row: Mapping[str, Any], record: LaunchRecord, error: Exception
    ) -> Steps[None]:
        """Mark a run Failed that cannot be launched, if its launch still holds it.

        Args:
            row: The run as it was before it was claimed.
            record: The launch.
            error: Why, as a sentence.
        """
        message = str(error)
        if isinstance(error, ConfigurationError):  # it quotes the run config
            message = shortened(message)
        elif not isinstance(error, PrefectECSError):
            message = (
                "The launch was aborted by an internal error: "
                f"{type(error).__name__}: {error} [internal-error]"
            )
        about = log_context(row["id"])
        self._logger.error(
            "Flow run %s cannot be launched: %s", row["id"], message, extra=about
        )
        log_full_error(self._logger, error, about)
        now = yield from self._claims.held(row, record)
        if now:
            yield from self._reporter.mark_failed(
                row["id"], unchanged_since(now), message
            )

    # -- From a run to its task ------------------------------------------------------

    def deploy(
        self,
        row: Mapping[str, Any],
        record: Optional[LaunchRecord] = None,
        budget: Optional[RetryBudget] = None,
    ) -> Steps[Started]:
        """Launch a run that has been claimed.

        Args:
            row: The run as the API gave it.
            record: The launch; None if the caller has claimed the run.
            budget: How long it may be refused, if that is counted already.

        Returns:
            The task.

        Raises:
            PrefectECSError: one sentence, if the run cannot be launched.
            LaunchAbandoned: if this launch does not hold the run any more.
            LaunchUncertain: if ECS does not show whether it started a task.
        """
        self._learn(row["id"], row.get("run_config"))
        plan = self._requests.plan(row, record)
        flow_run, run_config = plan.flow_run, plan.run_config
        budget = budget or self._budget(row)
        if record and self.may_fall_back(row, record):
            budget.patience = self._resume_settings.spot_patience
        confirm = self._confirmation(row, record, budget) if record else None
        after = record.after if record else None
        if run_config.task_definition_arn:
            name = _own_definition(flow_run, run_config)
            definition = yield from self._submission.described(name, budget)
            self._learn(flow_run.id, definition)
            api_key.check_brought(name, definition, self._settings())
            request = self._requests.for_definition(plan, definition)
            self._check_size(row, plan, definition, request, record)
            self.being_read.discard(flow_run.id)
            task_arn = yield from self._submission.launch_by_arn(
                name, request, budget, confirm=confirm, after=after
            )
        else:
            definition, request = yield from self._requests.both(plan)
            self._check_size(row, plan, definition, request, record)
            self.being_read.discard(flow_run.id)
            task_arn = yield from self._submission.launch(
                definition, request, budget, confirm=confirm, after=after
            )
        is_resumed = row.get("state") == "Running"
        task = Started(
            task_arn,
            str(plan.merged.get("cluster") or DEFAULT_CLUSTER),
            flow_run.id,
            Launch(flow_run.attempt, is_resumed, flow_run.launch_name),
            is_late=budget.is_uncertain or budget.seconds_since_confirmed() > _LATE,
            was_listed=budget.was_listed,
        )
        with self._never_failing(task):
            self._on_launched(task)
        with self._never_failing(task):
            task = task._replace(links=_with_links(task_arn, definition))
        with self._never_failing(task):
            notes = kwargs.notes(plan.merged, request) if record else ()
            task = task._replace(notes=(*_about_resumption(record), *notes))
        return task

    def _check_size(
        self,
        row: Mapping[str, Any],
        plan: Plan,
        definition: Mapping[str, Any],
        request: Mapping[str, Any],
        record: Optional[LaunchRecord],
    ) -> None:
        """Learn what a task asks for, unless its run is under way already.

        Raises:
            OverLimit: if it is more than the launch record says, and vCPUs are limited.
        """
        limit = self._slots.of_vcpus() if self._slots else None
        if limit is None or record is None or record.attempt > 1:
            return
        if row.get("state") == "Running":
            return
        if not self._sizes.check(plan.run_config, definition, request, record):
            raise OverLimit(limit)

    @contextmanager
    def _never_failing(self, task: Started) -> Iterator[None]:
        """Report an internal error; the task was started and its run goes on."""
        try:
            yield
        except Exception as error:
            about = log_context(task.run_id, task.arn)
            self._logger.error(
                "Flow run %s: an internal error after its task %s was started; the run "
                "is not affected: %s: %s [internal-error]",
                task.run_id,
                task.arn,
                type(error).__name__,
                error,
                extra=about,
            )
            log_full_error(self._logger, error, about)

    def _confirmation(
        self, row: Mapping[str, Any], record: LaunchRecord, budget: RetryBudget
    ) -> Callable[[], Steps[None]]:
        """Steps that read the run again after a wait in which it may have changed.

        It may be Running: an earlier launch's task, which is being stopped, may have
        set that state.
        """

        def confirm() -> Steps[None]:
            may_run = was_claimed_before(row) and not budget.is_uncertain
            if not (yield from self._claims.held(row, record, may_run)):
                raise LaunchAbandoned(
                    "it was cancelled, finished or rescheduled while it waited"
                )

        return confirm

    def _count(
        self, record: LaunchRecord, row: Mapping[str, Any], budget: RetryBudget
    ) -> None:
        """Count a task that was accepted.

        The delay of a run that has no scheduled start of its own, such as one that
        comes back for a task retry, counts from when it was claimed.
        """
        self._counts.flow_runs.add(Outcome.LAUNCHED)
        if record.attempt > 1:
            self._counts.launches.add(Reason.RESTART)
            return
        is_resumed = row.get("state") == "Running"
        self._counts.launches.add(Reason.RETRY if is_resumed else Reason.SCHEDULED)
        self._counts.launch_delay.observe(max(0.0, time.time() - budget.due))

    def cluster_of(self, row: Mapping[str, Any]) -> str:
        """The cluster that a run would be launched in now."""
        return self.record_of(row, LaunchRecord("-")).cluster

    def _budget(self, row: Mapping[str, Any]) -> RetryBudget:
        """For a run that was found late, the timeout starts when it was claimed."""
        late = max(0.0, -seconds_until_start(row))
        return RetryBudget(time.time() - late, self._timeout, time.monotonic)

    # -- Reporting waits -----------------------------------------------------------

    def observe_wait(self, run_id: str, wait: Wait) -> None:
        """Write into a run's log, once for each launch, why it waits.

        Args:
            run_id: The run whose steps wait.
            wait: What they wait for.
        """
        if run_id not in self.pending_run_ids or run_id in self._told:
            return
        if not isinstance(wait, (Pause, RateLimitTicket)):
            return
        reason = _reason(wait)
        if reason:
            self._told.add(run_id)
            is_outage = wait.cause is Cause.OUTAGE
            if is_outage:  # all runs wait for it; each run's own log says so
                self._outages.begin(STARTING, reason, service=AWS)
            self._logger.log(
                logging.DEBUG if is_outage else logging.INFO,
                "Flow run %s waits: %s",
                run_id,
                reason,
                extra=log_context(run_id),
            )
            self._reporter.log(run_id, f"Waiting for ECS: {reason}")


def _about_resumption(record: Optional[LaunchRecord]) -> Iterator[str]:
    """What the run's log says about a task in which an interrupted run goes on."""
    if record and record.interruptions:
        yield f"The run goes on after interruption {record.interruptions}"
    if record and record.on_demand:
        yield "Its task runs on FARGATE, not on FARGATE_SPOT as the run asks for"
    if record and record.memory:
        yield f"Its task has {record.memory} MiB of memory, with cpu {record.cpu}"


def _is_too_late(row: Mapping[str, Any], max_delay: float, waited: float) -> bool:
    """Whether a run was found so late that it is not to be launched any more.

    A run that was claimed before is launched however late it is: an agent returned it
    to the queue, a user started it again, or a task run of it is due for a retry.

    Args:
        row: The run as the API gave it.
        max_delay: Seconds after its start in which it may be found; 0 for any.
        waited: Seconds since it was found, which do not count.
    """
    if not max_delay or row.get("state") != "Scheduled" or was_claimed_before(row):
        return False
    return -seconds_until_start(row) - waited > max_delay


def _reason(wait: Union[Pause, RateLimitTicket]) -> str:
    if isinstance(wait, Pause):
        return wait.reason
    if wait.seconds > _LONG_QUEUE:
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
            "image is part of the storage; give a task_definition, or other storage.",
            code="docker-storage",
        )
    return str(run_config.task_definition_arn)


def _with_links(task_arn: str, definition: Mapping[str, Any]) -> str:
    links = f"Task {task_arn} ({console_links.task_url(task_arn)})"
    logs = console_links.log_url(task_arn, definition)
    return f"{links}; logs: {logs}" if logs else links
