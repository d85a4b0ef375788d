"""The ECS agent: Prefect's hooks, the polling loop, and the wiring of the components.

docs/architecture.md has the map. Only this module and `prefect_api.client` override
private methods of Prefect, which is frozen. The tests run with Prefect 1.0 and 1.4.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

import prefect
from prefect.agent import Agent
from prefect.agent.agent import AGENT_WAKE_EVENT, ascii_name
from prefect.utilities.graphql import GraphQLResult

from . import kwargs, settings
from .aws import cluster as clusters
from .aws import fargate_quota, price_list
from .aws.container_logs import ContainerLogs
from .aws.ecs import ECS
from .aws.rate_limiter import RateLimiter, limits_for
from .aws.retrying import AWSCallError, Verdict
from .aws.session import AWSClients
from .config import configuration, options, summary
from .config.limits_file import LimitsFile
from .config.sources import Reader
from .errors import RateLimited, without_code
from .flow_run import plain
from .launch import api_key
from .launch.claims import Claims
from .launch.counting import Counting
from .launch.launcher import AWS, Launcher, Started
from .launch.other_tasks import OtherTasks
from .launch.quotas import Quotas
from .launch.slots import Slots
from .limits import QUOTA, Limit, vcpu_limits
from .monitoring.deadlines import Deadlines
from .monitoring.prices import source_of
from .monitoring.recovery import Recovery
from .monitoring.resumer import Resumer
from .monitoring.supervisor import Supervisor
from .monitoring.task_finder import TaskFinder
from .observability import log_formats, redaction
from .observability.counters import AgentCounters, Outcome
from .observability.health import AgentServer, Exposition, Health
from .observability.outage_log import OutageLog
from .prefect_api.client import AgentClient, is_unanswered
from .prefect_api.reporter import Reporter
from .prefect_api.run_states import RunStates
from .scheduling.dispatcher import Dispatcher
from .scheduling.poll_interval import WINDOW, PollInterval
from .scheduling.steps import Steps, in_thread, run_blocking
from .settings import AgentSettings, PrefectSettings, ResumeSettings
from .submission import Submission
from .validation import coercion
from .validation.arguments import listed
from .version import installed_version

#: Threads. RunTask takes about 0.4 s and the call to Prefect's API about 0.05 s, so
#: they launch some 100 runs a second, five times what AWS allows on Fargate.
_WORKERS = 48

#: Seconds between two heartbeats for the runs that have no task yet. The server's
#: Lazarus waits for ten minutes; another agent of this name, when it starts, for 30 s.
_HEARTBEAT = 15

#: Every Nth heartbeat also covers runs whose task has not started: there may be
#: thousands. With the one before the launch, each has one at least every two minutes.
_EVERY = 7

#: Stop polling while the launch backlog exceeds this many seconds. More runs would not
#: start any sooner here, and another agent may have capacity for them.
_MAX_BACKLOG = 15.0

#: How often an agent checks after its --max-polls whether all is done, in seconds.
_END_CHECK = 0.25

#: The part of the shutdown grace for returning runs; the rest is for log lines.
_RETURNING = 0.8

#: How long flushing the agent's own log may take when the process ends, in seconds.
_FLUSHING = 1.0

#: How long the line that begins the log waits for ECS to describe the cluster, whose
#: ARN has the account in it, in seconds. Meanwhile the agent launches nothing.
_DESCRIBING = 1.0

CREDENTIALS = "The AWS credentials cannot be refreshed [credentials-not-refreshed]"
QUEUE = "The queue of flow runs cannot be read from the Prefect API [queue-unreadable]"


class _Look(NamedTuple):
    """One look at the queue.

    Attributes:
        rows: Runs that the agent is not launching yet.
        began: When it began, by the monotonic clock.
        pause: Seconds until the next look.
    """

    rows: List[Dict[str, Any]]
    began: float
    pause: float


class ECSAgent(Agent):
    """Deploys flow runs as ECS tasks.

    Takes the arguments of Prefect's own ECS agent, with the same meaning, and more.

    Args:
        agent_config_id: The id of an agent config of the API to link with.
        name: The agent's name; default PREFECT__CLOUD__AGENT__NAME, or `agent`.
        labels: The agent takes the runs whose labels are among these.
        env_vars: Environment variables for every flow run.
        max_polls: How often to ask for runs before the agent ends; None for ever.
        agent_address: Where to serve the health check, `http://host:port`.
        no_cloud_logs: Whether to keep flow runs from logging to the API.
        task_definition_path: The template for runs that bring none: a local path,
            `s3://`, `gs://` or `http(s)://`. Default: Fargate, 1 vCPU, 2 GiB.
        run_task_kwargs_path: A YAML file of further kwargs for `run_task`, likewise.
        aws_access_key_id: As for boto3, and so are the next three; default is
            boto3's own search for credentials and region.
        aws_secret_access_key: See above.
        aws_session_token: See above.
        region_name: See above.
        cluster: The cluster's name or ARN; default the account's `default`.
        launch_type: `FARGATE` or `EC2`; default FARGATE, unless the kwargs file
            says otherwise.
        task_role_arn: The task role for runs and templates that name none.
        execution_role_arn: The execution role likewise.
        botocore_config: Options of `botocore.config.Config`. Retries are in mode
            `standard` unless this, AWS_RETRY_MODE or the config file says otherwise.
        launches_per_second: The limit on tasks launched per second, of which the agent
            uses 95%; default what AWS documents, 20 on Fargate and 40 on EC2.
        launch_timeout: How long to keep retrying a launch that ECS refuses, in seconds;
            0 to try once. Default 1800.
        watch: Whether to watch tasks once they are launched: to report those that never
            started or ended with their run unfinished, and to stop those of cancelled
            runs. Default True.
        start_attempts: How often to start a task that never ran. Default 3.
        cancel_grace: How long a cancelled flow has to end by itself before the agent
            stops its task, in seconds. Default 60.
        shutdown_grace: How long stopping the agent may take, in seconds. Default 25:
            ECS kills 30 s after SIGTERM.
        start_deadline: How long a task may take from its creation until it is RUNNING,
            in seconds; 0 for any time. The agent stops a task that takes longer and
            launches its run again, as often as `start_attempts` says. Default 1800.
        max_runtime: How long a task may run, in seconds; 0 for any time, the default.
            The agent stops a task that runs longer, and makes its run Failed. A run's
            own PREFECT_ECS_MAX_RUNTIME takes precedence.
        max_delay: How late a run may start that was scheduled and never launched, in
            seconds; 0 for any time, the default. A run that the agent finds later is
            Cancelled.
        api_key_secret_arn: The Secrets Manager secret (a JSON key allowed) or SSM
            parameter that holds the API key for flow runs, as ECS's `valueFrom`. ECS
            reads it with the execution role; no request has the key in it.
        log_format: `text`, as Prefect's configuration has it (the default), or
            `json`, one object a line. A logger of the agent's name that has a
            handler already keeps it as it is.
        template_hosts: The hosts at which run configs may name a template at http(s)://;
            default any but the machine itself and its cloud's metadata.
        flow_log_group: The CloudWatch log group for containers of rendered definitions
            that have no `logConfiguration`, and so for the last lines of a failed one
            in its run's log. On Fargate it needs an execution role. Default None: they
            log nowhere.
        on_interruption: What to do about a run whose task AWS interrupts: `resume`, if
            the task runs that were running have retries left (the default);
            `resume-all`, without retries too; or `fail`. A run may say otherwise.
        max_interruptions: How often one run goes on after interruptions. Default 3.
        spot_fallback: Whether a run on FARGATE_SPOT alone goes on on FARGATE the last
            time, and is launched there if Spot has no capacity. Default True.
        spot_patience: Seconds without Spot capacity after which it is. Default 300.
        max_memory: How many MiB a task may have after one was killed for memory; a
            run may say otherwise. Default None: the run is Failed.
        limits: How many runs may be under way at once: `N`, `flow=NAME:N`,
            `label=NAME:N` or `project=NAME:N`. Default: any number.
        limits_path: A YAML file of further limits, as `task_definition_path`; it is
            read again when it changes.
        max_vcpus: How many vCPUs the tasks of all runs may ask for at once; `quota`
            for what AWS's quotas of Fargate allow. Default None: any number.
        prices: Where the prices of tasks come from: `table`, the one in the package
            (the default); `aws`, AWS's Price List; or `off`.

    Raises:
        ConfigurationError: one line that says what to set, if an argument is wrong or
            misses something. `config.options` says what each may be; that is checked
            before AWS is asked.
    """

    client: AgentClient
    _cluster: Future[clusters.Cluster]

    def __init__(
        self,
        agent_config_id: Optional[str] = None,
        name: Optional[str] = None,
        labels: Optional[Iterable[str]] = None,
        env_vars: Optional[Dict[str, Any]] = None,
        max_polls: Optional[int] = None,
        agent_address: Optional[str] = None,
        no_cloud_logs: Optional[bool] = None,
        task_definition_path: Optional[str] = None,
        run_task_kwargs_path: Optional[str] = None,
        aws_access_key_id: Optional[str] = None,
        aws_secret_access_key: Optional[str] = None,
        aws_session_token: Optional[str] = None,
        region_name: Optional[str] = None,
        cluster: Optional[str] = None,
        launch_type: Optional[str] = None,
        task_role_arn: Optional[str] = None,
        execution_role_arn: Optional[str] = None,
        botocore_config: Optional[Dict[str, Any]] = None,
        launches_per_second: Optional[float] = None,
        launch_timeout: float = settings.DEFAULT_LAUNCH_TIMEOUT,
        watch: bool = True,
        start_attempts: int = settings.DEFAULT_START_ATTEMPTS,
        cancel_grace: float = settings.DEFAULT_CANCEL_GRACE,
        shutdown_grace: float = settings.DEFAULT_SHUTDOWN_GRACE,
        start_deadline: float = settings.DEFAULT_START_DEADLINE,
        max_runtime: float = settings.DEFAULT_MAX_RUNTIME,
        max_delay: float = settings.DEFAULT_MAX_DELAY,
        api_key_secret_arn: Optional[str] = None,
        log_format: str = "text",
        template_hosts: Iterable[str] = (),
        flow_log_group: Optional[str] = None,
        on_interruption: str = settings.DEFAULT_ON_INTERRUPTION,
        max_interruptions: int = settings.DEFAULT_MAX_INTERRUPTIONS,
        spot_fallback: bool = True,
        spot_patience: float = settings.DEFAULT_SPOT_PATIENCE,
        max_memory: Optional[int] = None,
        limits: Iterable[str] = (),
        limits_path: Optional[str] = None,
        max_vcpus: Union[float, str, None] = None,
        prices: str = settings.DEFAULT_PRICES,
    ) -> None:
        labels, template_hosts = listed(labels), listed(template_hosts)
        given, configured = dict(locals()), prefect.config.cloud.agent
        for argument in ("labels", "env_vars", "agent_address"):  # as Prefect does
            given[argument] = given[argument] or configured.get(argument)
        options.check(given, inspect.signature(ECSAgent).parameters)
        self._log_format = log_format
        if log_format == "json":  # before Prefect adds a handler for text
            logger_name = name or prefect.config.cloud.agent.get("name", "agent")
            log_formats.write_json(logging.getLogger(logger_name))
        super().__init__(
            agent_config_id=agent_config_id,
            name=name,
            labels=list(labels or ()),
            env_vars=env_vars,
            max_polls=max_polls,
            agent_address=agent_address,
            no_cloud_logs=no_cloud_logs,
        )
        self.heartbeat_period = _HEARTBEAT
        self._heartbeats = 0
        self._counts = AgentCounters()
        self.client = AgentClient(self._counts, api_server=prefect.config.cloud.api)
        if log_format == "json":  # Prefect 1.0 has just added a handler
            log_formats.reformat(self.client.logger.handlers)
        self._secrets = log_formats.install_redaction(self.logger, self.client.logger)
        self._secrets.keep(
            self.client.api_key,
            prefect.config.cloud.api_key,
            aws_secret_access_key,
            aws_session_token,
            *redaction.secrets_in({"env": self.env_vars}),
        )
        self._clients = AWSClients(
            aws_access_key_id=aws_access_key_id,
            aws_secret_access_key=aws_secret_access_key,
            aws_session_token=aws_session_token,
            region_name=region_name,
            botocore_config=botocore_config,
            max_pool_connections=_WORKERS,
            counts=self._counts,
        )
        self._secrets.keep(*self._clients.secrets())
        self.ecs_client = self._clients("ecs")
        coercion.use(self.ecs_client.meta.service_model)
        self._limits_path = limits_path
        self._follows_quota = max_vcpus == QUOTA
        self._limits_file = LimitsFile(
            limits, limits_path, vcpu_limits(max_vcpus), self._clients, self.logger
        )
        hosts = tuple(template_hosts)
        self._start_warnings: List[str] = []
        read_settings = configuration.settings_reader(
            self._clients,
            self._start_warnings.append,
            task_definition_path=task_definition_path,
            run_task_kwargs_path=run_task_kwargs_path,
            launch_type=launch_type,
            cluster=cluster,
            task_role_arn=task_role_arn,
            execution_role_arn=execution_role_arn,
            env=plain(self.env_vars),
            api_key_secret_arn=api_key_secret_arn,
            template_hosts=hosts,
            flow_log_group=flow_log_group,
            agent_name=self.name,
            on_files=self._describe_cluster,
        )

        def read() -> AgentSettings:
            settings = read_settings()
            files = settings.task_definition, settings.run_task_kwargs
            self._secrets.keep(*redaction.secrets_in(*files))
            return settings

        self._settings = in_thread(read, "settings")
        self._dispatcher = Dispatcher.threaded(_WORKERS, self._report_crash)
        self._outages = OutageLog(
            self.logger, self._dispatcher.clock, _unavailable_service
        )
        self._poll_interval = PollInterval(self._loop_intervals)
        self._shutdown_grace = shutdown_grace
        self._watches = watch
        self._health = Health(
            slowest_step=self._dispatcher.slowest,
            reasons=[self._dispatcher.problem, self._credentials_problem],
        )
        self._server: Optional[AgentServer] = None
        self._is_stopping = False
        self._window: FrozenSet[str] = frozenset()
        self._first_look: Optional[_Look] = None
        self._deadlines = Deadlines(start_deadline, max_runtime)
        self._max_delay = max_delay
        self._prices_of = source_of(
            prices, partial(price_list.read, self._clients), self.logger
        )
        self._build_components(
            Reader(self._clients, hosts),
            launches_per_second,
            launch_timeout,
            start_attempts,
            cancel_grace,
            ResumeSettings(
                on_interruption=on_interruption,
                max_interruptions=max_interruptions,
                spot_fallback=spot_fallback,
                spot_patience=spot_patience,
                max_memory=max_memory,
            ),
        )

    def _build_components(
        self,
        files: Reader,
        launches_per_second: Optional[float],
        launch_timeout: float,
        start_attempts: int,
        cancel_grace: float,
        resume_settings: ResumeSettings,
    ) -> None:
        """Build the components and wire them together."""
        dispatcher, logger, counts = self._dispatcher, self.logger, self._counts
        pacer = self._rate_limiter = RateLimiter(
            limits_for(launches_per_second), dispatcher.clock, dispatcher.call_later
        )
        ecs = ECS(
            self.ecs_client,
            pacer,
            client_in=lambda region: self._clients("ecs", region),
            new_limiter=lambda: RateLimiter(
                limits_for(None), dispatcher.clock, dispatcher.call_later
            ),
        )
        self._submission = Submission(ecs, logger, counts)
        states = RunStates(self.client, self._outages, dispatcher.start)
        self._reporter = Reporter(
            client=self.client,
            states=states,
            name=self.name,
            logger=logger,
            outages=self._outages,
            start=dispatcher.start,
            redact=self._secrets.redact_text,
        )
        claims = Claims(
            client=self.client, states=states, outages=self._outages, logger=logger
        )
        other_tasks = OtherTasks(
            claims=claims,
            ecs=ecs,
            outages=self._outages,
            logger=logger,
            start=lambda steps: dispatcher.start(steps, background=True),
            is_at_work=lambda run_id: self._supervisor.is_at_work(run_id),
            look_soon=lambda task_arn: self._watcher.look_soon(task_arn),
            region=self.ecs_client.meta.region_name,
            clock=dispatcher.clock,
        )
        counting = Counting(
            limits=self._limits,
            client=self.client,
            start=dispatcher.start,
            clock=dispatcher.clock,
            agent_types={type(self).__name__, ECSAgent.__name__},
        )
        states.on_set = counting.count_claims
        self._slots = Slots(
            limits=self._limits,
            client=self.client,
            outages=self._outages,
            log=self._reporter.log,
            flush=self._reporter.flush,
            logger=logger,
            counting=counting,
            clock=dispatcher.clock,
            size_of=lambda row: self._launcher.size_of(row),
        )
        self._quotas = Quotas(
            partial(fargate_quota.read, self._clients),
            counting.vcpus_taken,
            self._outages,
            logger,
        )
        self._launcher = Launcher(
            settings=self._settings.result,
            prefect_settings=self._prefect_settings,
            files=files,
            submission=self._submission,
            claims=claims,
            reporter=self._reporter,
            logger=logger,
            timeout=launch_timeout,
            max_delay=self._max_delay,
            agent_id=lambda: self.client.agent_id,
            region=self.ecs_client.meta.region_name,
            outages=self._outages,
            other_tasks=other_tasks,
            resume_settings=resume_settings,
            slots=self._slots,
            on_claimed=self._run_was_claimed,
            on_launched=self._task_was_launched,
            counts=counts,
            learn=self._secrets.learn,
            forget=self._forget_ended,
        )
        resumer = Resumer(
            client=self.client,
            claims=claims,
            launcher=self._launcher,
            outages=self._outages,
            settings=resume_settings,
            poll_soon=self._poll_soon,
        )
        dispatcher.observe_waits(self._launcher.observe_wait)
        self._supervisor = Supervisor(
            client=self.client,
            states=states,
            claims=claims,
            ecs=ecs,
            submission=self._submission,
            launcher=self._launcher,
            resumer=resumer,
            reporter=self._reporter,
            outages=self._outages,
            logger=logger,
            read_log=ContainerLogs(self._clients, logger).last_lines,
            dispatcher=dispatcher,
            start_attempts=start_attempts,
            cancel_grace=cancel_grace,
            deadlines=self._deadlines,
            counts=counts,
            secrets_of=self._secrets.of,
            forget=self._forget_ended,
            prices_of=self._prices_of,
        )
        self._watcher = self._supervisor.watcher
        self._recovery = Recovery(
            client=self.client,
            states=states,
            claims=claims,
            tasks=TaskFinder(ecs),
            launcher=self._launcher,
            watch=self._supervisor.watch_found if self._watches else lambda *_: None,
            outages=self._outages,
            logger=logger,
            heartbeats=self._reporter.heartbeats,
            stop_late=other_tasks.stop_late,
            start=dispatcher.start,
            clock=dispatcher.clock,
        )

    # -- Prefect's public hooks -------------------------------------------------

    def on_startup(self) -> None:
        """Look at the queue while the settings are still read; then begin to work.

        The agent launches what it has seen after it has begun to recover earlier runs.

        Raises:
            ConfigurationError: if a file or the default VPC cannot be read.
        """
        if not self._has_limits():  # limits need the settings
            self._first_look = self._look()
        settings = self._settings.result()
        self._log_start(settings)
        self._dispatcher.start(self._recovery.recover(), background=True)
        for warning in (
            *self._start_warnings,
            *api_key.warnings(settings, bool(self.flow_run_api_key)),
            *configuration.warnings(settings),
        ):
            self.logger.warning(warning)
        self._dispatcher.start(self._check_cluster(), background=True)
        if self._limits_path:
            watch = partial(self._limits_file.watch, self._limits_path)
            self._dispatcher.keep_running("limits file", watch)
        if self._follows_quota:
            self._dispatcher.keep_running("quotas", self._quotas.watch)
        if self._watches:
            self._dispatcher.keep_running("task watcher", self._watcher.watch)
            self._dispatcher.keep_running(
                "cancellation watcher", self._supervisor.watch_cancellations
            )

    def _has_limits(self) -> bool:
        """Whether there are limits, or may be later."""
        return bool(self._limits_path or self._follows_quota or self._limits())

    def _limits(self) -> Sequence[Limit]:
        return (*self._limits_file.limits, *self._quotas.limits())

    def _describe_cluster(self, settings: AgentSettings) -> None:
        """Have the cluster described in a thread, while the network is read."""
        name = kwargs.agent_level(settings).get("cluster")
        self._cluster = in_thread(
            lambda: clusters.describe(self.ecs_client, name), "cluster"
        )

    def _log_start(self, settings: AgentSettings) -> None:
        """Write the line that begins the agent's log: what it is and works with."""
        account = summary.given_account(settings)
        if account is None and wait([self._cluster], _DESCRIBING).done:
            account = summary.account_of([self._cluster.result().arn])
        if self._log_format == "text":
            print(ascii_name)
        self.logger.info(
            "Starting ECSAgent of prefect-ecs-plugin %s: %s",
            installed_version(),
            summary.line(
                settings,
                PrefectSettings(
                    prefect.config.backend,
                    prefect.config.cloud.api,
                    labels=tuple(self.labels),
                ),
                self.ecs_client.meta.region_name,
                account,
                self.agent_address,
                summary.limits_in_words(self._limits_file.limits, self._follows_quota),
            ),
        )

    def _check_cluster(self) -> Steps[None]:
        yield self._cluster
        problem = self._cluster.result().problem
        if problem:
            self.logger.warning(problem)

    def deploy_flow(self, flow_run: GraphQLResult) -> str:
        """Deploy one flow run, waiting in this thread wherever it has to wait.

        Args:
            flow_run: A row of the API's `flow_run` query.

        Returns:
            The task's ARN and the links to it.

        Raises:
            PrefectECSError: one sentence, if the run cannot be launched.
        """
        try:
            return str(run_blocking(self._launcher.deploy(plain(flow_run)), time.sleep))
        finally:
            self._forget_ended(str(flow_run["id"]))

    def heartbeat(self) -> None:
        """Send heartbeats for runs that wait for their task, or for its start.

        Without them the server's Lazarus process launches a run again after ten
        minutes, and so does another agent of this name when it starts.
        """
        self._heartbeats += 1
        waiting = self._launcher.pending_run_ids | self._supervisor.restarting()
        if self._heartbeats % _EVERY == 0:
            waiting |= self._supervisor.slow_starters()
        if waiting:
            self._reporter.heartbeats(waiting)

    def start(self) -> None:
        """Serve the health check, register with the API, and poll until told to stop.

        Raises:
            ConfigurationError: if the agent's address cannot be listened on; nothing
                has been started then.
        """
        if self.agent_address:
            self._server = AgentServer(
                self.agent_address,
                self._health,
                AGENT_WAKE_EVENT.set,
                self._exposition(),
            )
            self._server.start()
        with self._stop_signals(sys.exit):  # nothing is under way yet
            super().start()

    # -- Prefect's private methods, overridden ----------------------------------

    def _show_startup_display(self) -> None:
        """Say that the agent is ready, in place of Prefect's banner for its own."""
        self.logger.info("Waiting for flow runs...")

    def _setup_api_connection(self) -> None:
        """Register with the API, and wait while it limits the rate of requests."""
        while True:
            try:
                with self._only_warnings():
                    super()._setup_api_connection()
                return
            except Exception as error:
                cause = error.__cause__ or error
                if not isinstance(cause, RateLimited):
                    raise
                self.logger.warning("The agent cannot register yet: %s", cause)
                time.sleep(cause.retry_after)

    @contextmanager
    def _only_warnings(self) -> Iterator[None]:
        """Leave out Prefect's two lines on registering, but at DEBUG.

        They would stand before the line that says what the agent is.
        """
        level = self.logger.level
        if level == logging.INFO:
            self.logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            self.logger.setLevel(level)

    def _start_agent_api_server(self) -> None:
        """Do nothing: `start` has done it; Prefect's own server is always healthy."""

    def _exposition(self) -> Optional[Exposition]:
        """The metrics to serve; None where prometheus-client is not installed."""
        try:
            from .monitoring.metrics import Metrics
        except ImportError as error:
            self.logger.debug("There are no metrics: %s", error)
            return None
        return Metrics(
            counts=self._counts,
            name=self.name,
            health=self._health,
            dispatcher=self._dispatcher,
            pacer=self._rate_limiter,
            launcher=self._launcher,
            watcher=self._watcher,
            limits=self._slots.uses,
        ).exposition

    def _stop_agent_api_server(self) -> None:
        if self._server is not None:
            self._server.stop()

    def _enter_work_polling_loop(self, exit_event: threading.Event) -> None:
        """Poll the queue and launch new runs, until a signal stops the agent.

        Overridden because Prefect's own loop holds a thread of a small pool for each
        run that waits, pauses for up to ten seconds when the API's window of 25 is full
        of runs that are not due yet, and does not handle SIGTERM.

        The main thread only waits, so that no request delays a signal.
        """
        ended: SimpleQueue[bool] = SimpleQueue()  # whose `put` a handler may call

        def stop() -> None:
            ended.put(True)
            exit_event.set()
            AGENT_WAKE_EVENT.set()

        def poll() -> None:
            self._poll_until(exit_event)
            while not exit_event.is_set():
                if self._dispatcher.wait_until_done(_END_CHECK):
                    ended.put(False)
                    return

        poller = threading.Thread(target=poll, name="poller", daemon=True)
        with self._stop_signals(stop):
            poller.start()
            self._finish(is_asked=ended.get())

    def _poll_until(self, exit_event: threading.Event) -> None:
        polls = math.inf if self.max_polls is None else self.max_polls
        while not exit_event.is_set() and polls > 0:
            polls -= 1
            AGENT_WAKE_EVENT.clear()
            try:
                pause = self._poll()
            except Exception as error:
                self._report_crash("Polling the queue failed", error, None)
                pause = self._poll_interval.after_failure()
            self.logger.debug("Polling the queue again in %s s", pause)
            if not exit_event.is_set():
                AGENT_WAKE_EVENT.wait(timeout=pause)

    @contextmanager
    def _stop_signals(self, stop: Callable[[], object]) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT; a second signal ends the process at once."""

        def handle(number: int, _: Any) -> None:
            if self._is_stopping:
                _end_process(128 + number)
            self._is_stopping = True
            self.logger.info("Stopping because of %s", signal.Signals(number).name)
            stop()

        if threading.current_thread() is not threading.main_thread():
            yield  # another program's thread; that program handles its signals
            return
        before = {
            number: signal.signal(number, handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _finish(self, is_asked: bool) -> None:
        """Return waiting runs to the queue and write the last log lines, in time.

        Args:
            is_asked: Whether a signal stops the agent; if not, nothing is under way.
        """
        end = time.monotonic() + self._shutdown_grace
        if is_asked:
            self._dispatcher.interrupt()
            self._dispatcher.wait_until_done(self._shutdown_grace * _RETURNING)
        is_flushed = _done_by(end, self._reporter.flush)
        runs = self._counts.flow_runs
        self.logger.info(
            "Stopped: %d flow runs returned to the queue, %d left for the next start "
            "of an agent of this name, %d tasks keep running",
            runs[Outcome.RETURNED],
            runs[Outcome.LEFT] + len(self._launcher.pending_run_ids),
            len(self._watcher),
        )
        if not is_flushed or not _done_by(end, self._dispatcher.close):
            _end_process(0)  # Python would wait for the calls that are under way

    def _poll(self) -> float:
        """Poll once, and return the seconds until the next time."""
        if self._rate_limiter.launch_backlog() > _MAX_BACKLOG:
            self._health.has_polled()
            return 1.0
        look, self._first_look = self._first_look or self._look(), None
        for row in look.rows:
            self.submitting_flow_runs.add(row["id"])
            self._dispatcher.start(self._launch(row, look.began), run_id=row["id"])
        return look.pause

    def _look(self) -> _Look:
        """Look at the queue; nothing is in it while the API does not answer."""
        began = time.monotonic()
        try:
            window = set(self.client.ready_runs(self.labels))
            seen = window | self._slots.more(window, self.labels)
            known = self.submitting_flow_runs | self._slots.waiting()
            rows = self.client.runs_to_take(seen - known)
            rows = self._slots.look(rows, window)
        except Exception as error:
            self._outages.begin(QUEUE, error)
            if isinstance(error, RateLimited):
                return _Look([], began, error.retry_after)
            return _Look([], began, self._poll_interval.after_failure())
        self._outages.end(QUEUE)
        self._health.has_polled()
        self._window = frozenset(window if len(window) >= WINDOW else ())
        pause = self._slots.pause(self._poll_interval.after(bool(rows)))
        return _Look(rows, began, pause)

    def _launch(self, row: Dict[str, Any], read: float) -> Steps[None]:
        try:
            yield from self._launcher.claim_and_launch(row, read)
        finally:
            self.submitting_flow_runs.discard(row["id"])
            self._slots.done(row["id"])

    def _run_was_claimed(self, run_id: str) -> None:
        """If the API's window was full, poll again: there may be more runs.

        Once for all runs of a window, since runs are claimed together.
        """
        if run_id in self._window:
            self._window = frozenset()
            self._poll_soon()

    def _poll_soon(self) -> None:
        AGENT_WAKE_EVENT.set()

    def _task_was_launched(self, task: Started) -> None:
        if self._watches:
            self._supervisor.watch(task)

    def _forget_ended(self, run_id: str) -> None:
        """Forget a run's secrets, unless it is being launched or has a task."""
        is_launched = run_id in self._launcher.pending_run_ids
        if not is_launched and not self._supervisor.is_watched(run_id):
            self._secrets.forget(run_id)

    def _credentials_problem(self) -> Optional[str]:
        """Why the agent has no AWS credentials any more; None if it has some.

        Every client of the agent's address can read it. What a provider says, such as
        the output of a `credential_process`, is written to the agent's log only.
        """
        try:
            credentials = self._clients.session.get_credentials()
            if credentials is None or not credentials.get_frozen_credentials():
                return "there are no AWS credentials [no-credentials]"
        except Exception as error:  # of any provider
            self._outages.begin(CREDENTIALS, error)
            return (
                "the AWS credentials cannot be refreshed; the agent's log says why "
                "[credentials-not-refreshed]"
            )
        self._outages.end(CREDENTIALS)
        return None

    def _report_crash(
        self, what: str, error: BaseException, run_id: Optional[str]
    ) -> None:
        self._counts.internal_errors.add()
        about = log_formats.log_context(run_id) if run_id else None
        self.logger.error(
            "%s: %s: %s. If it happens again, report it. [internal-error]",
            what,
            type(error).__name__,
            without_code(str(error)).rstrip("."),
            extra=about,
        )
        log_formats.log_full_error(self.logger, error, about or {})

    def _prefect_settings(self) -> PrefectSettings:
        key = self.flow_run_api_key
        return PrefectSettings(
            backend=prefect.config.backend,
            api=prefect.config.cloud.api,
            api_key=key,
            tenant_id=self.client.tenant_id if key else None,
            labels=tuple(self.labels),
            logging_level=prefect.config.logging.level,
            log_to_api=self.log_to_cloud,
        )


def _unavailable_service(reason: object) -> str:
    """Which service did not answer, if something failed because of that; else empty."""
    if is_unanswered(reason):
        return "Prefect API"
    if isinstance(reason, AWSCallError) and reason.verdict is Verdict.RETRY:
        return AWS
    return ""


def _done_by(end: float, action: Callable[[], object]) -> bool:
    """Whether an action was done by a moment of the monotonic clock.

    If not, it goes on in a thread that keeps no process alive.
    """
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    return not thread.is_alive()


def _end_process(code: int) -> None:
    """Flush the logs and end without waiting for any thread."""

    def flush() -> None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()

    _done_by(time.monotonic() + _FLUSHING, flush)
    os._exit(code)
