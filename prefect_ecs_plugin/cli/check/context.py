"""What the checks know: the options, and the results of earlier checks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

from ... import kwargs
from ...flow_run import plain
from ...settings import AgentSettings, PrefectSettings
from ...validation import rules
from ..aws_client import AWS
from ..prefect_client import API


@dataclass(frozen=True)
class Identity:
    """The agent's identity at AWS.

    Attributes:
        account: The account's number.
        arn: The ARN of the user or of the role's session.
    """

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn`, `aws-us-gov`."""
        return self.arn.split(":")[1]


@dataclass(frozen=True)
class LaunchPreview:
    """The two requests that a run would send to ECS.

    Attributes:
        flow: The flow's name, with its file if several flows have this name; empty for
            the made-up flow without settings for ECS.
        request: The RunTask request without `taskDefinition`.
        definition: The task definition: the request that would register it, or ECS's
            description of a registered one.
        task_definition: The name of a registered definition.
    """

    flow: str
    request: Mapping[str, Any]
    definition: Mapping[str, Any]
    task_definition: Optional[str] = None

    @property
    def cluster(self) -> str:
        """The cluster's name or ARN."""
        return str(self.request.get("cluster") or "default")

    @property
    def network(self) -> Mapping[str, Any]:
        """The awsvpcConfiguration; empty in other network modes."""
        network = self.request.get("networkConfiguration") or {}
        return plain(network.get("awsvpcConfiguration") or {})  # type: ignore[no-any-return]

    @property
    def is_on_fargate(self) -> Optional[bool]:
        """None if the cluster's default strategy decides."""
        return rules.placed_on_fargate(self.request)

    @property
    def family(self) -> str:
        """The definition's family."""
        return str(self.definition.get("family", "prefect"))

    def roles(self) -> Dict[str, str]:
        """The execution role and the task role, by key; the run's own come first."""
        overrides = self.request.get("overrides") or {}
        found = {
            key: overrides.get(key) or self.definition.get(key)
            for key in ("executionRoleArn", "taskRoleArn")
        }
        return {key: str(role) for key, role in found.items() if role}

    def images(self) -> List[str]:
        """The images of all containers."""
        return list(dict.fromkeys(str(each["image"]) for each in self._containers()))

    def secrets(self) -> List[str]:
        """The `valueFrom` of all containers' secrets."""
        found = (
            str(secret["valueFrom"])
            for container in self._containers()
            for secret in container.get("secrets") or []
        )
        return list(dict.fromkeys(found))

    def logs(self) -> Set[str]:
        """The log groups that awslogs writes to."""
        logs = [each.get("logConfiguration") or {} for each in self._containers()]
        groups = {
            str((log.get("options") or {}).get("awslogs-group", ""))
            for log in logs
            if log.get("logDriver") == "awslogs"
        }
        return groups - {""}

    def _containers(self) -> List[Mapping[str, Any]]:
        return list(self.definition.get("containerDefinitions", []))

    def sent(self) -> Dict[str, Any]:
        """Both requests by operation, as they would be sent."""
        name = self.task_definition or f"{self.family}:REVISION"
        run_task = {"RunTask": {**self.request, "taskDefinition": name}}
        if self.task_definition:
            return run_task
        return {"RegisterTaskDefinition": dict(self.definition), **run_task}


@dataclass
class CheckContext:
    """The options, and what earlier checks have found out; None if unknown.

    Attributes:
        options: The options of the command: those of `start`, and `flow_files`; as
            `sources` what came from where.
        prefect: The settings that a run would get about its API.
        env_vars: The variables that `--env` and the Prefect config add to every run.
        now: The time, in seconds since 1970.
        api: The Prefect API, once it has answered.
        aws: The AWS client, once there are settings for it.
        aws_is_usable: Whether AWS answers and does not reject the credentials.
        identity: The agent's identity at AWS.
        settings: The agent's settings.
        rows: The flow runs to render, as the API would send them, by flow.
        launches: The requests of each flow run.
    """

    options: Mapping[str, Any]
    prefect: PrefectSettings
    env_vars: Dict[str, Any] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    api: Optional[API] = None
    aws: Optional[AWS] = None
    aws_is_usable: bool = False
    identity: Optional[Identity] = None
    settings: Optional[AgentSettings] = None
    rows: Optional[Dict[str, Dict[str, Any]]] = None
    launches: List[LaunchPreview] = field(default_factory=list)

    # The runner skips a check whose `needs` are unknown, so a check may rely on these.

    @property
    def known_api(self) -> API:
        """The Prefect API, for checks that need it."""
        assert self.api is not None
        return self.api

    @property
    def known_aws(self) -> AWS:
        """The AWS client, for checks that need it."""
        assert self.aws is not None
        return self.aws

    @property
    def known_identity(self) -> Identity:
        """The identity, for checks that need it."""
        assert self.identity is not None
        return self.identity

    @property
    def known_settings(self) -> AgentSettings:
        """The agent's settings, for checks that need them."""
        assert self.settings is not None
        return self.settings

    def clusters(self) -> List[str]:
        """The names or ARNs of all clusters that runs would be sent to."""
        if self.launches:
            return list(dict.fromkeys(launch.cluster for launch in self.launches))
        if self.settings is not None:
            return [kwargs.agent_level(self.settings).get("cluster", "default")]
        return [self.options.get("cluster") or "default"]
