"""The facts of one flow run, read once from what the API sent.

Prefect's client hands out python-box objects whose lists copy what is appended to
them and whose attributes spring into being. Beyond this module nobody sees one:
`FlowRun` holds plain, frozen values, and `plain` makes the rest plain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Mapping, Optional, Tuple

from packaging.version import InvalidVersion, Version

#: The version in which Prefect renamed `execute cloud-flow`.
_FIRST_WITH_FLOW_RUN_COMMAND = Version("0.13.0")

#: The variable that tells a flow which run it is.
RUN_ID = "PREFECT__CONTEXT__FLOW_RUN_ID"

#: Where the state of a run that was returned to the queue keeps its launch's name.
LAUNCH_KEY = "ecs_launch"

#: What the state of a run says that an agent of this plugin has marked Submitted.
TAKEN = {"ecs_taken_by": "prefect-ecs-plugin"}

#: Where such a state says which process did. Agents of one name have one id at the API,
#: and two of them are alive when one takes the other's place.
HOLDER_KEY = "ecs_held_by"

#: Characters; room for the attempt in a clientToken of 64.
_LONGEST_LAUNCH = 60


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
        due_task_runs: `(id, version)` of the task runs whose retry is due; empty
            for a run that starts for the first time.
        launch: The name of an earlier launch that is to be repeated, given by an
            agent that had to return the run; else None.
        attempt: 1, or which start of a task this is for the same launch.
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
    due_task_runs: Tuple[Tuple[str, int], ...] = ()
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
            due_task_runs=tuple(
                sorted(
                    (str(task_run["id"]), int(task_run.get("version") or 0))
                    for task_run in answer.get("task_runs") or ()
                )
            ),
            launch=_returned_launch(answer),
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
        """What all starts of a task for this launch have in common.

        It is made of the run's id and version, so that every agent that read the
        run in the same state says the same. A run that Prefect sends back for the
        retry of a task keeps its version, therefore the due task runs count too.
        """
        if self.launch:
            return self.launch
        name = f"{self.id}-{self.version}"
        if not self.due_task_runs:
            return name
        retries = hashlib.sha256(repr(self.due_task_runs).encode()).hexdigest()
        return f"{name}-{retries[:12]}"


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


def was_taken_here(answer: Mapping[str, Any]) -> bool:
    """Whether an agent of this plugin, not one of Prefect's own, took a run.

    Both have the same id at the API if their names and labels are equal.

    Args:
        answer: The run as the API gave it, Submitted.
    """
    return TAKEN.items() <= _context(answer).items()


def holder_of(answer: Mapping[str, Any]) -> Optional[str]:
    """Which process marked a run Submitted, if its state says so."""
    holder = _context(answer).get(HOLDER_KEY)
    return holder if isinstance(holder, str) else None


def _returned_launch(answer: Mapping[str, Any]) -> Optional[str]:
    """The name of its launch, in the state of a run that an agent has returned."""
    name = _context(answer).get(LAUNCH_KEY)
    return name if isinstance(name, str) and 0 < len(name) <= _LONGEST_LAUNCH else None


def _context(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What agents have put into the state of a run."""
    return (answer.get("serialized_state") or {}).get("context") or {}
