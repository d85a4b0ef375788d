"""The agent's and the run's run_task kwargs become the RunTask request of a run.

Pure: `merge` lays one set of kwargs over another, `build` makes the request out of
the merged set and the definition it will run, `check_request` holds it against what
ECS accepts. No input is ever changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional, Tuple

from .errors import RunConfigError
from .flow_run import FLOW_CONTAINER, RUN_ID, FlowRun, plain
from .settings import AgentSettings, PrefectSettings, environment_entries
from .template import (
    API_KEY_NAMES,
    FLOW_RUN_ID,
    STARTED_BY,
    brings_api_key,
    raise_problems,
    with_tags,
)
from .validation import coercion, rules
from .validation.excerpt import quoted, shortened

if TYPE_CHECKING:
    from .run_config import ECSRun

#: Each excludes the other; the one merged later stays.
_PLACEMENT = {
    "launchType": "capacityProviderStrategy",
    "capacityProviderStrategy": "launchType",
}


def check(kwargs: Mapping[str, Any]) -> None:
    """Refuse kwargs whose keys or types ECS cannot take.

    Args:
        kwargs: One level's run_task kwargs, as the user wrote them.

    Raises:
        RunConfigError: naming each key that is wrong and the likely right one.
    """
    _, problems = coercion.fit("RunTask", kwargs, strict=True)
    raise_problems(problems + rules.check_one_task(kwargs))
    _check_override_names(kwargs)


def _check_override_names(kwargs: Mapping[str, Any]) -> None:
    for index, override in enumerate(_container_overrides(kwargs)):
        if not override.get("name"):
            raise RunConfigError(
                f"overrides.containerOverrides[{index}]: name is missing; "
                f"say which container is meant, such as {FLOW_CONTAINER!r}"
            )


def agent_level(settings: AgentSettings) -> Dict[str, Any]:
    """The agent's own kwargs: its file, its launch type and its cluster.

    `--launch-type` beats the file's launchType, and the file's strategy beats
    both, as in Prefect's own agent. Without either, FARGATE. A `launchType: null`
    in the file leaves the choice to the cluster's default strategy.
    """
    kwargs = plain(settings.run_task_kwargs)
    launch_type = settings.launch_type or kwargs.get("launchType", "FARGATE")
    if kwargs.get("capacityProviderStrategy") is not None:
        launch_type = None
    kwargs.pop("launchType", None)
    placement = {"launchType": launch_type.upper()} if launch_type else {}
    cluster = {"cluster": settings.cluster} if settings.cluster else {}
    return {**_without_nulls(kwargs), **placement, **cluster}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Dict[str, Any]:
    """Lay one set of run_task kwargs over another; `over` wins.

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
    lower, upper = _merge_level({}, plain(base)), plain(over)
    for key, excluded in _PLACEMENT.items():
        if upper.get(key) is not None:
            lower.pop(excluded, None)
    return _merge_level(lower, upper)


def _merge_level(base: Dict[str, Any], over: Dict[str, Any]) -> Dict[str, Any]:
    return _merge_keys(base, over, {"overrides": _merge_overrides})


def _merge_keys(
    base: Dict[str, Any], over: Dict[str, Any], deeper: Mapping[str, Any]
) -> Dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merge_value = deeper.get(key)
        if value is None:
            merged.pop(key, None)
        elif merge_value is not None:
            merged[key] = merge_value(merged.get(key) or type(value)(), value)
        else:
            merged[key] = _without_nulls(value)
    return merged


def _merge_overrides(base: Dict[str, Any], over: Dict[str, Any]) -> Dict[str, Any]:
    return _merge_keys(base, over, {"containerOverrides": _merge_containers})


def _merge_containers(base: List[Any], over: List[Any]) -> List[Dict[str, Any]]:
    return _merge_named(base, over, _merge_container)


def _merge_container(base: Dict[str, Any], over: Dict[str, Any]) -> Dict[str, Any]:
    return _merge_keys(base, over, {"environment": _merge_environment})


def _merge_environment(base: List[Any], over: List[Any]) -> List[Dict[str, Any]]:
    """Pair variables by name; one whose value is null is removed."""
    merged = _merge_named(base, over, lambda _, entry: entry)
    return [entry for entry in merged if "value" in entry]


def _merge_named(
    base: Iterable[Dict[str, Any]], over: Iterable[Dict[str, Any]], pair: Any
) -> List[Dict[str, Any]]:
    """Merge two lists whose entries are known by their `name`, in stable order."""
    merged = {entry.get("name"): entry for entry in base}
    for entry in over:
        name = entry.get("name")
        merged[name] = pair(merged.get(name, {}), entry)
    return [_without_nulls(entry) for entry in merged.values()]


