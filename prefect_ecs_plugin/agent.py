"""The ECS agent, and the map of the house.

    agent        Prefect's hooks; asks the queue for runs           (this room)
    launching    one run's way to its task, as steps that can wait
    dispatcher   drives all those steps with few threads
    api          what is asked of the Prefect API
    reporting    what Prefect is told about a run
    flow_run, run_config, settings         frozen values            (pure)
    template, kwargs                       the two requests         (pure)
    rules, shapes                          what ECS accepts         (pure)
    submission, definitions                the only room that starts tasks
    retrying, pacing, schedule, polling    when to ask, and again   (pure)
    aws, sources, network, cluster, configuration    what AWS and files say

This is the only room that knows all others, and the only one where Prefect's
private methods are overridden; Prefect 1 is frozen, and the tests run against its
1.0.0 and 1.4.1.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Dict, Iterable, Optional

import prefect
from prefect.agent import Agent
from prefect.agent.agent import AGENT_WAKE_EVENT, ascii_name
from prefect.utilities.graphql import GraphQLResult

from . import __version__, kwargs
from . import cluster as clusters
from .api import AgentClient
from .aws import AWSClients
from .configuration import agent_settings
from .dispatcher import Dispatcher
from .flow_run import plain
from .launching import Launcher
from .pacing import Pacer, limits_for
from .polling import Rhythm
from .reporting import Reporter
from .settings import PrefectSettings
from .submission import Submission
from .waiting import Steps, drive

#: Seconds from its start for which a run may be refused before it is Failed.
DEFAULT_LAUNCH_TIMEOUT = 30 * 60.0

#: RunTask takes about 0.4 s and the calls to Prefect's API about 0.1 s, so this many
#: threads launch some 80 runs a second, four times what AWS allows on Fargate.
_WORKERS = 40


class ECSAgent(Agent):
    """Deploys flow runs as ECS tasks.

    Takes what Prefect's own ECS agent takes, with the same meaning.

    Args:
        agent_config_id: The id of an agent config of the API to link with.
        name: The agent's name; default PREFECT__CLOUD__AGENT__NAME, or `agent`.
        labels: It takes the runs whose labels are among these.
        env_vars: Environment variables for every flow run.
        max_polls: How often to ask for runs before it ends; None for ever.
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
        launches_per_second: How many tasks a second to launch at most; default what
            AWS documents, 20 on Fargate and 40 on EC2.
        launch_timeout: Seconds from its start for which a run that ECS puts off is
            tried again; 0 to try once. Default 1800.

    Raises:
        ConfigurationError: one line that says what to set, if the agent cannot
            work as it was told.
    """

    client: AgentClient

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
        launch_timeout: float = DEFAULT_LAUNCH_TIMEOUT,
    ) -> None:
        super().__init__(
            agent_config_id=agent_config_id,
            name=name,
            labels=labels,
            env_vars=env_vars,
            max_polls=max_polls,
            agent_address=agent_address,
            no_cloud_logs=no_cloud_logs,
        )
        self.client = AgentClient(api_server=prefect.config.cloud.api)
        self._clients = AWSClients(
            aws_access_key_id=aws_access_key_id,
            aws_secret_access_key=aws_secret_access_key,
            aws_session_token=aws_session_token,
            region_name=region_name,
            botocore_config=botocore_config,
            max_pool_connections=_WORKERS,
        )
        self.ecs_client = self._clients("ecs")
        self.settings = agent_settings(
            self._clients,
            self.logger,
            task_definition_path=task_definition_path,
            run_task_kwargs_path=run_task_kwargs_path,
            launch_type=launch_type,
            cluster=cluster,
            task_role_arn=task_role_arn,
            execution_role_arn=execution_role_arn,
            env=plain(self.env_vars),
        )
        self._dispatcher = Dispatcher.threaded(_WORKERS, self._report_crash)
        self._reporter = Reporter(
            self.client, self.name, self.logger, self._dispatcher.start
        )
        pacer = Pacer(
            limits_for(launches_per_second),
            self._dispatcher.clock,
            self._dispatcher.call_later,
        )
        self._launcher = Launcher(
            self.settings,
            self._prefect_settings,
            self._clients,
            Submission(self.ecs_client, pacer, self.logger),
            self._reporter,
            self.logger,
            launch_timeout,
            self._run_was_taken,
        )
        self._rhythm = Rhythm(self._loop_intervals)

    # -- Prefect's public hooks -------------------------------------------------

    def on_startup(self) -> None:
        """Warn about a cluster that cannot take tasks."""
        cluster = kwargs.agent_level(self.settings).get("cluster")
        trouble = clusters.trouble(self.ecs_client, cluster)
        if trouble:
            self.logger.warning(trouble)

    def deploy_flow(self, flow_run: GraphQLResult) -> str:
        """Deploy one flow run, waiting in this thread wherever it has to wait.

        Args:
            flow_run: A row of the API's `flow_run` query.

        Returns:
            The task's ARN and the links to it.

        Raises:
            PrefectECSError: one sentence, if the run cannot be launched.
        """
        return drive(self._launcher.deploy(plain(flow_run)), time.sleep)

    def heartbeat(self) -> None:
        """Send heartbeats for runs that wait for their task.

        Without them the server's Lazarus launches a run again that has been waiting
        for ten minutes.
        """
        for run_id in list(self._launcher.under_way):
            self._reporter.heartbeat(run_id)

    # -- Prefect's private methods, overridden ----------------------------------

    def _show_startup_display(self) -> None:
        """Say who is starting; Prefect's own banner would not tell the two apart."""
        print(ascii_name)
        self.logger.info(
            "Starting ECSAgent of prefect-ecs-plugin %s with labels %s",
            __version__,
            list(self.labels),
        )
        self.logger.info("Waiting for flow runs...")

    def _enter_work_polling_loop(self, exit_event: threading.Event) -> None:
        """Look into the queue and start what is new, until asked to stop.

        Overridden because Prefect's own gives each run a thread of a small pool to
        wait in, and looks away for up to ten seconds when the API's window of 25
        is full of runs that are not due yet.
        """
        polls = math.inf if self.max_polls is None else self.max_polls
        while not exit_event.is_set() and polls > 0:
            polls -= 1
            AGENT_WAKE_EVENT.clear()
            pause = self._poll()
            self.logger.debug("Looking into the queue again in %s s", pause)
            AGENT_WAKE_EVENT.wait(timeout=pause)
        self._dispatcher.wait_until_done()
        self._dispatcher.close()

    def _poll(self) -> float:
        """Look once; the seconds until the next look."""
        try:
            seen = set(self.client.ready_runs(self.labels))
            rows = self.client.runs_to_take(seen - self.submitting_flow_runs)
        except Exception as error:
            self.logger.error("The queue of flow runs cannot be read: %s", error)
            return self._rhythm.after(0, 0)
        for row in rows:
            self.submitting_flow_runs.add(row["id"])
            self._dispatcher.start(self._launch(row))
        return self._rhythm.after(len(seen), len(rows))

    # -- The queue --------------------------------------------------------------

    def _launch(self, row: Dict[str, Any]) -> Steps[None]:
        try:
            yield from self._launcher.launch(row)
        finally:
            self.submitting_flow_runs.discard(row["id"])

    def _run_was_taken(self) -> None:
        """There is room in the API's window now; look whether a run was behind it."""
        if self._rhythm.window_is_full:
            AGENT_WAKE_EVENT.set()

    def _report_crash(self, error: BaseException) -> None:
        self.logger.error("A launch broke off: %s: %s", type(error).__name__, error)
        self.logger.debug("The error in full", exc_info=error)

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
