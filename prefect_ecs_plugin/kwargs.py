"""The agent's and the run's run_task kwargs become the RunTask request of a run.

Pure: `merge` merges one set of kwargs over another, `build` builds the request from
the merged set and the definition it will run, `check_request` checks it by the rules
of ECS. No input is ever changed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Tuple

from .errors import RunConfigError
from .flow_run import FLOW_CONTAINER, MAX_RUNTIME, RUN_ID, FlowRun, plain, seconds_in
from .settings import AgentSettings, PrefectSettings, environment_entries
from .template import (
    API_KEY_NAMES,
    FLOW_NAME,
    FLOW_RUN_ID,
    PROJECT,
    STARTED_BY,
    brings_api_key,
    leave_out_variables,
    named_entry,
    with_tags,
)
from .validation import coercion, rules
from .validation.excerpt import quoted, shortened
from .validation.plain import without_nulls

if TYPE_CHECKING:
    from .run_config import ECSRun

#: Each excludes the other; the one merged later stays.
_PLACEMENT = {
    "launchType": "capacityProviderStrategy",
    "capacityProviderStrategy": "launchType",
}


def check(kwargs: Mapping[str, Any]) -> None:
    """Refuse kwargs whose keys or types ECS does not accept.

    Args:
        kwargs: One level's run_task kwargs, as the user wrote them.

    Raises:
        RunConfigError: With each key that is wrong and the likely right one.
    """
    _, problems = coercion.coerce("RunTask", kwargs, strict=True)
    rules.raise_certain(problems + rules.check_one_task(kwargs), RunConfigError)
    for index, override in enumerate(_container_overrides(kwargs)):
        if not override.get("name"):
            raise RunConfigError(
                f"overrides.containerOverrides[{index}].name is missing; name a "
                f"container, such as {FLOW_CONTAINER!r}",
                code="missing-key",
            )


def agent_level(settings: AgentSettings) -> Dict[str, Any]:
    """The agent's own kwargs: its file, its launch type and its cluster.

    `--launch-type` takes precedence over the file's launchType, and the file's
    strategy over both, as in Prefect's own agent. Without any of them the launch type
    is FARGATE. A `launchType: null` in the file leaves the choice to the cluster's
    default strategy.
    """
    kwargs = plain(settings.run_task_kwargs)
    launch_type = settings.launch_type or kwargs.get("launchType", "FARGATE")
    if kwargs.get("capacityProviderStrategy") is not None:
        launch_type = None
    kwargs.pop("launchType", None)
    placement = {"launchType": launch_type.upper()} if launch_type else {}
    cluster = {"cluster": settings.cluster} if settings.cluster else {}
    return {**without_nulls(kwargs), **placement, **cluster}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Dict[str, Any]:
    """Merge two sets of run_task kwargs; `over` takes precedence.

    Keys replace each other; `overrides` is merged key by key, its
    `containerOverrides` are paired by container name and their `environment` by
    variable. A key that is null in `over` is removed. Of launchType and
    capacityProviderStrategy the one in `over` drops the other.

    Args:
        base: The lower level, such as the agent's.
        over: The higher level, such as the run's.

    Returns:
        A new dict that shares nothing with its inputs.
    """
    lower, upper = _merge_dicts({}, plain(base), _MERGES), plain(over)
    for key, excluded in _PLACEMENT.items():
        if upper.get(key) is not None:
            lower.pop(excluded, None)
    return _merge_dicts(lower, upper, _MERGES)


def _merge_dicts(
    base: Dict[str, Any], over: Dict[str, Any], merges: Mapping[str, Any]
) -> Dict[str, Any]:
    """Merge key by key; `merges` has the keys whose values are merged themselves."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif key in merges:
            merged[key] = merges[key](merged.get(key) or type(value)(), value)
        else:
            merged[key] = without_nulls(value)
    return merged


def _merge_lists(
    base: Iterable[Dict[str, Any]], over: Iterable[Dict[str, Any]], merge_entry: Any
) -> List[Dict[str, Any]]:
    """Merge two lists whose entries are paired by `name`, in stable order."""
    merged = {entry.get("name"): entry for entry in base}
    for entry in filter(None, over):
        name = entry.get("name")
        merged[name] = merge_entry(merged.get(name, {}), entry)
    return [without_nulls(entry) for entry in merged.values()]


