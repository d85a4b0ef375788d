"""For equal input the effective task is the one of Prefect's own agent.

Both agents render the same run; each pair of requests is overlaid as ECS overlays
them, and the results are compared. What is better on purpose is left out of the
generated inputs here and asserted in test_template.py and test_kwargs.py.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Dict

import prefect
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.agent.ecs.agent import ECSAgent as PrefectECSAgent
from prefect.run_configs import ECSRun as PrefectECSRun
from prefect.storage import Docker, Local
from prefect.utilities.graphql import GraphQLResult

from prefect_ecs_plugin import kwargs, template
from prefect_ecs_plugin.aws.session import AWSClients
from prefect_ecs_plugin.config import configuration
from prefect_ecs_plugin.flow_run import FlowRun, plain
from prefect_ecs_plugin.run_config import ECSRun
from prefect_ecs_plugin.settings import AgentSettings, PrefectSettings

NETWORK = {"awsvpcConfiguration": {"subnets": ["s"], "assignPublicIp": "ENABLED"}}
OURS = (
    *("prefect:flow-id", "prefect:flow-version", "prefect:flow-run-id"),
    *("prefect:flow-name", "prefect:project"),
)

words = st.sampled_from(["a", "b", "c"])
env = st.dictionaries(
    st.sampled_from(["X", "Y", "PREFECT__LOGGING__LEVEL", "PREFECT__CLOUD__API"]), words
)
environment = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["X", "Z", "PREFECT__BACKEND"]), "value": words}
    ),
    max_size=3,
    unique_by=lambda entry: entry["name"],
)
roles = st.none() | st.sampled_from(["role-1", "role-2"])
sizes = st.none() | st.sampled_from([("512", "1024"), (512, 2048), ("1024", "4096")])


def given_only(**fields: Any) -> Any:
    """A dict of the fields that are not None."""
    return st.fixed_dictionaries(fields).map(
        lambda drawn: {key: value for key, value in drawn.items() if value is not None}
    )


containers = given_only(
    name=st.just("flow"),
    image=st.none() | st.just("template:1"),
    environment=st.none() | environment,
)
templates = given_only(
    family=st.none() | st.just("own"),
    networkMode=st.just("awsvpc"),
    cpu=st.sampled_from([1024, "1024"]),
    memory=st.sampled_from([4096, "4096"]),
    taskRoleArn=roles,
    executionRoleArn=roles,
    containerDefinitions=containers.map(lambda flow: [flow])
    | containers.map(lambda flow: [{"name": "side", "image": "s"}, flow]),
    tags=st.none() | st.just([{"key": "team", "value": "x"}]),
)
# Of one entry's environment in both sets, Prefect's own drops the agent's list;
# ours merges them. So only the agent's kwargs bring one here.
agent_kwargs = given_only(
    enableECSManagedTags=st.none() | st.booleans(),
    networkConfiguration=st.just(NETWORK),
    capacityProviderStrategy=st.none()
    | st.just([{"capacityProvider": "FARGATE_SPOT"}]),
    overrides=st.none()
    | given_only(
        taskRoleArn=roles,
        containerOverrides=st.none()
        | given_only(name=st.just("flow"), environment=st.none() | environment).map(
            lambda override: [override]
        ),
    ),
)
run_kwargs = given_only(
    cluster=st.none() | st.just("run-cluster"),
    launchType=st.none() | st.just("FARGATE"),
    overrides=st.none()
    | given_only(
        executionRoleArn=roles,
        containerOverrides=st.none() | st.just([{"name": "flow", "memory": 512}]),
    ),
)
run_configs = st.fixed_dictionaries(
    {
        "image": st.none() | st.just("run:1"),
        "env": st.none() | env,
        "size": sizes,
        "task_role_arn": roles,
        "execution_role_arn": roles,
        "run_task_kwargs": st.none() | run_kwargs,
        "task_definition": st.none() | templates,
    }
)
agents = st.fixed_dictionaries(
    {
        "template": templates,
        "run_task_kwargs": agent_kwargs,
        "cluster": st.none() | st.just("agent-cluster"),
        "task_role_arn": roles,
        "execution_role_arn": roles,
        "env": env,
        "log_to_api": st.booleans(),
        "api_key": st.none() | st.just("key"),
    }
)
storages = st.sampled_from(
    [
        Local(validate=False).serialize(),
        Docker(registry_url="reg", image_name="i", image_tag="t").serialize(),
    ]
)
core_versions = st.sampled_from(["1.4.1", "0.12.0", "0.14.0+5.g1", None])


def row_of(storage: Any, core_version: Any) -> GraphQLResult:
    return GraphQLResult(
        id="run-id",
        version=2,
        name="run",
        task_runs=[],
        flow=GraphQLResult(
            id="flow-id",
            name="Flow",
            version=4,
            storage=storage,
            core_version=core_version,
        ),
    )


def run_config_of(cls: Any, drawn: Dict[str, Any]) -> Any:
    options = copy.deepcopy(drawn)
    cpu, memory = options.pop("size") or (None, None)
    return cls(cpu=cpu, memory=memory, **options)


def prefect_requests(agent: Dict[str, Any], drawn: Any, row: GraphQLResult) -> Any:
    """What Prefect's own agent would send; its constructor would call AWS."""

    class OwnAgent(PrefectECSAgent):
        flow_run_api_key = agent["api_key"]

        def __init__(self) -> None:
            self.task_definition = agent["template"]
            self.run_task_kwargs = agent["run_task_kwargs"]
            strategy = agent["run_task_kwargs"].get("capacityProviderStrategy")
            self.launch_type = None if strategy else "FARGATE"
            self.cluster = agent["cluster"]
            self.task_role_arn = agent["task_role_arn"]
            self.execution_role_arn = agent["execution_role_arn"]
            self.env_vars = agent["env"]
            self.log_to_cloud = agent["log_to_api"]
            self.labels = ["l"]
            self.client = type("Client", (), {"tenant_id": "tenant"})

    own = OwnAgent()
    run_config = run_config_of(PrefectECSRun, drawn)
    row["run_config"] = run_config.serialize()
    definition = own.generate_task_definition(row, run_config)
    return definition, own.get_run_task_kwargs(row, run_config, definition)


