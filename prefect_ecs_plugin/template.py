"""A task definition template becomes the register_task_definition request of a run.

Pure: plain dicts in, a new plain dict out. What belongs to one run alone (its id,
its environment, its cpu and memory) goes into the RunTask request instead, so that
equal templates give equal definitions and one registration serves every run.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

from .errors import LaunchError, RunConfigError
from .flow_run import FLOW_CONTAINER, FlowRun
from .settings import AgentSettings
from .validation import coercion, rules
from .validation.excerpt import joined, quoted

if TYPE_CHECKING:
    from .run_config import ECSRun

#: The API key under the names that flow images of all versions know.
API_KEY_NAMES = ("PREFECT__CLOUD__API_KEY", "PREFECT__CLOUD__AUTH_TOKEN")

#: Marks the definitions that this plugin registered.
OWNER_TAG = {"key": "prefect:registered-by", "value": "prefect-ecs-plugin"}

#: The tag of a definition that names the agent that registered it.
AGENT_TAG = "prefect:agent"

#: The tag of a task that names its flow run.
FLOW_RUN_ID = "prefect:flow-run-id"

#: The tag of a task that keeps the user's own `startedBy`.
STARTED_BY = "prefect:started-by"

#: The keys of the tags that the agent adds to tasks and definitions by itself.
OWN_TAGS = frozenset(
    {
        OWNER_TAG["key"],
        AGENT_TAG,
        "prefect:flow-id",
        "prefect:flow-version",
        FLOW_RUN_ID,
        STARTED_BY,
    }
)

_DIGEST_LENGTH = 16


def build(
    template: Mapping[str, Any],
    flow_run: FlowRun,
    run_config: ECSRun,
    settings: AgentSettings,
    placement: Mapping[str, Any],
    environment: Optional[Mapping[str, Mapping[str, str]]] = None,
) -> Dict[str, Any]:
    """Render the definition with which a flow run is launched.

    Args:
        template: The run's own template or the agent's. Every key that
            register_task_definition takes may stand in it.
        flow_run: The run.
        run_config: Its run config.
        settings: The agent's defaults.
        placement: The run's merged run_task kwargs, for its launchType or
            capacityProviderStrategy.
        environment: Variables by container that exceed the limit of RunTask; see
            `overflow`.

    Returns:
        The request, named by its own content and ready to be sent.

    Raises:
        RunConfigError: if ECS would refuse the definition; all reasons are named.
        LaunchError: if the flow's Docker storage names no image.
    """
    definition = fitted(template)
    flow = flow_container(definition)
    flow["image"] = _image(flow_run, run_config, flow)
    _set_environment(flow, {"PREFECT__CONTEXT__IMAGE": flow["image"]})
    _take_in(definition, environment or {})
    api_key = settings.api_key_secret_arn or _own_api_key(flow)
    if api_key:
        _bring_api_key(flow, api_key)
    _set_execution_role(definition, run_config, settings)
    _set_compatibilities(definition, placement)
    request = named(definition, settings.agent_name)
    raise_problems(rules.check_definition(request))
    return request


def fitted(template: Mapping[str, Any]) -> Dict[str, Any]:
    """A new copy of a template, its values as ECS wants them on the wire.

    Raises:
        RunConfigError: if it has an unknown key or a value of the wrong type.
    """
    definition, problems = coercion.fit("RegisterTaskDefinition", template, strict=True)
    raise_problems(problems)
    return definition


def raise_problems(problems: List[rules.Problem]) -> None:
    """Raise what ECS must refuse, as one line; what it only may refuse is its to say.

    Raises:
        RunConfigError: if any problem is certain.
    """
    certain = [str(problem) for problem in problems if problem.certain]
    if certain:
        raise RunConfigError(joined(certain))


def flow_container(definition: Dict[str, Any]) -> Dict[str, Any]:
    """The container `flow` of a definition, added to it where it has none."""
    containers = definition.setdefault("containerDefinitions", [])
    for container in containers:
        if container.get("name") == FLOW_CONTAINER:
            return expect_dict(container)
    containers.append({"name": FLOW_CONTAINER})
    return expect_dict(containers[-1])


def expect_dict(value: Any) -> Dict[str, Any]:
    """Narrow a value that the service model has vouched for."""
    assert isinstance(value, dict)
    return value


def secret_names(container: Mapping[str, Any]) -> List[str]:
    """The variables that a container gets from its `secrets`."""
    return [entry.get("name", "") for entry in container.get("secrets", [])]


def brings_api_key(definition: Mapping[str, Any]) -> bool:
    """Whether the flow of a definition gets the API key from its `secrets`."""
    return any(
        container.get("name") == FLOW_CONTAINER and name in API_KEY_NAMES
        for container in definition.get("containerDefinitions", [])
        for name in secret_names(container)
    )


def named(definition: Mapping[str, Any], agent_name: str = "") -> Dict[str, Any]:
    """The definition under a family that is unique to its content.

    The digest covers the whole definition, including the template's own family. The
    tags of the owner and of the agent are added afterwards, if ECS's limit of 50 tags
    allows them, so agents with different names share a definition.

    Args:
        definition: What is to be registered.
        agent_name: The agent's name, empty for none.
    """
    digest = content_digest(definition)
    stem = definition.get("family") or _image_family(definition)
    left = rules.MAX_FAMILY - len(digest) - 1
    family = f"{_slug(stem)[:left].rstrip('-_') or 'prefect'}-{digest}"
    ours = [OWNER_TAG, *([agent_tag(agent_name)] if agent_name else [])]
    return with_tags({**definition, "family": family}, ours)


def agent_tag(name: str) -> Dict[str, str]:
    """The tag of the definitions that an agent of this name registers."""
    return {"key": AGENT_TAG, "value": rules.as_tag_value(name)}


def content_digest(definition: Mapping[str, Any]) -> str:
    """Equal content gives equal digests, whatever the order of the keys."""
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]


def with_tags(request: Dict[str, Any], ours: List[Dict[str, str]]) -> Dict[str, Any]:
    """Add tags of ours where they fit; the user's always win.

    ECS takes at most 50 tags on a resource, each key once:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html
    """
    theirs = request.get("tags", [])
    taken = {tag.get("key") for tag in theirs}
    fresh = [tag for tag in ours if tag["key"] not in taken]
    tags = theirs + fresh[: max(0, rules.MAX_TAGS - len(theirs))]
    return {**request, "tags": tags} if tags else request


def without_own_tags(request: Mapping[str, Any]) -> Dict[str, Any]:
    """A request with none of the tags that the agent adds by itself."""
    tags = [tag for tag in request.get("tags", []) if tag.get("key") not in OWN_TAGS]
    bare = {key: value for key, value in request.items() if key != "tags"}
    return {**bare, "tags": tags} if tags else bare


def _image(flow_run: FlowRun, run_config: ECSRun, container: Mapping[str, Any]) -> str:
    if flow_run.has_docker_storage:
        if flow_run.docker_image:
            return flow_run.docker_image
        raise LaunchError(
            f"The Docker storage of flow {quoted(flow_run.flow_name)} names no image "
            "and tag; register the flow again after building its storage."
        )
    return run_config.image or container.get("image") or flow_run.default_image


def _set_environment(container: Dict[str, Any], env: Mapping[str, str]) -> None:
    """Set variables, save those that the container already gets as secrets.

    A name may stand in `environment` or in `secrets`, not in both.
    """
    secrets = secret_names(container)
    ours = {name: value for name, value in env.items() if name not in secrets}
    others = [
        entry
        for entry in container.get("environment", [])
        if entry.get("name") not in ours
    ]
    if ours:
        entries = [{"name": name, "value": value} for name, value in ours.items()]
        container["environment"] = entries + others


def _take_in(
    definition: Mapping[str, Any], environment: Mapping[str, Mapping[str, str]]
) -> None:
    for container in definition["containerDefinitions"]:
        _set_environment(container, environment.get(container.get("name"), {}))


def _own_api_key(container: Mapping[str, Any]) -> Optional[str]:
    """Where a template's own container has the API key from, under either name."""
    for entry in container.get("secrets", []):
        if entry.get("name") in API_KEY_NAMES:
            return str(entry.get("valueFrom"))
    return None


