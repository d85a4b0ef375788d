"""Template and run -> register_task_definition request, whole."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any, Dict

import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin import template
from prefect_ecs_plugin.errors import LaunchError, RunConfigError
from prefect_ecs_plugin.flow_run import FlowRun
from prefect_ecs_plugin.run_config import ECSRun
from prefect_ecs_plugin.settings import AgentSettings

FARGATE = {"launchType": "FARGATE"}
PACKAGED: Dict[str, Any] = {
    "networkMode": "awsvpc",
    "cpu": 1024,
    "memory": 2048,
    "containerDefinitions": [{"name": "flow"}],
}
OWNER = {"key": "prefect:registered-by", "value": "prefect-ecs-plugin"}


def build(
    flow_run: FlowRun,
    template_: Any = PACKAGED,
    run_config: Any = None,
    placement: Any = FARGATE,
    **settings: Any,
) -> Dict[str, Any]:
    return template.build(
        template_,
        flow_run,
        run_config or ECSRun(),
        AgentSettings(**settings),
        placement,
    )


def without_name(definition: Dict[str, Any]) -> Dict[str, Any]:
    return {k: v for k, v in definition.items() if k not in ("family", "tags")}


def image_env(image: str) -> Dict[str, str]:
    return {"name": "PREFECT__CONTEXT__IMAGE", "value": image}


def test_packaged_template_whole(flow_run: FlowRun) -> None:
    image = "prefecthq/prefect:1.4.1"
    definition = build(flow_run)
    family = definition.pop("family")
    assert definition == {
        "networkMode": "awsvpc",
        "cpu": "1024",
        "memory": "2048",
        "requiresCompatibilities": ["FARGATE"],
        "containerDefinitions": [
            {"name": "flow", "image": image, "environment": [image_env(image)]}
        ],
        "tags": [OWNER],
    }
    assert family.startswith("prefect-prefecthq-prefect-1-4-1-")


def test_containers_without_a_log_configuration_get_the_log_group(
    flow_run: FlowRun,
) -> None:
    theirs = {"logDriver": "awsfirelens"}
    containers = [
        {"name": "flow"},
        {"name": "proxy", "image": "proxy:1", "logConfiguration": theirs},
        {"name": "router", "image": "router:1", "logConfiguration": None},
    ]
    source = {**PACKAGED, "executionRoleArn": "arn:aws:iam::123456789012:role/x"}
    source["containerDefinitions"] = containers
    definition = build(flow_run, source, flow_log_group="/ecs/f", region="eu-west-1")
    ours = {
        "logDriver": "awslogs",
        "options": {
            "awslogs-group": "/ecs/f",
            "awslogs-region": "eu-west-1",
            "awslogs-stream-prefix": "prefect",
        },
    }
    logs = [each["logConfiguration"] for each in definition["containerDefinitions"]]
    assert logs == [ours, theirs, ours]
    assert definition["family"] != build(flow_run, source)["family"]


def test_a_log_group_needs_a_role_on_fargate_only(flow_run: FlowRun) -> None:
    logged = {"flow_log_group": "/ecs/f", "region": "eu-west-1"}
    with raises_code("no-execution-role", RunConfigError):
        build(flow_run, **logged)
    ec2 = {"launchType": "EC2"}
    assert "executionRoleArn" not in build(flow_run, placement=ec2, **logged)


def test_every_key_of_a_template_is_kept(flow_run: FlowRun) -> None:
    rich = {
        "family": "etl",
        "taskRoleArn": "arn:aws:iam::123456789012:role/task",
        "executionRoleArn": "arn:aws:iam::123456789012:role/exec",
        "networkMode": "bridge",
        "requiresCompatibilities": ["EC2"],
        "volumes": [{"name": "data", "host": {"sourcePath": "/data"}}],
        "placementConstraints": [{"type": "memberOf", "expression": "a == b"}],
        "containerDefinitions": [
            {"name": "log", "image": "fluent-bit", "memory": 64},
            {
                "name": "flow",
                "image": "mine:1",
                "memoryReservation": "512",
                "environment": [
                    {"name": "A", "value": 1},
                    {"name": "B", "value": True},
                ],
                "secrets": [
                    {"name": "S", "valueFrom": "arn:aws:ssm:eu-west-1:1:parameter/s"}
                ],
            },
        ],
        "tags": [{"key": "team", "value": "data"}],
    }
    definition = build(flow_run, rich, placement={"launchType": "EC2"})
    family = definition.pop("family")
    assert definition == {
        **{key: value for key, value in rich.items() if key != "family"},
        "containerDefinitions": [
            {"name": "log", "image": "fluent-bit", "memory": 64},
            {
                "name": "flow",
                "image": "mine:1",
                "memoryReservation": 512,
                "environment": [
                    image_env("mine:1"),
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "true"},
                ],
                "secrets": rich["containerDefinitions"][1]["secrets"],
            },
        ],
        "tags": [{"key": "team", "value": "data"}, OWNER],
    }
    assert family.startswith("etl-")


@pytest.mark.parametrize(
    "storage, run_image, template_image, core_version, expected",
    [
        ("reg/flow:9", "run:1", "tmpl:1", "1.4.1", "reg/flow:9"),
        (None, "run:1", "tmpl:1", "1.4.1", "run:1"),
        (None, None, "tmpl:1", "1.4.1", "tmpl:1"),
        (None, None, None, "1.4.1", "prefecthq/prefect:1.4.1"),
        (None, None, None, "0.15.4+12.gabc", "prefecthq/prefect:0.15.4"),
        (None, None, None, None, "prefecthq/prefect:latest"),
    ],
)
def test_image(
    flow_run: FlowRun,
    storage: Any,
    run_image: Any,
    template_image: Any,
    core_version: Any,
    expected: str,
) -> None:
    run = replace(
        flow_run,
        docker_image=storage,
        has_docker_storage=bool(storage),
        core_version=core_version,
    )
    container = {"name": "flow", "image": template_image}
    definition = build(
        run,
        {**PACKAGED, "containerDefinitions": [container]},
        ECSRun(image=run_image),
    )
    assert without_name(definition)["containerDefinitions"] == [
        {"name": "flow", "image": expected, "environment": [image_env(expected)]}
    ]


def test_docker_storage_without_an_image_is_an_error(flow_run: FlowRun) -> None:
    with raises_code("no-storage-image", LaunchError) as error:
        build(replace(flow_run, has_docker_storage=True))
    assert "'ETL'" in str(error.value)


def test_flow_container_is_added_to_a_template_without_one(flow_run: FlowRun) -> None:
    sidecar = {"name": "proxy", "image": "envoy"}
    definition = build(flow_run, {**PACKAGED, "containerDefinitions": [sidecar]})
    assert [c["name"] for c in definition["containerDefinitions"]] == ["proxy", "flow"]
    assert definition["family"].startswith("prefect-prefecthq-prefect-1-4-1-")


def test_the_image_of_the_run_replaces_a_variable_that_names_it(
    flow_run: FlowRun,
) -> None:
    variables = [{"name": "A", "value": "1"}, image_env("stale:1")]
    flow = {"name": "flow", "image": "mine:1", "environment": variables}
    definition = build(flow_run, {**PACKAGED, "containerDefinitions": [flow]})
    assert definition["containerDefinitions"][0]["environment"] == [
        image_env("mine:1"),
        {"name": "A", "value": "1"},
    ]


def test_variables_beyond_the_request_limit_move_into_their_containers(
    flow_run: FlowRun,
) -> None:
    containers = [{"name": name, "image": "mine:1"} for name in ("proxy", "flow")]
    definition = template.build(
        {**PACKAGED, "containerDefinitions": containers},
        flow_run,
        ECSRun(),
        AgentSettings(),
        FARGATE,
        {"proxy": {"P": "1"}, "flow": {"F": "2"}, "absent": {"A": "3"}},
    )
    proxy, flow = definition["containerDefinitions"]
    assert proxy["environment"] == [{"name": "P", "value": "1"}]
    assert flow["environment"] == [{"name": "F", "value": "2"}, image_env("mine:1")]


def test_image_variable_is_not_set_if_a_secret_has_its_name(flow_run: FlowRun) -> None:
    secret = {"name": "PREFECT__CONTEXT__IMAGE", "valueFrom": "arn:aws:ssm:a:1:p/i"}
    container = {"name": "flow", "secrets": [secret]}
    definition = build(
        flow_run,
        {
            **PACKAGED,
            "containerDefinitions": [container],
            "executionRoleArn": "arn:aws:iam::123456789012:role/exec",
        },
    )
    assert "environment" not in definition["containerDefinitions"][0]


@pytest.mark.parametrize(
    "template_role, run_role, agent_role, expected",
    [
        ("template", "run", "agent", "template"),
        (None, "run", "agent", "run"),
        (None, None, "agent", "agent"),
        (None, None, None, None),
    ],
)
def test_execution_role(
    flow_run: FlowRun,
    template_role: Any,
    run_role: Any,
    agent_role: Any,
    expected: Any,
) -> None:
    definition = build(
        flow_run,
        {**PACKAGED, "executionRoleArn": template_role},
        ECSRun(execution_role_arn=run_role),
        execution_role_arn=agent_role,
    )
    assert definition.get("executionRoleArn") == expected


@pytest.mark.parametrize(
    "own, placement, expected",
    [
        (["EC2", "FARGATE"], FARGATE, ["EC2", "FARGATE"]),
        (None, FARGATE, ["FARGATE"]),
        (None, {"launchType": "EC2"}, ["EC2"]),
        (None, {}, None),
        (
            None,
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]},
            ["FARGATE"],
        ),
        (None, {"capacityProviderStrategy": [{"capacityProvider": "my-asg"}]}, None),
    ],
)
def test_compatibilities_follow_the_placement(
    flow_run: FlowRun, own: Any, placement: Any, expected: Any
) -> None:
    definition = build(
        flow_run, {**PACKAGED, "requiresCompatibilities": own}, placement=placement
    )
    assert definition.get("requiresCompatibilities") == expected


@pytest.mark.parametrize("theirs, has_ours", [(0, True), (49, True), (50, False)])
def test_at_most_fifty_tags_and_the_users_stay(
    flow_run: FlowRun, theirs: int, has_ours: bool
) -> None:
    tags = [{"key": f"k{i}", "value": "v"} for i in range(theirs)]
    definition = build(flow_run, {**PACKAGED, "tags": tags})
    assert definition["tags"] == tags + ([OWNER] if has_ours else [])


def test_a_tag_that_the_user_gives_is_not_replaced(flow_run: FlowRun) -> None:
    tags = [{"key": OWNER["key"], "value": "me"}]
    assert build(flow_run, {**PACKAGED, "tags": tags})["tags"] == tags


@pytest.mark.parametrize(
    "change, code, message",
    [
        ({"executionRoleARN": "x"}, "unknown-key", "'executionRoleArn'"),
        (
            {"containerDefinitions": [{"name": "flow", "Image": "x"}]},
            "unknown-key",
            "'image'",
        ),
        (
            {"containerDefinitions": [{"name": "flow"}, {"name": "s", "image": [1]}]},
            "wrong-type",
            "containerDefinitions[1].image",
        ),
        ({"somethingNew": 1}, "unknown-key", "somethingNew"),
        ({"cpu": 300}, "fargate-size", "300"),
        ({"networkMode": "bridge"}, "fargate-network-mode", "'bridge'"),
    ],
)
def test_what_ecs_would_refuse_is_named_by_its_place(
    flow_run: FlowRun, change: Any, code: str, message: str
) -> None:
    with raises_code(code, RunConfigError) as error:
        build(flow_run, {**PACKAGED, **change})
    assert message in str(error.value)


def test_null_means_not_given(flow_run: FlowRun) -> None:
    nulls = {"taskRoleArn": None, "volumes": None, "tags": None, "family": None}
    assert build(flow_run, {**PACKAGED, **nulls}) == build(flow_run)


def test_guarantee_8_inputs_stay_as_they_were(flow_run: FlowRun) -> None:
    before = copy.deepcopy(PACKAGED)
    build(flow_run)
    assert before == PACKAGED


def test_guarantee_3_runs_and_flows_share_a_definition(flow_run: FlowRun) -> None:
    other = replace(flow_run, id="other", flow_id="other", flow_name="B", version=1)
    assert build(flow_run) == build(other, run_config=ECSRun(cpu=512, env={"A": "1"}))


def test_other_content_has_another_name(flow_run: FlowRun) -> None:
    larger = build(flow_run, {**PACKAGED, "memory": 4096})
    assert larger["family"] != build(flow_run)["family"]


@pytest.mark.parametrize(
    "given, stem",
    [
        ("etl", "etl"),
        ("--etl_--", "etl"),
        ("a b//c", "a-b-c"),
        ("é/" * 300, "prefect"),
        ("é/" * 300 + "x" * 300, "x" * 238),
        ("x" * 236 + "--x", "x" * 236),
        ("XetlX", "XetlX"),
        (None, "prefect-mine-1"),
    ],
)
def test_families_are_bounded_and_legal(given: Any, stem: str) -> None:
    containers = [{"name": "proxy", "image": "q"}, {"name": "flow", "image": "mine:1"}]
    definition = {"family": given, "containerDefinitions": containers}
    named = template.with_content_hash_family(definition)
    family = named["family"]
    assert family == f"{stem}-{template.content_digest(definition)}"
    assert len(family) <= 255
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,255}", family)
    assert named == {**definition, "family": family, "tags": [OWNER]}


def test_a_family_is_the_same_in_every_version() -> None:
    """Otherwise an upgrade would register each definition again."""
    content = {"b": [1, None], "a": {"y": "é", "x": True}}
    assert template.content_digest(content) == "02cfd62e71deabc6"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_equal_content_equal_digest(content: Dict[str, Any]) -> None:
    reordered = dict(reversed(list(content.items())))
    assert template.content_digest(content) == template.content_digest(reordered)


def test_agents_of_several_names_share_a_definition() -> None:
    definition = {"containerDefinitions": [{"name": "flow", "image": "i"}]}
    one, other = (
        template.with_content_hash_family(definition, name)
        for name in ("one", "other: 2!")
    )
    assert one["family"] == other["family"]
    owner = {"key": "prefect:registered-by", "value": "prefect-ecs-plugin"}
    assert one["tags"] == [owner, {"key": "prefect:agent", "value": "one"}]
    assert other["tags"] == [owner, {"key": "prefect:agent", "value": "other: 2_"}]


OURS = [
    {"key": key, "value": "x"}
    for key in (
        *("prefect:registered-by", "prefect:agent", "prefect:flow-id"),
        *("prefect:flow-version", "prefect:flow-run-id", "prefect:started-by"),
        *("prefect:flow-name", "prefect:project"),
    )
]
THEIRS = {"key": "team", "value": "data"}


@pytest.mark.parametrize(
    "request_, bare",
    [
        ({"cluster": "c", "tags": OURS}, {"cluster": "c"}),
        ({"group": "g", "tags": [*OURS, THEIRS]}, {"group": "g", "tags": [THEIRS]}),
        ({"tags": [{"value": "no key"}]}, {"tags": [{"value": "no key"}]}),
        ({"cluster": "c"}, {"cluster": "c"}),
    ],
)
def test_the_agents_own_tags_can_be_left_out(request_: Any, bare: Any) -> None:
    before = copy.deepcopy(request_)
    assert template.without_own_tags(request_) == bare
    assert request_ == before


def test_a_request_with_no_tags_has_no_key_for_them() -> None:
    assert template.with_tags({"cluster": "c"}, []) == {"cluster": "c"}


KEY = "PREFECT__CLOUD__API_KEY"


@pytest.mark.parametrize(
    "container, expected",
    [
        ({"name": "flow", "secrets": [{"name": "OTHER"}, {"name": KEY}]}, True),
        ({"name": "flow", "secrets": [{"name": "PREFECT__CLOUD__AUTH_TOKEN"}]}, True),
        ({"name": "flow", "secrets": [{"name": "OTHER"}, {}]}, False),
        ({"name": "flow", "environment": [{"name": KEY}]}, False),
        ({"name": "proxy", "secrets": [{"name": KEY}]}, False),
    ],
)
def test_which_definitions_bring_the_api_key(container: Any, expected: bool) -> None:
    containers = [{"name": "other"}, container]
    definition = {"containerDefinitions": containers}
    assert template.brings_api_key(definition) is expected
    assert template.brings_api_key({}) is False