def our_requests(agent: Dict[str, Any], drawn: Any, row: GraphQLResult) -> Any:
    settings = AgentSettings(
        task_definition=agent["template"],
        run_task_kwargs=agent["run_task_kwargs"],
        cluster=agent["cluster"],
        task_role_arn=agent["task_role_arn"],
        execution_role_arn=agent["execution_role_arn"],
        env=agent["env"],
    )
    prefect_settings = PrefectSettings(
        backend=prefect.config.backend,
        api=prefect.config.cloud.api,
        api_key=agent["api_key"],
        tenant_id="tenant",
        labels=("l",),
        logging_level=prefect.config.logging.level,
        log_to_api=agent["log_to_api"],
    )
    run = FlowRun.from_api(plain(row))
    run_config = run_config_of(ECSRun, drawn)
    merged = kwargs.merge(
        kwargs.agent_level(settings), run_config.run_task_kwargs or {}
    )
    definition = template.build(
        run_config.task_definition or settings.task_definition,
        run,
        run_config,
        settings,
        merged,
    )
    request = kwargs.build(
        merged, definition, run, run_config, settings, prefect_settings
    )
    kwargs.check_request(request, definition)
    return definition, request


def effective(definition: Dict[str, Any], request: Dict[str, Any]) -> Dict[str, Any]:
    """The task that ECS makes of the two, but for names and housekeeping."""
    request, overrides = dict(request), dict(request["overrides"])
    by_name = {o["name"]: o for o in overrides.pop("containerOverrides", [])}
    containers = [
        overlaid(container, by_name.get(container["name"], {}))
        for container in definition["containerDefinitions"]
    ]
    for key in ("overrides", "startedBy", "clientToken", "tags"):
        request.pop(key, None)
    task = {
        key: overrides.get(key, definition.get(key))
        for key in ("cpu", "memory", "taskRoleArn", "executionRoleArn")
    }
    return {**request, **task, "containers": containers, "tags": user_tags(definition)}