def _bring_api_key(container: Dict[str, Any], secret_arn: str) -> None:
    """Add the API key to a container's secrets, under each name that is missing.

    A name may stand in `environment` or in `secrets`, and there once.
    """
    missing = [name for name in API_KEY_NAMES if name not in secret_names(container)]
    ours = [{"name": name, "valueFrom": secret_arn} for name in missing]
    container["secrets"] = [*container.get("secrets", []), *ours]
    container["environment"] = [
        entry
        for entry in container.get("environment", [])
        if entry.get("name") not in API_KEY_NAMES
    ]


def _set_execution_role(
    definition: Dict[str, Any], run_config: ECSRun, settings: AgentSettings
) -> None:
    role = run_config.execution_role_arn or settings.execution_role_arn
    if role:
        definition.setdefault("executionRoleArn", role)


def _set_compatibilities(
    definition: Dict[str, Any], placement: Mapping[str, Any]
) -> None:
    """Ask for what the run is placed on, so that ECS checks the definition for it."""
    compatibility = _compatibility(placement)
    if compatibility:
        definition.setdefault("requiresCompatibilities", [compatibility])


def _compatibility(placement: Mapping[str, Any]) -> Optional[str]:
    if placement.get("launchType"):
        return str(placement["launchType"])
    return "FARGATE" if rules.placed_on_fargate(placement) else None


def _image_family(definition: Mapping[str, Any]) -> str:
    flow = next(
        container
        for container in definition["containerDefinitions"]
        if container["name"] == FLOW_CONTAINER
    )
    return f"prefect-{flow['image']}"


def _slug(text: str) -> str:
    """Text as a family may spell it: letters, digits, `-` and `_`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")
