"""The facts of one flow run, read once from the API's answer.

Prefect's client returns python-box objects, whose lists copy what is appended to them
and which create missing attributes on access. No other module handles them: `FlowRun`
holds plain, frozen values, and `plain` converts everything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Mapping, Optional

from packaging.version import InvalidVersion, Version

#: The version in which Prefect renamed `execute cloud-flow` to `execute flow-run`.
_RENAMED = Version("0.13.0")

#: The container in which the flow runs; all others are sidecars.
FLOW_CONTAINER = "flow"

#: The variable that names a flow's run.
RUN_ID = "PREFECT__CONTEXT__FLOW_RUN_ID"

#: The variable of a run that says for how many seconds its task may run; 0 for any.
MAX_RUNTIME = "PREFECT_ECS_MAX_RUNTIME"


@dataclass(frozen=True)
class FlowRun:
    """One flow run as the agent took it from the queue.

    Attributes:
        id: The flow run's UUID.
        version: The version of its state when it was read.
        name: Its readable name, such as `curious-otter`.
        flow_id: The UUID of the flow's registered version.
        flow_name: The flow's name.
        flow_version: The number of that registration, from 1.
        project: The name of the flow's project, if known.
        core_version: The Prefect version that registered the flow, if known.
        docker_image: The image of the flow's Docker storage, else None.
        has_docker_storage: Whether the flow lives in Docker storage.
        launch: The name of its launch, as in the launch record; None for a run that was
            claimed without one.
        attempt: The number of this start of a task for the launch, from 1.
        on_demand: Whether its task runs on FARGATE where it asks for FARGATE_SPOT.
        memory: The MiB that its task has instead of what it asks for; 0 for the latter.
        cpu: The CPU units that go with `memory`.
    """

    id: str
    version: int
    name: str
    flow_id: str
    flow_name: str
    flow_version: int
    project: str = ""
    core_version: Optional[str] = None
    docker_image: Optional[str] = None
    has_docker_storage: bool = False
    launch: Optional[str] = None
    attempt: int = 1
    on_demand: bool = False
    memory: int = 0
    cpu: int = 0

    @classmethod
    def from_api(cls, answer: Mapping[str, Any]) -> FlowRun:
        """Read the facts from one row of the `flow_run` query.

        Args:
            answer: The row, as Prefect's `Agent._get_flow_run_metadata` queries it.

        Raises:
            KeyError: if the API left out a field of the query.
        """
        flow = answer["flow"]
        storage = flow.get("storage") or {}
        name, tag = storage.get("image_name"), storage.get("image_tag")
        is_docker, image = storage.get("type") == "Docker", None
        if is_docker and name and tag:
            image = f"{PurePosixPath(storage.get('registry_url') or '', name)}:{tag}"
        return cls(
            id=str(answer["id"]),
            version=int(answer.get("version") or 0),
            name=str(answer.get("name") or answer["id"]),
            flow_id=str(flow["id"]),
            flow_name=str(flow.get("name") or ""),
            flow_version=int(flow.get("version") or 0),
            project=str((flow.get("project") or {}).get("name") or ""),
            core_version=flow.get("core_version") or None,
            docker_image=image,
            has_docker_storage=is_docker,
        )

    @property
    def default_image(self) -> str:
        """The Prefect image of the version that registered the flow."""
        release = (self.core_version or "latest").split("+")[0]
        return f"prefecthq/prefect:{release}"

    @property
    def command(self) -> str:
        """What the `flow` container has to run."""
        try:
            is_old = Version(self.core_version or "0") < _RENAMED
        except InvalidVersion:  # a build named after a branch is a recent one
            is_old = False
        return f"prefect execute {'cloud-flow' if is_old else 'flow-run'}"

    @property
    def client_token(self) -> str:
        """The name of this start of a task; ECS recognizes a repeated request by it.

        At most 64 characters of ASCII 33-126, see
        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
        """
        again = f"-{self.attempt}" if self.attempt != 1 else ""
        return f"{self.launch_name}{again}"

    @property
    def launch_name(self) -> str:
        """What all starts of a task for this launch have in common."""
        return self.launch or f"{self.id}-{self.version}"


def seconds_in(text: Any) -> Optional[float]:
    """Seconds, as a variable gives them; None if it is not a number from 0 up."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if number >= 0 and math.isfinite(number) else None


def plain(value: Any) -> Any:
    """A copy that consists only of dicts, lists and scalars."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
