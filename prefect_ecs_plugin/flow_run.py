"""The facts of one flow run, read once from what the API sent.

Prefect's client hands out python-box objects whose lists copy what is appended to
them and which create missing attributes on access. No other module handles them:
`FlowRun` holds plain, frozen values, and `plain` converts everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Mapping, Optional

from packaging.version import InvalidVersion, Version

#: The version in which Prefect renamed `execute cloud-flow`.
_FIRST_WITH_FLOW_RUN_COMMAND = Version("0.13.0")

#: The container in which the flow runs; all others are sidecars.
FLOW_CONTAINER = "flow"

#: The variable that tells a flow which run it is.
RUN_ID = "PREFECT__CONTEXT__FLOW_RUN_ID"


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
        core_version: The Prefect version that registered the flow, if known.
        docker_image: The image of the flow's Docker storage, else None.
        has_docker_storage: Whether the flow lives in Docker storage.
        launch: The name of its launch, as the launch record has it; None for a run
            that was claimed by other means.
        attempt: Which start of a task this is for the same launch, from 1.
    """

    id: str
    version: int
    name: str
    flow_id: str
    flow_name: str
    flow_version: int
    core_version: Optional[str] = None
    docker_image: Optional[str] = None
    has_docker_storage: bool = False
    launch: Optional[str] = None
    attempt: int = 1

    @classmethod
    def from_api(cls, answer: Mapping[str, Any]) -> FlowRun:
        """Read the facts out of one row of the `flow_run` query.

        Args:
            answer: The row, as `Agent._get_flow_run_metadata` of Prefect asks for it.

        Raises:
            KeyError: if the API left out a field that was asked for.
        """
        flow = answer["flow"]
        storage = flow.get("storage") or {}
        return cls(
            id=str(answer["id"]),
            version=int(answer.get("version") or 0),
            name=str(answer.get("name") or answer["id"]),
            flow_id=str(flow["id"]),
            flow_name=str(flow.get("name") or ""),
            flow_version=int(flow.get("version") or 0),
            core_version=flow.get("core_version") or None,
            docker_image=_docker_image(storage),
            has_docker_storage=storage.get("type") == "Docker",
        )

    @property
    def default_image(self) -> str:
        """The Prefect image of the version that registered the flow."""
        release = (self.core_version or "latest").split("+")[0]
        return f"prefecthq/prefect:{release}"

    @property
    def command(self) -> str:
        """What the `flow` container has to run."""
        if self._is_older_than_flow_run_command():
            return "prefect execute cloud-flow"
        return "prefect execute flow-run"

    def _is_older_than_flow_run_command(self) -> bool:
        try:
            return Version(self.core_version or "0") < _FIRST_WITH_FLOW_RUN_COMMAND
        except InvalidVersion:  # a build named after a branch is a recent one
            return False

    @property
    def client_token(self) -> str:
        """The name of this start of a task, by which ECS knows a repeated request.

        At most 64 characters of ASCII 33-126, see
        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
        """
        if self.attempt == 1:
            return self.launch_name
        return f"{self.launch_name}-{self.attempt}"

    @property
    def launch_name(self) -> str:
        """What all starts of a task for this launch have in common."""
        return self.launch or f"{self.id}-{self.version}"


def plain(value: Any) -> Any:
    """The same value made of dicts, lists and scalars alone, sharing nothing."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _docker_image(storage: Mapping[str, Any]) -> Optional[str]:
    name, tag = storage.get("image_name"), storage.get("image_tag")
    if storage.get("type") != "Docker" or not name or not tag:
        return None
    return f"{PurePosixPath(storage.get('registry_url') or '', name)}:{tag}"
