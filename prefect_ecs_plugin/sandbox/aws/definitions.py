"""Task definitions: families, revisions, ACTIVE and INACTIVE.

Definitions are kept as DescribeTaskDefinition shows them. They are ours and not
moto's because moto takes what ECS refuses and pages nothing.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from . import ecs_limits
from .responses import Refusal, bad_parameter, check_region, page

Described = Dict[str, Any]
Tags = List[Dict[str, str]]

ACTIVE, INACTIVE, DELETING = "ACTIVE", "INACTIVE", "DELETE_IN_PROGRESS"

# What ECS writes into a container that does not say otherwise.
_CONTAINER_DEFAULTS: Mapping[str, Any] = {
    "cpu": 0,
    "portMappings": [],
    "essential": True,
    "environment": [],
    "mountPoints": [],
    "volumesFrom": [],
    "systemControls": [],
}


class Definitions:
    """The task definitions of one account in one region.

    Args:
        arn_prefix: `arn:aws:ecs:REGION:ACCOUNT:`.
        now: The time of day in seconds since 1970.
    """

    def __init__(self, arn_prefix: str, now: Callable[[], float]) -> None:
        self._arn_prefix = arn_prefix + "task-definition/"
        self._now = now
        self._lock = threading.RLock()
        self._families: Dict[str, List[Described]] = {}
        self._tags: Dict[str, Tags] = {}

    # Operations

    def register(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """RegisterTaskDefinition."""
        refusal = ecs_limits.definition_refusal(params)
        if refusal is not None:
            raise Refusal("ClientException", refusal)
        tags = list(params.get("tags") or [])
        with self._lock:
            family = self._families.setdefault(params["family"], [])
            described = self._described(params, len(family) + 1)
            family.append(described)
            self._tags[described["taskDefinitionArn"]] = tags
        return {"taskDefinition": described, "tags": tags}

    def deregister(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """DeregisterTaskDefinition."""
        with self._lock:
            found = self._revision(params["taskDefinition"])
            if found is None:
                raise Refusal(
                    "ClientException", "The specified task definition does not exist."
                )
            if found["status"] == ACTIVE:
                found = self._replace(
                    found, status=INACTIVE, deregisteredAt=self._now()
                )
        return {"taskDefinition": found}

    def describe(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """DescribeTaskDefinition: of a family the newest ACTIVE revision."""
        found = self.find(params["taskDefinition"])
        if found is None:
            raise Refusal("ClientException", "Unable to describe task definition.")
        answer: Dict[str, Any] = {"taskDefinition": found}
        if "TAGS" in params.get("include", ()):
            answer["tags"] = self._tags[found["taskDefinitionArn"]]
        return answer

    def delete(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """DeleteTaskDefinitions: at most ten, INACTIVE ones only."""
        names = params["taskDefinitions"]
        if len(names) > 10:
            raise bad_parameter(
                "A maximum of 10 task definitions can be deleted at once.",
            )
        with self._lock:
            outcomes = [self._delete(name) for name in names]
        return {
            "taskDefinitions": [found for found, _ in outcomes if found],
            "failures": [failure for _, failure in outcomes if failure],
        }

    def list(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """ListTaskDefinitions; its `familyPrefix` is a whole family's name."""
        status = params.get("status", ACTIVE)
        only = params.get("familyPrefix")
        with self._lock:
            arns = [
                revision["taskDefinitionArn"]
                for family in sorted(self._families)
                for revision in self._families[family]
                if revision["status"] == status and only in (None, family)
            ]
        if params.get("sort") == "DESC":
            arns.reverse()
        return page(arns, params, "taskDefinitionArns")

    def list_families(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        """ListTaskDefinitionFamilies; here `familyPrefix` is a prefix."""
        wanted, prefix = params.get("status", "ALL"), params.get("familyPrefix", "")
        with self._lock:
            families = [
                family
                for family, revisions in sorted(self._families.items())
                if family.startswith(prefix)
                and wanted in ("ALL", _family_status(revisions))
            ]
        return page(families, params, "families")

    # For tasks and tags

    def find(self, name: str) -> Optional[Described]:
        """A definition by ARN, `family:revision`, or family (newest ACTIVE)."""
        with self._lock:
            family, revision = self._split(name)
            if revision:
                return self._revision(name)
            active = (
                found
                for found in reversed(self._families.get(family, []))
                if found["status"] == ACTIVE
            )
            return next(active, None)

    def runnable(self, name: str) -> Described:
        """A definition that a new task may have.

        The words and codes are ECS's: "TaskDefinition not found." as in
        https://github.com/Cloud-CV/EvalAI/issues/2419, "TaskDefinition is
        inactive" as in https://github.com/DefangLabs/defang/pull/775.
        """
        found = self.find(name)
        if found is None:
            raise Refusal("ClientException", "TaskDefinition not found.")
        if found["status"] != ACTIVE:
            raise bad_parameter("TaskDefinition is inactive")
        return found

    def tags(self, arn: str) -> Optional[Tags]:
        """The tags of a definition, None if there is no such definition."""
        return self._tags.get(arn)

    def _delete(
        self, name: str
    ) -> Tuple[Optional[Described], Optional[Dict[str, str]]]:
        found = self._revision(name)
        if found is None:
            return None, {"arn": name, "reason": "MISSING"}
        if found["status"] == ACTIVE:
            reason = (
                "The specified task definition is still in ACTIVE status. "
                "Please deregister the target and try again."
            )
            return None, {"arn": found["taskDefinitionArn"], "reason": reason}
        return self._replace(
            found, status=DELETING, deleteRequestedAt=self._now()
        ), None

    def _replace(self, old: Described, **changes: Any) -> Described:
        """What was handed out before stays as it was: answers may be under way."""
        new = {**old, **changes}
        self._families[old["family"]][old["revision"] - 1] = new
        return new

    def _revision(self, name: str) -> Optional[Described]:
        family, revision = self._split(name)
        revisions = self._families.get(family, [])
        if revision.isdigit() and 1 <= int(revision) <= len(revisions):
            return revisions[int(revision) - 1]
        return None

    def _split(self, name: str) -> Tuple[str, str]:
        """Family and revision; another account's ARN is nothing here.

        Raises:
            Refusal: It is another region's ARN.
        """
        check_region(name, self._arn_prefix.split(":")[3])
        if name.startswith("arn:"):
            if not name.startswith(self._arn_prefix):
                return "", "0"
            name = name[len(self._arn_prefix) :]
        family, _, revision = name.partition(":")
        return family, revision

    def _described(self, params: Mapping[str, Any], revision: int) -> Described:
        given = {key: value for key, value in params.items() if key != "tags"}
        sizes = {
            "cpu": ecs_limits.cpu_units(params.get("cpu")),
            "memory": ecs_limits.memory_mib(params.get("memory")),
        }
        return {
            "volumes": [],
            "placementConstraints": [],
            **given,
            **{key: str(size) for key, size in sizes.items() if size is not None},
            "containerDefinitions": [
                {**_CONTAINER_DEFAULTS, **container}
                for container in params["containerDefinitions"]
            ],
            "taskDefinitionArn": f"{self._arn_prefix}{params['family']}:{revision}",
            "revision": revision,
            "status": ACTIVE,
            "compatibilities": ecs_limits.compatibilities(params),
            "registeredAt": self._now(),
            "registeredBy": "arn:aws:iam::123456789012:root",
        }


def _family_status(revisions: List[Described]) -> str:
    active = any(revision["status"] == ACTIVE for revision in revisions)
    return ACTIVE if active else INACTIVE
