"""Guarantee 7: a flow's API key comes as a secret and is in no request."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest
from codes import codes_of, raises_code
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin import kwargs, template
from prefect_ecs_plugin.errors import RunConfigError
from prefect_ecs_plugin.flow_run import FlowRun
from prefect_ecs_plugin.launch import api_key
from prefect_ecs_plugin.run_config import ECSRun
from prefect_ecs_plugin.settings import AgentSettings, PrefectSettings

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prefect-AbC1eF:key::"
OTHER = "arn:aws:ssm:eu-west-1:123456789012:parameter/other"
ROLE = "arn:aws:iam::123456789012:role/ecs"
NEW, OLD = NAMES = template.API_KEY_NAMES

RUN = FlowRun(
    id="11111111-2222-3333-4444-555555555555",
    version=7,
    name="curious-otter",
    flow_id="66666666-7777-8888-9999-000000000000",
    flow_name="ETL",
    flow_version=3,
    core_version="1.4.1",
)
PREFECT = PrefectSettings(
    backend="cloud",
    api="https://api.example.com",
    api_key="pcu_key",
    tenant_id="tenant-1",
)


def secret(name: str, value_from: str = ARN) -> Dict[str, str]:
    return {"name": name, "valueFrom": value_from}


def variable(name: str, value: str = "pcu_key") -> Dict[str, str]:
    return {"name": name, "value": value}


def a_template(*sidecars: Any, **flow: Any) -> Dict[str, Any]:
    return {
        "networkMode": "awsvpc",
        "cpu": "1024",
        "memory": "2048",
        "executionRoleArn": ROLE,
        "containerDefinitions": [{"name": "flow", "image": "x", **flow}, *sidecars],
    }


def requests(
    source: Dict[str, Any], run_config: Any = None, **settings: Any
) -> List[Dict[str, Any]]:
    """Both requests of a run."""
    run_config = run_config or ECSRun()
    agent = AgentSettings(
        **{"subnets": ("subnet-1",), "api_key_secret_arn": ARN, **settings}
    )
    merged = kwargs.merge(kwargs.agent_level(agent), run_config.run_task_kwargs or {})
    definition = template.build(source, RUN, run_config, agent, merged)
    return [
        definition,
        kwargs.build(merged, definition, RUN, run_config, agent, PREFECT),
    ]


def env_of(request: Dict[str, Any], container: str = "flow") -> Dict[str, str]:
    (override,) = [
        each
        for each in request["overrides"]["containerOverrides"]
        if each["name"] == container
    ]
    return {entry["name"]: entry["value"] for entry in override["environment"]}


# -- The definition ----------------------------------------------------------------


@pytest.mark.parametrize(
    "flow, secrets, environment",
    [
        ({}, [secret(NEW), secret(OLD)], []),
        (
            {"secrets": [secret("DB", OTHER), secret(OLD, OTHER)]},
            [secret("DB", OTHER), secret(OLD, OTHER), secret(NEW)],
            [],
        ),
        (
            {"secrets": [secret(NEW, OTHER), secret(OLD, OTHER)]},
            [secret(NEW, OTHER), secret(OLD, OTHER)],
            [],
        ),
        (
            {"environment": [variable(OLD), variable("A", "1"), variable(NEW)]},
            [secret(NEW), secret(OLD)],
            [variable("A", "1")],
        ),
    ],
)
def test_guarantee_7_the_key_comes_as_a_secret_under_both_names(
    flow: Any, secrets: Any, environment: Any
) -> None:
    side = {"name": "side", "image": "s", "secrets": [secret("X", OTHER)]}
    definition, _ = requests(a_template(side, **flow))
    container, sidecar = definition["containerDefinitions"]
    image = {"name": "PREFECT__CONTEXT__IMAGE", "value": "x"}
    assert container["secrets"] == secrets
    assert container["environment"] == [image, *environment]
    assert sidecar == side


def test_the_agent_s_template_and_equal_runs_share_a_definition() -> None:
    names = {requests(a_template())[0]["family"] for _ in range(2)}
    other = requests(a_template(), api_key_secret_arn=OTHER)[0]["family"]
    assert len(names) == 1
    assert other not in names


def test_a_definition_with_the_secret_needs_an_execution_role() -> None:
    source = a_template()
    del source["executionRoleArn"]
    with pytest.raises(RunConfigError, match=r"executionRoleArn.*--execution-role-arn"):
        requests(source)
    for given_role in (
        {"execution_role_arn": ROLE},
        {"run_config": ECSRun(execution_role_arn=ROLE)},
    ):
        definition, _ = requests(source, **given_role)
        assert definition["executionRoleArn"] == ROLE


# -- The request -------------------------------------------------------------------


def override(*names: str, container: str = "flow") -> Dict[str, Any]:
    environment = [variable(name) for name in names]
    return {
        "overrides": {
            "containerOverrides": [{"name": container, "environment": environment}]
        }
    }


def test_guarantee_7_neither_name_is_in_the_overrides_and_the_tenant_is() -> None:
    _, request = requests(a_template())
    assert not set(NAMES) & set(env_of(request))
    assert env_of(request)["PREFECT__CLOUD__TENANT_ID"] == "tenant-1"


levels = st.sets(st.sampled_from(NAMES)).map(sorted)


@given(levels, levels, levels, levels, levels, levels)
def test_guarantee_7_a_key_given_in_plain_text_is_in_no_request(
    in_template: List[str],
    agent_kwargs: List[str],
    run_kwargs: List[str],
    agent_env: List[str],
    run_env: List[str],
    to_a_sidecar: List[str],
) -> None:
    sent = requests(
        a_template(
            {"name": "side", "image": "s"},
            environment=[variable(name) for name in in_template],
        ),
        ECSRun(
            env=dict.fromkeys(run_env, "pcu_key"),
            run_task_kwargs=override(*to_a_sidecar, container="side")
            if to_a_sidecar
            else override(*run_kwargs),
        ),
        run_task_kwargs=override(*agent_kwargs),
        env=dict.fromkeys(agent_env, "pcu_key"),
    )
    assert "pcu_key" not in json.dumps(sent)


def test_a_sidecars_other_variables_stay() -> None:
    run_task_kwargs = override(NEW, container="side")
    (container,) = run_task_kwargs["overrides"]["containerOverrides"]
    container["environment"].append(variable("A", "1"))
    _, request = requests(
        a_template({"name": "side", "image": "s"}), run_task_kwargs=run_task_kwargs
    )
    assert env_of(request, "side") == {"A": "1"}


@pytest.mark.parametrize("name", NAMES)
def test_guarantee_7_a_template_that_brings_one_name_brings_both(name: str) -> None:
    source = a_template(secrets=[secret(name, OTHER)])
    definition, request = requests(source, api_key_secret_arn=None)
    (other,) = set(NAMES) - {name}
    both = [secret(name, OTHER), secret(other, OTHER)]
    assert definition["containerDefinitions"][0]["secrets"] == both
    assert "pcu_key" not in json.dumps([definition, request])
    assert env_of(request)["PREFECT__CLOUD__TENANT_ID"] == "tenant-1"


def test_a_secret_of_a_sidecar_is_not_the_flows() -> None:
    side = {"name": "side", "image": "s", "secrets": [secret(NEW)]}
    _, request = requests(a_template(side), api_key_secret_arn=None)
    assert env_of(request)[NEW] == env_of(request)[OLD] == "pcu_key"


# -- Definitions that are registered already ---------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_definition_that_brings_the_key_will_do(name: str) -> None:
    settings = AgentSettings(api_key_secret_arn=ARN)
    api_key.check_brought("etl:3", a_template(secrets=[secret(name)]), settings)
    api_key.check_brought("etl:3", a_template(), AgentSettings())


@pytest.mark.parametrize(
    "described",
    [
        {},
        a_template(),
        a_template(environment=[variable(NEW)]),
        a_template(secrets=[secret("DB")]),
        a_template({"name": "side", "image": "s", "secrets": [secret(NEW)]}),
    ],
)
def test_guarantee_7_one_that_does_not_is_refused_with_what_to_add(
    described: Any,
) -> None:
    with raises_code("definition-without-api-key", RunConfigError) as error:
        api_key.check_brought("etl:3", described, AgentSettings(api_key_secret_arn=ARN))
    for value in ("etl:3", "PREFECT__CLOUD__API_KEY", "'flow'", ARN):
        assert value in error.value.message


# -- What is said at the start -----------------------------------------------------

PLAIN, NO_ROLE = "plain-text-api-key", "no-execution-role"


@pytest.mark.parametrize(
    "settings, has_key, codes",
    [
        ({}, False, []),
        ({}, True, [PLAIN]),
        ({"task_definition": {"containerDefinitions": None}}, True, [PLAIN]),
        ({"task_definition": a_template(secrets=[secret(OLD)])}, True, []),
        ({"api_key_secret_arn": ARN}, True, [NO_ROLE]),
        ({"api_key_secret_arn": ARN}, False, [NO_ROLE]),
        ({"api_key_secret_arn": ARN, "execution_role_arn": ROLE}, True, []),
        ({"api_key_secret_arn": ARN, "task_definition": a_template()}, True, []),
    ],
)
def test_what_is_said_at_the_start(settings: Any, has_key: bool, codes: Any) -> None:
    said = list(api_key.warnings(AgentSettings(**settings), has_key))
    assert codes_of(said) == codes
    assert not any("\n" in line for line in said)