def _without_nulls(value: Any) -> Any:
    """Null means "not given"."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def build(
    merged: Mapping[str, Any],
    definition: Mapping[str, Any],
    flow_run: FlowRun,
    run_config: ECSRun,
    settings: AgentSettings,
    prefect: PrefectSettings,
) -> Dict[str, Any]:
    """Make the RunTask request of a flow run; only `taskDefinition` is left out.

    Args:
        merged: The agent's and the run's run_task kwargs, merged.
        definition: The task definition it will run, rendered or described.
        flow_run: The run.
        run_config: Its run config.
        settings: The agent's defaults.
        prefect: What the flow needs to reach its API.

    Raises:
        RunConfigError: if a value has the wrong type, or the run overrides a container
            that the definition does not have.
    """
    _check_own_overrides(run_config, definition)
    request = plain(merged)
    overrides = request.setdefault("overrides", {})
    _set_roles(overrides, definition, run_config, settings)
    _set_size(overrides, run_config)
    containers = _present(overrides.get("containerOverrides", []), definition)
    flow = _named_entry(containers, FLOW_CONTAINER)
    flow["command"] = ["/bin/sh", "-c", flow_run.command]
    flow["environment"] = _environment(flow, flow_run, run_config, settings, prefect)
    _leave_out_api_key(containers, definition, settings)
    overrides["containerOverrides"] = containers
    _set_network(request, definition, merged, run_config, settings)
    request.update(startedBy=flow_run.id, clientToken=flow_run.client_token)
    fitted, problems = coercion.fit(
        "RunTask", with_tags(request, _tags(flow_run, merged)), strict=True
    )
    raise_problems(problems)
    return fitted


def notes(merged: Mapping[str, Any], request: Mapping[str, Any]) -> Tuple[str, ...]:
    """What a run's log should say about its request, a sentence each.

    Args:
        merged: The agent's and the run's run_task kwargs, merged.
        request: What `build` made of them.
    """
    theirs = merged.get("startedBy")
    if theirs is None:
        return ()
    is_kept = any(tag["key"] == STARTED_BY for tag in request.get("tags", []))
    where = (
        f"it is kept as the task's tag {STARTED_BY}"
        if is_kept
        else f"there is no place for it among the task's {rules.MAX_TAGS} tags"
    )
    return (
        f"ECS gets the flow run's id as startedBy, by which the agent finds the task; "
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
    """Refuse what ECS would.

    Args:
        request: What `build` made.
        definition: The task definition it will run.

    Raises:
        RunConfigError: if ECS would refuse the request; all reasons are named.
    """
    whole = {"taskDefinition": "known-by-then", **request}
    raise_problems(rules.check_run_task(whole, definition))


def _container_overrides(kwargs: Mapping[str, Any]) -> List[Dict[str, Any]]:
    return (kwargs.get("overrides") or {}).get("containerOverrides") or []


def _container_names(definition: Mapping[str, Any]) -> Tuple[str, ...]:
    return tuple(
        container["name"] for container in definition.get("containerDefinitions", [])
    )


def _check_own_overrides(run_config: ECSRun, definition: Mapping[str, Any]) -> None:
    """The run's own overrides must fit; the agent's are for many definitions."""
    present = _container_names(definition)
    for override in _container_overrides(run_config.run_task_kwargs or {}):
        if override["name"] not in present:
            raise RunConfigError(
                f"run_task_kwargs overrides the container {quoted(override['name'])}, "
                "which the task definition does not have; it has "
                f"{shortened(', '.join(present), 200)}"
            )


def _present(
    overrides: List[Dict[str, Any]], definition: Mapping[str, Any]
) -> List[Dict[str, Any]]:
    present = _container_names(definition)
    return [override for override in overrides if override["name"] in present]


def _named_entry(entries: List[Dict[str, Any]], name: str) -> Dict[str, Any]:
    for entry in entries:
        if entry.get("name") == name:
            return entry
    entries.append({"name": name})
    return entries[-1]


def _set_roles(
    overrides: Dict[str, Any],
    definition: Mapping[str, Any],
    run_config: ECSRun,
    settings: AgentSettings,
) -> None:
    """Roles: the run config's, else the definition's, else the agent's.

    The definition's own needs no override; one that the kwargs brought would beat
    it, and is taken out.
    """
    for key, own, default in (
        ("taskRoleArn", run_config.task_role_arn, settings.task_role_arn),
        (
            "executionRoleArn",
            run_config.execution_role_arn,
            settings.execution_role_arn,
        ),
    ):
        if own and own != definition.get(key):
            overrides[key] = own
        elif definition.get(key):
            overrides.pop(key, None)
        elif default:
            overrides[key] = default


def _set_size(overrides: Dict[str, Any], run_config: ECSRun) -> None:
    for key, own in (("cpu", run_config.cpu), ("memory", run_config.memory)):
        if own:
            overrides[key] = str(own)


def _environment(
    container: Mapping[str, Any],
    flow_run: FlowRun,
    run_config: ECSRun,
    settings: AgentSettings,
    prefect: PrefectSettings,
) -> List[Dict[str, str]]:
    """The flow container's variables, the later beating the earlier."""
    env: Dict[str, Any] = {
        entry["name"]: entry["value"] for entry in container.get("environment", [])
    }
    chosen = {
        **environment_entries(settings.env),
        **environment_entries(run_config.env or {}),
    }
    env.update({"PREFECT__LOGGING__LEVEL": prefect.logging_level, **chosen})
    env.update(_required(flow_run, prefect))
    env.update(_log_switch(chosen, prefect))
    return [{"name": name, "value": value} for name, value in env.items()]


