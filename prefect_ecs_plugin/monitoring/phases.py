"""How long the phases of a task took, from its own times and its run's. Pure."""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, Optional, Tuple

import pendulum

from ..aws.ecs import region_of
from ..launch_record import Launch, latest_claim
from ..observability.counters import Phase
from .deadlines import seconds
from .decision import Task, flow_container

#: Seconds of an image pull from which on the run's log says how to make it faster.
LONG_PULL = 60.0

#: What to do about one; the rows are from
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-pull-behavior.html
_ELSEWHERE = "keep the image in Amazon ECR in {region}, where the task runs"
_OTHER_REGION = (
    "replicate the image from ECR in {other} to {region}, where the task runs"
)
_ON_FARGATE = (
    "make the image smaller, or add a SOCI index to it, with which Fargate starts a "
    "container before its image is pulled whole"
)
_ON_EC2 = (
    "make the image smaller, or have the instances keep it "
    "(ECS_IMAGE_PULL_BEHAVIOR=prefer-cached)"
)

_ECR = re.compile(r"\d{12}\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.")

#: How the line in the run's log begins; the command `costs` finds it by that.
BEGINNING = "What took how long in ECS task "

_LINE = re.compile(
    BEGINNING + r"(?P<task>[\w-]+): (?P<phases>.+?)(?:\. |\Z)", re.DOTALL
)
_TAKEN = re.compile(r"([a-zA-Z ]+?) (\d+(?:\.\d+)?) s(?:, |\Z)")

#: What the run's log calls them.
_NAMES: Mapping[Phase, str] = {
    Phase.WAITING: "waiting for AWS",
    Phase.PROVISIONING: "provisioning",
    Phase.PULL: "image pull",
    Phase.START: "start of the flow",
    Phase.RUN: "run",
}


def of_task(task: Task, row: Mapping[str, Any], launch: Launch) -> Dict[Phase, float]:
    """How long each phase of a stopped task took, in seconds.

    A phase that did not end, or whose times are not known, is left out. The clocks of
    AWS and of the API may differ; nothing takes less than no time.

    Args:
        task: As described.
        row: The run with the fields of `AgentClient.states_of`.
        launch: How the task was launched.
    """
    created, pulling, pulled, started, ended = (
        seconds(task.get(name))
        for name in (
            *("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt"),
            "executionStoppedAt" if task.get("executionStoppedAt") else "stoppedAt",
        )
    )
    began = _first_state(row, started, ended)
    limits = {
        Phase.WAITING: (_claimed_at(row, launch), created),
        Phase.PROVISIONING: (created, pulling),
        Phase.PULL: (pulling, pulled),
        Phase.START: (pulled, began),
        Phase.RUN: (began, ended),
    }
    return {
        phase: max(0.0, end - begin)
        for phase, (begin, end) in limits.items()
        if begin is not None and end is not None
    }


def line(task: Task, phases: Mapping[Phase, float], cost: str = "") -> str:
    """The line for the run's log; empty if nothing is known.

    Args:
        task: As described.
        phases: How long each phase took.
        cost: The sentence of `costs` about what the task used.
    """
    if not phases:
        return ""
    took = ", ".join(
        f"{_NAMES[phase]} {_rounded(taken)}" for phase, taken in phases.items()
    )
    name = str(task.get("taskArn")).rpartition("/")[2]
    said = f"{BEGINNING}{name}: {took}"
    if cost:
        said = f"{said}. {cost}"
    if phases.get(Phase.PULL, 0.0) > LONG_PULL:
        said = f"{said}. For a shorter image pull, {pull_advice(task)}"
    return said


def read(text: str) -> Optional[Tuple[str, Dict[Phase, float]]]:
    """The task and its phases in a line that `line` made; None if it is another one.

    Args:
        text: The line, with anything before it.

    Returns:
        The task's id, and seconds by phase, as they were rounded.
    """
    found = _LINE.search(text)
    if found is None:
        return None
    taken = {name: float(number) for name, number in _TAKEN.findall(found["phases"])}
    phases = {phase: taken[name] for phase, name in _NAMES.items() if name in taken}
    return found["task"], phases


def pull_advice(task: Task) -> str:
    """What makes the image pulls of such tasks faster, as an imperative."""
    region = region_of(str(task.get("taskArn"))) or "the region"
    registry = _ECR.match(str(flow_container(task).get("image") or ""))
    if registry is None:
        return _ELSEWHERE.format(region=region)
    if registry[1] != region:
        return _OTHER_REGION.format(other=registry[1], region=region)
    provider = str(task.get("capacityProviderName") or task.get("launchType"))
    return _ON_FARGATE if provider.startswith("FARGATE") else _ON_EC2


def _first_state(
    row: Mapping[str, Any], started: Optional[float], ended: Optional[float]
) -> Optional[float]:
    """When the flow set its first state; when the task started, if that is not known.

    A run keeps the time of its first start, so it may be that of an earlier task.
    """
    if started is None or ended is None:
        return started
    first = _moment(row.get("start_time"))
    return first if first is not None and started <= first <= ended else started


def _claimed_at(row: Mapping[str, Any], launch: Launch) -> Optional[float]:
    """When the run was claimed for a launch; None if it has another claim by now."""
    claim = latest_claim(row)
    if claim is None or claim.record is None:
        return None
    is_same = claim.record.is_same_start(launch.name, launch.attempt)
    return claim.stored_at or None if is_same else None


def _moment(text: Any) -> Optional[float]:
    moment: Any = pendulum.parse(text) if text else None
    return float(moment.timestamp()) if moment else None


def _rounded(taken: float) -> str:
    return f"{taken:.1f} s" if taken < 10 else f"{taken:.0f} s"
