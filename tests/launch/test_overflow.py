"""Variables beyond the limit of RunTask overrides move into the task definition."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, List

import pytest
from codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin import ECSRun, template
from prefect_ecs_plugin.errors import RunConfigError
from prefect_ecs_plugin.flow_run import FlowRun
from prefect_ecs_plugin.launch import overflow
from prefect_ecs_plugin.settings import AgentSettings
from prefect_ecs_plugin.validation import rules

RUN_ID = "PREFECT__CONTEXT__FLOW_RUN_ID"
API_KEY = "PREFECT__CLOUD__API_KEY"


def definition(**secrets: str) -> Dict[str, Any]:
    entries = [{"name": name, "valueFrom": arn} for name, arn in secrets.items()]
    flow = {"name": "flow", "image": "x", "secrets": entries}
    return {"containerDefinitions": [flow, {"name": "sidecar", "image": "y"}]}


def request(**containers: Dict[str, str]) -> Dict[str, Any]:
    overrides = [
        {
            "name": container,
            "environment": [{"name": k, "value": v} for k, v in env.items()],
        }
        for container, env in containers.items()
    ]
    return {"overrides": {"containerOverrides": overrides}}


def env_of(request_: Dict[str, Any], container: str) -> Dict[str, str]:
    for override in request_["overrides"]["containerOverrides"]:
        if override["name"] == container:
            return {e["name"]: e["value"] for e in override.get("environment", [])}
    return {}


def test_the_maximum_runtime_never_moves() -> None:
    """The agent reads it from the task's overrides."""
    name = "PREFECT_ECS_MAX_RUNTIME"
    large = request(flow={"B": "b" * 5000, "C": "c" * 4000, name: "3600" + "0" * 6000})
    relieved, moved = overflow.move_env_to_definition(large, definition())
    assert name in env_of(relieved, "flow")
    assert name not in moved["flow"]


# -- What moves --------------------------------------------------------------------


def test_nothing_moves_within_the_limit() -> None:
    small = request(flow={"A": "x" * 8000})
    assert overflow.move_env_to_definition(small, definition()) == (small, {})


def test_the_largest_goes_and_no_more_than_has_to() -> None:
    large = request(flow={"A": "a", "B": "b" * 5000, "C": "c" * 4000})
    relieved, moved = overflow.move_env_to_definition(large, definition())
    assert moved == {"flow": {"B": "b" * 5000}}
    assert relieved == request(flow={"A": "a", "C": "c" * 4000})


def test_sidecars_too() -> None:
    large = request(flow={"A": "a" * 5000}, sidecar={"B": "b" * 6000})
    relieved, moved = overflow.move_env_to_definition(large, definition())
    assert moved == {"sidecar": {"B": "b" * 6000}}
    assert relieved == request(flow={"A": "a" * 5000}, sidecar={})


def test_what_moves_has_one_order_whatever_the_order_of_the_request() -> None:
    env = {"Z": "z" * 5000, "A": "a" * 9000, "M": "m" * 7000}
    moved = overflow.move_env_to_definition(request(flow=env), definition())[1]
    turned = dict(reversed(list(env.items())))
    again = overflow.move_env_to_definition(request(flow=turned), definition())[1]
    assert json.dumps(moved) == json.dumps(again)
    assert list(moved["flow"]) == ["A", "M"]


@pytest.mark.parametrize(
    "name, secrets",
    [
        (RUN_ID, {}),  # no other run could use its definition
        (API_KEY, {}),  # a definition is kept for good
        ("PREFECT__CLOUD__AUTH_TOKEN", {}),
        ("PASSWORD", {"PASSWORD": "arn"}),  # ECS takes a name once
    ],
)
def test_what_never_moves(name: str, secrets: Dict[str, str]) -> None:
    large = request(flow={name: "x" * 9000, "A": "a" * 100})
    relieved, moved = overflow.move_env_to_definition(large, definition(**secrets))
    assert moved == {"flow": {"A": "a" * 100}}
    assert env_of(relieved, "flow") == {name: "x" * 9000}


def test_what_looks_like_a_secret_stays_while_anything_else_can_move() -> None:
    large = request(flow={"DB_PASSWORD": "p" * 7000, "A": "a" * 900, "B": "b" * 600})
    relieved, moved = overflow.move_env_to_definition(large, definition())
    assert moved == {"flow": {"A": "a" * 900}}
    assert env_of(relieved, "flow") == {"DB_PASSWORD": "p" * 7000, "B": "b" * 600}