def overlaid(container: Dict[str, Any], override: Dict[str, Any]) -> Dict[str, Any]:
    both = {
        entry["name"]: entry["value"]
        for level in (container, override)
        for entry in level.get("environment", [])
    }
    return {**container, **override, "environment": both}


def user_tags(definition: Dict[str, Any]) -> Any:
    return [
        tag
        for tag in definition.get("tags", [])
        if tag["key"] not in (*OURS, "prefect:registered-by")
    ]


@pytest.mark.skipif(
    prefect.__version__ < "1.4", reason="the agent of 1.4.1 is the reference"
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(agents, run_configs, storages, core_versions)
def test_effective_task_equals_that_of_prefects_own_agent(
    agent: Any, drawn: Any, storage: Any, core_version: Any
) -> None:
    theirs = prefect_requests(
        copy.deepcopy(agent), drawn, row_of(storage, core_version)
    )
    ours = our_requests(agent, drawn, row_of(storage, core_version))
    assert effective(*ours) == effective(*theirs)


@pytest.mark.skipif(
    prefect.__version__ < "1.4", reason="the agent of 1.4.1 is the reference"
)
@pytest.mark.parametrize(
    "file",
    [
        "{}",
        "capacityProviderStrategy: []",
        "capacityProviderStrategy: [{capacityProvider: FARGATE_SPOT}]",
    ],
)
def test_an_inferred_network_equals_that_of_prefects_own_agent(
    file: str, aws: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both agents ask the account for its default VPC, with the same options."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", aws.region)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    keys = {
        "aws_access_key_id": aws.access_key,
        "aws_secret_access_key": aws.secret_key,
    }
    path = tmp_path / "kwargs.yaml"
    path.write_text(file, encoding="utf-8")
    theirs = PrefectECSAgent(run_task_kwargs_path=str(path), **keys).run_task_kwargs
    agent = configuration.settings_reader(
        AWSClients(**keys), [].append, run_task_kwargs_path=str(path)
    )()
    ours = kwargs.build(
        kwargs.agent_level(agent),
        {"networkMode": "awsvpc", "containerDefinitions": [{"name": "flow"}]},
        FlowRun.from_api(plain(row_of(Local(validate=False).serialize(), "1.4.1"))),
        ECSRun(image="x"),
        agent,
        PrefectSettings(backend="server", api="http://localhost"),
    )
    # Prefect's own infers a network on Fargate alone, and so none for a strategy; ours
    # infers it wherever the definition needs one.
    expected = theirs.get("networkConfiguration", ours["networkConfiguration"])
    assert ours["networkConfiguration"] == expected
    assert expected["awsvpcConfiguration"]["assignPublicIp"] == "ENABLED"


def test_the_comparison_can_fail() -> None:
    agent: Dict[str, Any] = {
        "template": {"containerDefinitions": [{"name": "flow", "image": "x"}]},
        "run_task_kwargs": {"networkConfiguration": NETWORK},
        "cluster": None,
        "task_role_arn": None,
        "execution_role_arn": None,
        "env": {},
        "log_to_api": True,
        "api_key": None,
    }
    agent["template"].update(networkMode="awsvpc", cpu="1024", memory="2048")
    drawn = dict.fromkeys(
        ("image", "env", "size", "task_role_arn", "execution_role_arn")
    )
    drawn.update(run_task_kwargs=None, task_definition=None)
    row = row_of(Local(validate=False).serialize(), "1.4.1")
    theirs = prefect_requests(copy.deepcopy(agent), drawn, row)
    agent["env"] = {"X": "1"}
    with pytest.raises(AssertionError):
        assert effective(*our_requests(agent, drawn, row)) == effective(*theirs)
