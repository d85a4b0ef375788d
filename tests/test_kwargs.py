"""The agent's and the run's run_task kwargs -> RunTask request, whole."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Dict, Iterator

import pytest
from botocore.exceptions import ParamValidationError
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.validate import validate_parameters
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin import kwargs
from prefect_ecs_plugin.errors import RunConfigError
from prefect_ecs_plugin.flow_run import FlowRun
from prefect_ecs_plugin.run_config import ECSRun
from prefect_ecs_plugin.settings import AgentSettings, PrefectSettings
from prefect_ecs_plugin.validation.excerpt import quoted

DEFINITION: Dict[str, Any] = {
    "networkMode": "awsvpc",
    "cpu": "1024",
    "memory": "2048",
    "requiresCompatibilities": ["FARGATE"],
    "containerDefinitions": [{"name": "flow", "image": "x"}],
}
BRIDGE = {
    **DEFINITION,
    "networkMode": "bridge",
    "requiresCompatibilities": ["EC2"],
}
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]


def env_of(request: Dict[str, Any], container: str = "flow") -> Dict[str, str]:
    for override in request["overrides"]["containerOverrides"]:
        if override["name"] == container:
            return {entry["name"]: entry["value"] for entry in override["environment"]}
    raise AssertionError(f"no override for {container}")


@pytest.fixture
def build(flow_run: FlowRun, prefect_settings: PrefectSettings) -> Any:
    def build(
        run_config: Any = None,
        definition: Any = DEFINITION,
        run: FlowRun = flow_run,
        prefect: PrefectSettings = prefect_settings,
        **settings: Any,
    ) -> Dict[str, Any]:
        config = run_config or ECSRun()
        agent = AgentSettings(**{"subnets": ("subnet-1",), **settings})
        merged = kwargs.merge(kwargs.agent_level(agent), config.run_task_kwargs or {})
        request = kwargs.build(merged, definition, run, config, agent, prefect)
        kwargs.check_request(request, definition)
        return request

    return build


# -- The whole request -------------------------------------------------------------


def test_packaged_request_whole(
    build: Any, flow_run: FlowRun, required_env: Dict[str, str]
) -> None:
    request = build()
    env = env_of(request)
    request["overrides"]["containerOverrides"][0].pop("environment")
    assert env == required_env
    assert request == {
        "launchType": "FARGATE",
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": ["subnet-1"],
                "assignPublicIp": "ENABLED",
            }
        },
        "overrides": {
            "containerOverrides": [
                {
                    "name": "flow",
                    "command": ["/bin/sh", "-c", "prefect execute flow-run"],
                }
            ]
        },
        "startedBy": flow_run.id,
        "clientToken": f"{flow_run.id}-7",
        "tags": [
            {"key": "prefect:flow-id", "value": flow_run.flow_id},
            {"key": "prefect:flow-version", "value": "3"},
            {"key": "prefect:flow-run-id", "value": flow_run.id},
            {"key": "prefect:flow-name", "value": flow_run.flow_name},
        ],
    }


def test_everything_given_whole(
    build: Any, flow_run: FlowRun, required_env: Dict[str, str]
) -> None:
    request = build(
        ECSRun(
            cpu=512,
            memory=1024,
            env={"RUN": 1, "BOTH": "run"},
            task_role_arn="arn:aws:iam::123456789012:role/run-task",
            execution_role_arn="arn:aws:iam::123456789012:role/run-exec",
            run_task_kwargs={
                "enableExecuteCommand": True,
                "overrides": {
                    "containerOverrides": [
                        {
                            "name": "flow",
                            "cpu": "256",
                            "environment": [{"name": "KWARGS", "value": "run"}],
                        }
                    ]
                },
            },
        ),
        {
            **DEFINITION,
            "containerDefinitions": [{"name": "flow"}, {"name": "proxy"}],
        },
        cluster="prod",
        env={"AGENT": True, "BOTH": "agent"},
        run_task_kwargs={
            "cluster": "other",
            "networkConfiguration": NETWORK,
            "platformVersion": "1.4.0",
            "tags": [{"key": "team", "value": "data"}],
            "overrides": {
                "ephemeralStorage": {"sizeInGiB": 30},
                "containerOverrides": [
                    {
                        "name": "flow",
                        "memory": "512",
                        "environment": [
                            {"name": "KWARGS", "value": "agent"},
                            {"name": "FILE", "value": 2},
                        ],
                    },
                    {"name": "proxy", "command": ["envoy"]},
                    {"name": "absent", "command": ["x"]},
                ],
            },
        },
    )
    env = env_of(request)
    request["overrides"]["containerOverrides"][0].pop("environment")
    assert env == {
        **required_env,
        "AGENT": "true",
        "BOTH": "run",
        "RUN": "1",
        "KWARGS": "run",
        "FILE": "2",
    }
    assert request == {
        "cluster": "prod",
        "launchType": "FARGATE",
        "networkConfiguration": NETWORK,
        "platformVersion": "1.4.0",
        "enableExecuteCommand": True,
        "overrides": {
            "cpu": "512",
            "memory": "1024",
            "ephemeralStorage": {"sizeInGiB": 30},
            "taskRoleArn": "arn:aws:iam::123456789012:role/run-task",
            "executionRoleArn": "arn:aws:iam::123456789012:role/run-exec",
            "containerOverrides": [
                {
                    "name": "flow",
                    "memory": 512,
                    "cpu": 256,
                    "command": ["/bin/sh", "-c", "prefect execute flow-run"],
                },
                {"name": "proxy", "command": ["envoy"]},
            ],
        },
        "startedBy": flow_run.id,
        "clientToken": f"{flow_run.id}-7",
        "tags": [
            {"key": "team", "value": "data"},
            {"key": "prefect:flow-id", "value": flow_run.flow_id},
            {"key": "prefect:flow-version", "value": "3"},
            {"key": "prefect:flow-run-id", "value": flow_run.id},
            {"key": "prefect:flow-name", "value": flow_run.flow_name},
        ],
    }


# -- Placement ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, file, run, expected",
    [
        (None, {}, {}, {"launchType": "FARGATE"}),
        ("EC2", {}, {}, {"launchType": "EC2"}),
        (None, {"launchType": "EC2"}, {}, {"launchType": "EC2"}),
        ("FARGATE", {"launchType": "EC2"}, {}, {"launchType": "FARGATE"}),
        (
            "EC2",
            {"capacityProviderStrategy": SPOT},
            {},
            {"capacityProviderStrategy": SPOT},
        ),
        (
            None,
            {},
            {"capacityProviderStrategy": SPOT},
            {"capacityProviderStrategy": SPOT},
        ),
        (
            None,
            {"capacityProviderStrategy": SPOT},
            {"launchType": "EC2"},
            {"launchType": "EC2"},
        ),
        (
            None,
            {"launchType": "EC2", "capacityProviderStrategy": SPOT},
            {},
            {"capacityProviderStrategy": SPOT},
        ),
        # ECS refuses both, and the rules say so.
        (
            None,
            {},
            {"launchType": "EC2", "capacityProviderStrategy": SPOT},
            {"launchType": "EC2", "capacityProviderStrategy": SPOT},
        ),
        (None, {"launchType": None}, {}, {}),
        (None, {}, {"launchType": None}, {}),
        (None, {"capacityProviderStrategy": []}, {}, {"capacityProviderStrategy": []}),
    ],
)
def test_placement(option: Any, file: Any, run: Any, expected: Any) -> None:
    agent = AgentSettings(launch_type=option, run_task_kwargs=file)
    assert kwargs.merge(kwargs.agent_level(agent), run) == expected


def test_guarantee_8_the_agents_own_kwargs_stay_as_they_were() -> None:
    given = {"launchType": "EC2", "overrides": {"cpu": "256", "memory": None}}
    before = copy.deepcopy(given)
    made = kwargs.agent_level(AgentSettings(run_task_kwargs=given))
    assert made == {"launchType": "EC2", "overrides": {"cpu": "256"}}
    made["overrides"].clear()
    assert given == before


@pytest.mark.parametrize(
    "option, file, expected",
    [(None, None, None), (None, "f", "f"), ("o", "f", "o"), ("o", None, "o")],
)
def test_cluster_option_replaces_that_of_the_file(
    option: Any, file: Any, expected: Any
) -> None:
    agent = AgentSettings(cluster=option, run_task_kwargs={"cluster": file})
    assert kwargs.agent_level(agent).get("cluster") == expected


# -- Merging -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "base, over, merged",
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"group": "x"}, {"group": "y"}, {"group": "y"}),
        ({"group": "x"}, {"group": None}, {}),
        ({"tags": [1]}, {"tags": [2]}, {"tags": [2]}),
        (
            {"overrides": {"cpu": "1", "memory": "2"}},
            {"overrides": {"cpu": "3"}},
            {"overrides": {"cpu": "3", "memory": "2"}},
        ),
        (
            {"overrides": {"cpu": "1", "memory": "2"}},
            {"overrides": {"cpu": None}},
            {"overrides": {"memory": "2"}},
        ),
        ({"overrides": {"cpu": "1"}}, {"overrides": None}, {}),
        # Null is "not given" at every depth, of both.
        ({"group": None, "overrides": {"cpu": None}}, {}, {"overrides": {}}),
        ({"tags": [None, 1]}, {"group": None}, {"tags": [1]}),
        (
            {"network": {"subnets": ["a"], "groups": None}},
            {"inference": [{"name": "x", "type": None}, None]},
            {"network": {"subnets": ["a"]}, "inference": [{"name": "x"}]},
        ),
        (
            {
                "overrides": {
                    "containerOverrides": [
                        {"name": "flow", "environment": [{"name": "A", "value": None}]}
                    ]
                }
            },
            {},
            {
                "overrides": {
                    "containerOverrides": [{"name": "flow", "environment": []}]
                }
            },
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "flow", "cpu": 1}]}},
            {"overrides": {"containerOverrides": [{"name": "s", "cpu": 2}]}},
            {
                "overrides": {
                    "containerOverrides": [
                        {"name": "flow", "cpu": 1},
                        {"name": "s", "cpu": 2},
                    ]
                }
            },
        ),
        (
            {
                "overrides": {
                    "containerOverrides": [
                        {
                            "name": "flow",
                            "cpu": 1,
                            "environment": [
                                {"name": "A", "value": "1"},
                                {"name": "B", "value": "1"},
                                {"name": "C", "value": "1"},
                            ],
                        }
                    ]
                }
            },
            {
                "overrides": {
                    "containerOverrides": [
                        {
                            "name": "flow",
                            "environment": [
                                {"name": "B", "value": "2"},
                                {"name": "C", "value": None},
                                {"name": "D", "value": "2"},
                            ],
                        }
                    ]
                }
            },
            {
                "overrides": {
                    "containerOverrides": [
                        {
                            "name": "flow",
                            "cpu": 1,
                            "environment": [
                                {"name": "A", "value": "1"},
                                {"name": "B", "value": "2"},
                                {"name": "D", "value": "2"},
                            ],
                        }
                    ]
                }
            },
        ),
    ],
)
def test_merge(base: Any, over: Any, merged: Any) -> None:
    assert kwargs.merge(base, over) == merged


def test_what_is_frozen_is_merged_as_well() -> None:
    overrides = MappingProxyType({"cpu": "1", "containerOverrides": ({"name": "s"},)})
    assert kwargs.merge({"overrides": overrides}, {"tags": ({"key": "k"},)}) == {
        "overrides": {"cpu": "1", "containerOverrides": [{"name": "s"}]},
        "tags": [{"key": "k"}],
    }


names = st.sampled_from(["flow", "sidecar", "proxy"])
scalars = st.none() | st.integers(1, 9)
environments = st.none() | st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("ABC"), "value": st.none() | st.sampled_from("123")}
    )
)
container_overrides = st.lists(
    st.fixed_dictionaries(
        {"name": names},
        optional={"cpu": scalars, "memory": scalars, "environment": environments},
    ),
    max_size=3,
    unique_by=lambda override: override["name"],
)
run_task_kwargs = st.fixed_dictionaries(
    {},
    optional={
        "cluster": st.none() | st.sampled_from("xyz"),
        "launchType": st.none() | st.sampled_from(["FARGATE", "EC2"]),
        "capacityProviderStrategy": st.none() | st.just(SPOT),
        "networkConfiguration": st.none() | st.just(NETWORK),
        "overrides": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "cpu": scalars,
                "containerOverrides": st.none() | container_overrides,
            },
        ),
    },
)


@given(run_task_kwargs, run_task_kwargs)
def test_merging_is_idempotent(base: Any, over: Any) -> None:
    once = kwargs.merge(base, over)
    assert kwargs.merge(once, over) == once


@given(run_task_kwargs, run_task_kwargs)
def test_guarantee_8_merging_changes_no_input(base: Any, over: Any) -> None:
    before = copy.deepcopy((base, over))
    merged = kwargs.merge(base, over)
    merged.clear()
    assert (base, over) == before


@given(run_task_kwargs)
def test_merging_shares_nothing_with_its_inputs(over: Any) -> None:
    before = copy.deepcopy(over)
    for merged in (kwargs.merge({}, over), kwargs.merge(over, {})):
        merged.get("overrides", {}).get("containerOverrides", []).append("spoiled")
        merged.get("networkConfiguration", {}).clear()
        assert over == before


# -- Roles, size, command ----------------------------------------------------------


@pytest.mark.parametrize("key", ["taskRoleArn", "executionRoleArn"])
@pytest.mark.parametrize(
    "run, definition, agent, file, override",
    [
        ("run", "def", "agent", "file", "run"),
        ("def", "def", "agent", "file", None),
        (None, "def", "agent", "file", None),
        (None, None, "agent", "file", "agent"),
        (None, None, None, "file", "file"),
        (None, None, None, None, None),
    ],
)
def test_roles(
    build: Any,
    key: str,
    run: Any,
    definition: Any,
    agent: Any,
    file: Any,
    override: Any,
) -> None:
    option = {"taskRoleArn": "task_role_arn", "executionRoleArn": "execution_role_arn"}
    request = build(
        ECSRun(**{option[key]: run}),
        {**DEFINITION, **({key: definition} if definition else {})},
        **{option[key]: agent},
        run_task_kwargs={"overrides": {key: file}},
    )
    assert request["overrides"].get(key) == override


@pytest.mark.parametrize(
    "run, file, expected",
    [
        (512, 2048, "512"),
        ("512", None, "512"),
        (None, 2048, "2048"),
        (None, None, None),
    ],
)
def test_cpu_of_the_run_replaces_that_of_the_kwargs(
    build: Any, run: Any, file: Any, expected: Any
) -> None:
    request = build(
        ECSRun(cpu=run),
        {**DEFINITION, "memory": "4096"},
        run_task_kwargs={"overrides": {"cpu": file}},
    )
    assert request["overrides"].get("cpu") == expected


@pytest.mark.parametrize(
    "core_version, command",
    [
        ("1.4.1", "prefect execute flow-run"),
        ("0.13.0", "prefect execute flow-run"),
        ("0.12.6+3.g1234", "prefect execute cloud-flow"),
        ("master", "prefect execute flow-run"),
        (None, "prefect execute cloud-flow"),
    ],
)
def test_command(
    build: Any, flow_run: FlowRun, core_version: Any, command: str
) -> None:
    request = build(run=replace(flow_run, core_version=core_version))
    override = request["overrides"]["containerOverrides"][0]
    assert override["command"] == ["/bin/sh", "-c", command]


# -- Environment -------------------------------------------------------------------


def test_environment_precedence(build: Any, required_env: Dict[str, str]) -> None:
    """kwargs < logging level < --env < run config < required."""
    taken = "PREFECT__CLOUD__API"
    request = build(
        ECSRun(env={"RUN": "run", taken: "run"}),
        env={"RUN": "agent", "AGENT": "agent", taken: "agent"},
        run_task_kwargs={
            "overrides": {
                "containerOverrides": [
                    {
                        "name": "flow",
                        "environment": [
                            {"name": name, "value": "kwargs"}
                            for name in (
                                "RUN",
                                "AGENT",
                                "KWARGS",
                                "PREFECT__LOGGING__LEVEL",
                                taken,
                            )
                        ],
                    }
                ]
            }
        },
    )
    assert env_of(request) == {
        **required_env,
        "RUN": "run",
        "AGENT": "agent",
        "KWARGS": "kwargs",
    }


RUNTIME = "PREFECT_ECS_MAX_RUNTIME"


def runtime(value: str) -> Dict[str, Any]:
    return {"name": "flow", "environment": [{"name": RUNTIME, "value": value}]}


@pytest.mark.parametrize(
    "template, file, agent, run, expected",
    [
        (None, None, None, None, None),
        ("1", None, None, None, "1"),
        ("1", "2", None, None, "2"),
        ("1", "2", "3", None, "3"),
        ("1", "2", "3", 4, "4"),
        (None, None, None, 0, "0"),
        (None, None, None, "2.5", "2.5"),
        ("soon", None, None, 60, "60"),
    ],
)
def test_the_maximum_runtime_is_always_an_override(
    build: Any, template: Any, file: Any, agent: Any, run: Any, expected: Any
) -> None:
    """DescribeTasks shows the overrides of a task, and not its definition."""
    container = runtime(template) if template else {"name": "flow"}
    definition = {**DEFINITION, "containerDefinitions": [{"image": "x", **container}]}
    overrides = {"overrides": {"containerOverrides": [runtime(file)]}} if file else {}
    request = build(
        ECSRun(env={RUNTIME: run} if run is not None else {}),
        definition,
        run_task_kwargs=overrides,
        env={RUNTIME: agent} if agent else {},
    )
    assert env_of(request).get(RUNTIME) == expected
    (flow,) = request["overrides"]["containerOverrides"]
    names = [entry["name"] for entry in flow["environment"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "", "1 h"])
def test_a_maximum_runtime_that_is_no_number_is_refused(build: Any, value: str) -> None:
    with raises_code("invalid-max-runtime", RunConfigError):
        build(ECSRun(env={RUNTIME: value}))


def test_logging_level_can_be_set_by_the_user(build: Any) -> None:
    name = "PREFECT__LOGGING__LEVEL"
    assert env_of(build(env={name: "DEBUG"}))[name] == "DEBUG"


@pytest.mark.parametrize(
    "log_to_api, chosen, expected",
    [
        (True, None, "true"),
        (True, "false", "false"),
        (True, True, "true"),
        (False, "true", "false"),
    ],
)
def test_a_run_may_turn_its_logs_off_but_not_on(
    build: Any,
    prefect_settings: PrefectSettings,
    log_to_api: bool,
    chosen: Any,
    expected: str,
) -> None:
    name = "PREFECT__CLOUD__SEND_FLOW_RUN_LOGS"
    request = build(
        ECSRun(env={name: chosen}),
        prefect=replace(prefect_settings, log_to_api=log_to_api),
    )
    assert env_of(request)[name] == expected
    assert env_of(request)["PREFECT__LOGGING__LOG_TO_CLOUD"] == str(log_to_api).lower()


def test_without_a_key_there_is_no_tenant(
    build: Any, prefect_settings: PrefectSettings
) -> None:
    env = env_of(build(prefect=replace(prefect_settings, api_key=None)))
    assert env["PREFECT__CLOUD__API_KEY"] == ""
    assert env["PREFECT__CLOUD__AUTH_TOKEN"] == ""
    assert env["PREFECT__CLOUD__TENANT_ID"] == ""


def test_a_key_may_have_no_tenant(
    build: Any, prefect_settings: PrefectSettings
) -> None:
    env = env_of(build(prefect=replace(prefect_settings, tenant_id=None)))
    assert env["PREFECT__CLOUD__API_KEY"] == "pcu_key"
    assert env["PREFECT__CLOUD__TENANT_ID"] == ""


def test_the_flow_may_come_after_the_containers_that_are_overridden(
    build: Any, required_env: Dict[str, str]
) -> None:
    proxy = {"name": "proxy", "command": ["envoy"]}
    containers = [{"name": "proxy"}, {"name": "flow"}]
    request = build(
        definition={**DEFINITION, "containerDefinitions": containers},
        run_task_kwargs={"overrides": {"containerOverrides": [proxy]}},
    )
    assert env_of(request) == required_env
    first, flow = request["overrides"]["containerOverrides"]
    assert (first, flow["name"]) == (proxy, "flow")


KEY = "PREFECT__CLOUD__API_KEY"


@pytest.mark.parametrize("agents, left", [(None, [KEY, "A"]), ("arn:key", ["A"])])
def test_guarantee_7_a_key_that_comes_as_a_secret_is_in_no_override(
    build: Any, agents: Any, left: Any
) -> None:
    """A definition's secret counts for its flow, the agent's for all containers."""
    names = ("flow", "proxy", "other")
    containers: Any = [{"name": name} for name in names]
    containers[0]["secrets"] = [{"name": KEY, "valueFrom": "arn:key"}]
    variables = [{"name": name, "value": "pcu_key"} for name in (KEY, "A")]
    proxy = {"name": "proxy", "environment": variables}
    other = {"name": "other", "command": ["x"]}
    role = "arn:aws:iam::123456789012:role/exec"
    request = build(
        definition={
            **DEFINITION,
            "executionRoleArn": role,
            "containerDefinitions": containers,
        },
        api_key_secret_arn=agents,
        run_task_kwargs={"overrides": {"containerOverrides": [proxy, other]}},
    )
    assert not {KEY, "PREFECT__CLOUD__AUTH_TOKEN"} & set(env_of(request))
    assert list(env_of(request, "proxy")) == left
    assert request["overrides"]["containerOverrides"][1] == other


# -- Network -----------------------------------------------------------------------

PUBLIC = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}


@pytest.mark.parametrize(
    "placement, definition, run, expected",
    [
        ({}, DEFINITION, {}, PUBLIC),
        ({"launchType": "EC2"}, BRIDGE, {}, None),
        (
            {"launchType": "EC2"},
            {**DEFINITION, "requiresCompatibilities": ["EC2"]},
            {},
            NETWORK,
        ),
        ({"capacityProviderStrategy": SPOT}, DEFINITION, {}, PUBLIC),
        ({"capacityProviderStrategy": []}, DEFINITION, {}, PUBLIC),
        ({}, DEFINITION, {"capacityProviderStrategy": []}, PUBLIC),
        ({"launchType": None}, DEFINITION, {}, NETWORK),
        (
            {"networkConfiguration": NETWORK},
            BRIDGE,
            {"launchType": "EC2", "networkConfiguration": None},
            None,
        ),
        ({}, BRIDGE, {"launchType": "EC2"}, None),
    ],
)
def test_network_is_inferred_exactly_where_the_definition_is_awsvpc(
    build: Any, placement: Any, definition: Any, run: Any, expected: Any
) -> None:
    request = build(ECSRun(run_task_kwargs=run), definition, run_task_kwargs=placement)
    assert request.get("networkConfiguration") == expected


@pytest.mark.parametrize(
    "launch_type, expected", [(None, PUBLIC), ("FARGATE", PUBLIC), ("EC2", NETWORK)]
)
def test_an_empty_strategy_counts_as_fargate(
    build: Any, launch_type: Any, expected: Any
) -> None:
    run = ECSRun(run_task_kwargs={"capacityProviderStrategy": []})
    request = build(run, launch_type=launch_type)
    assert request["networkConfiguration"] == expected


@pytest.mark.parametrize(
    "run, settings",
    [({"networkConfiguration": None}, {}), ({}, {"subnets": ()})],
)
def test_no_network_is_inferred_if_none_is_wanted_or_known(
    build: Any, run: Any, settings: Any
) -> None:
    """So ECS would refuse a definition that needs one."""
    with pytest.raises(RunConfigError, match=r"^networkConfiguration: "):
        build(ECSRun(run_task_kwargs=run), **settings)


# -- One run, one task -------------------------------------------------------------


def test_guarantee_1_the_token_names_the_launch_and_its_attempt(
    flow_run: FlowRun,
) -> None:
    again = replace(flow_run, version=8)
    named = replace(flow_run, launch="x" * 60, attempt=1)
    second = replace(named, attempt=2)
    tokens = [run.client_token for run in (flow_run, again, named, second)]
    assert tokens == [f"{flow_run.id}-7", f"{flow_run.id}-8", "x" * 60, "x" * 60 + "-2"]
    assert all(len(token) <= 64 for token in tokens)


@pytest.mark.parametrize(
    "bad, code, message",
    [
        ({"taskDefinition": "x"}, "reserved-key", "task_definition_arn"),
        ({"clientToken": "x"}, "reserved-key", "clientToken"),
        ({"count": 2}, "one-task", "count"),
        ({"networkconfiguration": {}}, "unknown-key", "'networkConfiguration'"),
        ({"somethingNew": 1}, "unknown-key", "somethingNew"),
        (
            {"overrides": {"containerOverrides": [{"name": "flow"}, {"cpu": 1}]}},
            "missing-key",
            "overrides.containerOverrides[1].name",
        ),
        ({"overrides": []}, "wrong-type", "overrides"),
    ],
)
def test_kwargs_that_cannot_be_used_are_refused(
    bad: Any, code: str, message: str
) -> None:
    with raises_code(code, RunConfigError) as error:
        kwargs.check(bad)
    assert message in str(error.value)


def test_a_request_has_no_key_that_ecs_does_not_know(build: Any) -> None:
    with raises_code("unknown-key", RunConfigError):
        build(run_task_kwargs={"somethingNew": 1})


def test_kwargs_with_nulls_and_numbers_are_fine() -> None:
    kwargs.check({"count": 1, "cluster": None, "overrides": {"cpu": 512}})


# -- startedBy ---------------------------------------------------------------------


def tags_of(request: Any) -> Dict[str, str]:
    return {tag["key"]: tag["value"] for tag in request["tags"]}


@pytest.mark.parametrize(
    "agent, run, value",
    [
        ({"startedBy": "airflow"}, {}, "airflow"),
        ({"startedBy": "airflow"}, {"startedBy": "team-a"}, "team-a"),
        ({}, {"startedBy": 7}, "7"),
        # An ECSRun refuses what ECS would; the agent's file may have it.
        ({"startedBy": "<me>|you"}, {}, "_me__you"),
        ({"startedBy": "x" * 300}, {}, "x" * 256),
        ({"startedBy": "aws:ecs"}, {}, "aws_ecs"),
    ],
)
def test_guarantee_10_the_users_started_by_becomes_a_tag(
    build: Any, flow_run: FlowRun, agent: Any, run: Any, value: str
) -> None:
    run_config = ECSRun(run_task_kwargs=run)
    request = build(run_config, run_task_kwargs=agent)
    assert request["startedBy"] == flow_run.id
    assert tags_of(request)["prefect:started-by"] == value
    kwargs.check_request(request, DEFINITION)
    (note,) = kwargs.notes(kwargs.merge(agent, run), request)
    theirs = quoted(str({**agent, **run}["startedBy"]))
    assert theirs in note
    assert note.endswith("tag prefect:started-by")


def test_the_users_started_by_is_lost_if_there_are_50_tags(
    build: Any, flow_run: FlowRun
) -> None:
    own = [{"key": f"k{i}", "value": "v"} for i in range(47)]
    given = {"startedBy": "airflow", "tags": own}
    request = build(run_task_kwargs=given)
    assert request["startedBy"] == flow_run.id
    assert len(request["tags"]) == 50
    assert "prefect:started-by" not in tags_of(request)
    (note,) = kwargs.notes(given, request)
    assert "'airflow'" in note
    assert note.endswith("50 tags")


def test_a_tag_of_that_name_that_the_user_gives_stays(build: Any) -> None:
    own = {"key": "prefect:started-by", "value": "mine"}
    request = build(run_task_kwargs={"startedBy": "airflow", "tags": [own]})
    assert tags_of(request)["prefect:started-by"] == "mine"


def test_without_the_users_started_by_there_is_no_note(build: Any) -> None:
    request = build()
    assert "prefect:started-by" not in tags_of(request)
    assert kwargs.notes({"startedBy": None}, request) == ()


# -- Tags and what ECS refuses -----------------------------------------------------


def test_tags_of_the_run_replace_those_of_the_agent_and_ours_fit_in(
    build: Any,
) -> None:
    own = [{"key": f"k{i}", "value": "v"} for i in range(48)]
    request = build(
        ECSRun(run_task_kwargs={"tags": own}),
        run_task_kwargs={"tags": [{"key": "agent", "value": "v"}]},
    )
    assert [tag["key"] for tag in request["tags"]][-2:] == [
        "prefect:flow-id",
        "prefect:flow-version",
    ]
    assert len(request["tags"]) == 50


@pytest.mark.parametrize(
    "flow, project, tags",
    [
        ("etl daily", "data", {"flow-name": "etl daily", "project": "data"}),
        # Characters, a beginning and a length that ECS refuses.
        ("a{b}\n#1", "aws:x", {"flow-name": "a_b___1", "project": "aws_x"}),
        ("東京" + 300 * "x", "", {"flow-name": "東京" + 254 * "x"}),
        ("", "", {}),
    ],
)
def test_tags_name_the_flow_and_its_project(
    build: Any, flow_run: FlowRun, flow: str, project: str, tags: Dict[str, str]
) -> None:
    request = build(run=replace(flow_run, flow_name=flow, project=project))
    named = {key: value for key, value in tags_of(request).items() if "-id" not in key}
    named.pop("prefect:flow-version")
    assert named == {f"prefect:{key}": value for key, value in tags.items()}


def test_the_users_own_tag_of_that_name_stays(build: Any) -> None:
    own = [{"key": "prefect:project", "value": "mine"}]
    request = build(ECSRun(run_task_kwargs={"tags": own}))
    assert tags_of(request)["prefect:project"] == "mine"


def test_an_override_of_the_run_for_an_unknown_container(build: Any) -> None:
    overrides = {"containerOverrides": [{"name": "nope", "cpu": 1}]}
    containers = [{"name": "flow"}, {"name": "proxy"}]
    definition = {**DEFINITION, "containerDefinitions": containers}
    with raises_code("unknown-container", RunConfigError) as error:
        build(ECSRun(run_task_kwargs={"overrides": overrides}), definition)
    assert "'nope'" in error.value.message
    assert error.value.message.endswith("flow, proxy")


def test_an_override_of_the_agent_for_an_unknown_container_is_dropped() -> None:
    overrides = {"containerOverrides": [{"name": "nope"}, {"name": "flow"}]}
    assert kwargs.dropped_overrides({"overrides": overrides}, DEFINITION) == ("nope",)


def test_a_size_that_fargate_lacks_is_refused(build: Any) -> None:
    with raises_code("fargate-size", RunConfigError):
        build(ECSRun(cpu=256, memory=8192))


# -- botocore does not validate RunTask: what `build` returns is valid ----------------

ANY: Any = ({"no": {"no": 1}}, [["x"], {}], "text", 7.5, 10**30, True, b"", None)


def a_value(shape: Shape) -> Any:
    """A short value that botocore accepts."""
    if shape.type_name == "structure":
        given = {name: a_value(shape.members[name]) for name in shape.required_members}
        return {**given, "name": "flow"} if "name" in shape.members else given
    return {"list": [], "map": {}, "boolean": True, "string": "x"}.get(
        shape.type_name, 1
    )


def values(shape: Shape) -> Iterator[Any]:
    """Values with something of each kind in each place, so most are of a wrong type."""
    yield from ANY
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            for value in values(member):
                yield {**a_value(shape), name: value}
    elif shape.type_name == "list":
        yield from ([value] for value in values(shape.member))
    elif shape.type_name == "map":
        yield from ({"key": value} for value in values(shape.value))


def test_no_value_of_a_wrong_type_is_in_a_request(build: Any) -> None:
    model = ServiceModel(Loader().load_service_model("ecs", "service-2"), "ecs")
    run_task = model.operation_model("RunTask").input_shape
    refused = sent = 0
    for own in values(run_task):
        if not isinstance(own, dict):  # ECSRun itself checks that
            continue
        own.pop("taskDefinition", None)  # `submission` adds it
        try:
            kwargs.check(own)
            stored = {"type": "ECSRun", "run_task_kwargs": own}
            request = build(ECSRun.from_serialized(stored))
        except RunConfigError:
            refused += 1
            continue
        sent += 1
        try:
            validate_parameters({**request, "taskDefinition": "f:1"}, run_task)
        except ParamValidationError as error:  # no error of type, and ECS refuses it
            _, *problems = str(error).splitlines()
            assert all("tagged union" in problem for problem in problems)
    assert refused > sent > 50


# -- Runs that were interrupted, or lacked memory --------------------------------------

SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]


@pytest.mark.parametrize(
    "strategy, is_spot",
    [
        (SPOT, True),
        ([*SPOT, {"capacityProvider": "FARGATE_SPOT", "base": 1}], True),
        ([*SPOT, {"capacityProvider": "FARGATE"}], False),
        ([{"capacityProvider": "FARGATE"}], False),
        ([{"capacityProvider": "mine"}], False),
        ([], False),
        (None, False),
    ],
)
def test_kwargs_that_ask_for_spot_alone(strategy: Any, is_spot: bool) -> None:
    assert kwargs.asks_for_spot({"capacityProviderStrategy": strategy}) is is_spot
    assert not kwargs.asks_for_spot({})


def test_on_demand_replaces_the_strategy() -> None:
    merged = {"capacityProviderStrategy": SPOT, "platformVersion": "1.4.0"}
    assert kwargs.on_demand(merged) == {
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
    }
    assert merged["capacityProviderStrategy"] is SPOT


@pytest.mark.parametrize(
    "definition, own, given, expected",
    [
        # No limit of the container: that of the task counts.
        ({"memory": "2048"}, {}, {}, None),
        # It grows by as much as the task.
        ({"memory": "2048", "limit": 1024}, {}, {}, 1024 + 2048),
        ({"memory": "2048", "limit": 1024}, {"memory": 3072}, {}, 1024 + 1024),
        ({"memory": "2048"}, {}, {"memory": 512}, 512 + 2048),
        ({"memory": "2048", "limit": 1024}, {}, {"memory": 512}, 512 + 2048),
    ],
)
def test_a_run_that_lacked_memory(
    build: Any,
    flow_run: FlowRun,
    definition: Dict[str, Any],
    own: Dict[str, Any],
    given: Dict[str, Any],
    expected: Any,
) -> None:
    container = {**DEFINITION["containerDefinitions"][0]}
    if "limit" in definition:
        container["memory"] = definition["limit"]
    whole = {
        **DEFINITION,
        "cpu": "1024",
        "memory": definition["memory"],
        "containerDefinitions": [container],
    }
    override = {"containerOverrides": [{"name": "flow", **given}]}
    run_config = ECSRun(run_task_kwargs={"overrides": override}, **own)
    grown = replace(flow_run, cpu=1024, memory=4096)
    overrides = build(run_config, whole, grown)["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == ("1024", "4096")
    (flow,) = overrides["containerOverrides"]
    assert flow.get("memory") == expected