@pytest.mark.parametrize(
    "variables, named",
    [
        ({"DB_PASSWORD": "p" * 9000, "A": "a" * 100}, "DB_PASSWORD"),
        ({"DSN_OF_DB": f"postgresql://u:{'p' * 9000}@host/db"}, "DSN_OF_DB"),
        ({"WHERE": f"postgresql://u:{'p' * 9000}@host/db"}, "WHERE"),  # by its value
    ],
)
def test_a_secret_never_moves_and_the_run_fails_naming_it(
    variables: Dict[str, str], named: str
) -> None:
    with raises_code("overrides-too-long", RunConfigError) as error:
        overflow.move_env_to_definition(request(flow=variables), definition())
    assert f"because of {named} (container flow)." in error.value.message


def test_of_several_secrets_those_are_named_that_would_have_to_go() -> None:
    tokens = {"A_TOKEN": "a" * 5000, "B_TOKEN": "b" * 4000, "C_TOKEN": "c" * 4500}
    large = request(flow={"A_TOKEN": "a" * 5000}, sidecar=tokens)
    with raises_code("overrides-too-long", RunConfigError) as error:
        overflow.move_env_to_definition(large, definition())
    named = (
        "because of A_TOKEN (container flow), A_TOKEN (container sidecar), C_TOKEN "
        "(container sidecar). "
    )
    assert named in str(error.value)


def test_a_request_too_long_for_another_reason_is_not_blamed_on_a_secret() -> None:
    large = request(flow={"A_TOKEN": "a" * 500, RUN_ID: "r" * 9000})
    assert overflow.move_env_to_definition(large, definition()) == (large, {})


def test_it_is_measured_as_it_is_sent() -> None:
    """Text that ASCII cannot say takes six characters for each of its own."""
    large = request(flow={"A": "é" * 1400})
    assert overflow.move_env_to_definition(large, definition())[1] == {
        "flow": {"A": "é" * 1400}
    }


# -- Laws --------------------------------------------------------------------------

sizes = st.sampled_from([0, 1, 10, 500, 3000, 5000])
environments = st.dictionaries(
    st.sampled_from([*"ABC", RUN_ID, API_KEY]), sizes.map("v".__mul__)
)


def effective(definition_: Dict[str, Any], request_: Dict[str, Any]) -> List[Any]:
    """What each container finds in its environment."""
    return [
        {
            **{e["name"]: e["value"] for e in container.get("environment", [])},
            **env_of(request_, container["name"]),
        }
        for container in definition_["containerDefinitions"]
    ]


@settings(deadline=None)  # the first example loads ECS's model
@given(flow_env=environments, sidecar_env=environments, own_env=environments)
def test_no_value_changes_for_its_container(
    flow_run: FlowRun,
    flow_env: Dict[str, str],
    sidecar_env: Dict[str, str],
    own_env: Dict[str, str],
) -> None:
    own = definition()
    own["containerDefinitions"][0]["environment"] = [
        {"name": name, "value": f"own {value}"} for name, value in own_env.items()
    ]
    sent = request(flow=flow_env, sidecar=sidecar_env)
    untouched = copy.deepcopy((own, sent))
    relieved, moved = overflow.move_env_to_definition(sent, own)
    assert (own, sent) == untouched
    rendered = built(own, moved, flow_run)
    assert [
        {**env, "PREFECT__CONTEXT__IMAGE": "x"} if index == 0 else env
        for index, env in enumerate(effective(own, sent))
    ] == effective(rendered, relieved)


@given(environments)
def test_it_fits_then_or_all_has_moved_that_may(env: Dict[str, str]) -> None:
    relieved, _ = overflow.move_env_to_definition(request(flow=env), definition())
    fits = rules.overrides_length(relieved["overrides"]) <= rules.MAX_OVERRIDES
    assert fits or set(env_of(relieved, "flow")) <= {RUN_ID, API_KEY}
    assert (
        overflow.move_env_to_definition(relieved, definition()) == (relieved, {})
        or not fits
    )


def built(template_: Dict[str, Any], moved: Any, run: FlowRun) -> Dict[str, Any]:
    content = {**template_, "networkMode": "awsvpc", "cpu": "1024", "memory": "2048"}
    return template.build(
        content,
        run,
        ECSRun(),
        AgentSettings(execution_role_arn="arn:aws:iam::123456789012:role/x"),
        {"launchType": "FARGATE"},
        moved,
    )
