"""A task definition template becomes the register_task_definition request of a run.

Pure: plain dicts in, a new plain dict out. What belongs to one run alone (its id,
its environment, its cpu and memory) goes into the RunTask request instead, so that
equal templates give equal definitions and one registration serves every run.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Collection, Dict, List, Mapping, Optional

from .errors import LaunchError, RunConfigError
from .flow_run import FLOW_CONTAINER, FlowRun
from .settings import AgentSettings
from .validation import coercion, rules
from .validation.excerpt import quoted

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

#: The tags of a task that name its flow and its project; AWS's Cost Explorer groups by
#: them.
FLOW_NAME, PROJECT = "prefect:flow-name", "prefect:project"

#: The tag of a task that keeps the user's own `startedBy`.
STARTED_BY = "prefect:started-by"

#: Log streams in the agent's log group are named `prefect/CONTAINER/TASK-ID`.
LOG_STREAM_PREFIX = "prefect"

#: The keys of the tags that the agent adds to tasks and definitions by itself.
OWN_TAGS = frozenset(
    {
        OWNER_TAG["key"],
        AGENT_TAG,
        "prefect:flow-id",
        "prefect:flow-version",
        FLOW_RUN_ID,
        FLOW_NAME,
        PROJECT,
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
        template: The run's own template or the agent's. It may have every key of
            register_task_definition.
        flow_run: The run.
        run_config: Its run config.
        settings: The agent's defaults.
        placement: The run's merged run_task kwargs, for its launchType or
            capacityProviderStrategy.
        environment: Variables by container that exceed the limit of RunTask; see
            `overflow`.

    Returns:
        The request, whose family is derived from its content.

    Raises:
        RunConfigError: If ECS would refuse the definition, with all reasons.
        LaunchError: If the flow's Docker storage has no image.
    """
    definition = coerce_template(template)
    containers = definition.setdefault("containerDefinitions", [])
    flow = named_entry(containers, FLOW_CONTAINER)
    flow["image"] = _image(flow_run, run_config, flow)
    _set_environment(flow, {"PREFECT__CONTEXT__IMAGE": flow["image"]})
    for container in containers:
        added = (environment or {}).get(container.get("name"), {})
        _set_environment(container, added)
        if settings.flow_log_group:
            container.setdefault("logConfiguration", _awslogs(settings))
    api_key = settings.api_key_secret_arn or _own_api_key(flow)
    if api_key:
        _add_api_key(flow, api_key)
    role = run_config.execution_role_arn or settings.execution_role_arn
    if role:
        definition.setdefault("executionRoleArn", role)
    # ECS then checks the definition for what the run is placed on.
    compatibility = placement.get("launchType")
    if not compatibility and rules.placed_on_fargate(placement):
        compatibility = "FARGATE"
    if compatibility:
        definition.setdefault("requiresCompatibilities", [str(compatibility)])
    request = with_content_hash_family(definition, settings.agent_name)
    rules.raise_certain(rules.check_definition(request), RunConfigError)
    return request


def coerce_template(template: Mapping[str, Any]) -> Dict[str, Any]:
    """A new copy of a template, its values in the types that ECS accepts.

    Raises:
        RunConfigError: If it has an unknown key or a value of the wrong type.
    """
    definition, problems = coercion.coerce(
        "RegisterTaskDefinition", template, strict=True
    )
    rules.raise_certain(problems, RunConfigError)
    return definition


def named_entry(entries: List[Any], name: str) -> Dict[str, Any]:
    """The entry of that name in a list of dicts, added to it where it has none."""
    for entry in entries:
        if entry.get("name") == name:
            return expect_dict(entry)
    entries.append({"name": name})
    return expect_dict(entries[-1])


def expect_dict(value: Any) -> Dict[str, Any]:
    """Narrow a value that `coerce` has checked."""
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


def with_content_hash_family(
    definition: Mapping[str, Any], agent_name: str = ""
) -> Dict[str, Any]:
    """The definition with a family that is unique to its content.

    The digest covers the whole definition, including the template's own family. The
    tags of the owner and of the agent are added afterwards, if ECS's limit of 50 tags
    allows them, so agents with different names share a definition.

    Args:
        definition: A rendered definition.
        agent_name: The agent's name, empty for none.
    """
    digest = content_digest(definition)
    flow = named_entry(definition["containerDefinitions"], FLOW_CONTAINER)
    stem = definition.get("family") or f"prefect-{flow['image']}"
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")
    left = rules.MAX_FAMILY - len(digest) - 1
    family = f"{slug[:left].rstrip('-_') or 'prefect'}-{digest}"
    ours = [OWNER_TAG, *([agent_tag(agent_name)] if agent_name else [])]
    return with_tags({**definition, "family": family}, ours)


def agent_tag(name: str) -> Dict[str, str]:
    """The tag of the definitions that an agent of this name registers."""
    return {"key": AGENT_TAG, "value": rules.as_tag_value(name)}


def content_digest(definition: Mapping[str, Any]) -> str:
    """A digest of the content that does not depend on the order of keys."""
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_LENGTH]


def with_tags(request: Dict[str, Any], ours: List[Dict[str, str]]) -> Dict[str, Any]:
    """Add tags of ours up to ECS's limit; the user's tags take precedence.

    ECS accepts at most 50 tags on a resource, each key once:
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
    if not flow_run.has_docker_storage:
        return run_config.image or container.get("image") or flow_run.default_image
    if not flow_run.docker_image:
        raise LaunchError(
            f"The Docker storage of flow {quoted(flow_run.flow_name)} has no image "
            "and tag; build the storage and register the flow again.",
            code="no-storage-image",
        )
    return flow_run.docker_image


def _set_environment(container: Dict[str, Any], env: Mapping[str, str]) -> None:
    """Set variables, except those that the container already gets as secrets.

    ECS accepts a name either in `environment` or in `secrets`.
    """
    secrets = secret_names(container)
    ours = {name: value for name, value in env.items() if name not in secrets}
    if ours:
        leave_out_variables(container, ours)
        entries = [{"name": name, "value": value} for name, value in ours.items()]
        container["environment"] = entries + container.get("environment", [])


def leave_out_variables(container: Dict[str, Any], names: Collection[str]) -> None:
    """Remove variables from the `environment` of a container or an override."""
    if "environment" in container:
        container["environment"] = [
            entry
            for entry in container["environment"]
            if entry.get("name") not in names
        ]


def _awslogs(settings: AgentSettings) -> Dict[str, Any]:
    """The log configuration of containers that have none.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
    """
    options = {
        "awslogs-group": settings.flow_log_group,
        "awslogs-region": settings.region,
        "awslogs-stream-prefix": LOG_STREAM_PREFIX,
    }
    return {"logDriver": "awslogs", "options": options}


def _own_api_key(container: Mapping[str, Any]) -> Optional[str]:
    """Which secret a template's own container reads the API key from, if any."""
    for entry in container.get("secrets", []):
        if entry.get("name") in API_KEY_NAMES:
            return str(entry.get("valueFrom"))
    return None


def _add_api_key(container: Dict[str, Any], secret_arn: str) -> None:
    """Add the API key to a container's secrets, under each name that is missing.

    ECS accepts a name either in `environment` or in `secrets`, and there once.
    """
    missing = [name for name in API_KEY_NAMES if name not in secret_names(container)]
    ours = [{"name": name, "valueFrom": secret_arn} for name in missing]
    container["secrets"] = [*container.get("secrets", []), *ours]
    container.setdefault("environment", [])
    leave_out_variables(container, API_KEY_NAMES)
