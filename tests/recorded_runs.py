"""Runs at a Prefect API and their tasks at an AWS, without an agent or a process."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from click.testing import CliRunner, Result
from prefect.utilities.configuration import set_temporary_config
from sandbox_prefect import new_flow, until
from world import claim

from prefect_ecs_plugin.aws.session import AWSClients
from prefect_ecs_plugin.cli.explain import reading
from prefect_ecs_plugin.cli.start import ecs
from prefect_ecs_plugin.sandbox import environment
from prefect_ecs_plugin.sandbox.aws import AWS, StartFailure
from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI

ROLE = "arn:aws:iam::123456789012:role/flows"

#: A variable of each task.
PASSWORD = "correct-horse-battery"


class RecordedRuns:
    """Runs at a Prefect API, and their tasks at an AWS that runs no process."""

    def __init__(self, api: PrefectAPI, aws: AWS, home: Path) -> None:
        self.api, self.aws, self.home = api, aws, home
        self.store, self.ecs = api.store, aws.client("ecs")
        self.flow_id = new_flow(self.store)
        self.agent_id = self.store.register_agent(type="ECSAgent", name="agent")
        self.failures: Dict[str, StartFailure] = {}
        self.tenant_id: Optional[str] = None
        aws.before_start = lambda task: self.failures.get(task.started_by or "")
        subnets = aws.client("ec2").describe_subnets()["Subnets"]
        self.network = {"awsvpcConfiguration": {"subnets": [subnets[0]["SubnetId"]]}}
        self.define()

    def define(self, **container: Any) -> None:
        self.ecs.register_task_definition(
            family="etl",
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            requiresCompatibilities=["FARGATE"],
            executionRoleArn=ROLE,
            taskRoleArn=ROLE,
            containerDefinitions=[{"name": "flow", "image": "x:1", **container}],
        )

    @property
    def config(self) -> Dict[str, Any]:
        return {
            "backend": "server",
            "cloud.api": self.api.url,
            "cloud.graphql": self.api.url,
            "cloud.api_key": None,
            "cloud.tenant_id": self.tenant_id,
        }

    def claimed(self, **options: Any) -> str:
        """A run that an agent has claimed."""
        run_id = self.store.create_flow_run(flow_id=self.flow_id, **options)
        claim(self.store, run_id, self.agent_id, "process")
        return run_id

    def launch(self, run_id: str, **more: Any) -> str:
        variables = [{"name": "DB_PASSWORD", "value": PASSWORD}]
        override = {"name": "flow", "environment": variables}
        answer = self.ecs.run_task(
            taskDefinition="etl",
            launchType="FARGATE",
            startedBy=run_id,
            networkConfiguration=self.network,
            overrides={"containerOverrides": [override]},
            **more,
        )
        arn = str(answer["tasks"][0]["taskArn"])
        self.say(run_id, f"Submitted for execution: Task {arn} (https://x)")
        return arn

    def say(self, run_id: str, message: str, name: str = "agent") -> None:
        self.store.write_run_logs(
            [
                {
                    "flow_run_id": run_id,
                    "name": name,
                    "level": "INFO",
                    "message": message,
                    "timestamp": datetime.now(timezone.utc).isoformat(),
                }
            ]
        )

    def set_state(self, run_id: str, kind: str, message: str = "") -> None:
        self.store.set_flow_run_state(run_id, {"type": kind, "message": message})

    def stopped(self, task_arn: str) -> None:
        """Wait until a task has stopped; its AWS moves tasks in a thread."""
        until(lambda: self.aws.task(task_arn).last_status == "STOPPED")

    def running(self, task_arn: str) -> None:
        """Wait until a task is RUNNING."""
        until(lambda: self.aws.task(task_arn).last_status == "RUNNING")

    def finish(self, task_arn: str, *how: Any) -> None:
        """End a task once it is RUNNING, as `AWS.finish`; wait for its stop."""
        self.running(task_arn)
        self.aws.finish(task_arn, *how)
        self.stopped(task_arn)

    @property
    def environment(self) -> Dict[str, str]:
        keys = (self.aws.access_key, self.aws.secret_key)
        return environment.sandbox_environment(
            self.api.url, self.aws.url, keys, self.home
        )

    @cached_property
    def clients(self) -> AWSClients:
        with self.configured():
            return reading.aws_clients("")

    def command(self, *arguments: str, **variables: str) -> Result:
        """Run a command in this process."""
        with self.configured(**variables):
            return _runner().invoke(ecs, arguments)

    @contextlib.contextmanager
    def configured(self, **variables: str) -> Iterator[None]:
        """This process's settings are those of this world."""
        only = environment.only({**self.environment, **variables})
        with only, set_temporary_config(self.config):
            yield


def _runner() -> CliRunner:
    """One that keeps stderr apart, as it does by itself from click 8.2 on."""
    try:
        return CliRunner(mix_stderr=False)
    except TypeError:
        return CliRunner()


@contextlib.contextmanager
def recorded_runs(home: Path) -> Iterator[RecordedRuns]:
    """Both servers, for as long as a module needs them."""
    environment.furnish(home)
    with PrefectAPI() as api, AWS(runs_tasks=False) as aws:
        yield RecordedRuns(api, aws, home)