def _merge_environment(base: List[Any], over: List[Any]) -> List[Dict[str, Any]]:
    """Pair variables by name; one whose value is null is removed."""
    merged = _merge_lists(base, over, lambda _, entry: entry)
    return [entry for entry in merged if "value" in entry]


_merge_container = partial(_merge_dicts, merges={"environment": _merge_environment})
_merge_containers = partial(_merge_lists, merge_entry=_merge_container)
_merge_overrides = partial(
    _merge_dicts, merges={"containerOverrides": _merge_containers}
)
_MERGES = {"overrides": _merge_overrides}


def asks_for_spot(merged: Mapping[str, Any]) -> bool:
    """Whether merged kwargs ask for FARGATE_SPOT and nothing else."""
    strategy = merged.get("capacityProviderStrategy") or []
    return {each.get("capacityProvider") for each in strategy} == {"FARGATE_SPOT"}


def on_demand(merged: Mapping[str, Any]) -> Dict[str, Any]:
    """The same kwargs for On-Demand capacity; the cluster need not know the provider.

    Args:
        merged: Kwargs that ask for FARGATE_SPOT.
    """
    kept = {
        key: value for key, value in merged.items() if key != "capacityProviderStrategy"
    }
    return {**kept, "launchType": "FARGATE"}


def build(
    merged: Mapping[str, Any],
    definition: Mapping[str, Any],
    flow_run: FlowRun,
    run_config: ECSRun,
    settings: AgentSettings,
    prefect: PrefectSettings,
) -> Dict[str, Any]:
    """Build the RunTask request of a flow run, without `taskDefinition`.

    Args:
        merged: The agent's and the run's run_task kwargs, merged.
        definition: The task definition it will run, rendered or described.
        flow_run: The run.
        run_config: Its run config.
        settings: The agent's defaults.
        prefect: What the flow needs to reach its API.

    Raises:
        RunConfigError: If a value has the wrong type, the run overrides a container
            that the definition does not have, or its maximum runtime is not a number.
    """
    present = _container_names(definition)
    # The run's own overrides must fit; the agent's are for many definitions.
    for override in _container_overrides(run_config.run_task_kwargs or {}):
        if override["name"] not in present:
            raise RunConfigError(
                f"run_task_kwargs overrides the container {quoted(override['name'])}, "
                "but the task definition has no such container, only "
                f"{shortened(', '.join(present), 200)}",
                code="unknown-container",
            )
    request = plain(merged)
    overrides = request.setdefault("overrides", {})
    _set_roles(overrides, definition, run_config, settings)
    for key, own in (("cpu", run_config.cpu), ("memory", run_config.memory)):
        if own:
            overrides[key] = str(own)
    given = overrides.get("containerOverrides", [])
    containers = [override for override in given if override["name"] in present]
    flow = named_entry(containers, FLOW_CONTAINER)
    if flow_run.memory:
        _give_memory(flow_run, overrides, flow, definition)
    flow["command"] = ["/bin/sh", "-c", flow_run.command]
    flow["environment"] = _environment(flow, flow_run, run_config, settings, prefect)
    _set_max_runtime(flow, definition)
    # An API key that ECS gets from a secret is in no override. A definition with its
    # own secret for the key counts for its flow alone.
    if settings.api_key_secret_arn:
        for container in containers:
            leave_out_variables(container, API_KEY_NAMES)
    elif brings_api_key(definition):
        leave_out_variables(flow, API_KEY_NAMES)
    overrides["containerOverrides"] = containers
    _set_network(request, definition, merged, run_config, settings)
    request.update(startedBy=flow_run.id, clientToken=flow_run.client_token)
    coerced, problems = coercion.coerce(
        "RunTask", with_tags(request, _tags(flow_run, merged)), strict=True
    )
    rules.raise_certain(problems, RunConfigError)
    return coerced