def _leave_out_api_key(
    containers: List[Dict[str, Any]],
    definition: Mapping[str, Any],
    settings: AgentSettings,
) -> None:
    """A key that comes as a secret is in no override, wherever it came from.

    Where the agent names the secret, no container is told the key in plain text. A
    definition that brings it by itself, under one of its names or both, speaks for
    its flow alone.
    """
    flow_has_it = brings_api_key(definition)
    for container in containers:
        is_flow = container["name"] == FLOW_CONTAINER
        if settings.api_key_secret_arn or (is_flow and flow_has_it):
            _leave_out(API_KEY_NAMES, container)


def _leave_out(names: Tuple[str, ...], container: Dict[str, Any]) -> None:
    if "environment" in container:
        container["environment"] = [
            entry for entry in container["environment"] if entry["name"] not in names
        ]


def _required(flow_run: FlowRun, prefect: PrefectSettings) -> Dict[str, str]:
    """What a flow run cannot do without; no user value overrides these."""
    key = prefect.api_key or ""
    return {
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
    }


def _log_switch(chosen: Mapping[str, str], prefect: PrefectSettings) -> Dict[str, str]:
    """A run may turn its logs off, but not on where the agent has them off."""
    name = "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS"
    if not prefect.log_to_api:
        return {name: "false"}
    return {name: chosen.get(name, "true")}


def _set_network(
    request: Dict[str, Any],
    definition: Mapping[str, Any],
    merged: Mapping[str, Any],
    run_config: ECSRun,
    settings: AgentSettings,
) -> None:
    """Infer the network exactly where the definition is awsvpc and none was given.

    A run that says `networkConfiguration: null` wants none, and gets none.
    """
    unset = "networkConfiguration" in (run_config.run_task_kwargs or {})
    given = "networkConfiguration" in merged or unset
    if given or definition.get("networkMode") != "awsvpc" or not settings.subnets:
        return
    awsvpc: Dict[str, Any] = {"subnets": list(settings.subnets)}
    if _takes_public_ip(merged, settings):
        awsvpc["assignPublicIp"] = "ENABLED"
    request["networkConfiguration"] = {"awsvpcConfiguration": awsvpc}


def _takes_public_ip(
    merged: Mapping[str, Any], settings: AgentSettings
) -> Optional[bool]:
    """Only Fargate assigns public addresses; elsewhere ECS refuses the wish.

    An empty strategy stands for the cluster's default one. As by Prefect's own agent,
    that is taken for one of Fargate, unless the agent's launch type is EC2.
    """
    if merged.get("capacityProviderStrategy") == []:
        return settings.launch_type in (None, "FARGATE")
    return rules.placed_on_fargate(merged)


def _tags(flow_run: FlowRun, merged: Mapping[str, Any]) -> List[Dict[str, str]]:
    theirs = merged.get("startedBy")
    started_by = (
        [{"key": STARTED_BY, "value": rules.as_tag_value(str(theirs))}]
        if theirs is not None
        else []
    )
    return [
        {"key": "prefect:flow-id", "value": flow_run.flow_id},
        {"key": "prefect:flow-version", "value": str(flow_run.flow_version)},
        {"key": FLOW_RUN_ID, "value": flow_run.id},
        *started_by,
    ]
