"""The ECS agent, and the map of the house.

A flow run's way through it:

    queue -> _launch            waits for its start, marks it Submitted
          -> FlowRun, ECSRun    flow_run, run_config: plain frozen values
          -> kwargs.merge       the agent's and the run's run_task kwargs
          -> template.build     the register_task_definition request
          -> kwargs.build       the RunTask request
          -> Submission         definition found or registered, task launched
          -> a line in its log, or Failed with one sentence

All but the first and the last two are pure. This is the only room that knows all
others, and the only one where Prefect's private methods are overridden; Prefect 1
is frozen, and the tests run against its 1.0.0 and 1.4.1.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Iterable, Mapping, Optional

import pendulum
import prefect
from prefect.agent import Agent
from prefect.agent.agent import ascii_name
from prefect.serialization.state import StateSchema
from prefect.utilities.graphql import GraphQLResult

from . import __version__, console, kwargs, template
from . import cluster as clusters
from .aws import AWSClients
from .configuration import agent_settings
from .errors import RunConfigError
from .flow_run import FlowRun, plain
from .retrying import Patience
from .run_config import ECSRun
from .settings import PrefectSettings
from .sources import load_mapping
from .submission import Submission
from .waiting import Pause, Steps, drive

#: Seconds after which a launch that ECS puts off is given up.
_LAUNCH_TIMEOUT = 30 * 60.0

#: Prefect's words for "another agent was faster", from its API's state lock.
_TAKEN = "State update failed"


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

    Raises:
        ConfigurationError: one line that says what to set, if the agent cannot
            work as it was told.
    """

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
        self._clients = AWSClients(
            aws_access_key_id=aws_access_key_id,
            aws_secret_access_key=aws_secret_access_key,
            aws_session_token=aws_session_token,
            region_name=region_name,
            botocore_config=botocore_config,
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
        self._run_task_kwargs = kwargs.agent_level(self.settings)
        self._submission = Submission(self.ecs_client, self.logger)

    # -- Prefect's public hooks -------------------------------------------------

    def on_startup(self) -> None:
        """Warn about a cluster that cannot take tasks."""
        trouble = clusters.trouble(
            self.ecs_client, self._run_task_kwargs.get("cluster")
        )
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
        return drive(self._deployment(plain(flow_run)), time.sleep)

    # -- Prefect's private methods, overridden ----------------------------------

    def _deploy_flow_run(self, flow_run: GraphQLResult) -> None:
        """Launch a run and tell Prefect how it went.

        Overridden because Prefect's own reports a task Failed when only the log
        line about its launch could not be written, and prints tracebacks.
        """
        drive(self._launch(flow_run), time.sleep)

    def _show_startup_display(self) -> None:
        """Say who is starting; Prefect's own banner would not tell the two apart."""
        print(ascii_name)
        self.logger.info(
            "Starting ECSAgent of prefect-ecs-plugin %s with labels %s",
            __version__,
            list(self.labels),
        )
        self.logger.info("Waiting for flow runs...")

    # -- A run's way ------------------------------------------------------------

    def _launch(self, row: GraphQLResult) -> Steps[None]:
        yield Pause(_seconds_until_start(row))
        try:
            self._mark_flow_as_submitted(row)
        except Exception as error:  # whatever it is, the run is not ours to launch
            self._report_not_taken(row, error)
            return
        try:
            deployment = yield from self._deployment(plain(row))
        except Exception as error:  # one run's trouble is nobody else's
            self._report_failure(row, error)
        else:
            self._report_success(row, deployment)

    def _deployment(self, row: Mapping[str, Any]) -> Steps[str]:
        flow_run = FlowRun.from_api(row)
        run_config = ECSRun.from_serialized(row.get("run_config"))
        kwargs.check(run_config.run_task_kwargs or {})
        merged = kwargs.merge(self._run_task_kwargs, run_config.run_task_kwargs or {})
        patience = Patience(time.monotonic() + _LAUNCH_TIMEOUT, time.monotonic)
        if run_config.task_definition_arn:
            task_definition = _own_definition(flow_run, run_config)
            definition = yield from self._submission.described(
                task_definition, patience
            )
            request = self._request(merged, definition, flow_run, run_config)
            task_arn = yield from self._submission.launch_by_arn(
                task_definition, request, patience
            )
        else:
            definition = template.build(
                self._template(run_config), flow_run, run_config, self.settings, merged
            )
            request = self._request(merged, definition, flow_run, run_config)
            task_arn = yield from self._submission.launch(definition, request, patience)
        return _links(task_arn, definition)

    def _template(self, run_config: ECSRun) -> Mapping[str, Any]:
        if run_config.task_definition:
            return run_config.task_definition
        if run_config.task_definition_path:
            return load_mapping(run_config.task_definition_path, self._clients)
        return self.settings.task_definition

    def _request(
        self,
        merged: Mapping[str, Any],
        definition: Mapping[str, Any],
        flow_run: FlowRun,
        run_config: ECSRun,
    ) -> Dict[str, Any]:
        for name in kwargs.dropped_overrides(merged, definition):
            self.logger.debug(
                "Flow run %s has no container %r; the agent's override for it is left "
                "out",
                flow_run.id,
                name,
            )
        return kwargs.build(
            merged,
            definition,
            flow_run,
            run_config,
            self.settings,
            self._prefect_settings(),
        )

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

    # -- Telling Prefect --------------------------------------------------------

    def _report_not_taken(self, row: GraphQLResult, error: Exception) -> None:
        if _TAKEN in str(error):
            self.logger.debug("Flow run %s was taken by another agent", row.id)
        else:
            self.logger.error(
                "Flow run %s could not be marked Submitted and stays in the queue: %s",
                row.id,
                error,
            )

    def _report_success(self, row: GraphQLResult, deployment: str) -> None:
        self.logger.info("Flow run %s was submitted: %s", row.id, deployment)
        self._write_log(row, f"Submitted for execution: {deployment}", "INFO")

    def _report_failure(self, row: GraphQLResult, error: Exception) -> None:
        message = str(error) or type(error).__name__
        self.logger.error("Flow run %s cannot be launched: %s", row.id, message)
        self.logger.debug("The error in full", exc_info=error)
        self._write_log(row, message, "ERROR")
        try:
            self._mark_flow_as_failed(flow_run=row, message=message)
        except Exception as second:
            self.logger.error(
                "Flow run %s could not be marked Failed: %s", row.id, second
            )

    def _write_log(self, row: GraphQLResult, message: str, level: str) -> None:
        """Housekeeping: a log line that cannot be written changes nothing else."""
        try:
            self._safe_write_run_log(row, message=message, level=level)
        except Exception as error:
            self.logger.warning(
                "A line for flow run %s could not be written: %s", row.id, error
            )


def _seconds_until_start(row: GraphQLResult) -> float:
    """How long until a run is due; the queue hands it out up to 10 s before.

    A run that comes back for the retry of a task is Running and due at once.
    """
    state = StateSchema().load(row.serialized_state)
    start = getattr(state, "start_time", None) or pendulum.now("UTC")
    return float(max(0.0, (start - pendulum.now("UTC")).total_seconds()))


def _own_definition(flow_run: FlowRun, run_config: ECSRun) -> str:
    """The definition that a run names, if it may name one."""
    if flow_run.has_docker_storage:
        raise RunConfigError(
            "A flow with Docker storage cannot use task_definition_arn, since the "
            "image is part of the storage; give a task_definition, or other storage."
        )
    return str(run_config.task_definition_arn)


def _links(task_arn: str, definition: Mapping[str, Any]) -> str:
    links = f"Task {task_arn} ({console.task_url(task_arn)})"
    logs = console.log_url(task_arn, definition)
    return f"{links}; logs: {logs}" if logs else links