def notes(merged: Mapping[str, Any], request: Mapping[str, Any]) -> Tuple[str, ...]:
    """What the run's log says about its request, a sentence each.

    Args:
        merged: The agent's and the run's run_task kwargs, merged.
        request: What `build` returned for them.
    """
    theirs = merged.get("startedBy")
    if theirs is None:
        return ()
    is_kept = any(tag["key"] == STARTED_BY for tag in request.get("tags", []))
    where = (
        f"it is kept as the task's tag {STARTED_BY}"
        if is_kept
        else f"it is lost, because the task already has {rules.MAX_TAGS} tags"
    )
    return (
        "The agent sets startedBy to the flow run's id, by which it finds the task; "
        f"run_task_kwargs gives {quoted(str(theirs))}, and {where}",
    )


def dropped_overrides(
    merged: Mapping[str, Any], definition: Mapping[str, Any]
) -> Tuple[str, ...]:
    """The containers that the agent's kwargs override and the definition lacks."""
    present = _container_names(definition)
    names = (override["name"] for override in _container_overrides(merged))
    return tuple(name for name in names if name not in present)


def check_request(request: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    """Refuse a request that ECS would refuse.

    Args:
        request: What `build` returned.
        definition: The task definition it will run.

    Raises:
        RunConfigError: If ECS would refuse the request, with all reasons.
    """
    whole = {"taskDefinition": "known-by-then", **request}
    rules.raise_certain(rules.check_run_task(whole, definition), RunConfigError)


def _container_overrides(kwargs: Mapping[str, Any]) -> List[Dict[str, Any]]:
    overrides = (kwargs.get("overrides") or {}).get("containerOverrides") or []
    return [override for override in overrides if override is not None]


def _container_names(definition: Mapping[str, Any]) -> Tuple[str, ...]:
    return tuple(
        container["name"] for container in definition.get("containerDefinitions", [])
    )


def _set_roles(
    overrides: Dict[str, Any],
    definition: Mapping[str, Any],
    run_config: ECSRun,
    settings: AgentSettings,
) -> None:
    """Roles: the run config's, else the definition's, else the agent's.

    The definition's own role needs no override, and an override of the kwargs, which
    would replace it, is removed.
    """
    for key, name in (
        ("taskRoleArn", "task_role_arn"),
        ("executionRoleArn", "execution_role_arn"),
    ):
        own, default = getattr(run_config, name), getattr(settings, name)
        if own and own != definition.get(key):
            overrides[key] = own
        elif definition.get(key):
            overrides.pop(key, None)
        elif default:
            overrides[key] = default


def _give_memory(
    flow_run: FlowRun,
    overrides: Dict[str, Any],
    flow: Dict[str, Any],
    definition: Mapping[str, Any],
) -> None:
    """Replace the sizes that a run asks for by those that it has got since.

    A limit of the flow's container grows by as much as the whole task.
    """
    own = rules.memory_mib(overrides.get("memory") or definition.get("memory"))
    limit = rules.container_memory(overrides, definition)
    overrides.update(cpu=str(flow_run.cpu), memory=str(flow_run.memory))
    if limit is not None and own is not None:
        flow["memory"] = limit + max(0, flow_run.memory - own)


def _environment(
    container: Mapping[str, Any],
    flow_run: FlowRun,
    run_config: ECSRun,
    settings: AgentSettings,
    prefect: PrefectSettings,
) -> List[Dict[str, str]]:
    """The flow container's variables; later ones replace earlier ones."""
    chosen = {
        **environment_entries(settings.env),
        **environment_entries(run_config.env or {}),
    }
    key = prefect.api_key or ""
    # A run may turn its logs off, but not on if the agent has them off.
    logs = "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS"
    env = {
        **{entry["name"]: entry["value"] for entry in container.get("environment", [])},
        "PREFECT__LOGGING__LEVEL": prefect.logging_level,
        **chosen,
        # A flow run needs the following; no value of a user replaces them.
        "PREFECT__BACKEND": prefect.backend,
        "PREFECT__CLOUD__API": prefect.api,
        "PREFECT__CLOUD__API_KEY": key,
        "PREFECT__CLOUD__TENANT_ID": (prefect.tenant_id or "") if key else "",
        "PREFECT__CLOUD__AGENT__LABELS": str(list(prefect.labels)),
        "PREFECT__CLOUD__USE_LOCAL_SECRETS": "false",
        RUN_ID: flow_run.id,
        "PREFECT__CONTEXT__FLOW_ID": flow_run.flow_id,
        "PREFECT__ENGINE__FLOW_RUNNER__DEFAULT_CLASS": (
            "prefect.engine.cloud.CloudFlowRunner"
        ),
        # Images before Prefect 1.0.0 and 0.15.0 know the next two by these names.
        "PREFECT__CLOUD__AUTH_TOKEN": key,
        "PREFECT__LOGGING__LOG_TO_CLOUD": str(prefect.log_to_api).lower(),
        logs: chosen.get(logs, "true") if prefect.log_to_api else "false",
    }
    return [{"name": name, "value": value} for name, value in env.items()]


def _set_max_runtime(flow: Dict[str, Any], definition: Mapping[str, Any]) -> None:
    """Check the run's maximum runtime; one of the definition becomes an override.

    DescribeTasks shows the overrides of a task, by which the agent knows the limit.
    """
    containers = [*definition.get("containerDefinitions", []), flow]
    value = _variable(containers, MAX_RUNTIME)
    if value is None:
        return
    if seconds_in(value) is None:
        raise RunConfigError(
            f"PREFECT_ECS_MAX_RUNTIME is {quoted(str(value))}; set it to a number of "
            "seconds, or to 0 for no limit, in the run's env or in the template.",
            code="invalid-max-runtime",
        )
    leave_out_variables(flow, [MAX_RUNTIME])
    flow["environment"].append({"name": MAX_RUNTIME, "value": value})


def _variable(containers: Iterable[Mapping[str, Any]], name: str) -> Any:
    """The value that the last of some flow containers gives a variable, if any does."""
    values = [
        entry.get("value")
        for container in containers
        if container.get("name") == FLOW_CONTAINER
        for entry in container.get("environment", [])
        if entry.get("name") == name
    ]
    return values[-1] if values else None


def _set_network(
    request: Dict[str, Any],
    definition: Mapping[str, Any],
    merged: Mapping[str, Any],
    run_config: ECSRun,
    settings: AgentSettings,
) -> None:
    """Infer the network if the definition is awsvpc and no level gives a network.

    With `networkConfiguration: null` a run asks for no network, and gets none.
    """
    unset = "networkConfiguration" in (run_config.run_task_kwargs or {})
    given = "networkConfiguration" in merged or unset
    if given or definition.get("networkMode") != "awsvpc" or not settings.subnets:
        return
    # Only Fargate assigns public addresses; elsewhere ECS refuses them. An empty
    # strategy means the cluster's default one. Like Prefect's own agent, this one
    # assumes that it is Fargate's, unless the agent's launch type is EC2.
    on_fargate = rules.placed_on_fargate(merged)
    if merged.get("capacityProviderStrategy") == []:
        on_fargate = settings.launch_type in (None, "FARGATE")
    awsvpc: Dict[str, Any] = {"subnets": list(settings.subnets)}
    if on_fargate:
        awsvpc["assignPublicIp"] = "ENABLED"
    request["networkConfiguration"] = {"awsvpcConfiguration": awsvpc}


def _tags(flow_run: FlowRun, merged: Mapping[str, Any]) -> List[Dict[str, str]]:
    tags = [
        {"key": "prefect:flow-id", "value": flow_run.flow_id},
        {"key": "prefect:flow-version", "value": str(flow_run.flow_version)},
        {"key": FLOW_RUN_ID, "value": flow_run.id},
    ]
    theirs = merged.get("startedBy")
    if theirs is not None:
        tags.append({"key": STARTED_BY, "value": rules.as_tag_value(str(theirs))})
    names = {FLOW_NAME: flow_run.flow_name, PROJECT: flow_run.project}
    return tags + [
        {"key": key, "value": rules.as_tag_value(name)}
        for key, name in names.items()
        if name
    ]
