"""What would be sent to ECS for a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Set

from ...flow_run import plain
from ...validation import rules


@dataclass(frozen=True)
class LaunchPreview:
    """The two requests of a run.

    Attributes:
        flow: The flow's name, empty for the flow that says nothing about ECS.
        request: The RunTask request, all but `taskDefinition`.
        definition: The definition it runs: the request that would register it, or
            what ECS says of one that is registered already.
        task_definition: The name of one that is registered already.
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
        """None where the cluster's default strategy decides."""
        return rules.placed_on_fargate(self.request)

    @property
    def family(self) -> str:
        """The definition's family."""
        return str(self.definition.get("family", "prefect"))

    def roles(self) -> Dict[str, str]:
        """The execution role and the task role that count, by their keys."""
        overrides = self.request.get("overrides") or {}
        found = {
            key: overrides.get(key) or self.definition.get(key)
            for key in ("executionRoleArn", "taskRoleArn")
        }
        return {key: str(role) for key, role in found.items() if role}

    def images(self) -> List[str]:
        """The images of all containers."""
        containers = self.definition.get("containerDefinitions", [])
        return list(dict.fromkeys(str(each["image"]) for each in containers))

    def secrets(self) -> List[str]:
        """What all containers get as secrets, as `valueFrom` names it."""
        containers = self.definition.get("containerDefinitions", [])
        found = (
            str(secret["valueFrom"])
            for container in containers
            for secret in container.get("secrets") or []
        )
        return list(dict.fromkeys(found))

    def logs(self) -> Set[str]:
        """The log groups that awslogs writes to."""
        found = set()
        for container in self.definition.get("containerDefinitions", []):
            log = container.get("logConfiguration") or {}
            if log.get("logDriver") == "awslogs":
                found.add(str((log.get("options") or {}).get("awslogs-group", "")))
        return found - {""}

    def sent(self) -> Dict[str, Any]:
        """Both requests by operation, as they would be sent."""
        name = self.task_definition or f"{self.family}:REVISION"
        run_task = {"RunTask": {**self.request, "taskDefinition": name}}
        if self.task_definition:
            return run_task
        return {"RegisterTaskDefinition": dict(self.definition), **run_task}
