"""ECSRun: what it checks, what it stores, and who can read that."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import textwrap
import venv
import warnings
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cloudpickle
import prefect
import pytest
from box import Box
from codes import code_of, raises_code
from prefect.run_configs import ECSRun as PrefectECSRun
from prefect.run_configs import KubernetesRun, UniversalRun
from prefect.serialization.run_config import RunConfigSchema

from prefect_ecs_plugin import (
    ConfigurationError,
    ECSRun,
    RunConfigError,
    SourceError,
    UnsupportedRunConfig,
)
from prefect_ecs_plugin.validation.yaml_text import parse_mapping

ROLE = "arn:aws:iam::123456789012:role/flows"

ARGUMENTS: Tuple[Dict[str, Any], ...] = (
    {},
    {
        "task_definition": {"family": "f", "cpu": 1024, "tags": []},
        "image": "prefecthq/prefect:1.4.1",
        "env": {"A": "1", "B": 2, "C": True, "D": 0.5},
        "cpu": 1024,
        "memory": "2 GB",
        "task_role_arn": ROLE,
        "execution_role_arn": ROLE,
        "run_task_kwargs": {"cluster": "flows", "launchType": None},
        "labels": ["b", "a"],
    },
    {"task_definition_arn": "flows:3", "labels": ("a",)},
    {"task_definition_path": "s3://bucket/flow.yaml"},
    {"task_definition_path": "agent:///etc/flow.yaml", "env": {}},
)


# --- wire and pickle ---------------------------------------------------------------


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_it_serializes_as_prefects_own(arguments: Dict[str, Any]) -> None:
    ours, theirs = ECSRun(**arguments), PrefectECSRun(**arguments)
    assert ours.serialize() == theirs.serialize()
    assert ours.serialize()["type"] == "ECSRun"
    assert ours == theirs
    assert vars(ours) == vars(theirs)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_prefects_agent_reads_ours_and_ours_reads_prefects(
    arguments: Dict[str, Any],
) -> None:
    ours, theirs = ECSRun(**arguments), PrefectECSRun(**arguments)
    read_by_prefect = RunConfigSchema().load(ours.serialize())
    assert type(read_by_prefect) is PrefectECSRun
    assert vars(read_by_prefect) == vars(theirs)
    read_by_us = ECSRun.from_serialized(theirs.serialize())
    assert type(read_by_us) is ECSRun
    assert vars(read_by_us) == vars(ours)


def test_a_flow_is_registered_with_it() -> None:
    flow = prefect.Flow("f", run_config=ECSRun(cpu=256, labels=["a"]))
    serialized = flow.serialize()["run_config"]
    assert serialized == PrefectECSRun(cpu=256, labels=["a"]).serialize()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_it_pickles_as_prefects_own(arguments: Dict[str, Any], protocol: int) -> None:
    pickled = pickle.dumps(ECSRun(**arguments), protocol)
    assert b"prefect_ecs_plugin" not in pickled
    loaded = pickle.loads(pickled)
    assert type(loaded) is PrefectECSRun
    assert vars(loaded) == vars(PrefectECSRun(**arguments))


def test_a_pickled_flow_does_not_need_the_plugin() -> None:
    pickled = cloudpickle.dumps(prefect.Flow("f", run_config=ECSRun(cpu=256)))
    assert b"prefect_ecs_plugin" not in pickled
    assert type(cloudpickle.loads(pickled).run_config) is PrefectECSRun


def test_copies_are_of_our_class_and_a_deep_one_shares_nothing() -> None:
    class Mine(ECSRun):
        """A subclass of a user's."""

    for run in (ECSRun(run_task_kwargs={"tags": []}), Mine(env={"A": "1"})):
        shallow, deep = copy.copy(run), copy.deepcopy(run)
        assert type(shallow) is type(deep) is type(run)
        assert vars(shallow) == vars(deep) == vars(run)
        assert shallow.run_task_kwargs is run.run_task_kwargs
        assert deep.labels is not run.labels
        if run.run_task_kwargs is not None:
            assert deep.run_task_kwargs is not run.run_task_kwargs


def test_what_the_user_wrote_is_stored_and_not_changed() -> None:
    definition = {"cpu": 512, "containerDefinitions": ({"name": "flow", "cpu": "5"},)}
    kwargs = {"overrides": {"cpu": 1024}, "networkConfiguration": None}
    before = copy.deepcopy((definition, kwargs))
    run = ECSRun(task_definition=definition, run_task_kwargs=kwargs)
    assert run.task_definition is definition
    assert run.run_task_kwargs is kwargs
    assert (definition, kwargs) == before


def test_importing_it_does_not_import_boto() -> None:
    program = (
        "import sys; from prefect_ecs_plugin import ECSRun; ECSRun(env={'A': 1}); "
        "assert not [name for name in sys.modules if name.startswith('boto')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- mistakes ----------------------------------------------------------------------

ONE_PATH = {"task_definition_path": "s3://b/k"}

MISTAKES: Dict[str, Tuple[Dict[str, Any], List[str], str]] = {
    "labels is a string": ({"labels": "prod"}, ["wrong-type"], "labels=['prod']"),
    "a label is a number": ({"labels": [1]}, ["wrong-type"], "labels: .*int"),
    "labels is a number": ({"labels": 1}, ["wrong-type"], "labels: .*int"),
    "env is a list": ({"env": ["A=1"]}, ["wrong-type"], "env: .*dict, not list"),
    "a name in env": ({"env": {1: "a"}}, ["wrong-type"], "env: .*1: .*int"),
    "a value in env": (
        {"env": {"A": {"b": 1}}},
        ["wrong-type"],
        "env['A']: .*not dict",
    ),
    "several wrong types": (
        {"cpu": 0.5, "labels": "prod", "env": []},
        ["wrong-type", "wrong-type", "wrong-type"],
        "cpu: .*; env: .*; labels: .*",
    ),
    "cpu is a float": ({"cpu": 0.5}, ["wrong-type"], "cpu: .*not float"),
    "an invalid cpu": ({"cpu": "1 core"}, ["invalid-cpu"], "cpu: .*'1 core'"),
    "an invalid memory": ({"memory": "2 GiB"}, ["invalid-memory"], "memory: .*'2 GiB'"),
    "image is a list": ({"image": ["a"]}, ["wrong-type"], "image: .*not list"),
    "image has spaces": ({"image": "a b"}, ["invalid-image"], "image: .*'a b'"),
    "an invalid role": (
        {"task_role_arn": "arn:aws:iam::123456789012:user/me"},
        ["invalid-role"],
        "task_role_arn: .*'arn:aws:iam::123456789012:user/me'",
    ),
    "a role with a space": (
        {"execution_role_arn": "my role"},
        ["invalid-role"],
        "execution_role_arn: .*'my role'",
    ),
    "task_definition is a path": (
        {"task_definition": "s3://bucket/flow.yaml"},
        ["wrong-type"],
        "task_definition: .*dict, not str",
    ),
    "run_task_kwargs is a list": (
        {"run_task_kwargs": []},
        ["wrong-type"],
        "run_task_kwargs: .*dict, not list",
    ),
    "two ways of giving a definition": (
        {"task_definition": {}, "task_definition_arn": "f:1"},
        ["several-definitions"],
        "task_definition and task_definition_arn",
    ),
    "three ways of giving a definition": (
        {"task_definition": {}, "task_definition_arn": "f:1", **ONE_PATH},
        ["several-definitions"],
        "task_definition and task_definition_path and task_definition_arn",
    ),
    "image and ARN": (
        {"task_definition_arn": "f:1", "image": "a"},
        ["fixed-image"],
        "image .*task_definition_arn",
    ),
    "an unsupported scheme": (
        {"task_definition_path": "ftp://host/flow.yaml"},
        ["unknown-scheme"],
        "'ftp' .*'ftp://host/flow.yaml'.* file, agent, s3, gs, gcs, http, https",
    ),
    "a misspelled key in run_task_kwargs": (
        {"run_task_kwargs": {"networkconfiguration": {}}},
        ["unknown-key"],
        "run_task_kwargs.networkconfiguration: .*'networkConfiguration'",
    ),
    "a misspelled key in task_definition": (
        {
            "task_definition": {
                "containerDefinitions": [{"name": "x", "enviroment": []}]
            }
        },
        ["unknown-key"],
        "task_definition.containerDefinitions[0].enviroment: .*'environment'",
    ),
    "a wrong type": (
        {"task_definition": {"containerDefinitions": [{"command": "python"}]}},
        ["wrong-type"],
        "task_definition.containerDefinitions[0].command: ",
    ),
    "several mistakes": (
        {"cpu": "x", "run_task_kwargs": {"launchType": "fargate", "tag": []}},
        ["invalid-cpu", "wrong-case", "unknown-key"],
        "cpu: .*'x'.*; run_task_kwargs.launchType: .*; run_task_kwargs.tag: .*'tags'",
    ),
    "the definition in run_task_kwargs": (
        {"run_task_kwargs": {"taskDefinition": "f:1"}},
        ["reserved-key"],
        "run_task_kwargs.taskDefinition: .*task_definition_arn",
    ),
    "a client token": (
        {"run_task_kwargs": {"clientToken": "t"}},
        ["reserved-key"],
        "run_task_kwargs.clientToken: ",
    ),
    "two tasks": (
        {"run_task_kwargs": {"count": 2}},
        ["one-task"],
        "run_task_kwargs.count: ",
    ),
    "launch type and strategy": (
        {
            "run_task_kwargs": {
                "launchType": "EC2",
                "capacityProviderStrategy": [{"capacityProvider": "mine"}],
            }
        },
        ["launch-type-and-strategy"],
        "run_task_kwargs.launchType: .*capacityProviderStrategy",
    ),
    "an override for an absent container": (
        {
            "task_definition": {"containerDefinitions": [{"name": "db"}]},
            "run_task_kwargs": {
                "overrides": {"containerOverrides": [{"name": "database"}]}
            },
        },
        ["unknown-container"],
        "run_task_kwargs.overrides.containerOverrides[0].name: .*'database'.*db, flow",
    ),
    "bridge on Fargate": (
        {
            "task_definition": {"networkMode": "bridge"},
            "run_task_kwargs": {"launchType": "FARGATE"},
        },
        ["fargate-network-mode"],
        "task_definition.networkMode: .*'bridge'",
    ),
    "not JSON": (
        {"run_task_kwargs": {"tags": [{"key": b"k"}]}},
        ["not-json", "wrong-type"],
        "run_task_kwargs: .*; run_task_kwargs.tags[0].key: .*bytes",
    ),
}


@pytest.mark.parametrize(
    "arguments, codes, words", MISTAKES.values(), ids=MISTAKES.keys()
)
def test_a_mistake_is_an_error_of_one_line(
    arguments: Dict[str, Any], codes: List[str], words: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with raises_code(codes[-1], ConfigurationError) as raised:
            ECSRun(**arguments)
    said = str(raised.value)
    assert said.startswith("ECSRun: ")
    assert re.findall(r" \[([a-z-]+)\](?:;|$)", said) == codes
    assert re.search(words.replace("[", r"\["), said), said
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"task_definition": {}, "task_definition_arn": "f:1"}, "one|each"),
        ({"task_definition": {}, **ONE_PATH}, "one|each"),
        ({"task_definition_arn": "f:1", "image": "a"}, "image"),
    ],
)
def test_what_prefect_refuses_with_a_valueerror_we_do_too(
    arguments: Dict[str, Any], words: str
) -> None:
    for run_config in (ECSRun, PrefectECSRun):
        with pytest.raises(ValueError, match=words):
            run_config(**arguments)


def test_arguments_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        ECSRun({})  # type: ignore[misc]  # the mistake that is tested


SMALL = {"cpu": 256, "memory": 8192}
FARGATE = {"launchType": "FARGATE"}
SPOT = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
REQUIRES_FARGATE = {"requiresCompatibilities": ["FARGATE"]}


@pytest.mark.parametrize(
    "arguments, place",
    [
        ({**SMALL, "run_task_kwargs": FARGATE}, "cpu and memory"),
        ({**SMALL, "run_task_kwargs": SPOT}, "cpu and memory"),
        ({**SMALL, "task_definition": REQUIRES_FARGATE}, "cpu and memory"),
        (
            {"cpu": 256, "run_task_kwargs": {**SPOT, "overrides": {"memory": 8192}}},
            "cpu and memory",
        ),
        (
            {"run_task_kwargs": {**FARGATE, "overrides": SMALL}},
            "run_task_kwargs.overrides",
        ),
        (
            {
                "task_definition": REQUIRES_FARGATE,
                "run_task_kwargs": {"overrides": SMALL},
            },
            "run_task_kwargs.overrides",
        ),
        ({"task_definition": {**REQUIRES_FARGATE, **SMALL}}, "task_definition.memory"),
        (
            {"task_definition": SMALL, "run_task_kwargs": FARGATE},
            "task_definition.memory",
        ),
    ],
)
def test_a_size_that_fargate_does_not_have(
    arguments: Dict[str, Any], place: str
) -> None:
    with raises_code("fargate-size", ConfigurationError) as raised:
        ECSRun(**arguments)
    assert str(raised.value).startswith(f"ECSRun: {place}: ")
    assert "cpu 256 and memory 8192: " in str(raised.value)


@pytest.mark.parametrize("size", [{"cpu": 300}, {"memory": 300}, {"memory": "0.25 GB"}])
@pytest.mark.parametrize(
    "where",
    [FARGATE, SPOT, {}, {"cluster": "flows"}],
    ids=["type", "spot", "", "kwargs"],
)
def test_one_half_of_a_size_that_fargate_does_not_have(
    size: Dict[str, Any], where: Dict[str, Any]
) -> None:
    (place,) = size
    if where in (FARGATE, SPOT):
        with raises_code("fargate-size", ConfigurationError) as raised:
            ECSRun(**size, run_task_kwargs=where)
        assert str(raised.value).startswith(f"ECSRun: {place}: ")
    else:
        assert warned_of(**size, run_task_kwargs=where) == [
            (f"ECSRun: {place}", "fargate-size")
        ]


def warned_of(**arguments: Any) -> List[Tuple[str, str]]:
    """The place and the code of each warning about a run config."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ECSRun(**arguments)
    assert {each.filename for each in warned} <= {__file__}
    lines = [str(each.message) for each in warned]
    assert not [line for line in lines if "\n" in line]
    return [(": ".join(line.split(": ")[:2]), code_of(line)) for line in lines]


NAMED = {"task_role_arn": "flows", "execution_role_arn": "team/ecs"}
UNSURE: Tuple[Tuple[Dict[str, Any], List[Tuple[str, str]]], ...] = (
    (SMALL, [("ECSRun: cpu and memory", "fargate-size")]),
    ({"cpu": 300, "memory": 512}, [("ECSRun: cpu and memory", "fargate-size")]),
    ({"cpu": 256, "memory": "64 GB"}, [("ECSRun: cpu and memory", "fargate-size")]),
    (
        {**SMALL, "task_definition_arn": "flows:1"},
        [("ECSRun: cpu and memory", "fargate-size")],
    ),
    ({"task_definition": SMALL}, [("ECSRun: task_definition", "fargate-size")]),
    (
        {"task_definition": {"cpu": 256, "memory": 512}, "memory": 8192},
        [("ECSRun: memory", "fargate-size")],
    ),
    (
        {"run_task_kwargs": {"overrides": SMALL}},
        [("ECSRun: run_task_kwargs.overrides", "fargate-size")],
    ),
    # AWS may have added this size.
    (
        {"cpu": 32768, "memory": 65536, "run_task_kwargs": FARGATE},
        [("ECSRun: cpu and memory", "fargate-size")],
    ),
    (
        NAMED,
        [
            ("ECSRun: task_role_arn", "invalid-role"),
            ("ECSRun: execution_role_arn", "invalid-role"),
        ],
    ),
    (
        {"run_task_kwargs": {**FARGATE, "overrides": {"taskRoleArn": "flows"}}},
        [("ECSRun: run_task_kwargs.overrides.taskRoleArn", "invalid-role")],
    ),
    ({"task_definition": {"taskRoleArn": "flows"}}, []),
)


@pytest.mark.parametrize("arguments, expected", UNSURE)
def test_what_ecs_may_refuse_is_a_warning_where_the_flow_is_written(
    arguments: Dict[str, Any], expected: List[Tuple[str, str]]
) -> None:
    assert warned_of(**arguments) == expected


@pytest.mark.parametrize("arguments, _", UNSURE)
def test_what_was_stored_is_read_without_a_warning(
    arguments: Dict[str, Any], _: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = ECSRun(**arguments)
        stored = run.serialize()
    assert stored == PrefectECSRun(**arguments).serialize()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="prefect_ecs_plugin")
        warnings.filterwarnings("error", message="ECSRun")
        assert vars(ECSRun.from_serialized(stored)) == vars(run)
        RunConfigSchema().load(stored)
        pickle.loads(pickle.dumps(run))
        copy.deepcopy(copy.copy(run))


@pytest.mark.parametrize(
    "arguments, shown",
    [
        ({}, "ECSRun()"),
        (
            {"cpu": 256, "memory": "1 GB", "image": "i:1", "labels": ["b", "a"]},
            "ECSRun(image='i:1', cpu='256', memory='1 GB', labels=['a', 'b'])",
        ),
        (
            {"env": {"A": "x", "DB_PASSWORD": "hunter2"}, "task_role_arn": ROLE},
            f"ECSRun(task_role_arn='{ROLE}', env={{'A': ..., 'DB_PASSWORD': ...}})",
        ),
        (
            {
                "task_definition": {
                    "family": "f",
                    "cpu": 512,
                    "containerDefinitions": [
                        {
                            "name": "x",
                            "environment": [{"name": "A", "value": "hunter2"}],
                        }
                    ],
                },
                "run_task_kwargs": {"cluster": "c", "launchType": None},
            },
            "ECSRun(task_definition={'family': 'f', 'cpu': 512, "
            "'containerDefinitions': ...}, "
            "run_task_kwargs={'cluster': 'c', 'launchType': None})",
        ),
    ],
)
def test_repr_shows_what_was_set_and_no_secret(
    arguments: Dict[str, Any], shown: str
) -> None:
    assert repr(ECSRun(**arguments)) == shown


FINE: Tuple[Dict[str, Any], ...] = (
    {**SMALL, "run_task_kwargs": {"launchType": "EC2"}},
    {
        **SMALL,
        "task_definition": REQUIRES_FARGATE,
        "run_task_kwargs": {"launchType": "EC2"},
    },
    # The flow runs on EC2, or the agent's size is replaced in part.
    {"task_definition": {**SMALL, "requiresCompatibilities": ["EC2"]}},
    {"task_definition": SMALL, "memory": 512},
    {"cpu": 32768, "run_task_kwargs": {"launchType": "EC2"}},
    {"memory": 30720},
    # The memory may come from the agent's kwargs.
    {"cpu": 256, "run_task_kwargs": FARGATE},
    # The argument replaces the override's cpu, and the pair is one of Fargate's.
    {"cpu": 4096, "run_task_kwargs": {**FARGATE, "overrides": SMALL}},
    {"cpu": ".25 vCPU", "memory": "0.5 GB", "run_task_kwargs": SPOT},
    # Family, image, memory and roles are the agent's to add.
    {"task_definition": {"containerDefinitions": [{"name": "sidecar"}]}},
    {"run_task_kwargs": {"overrides": {"containerOverrides": [{"name": "flow"}]}}},
    {
        "task_definition": {"networkMode": "awsvpc", "family": "f"},
        "run_task_kwargs": {"overrides": {"containerOverrides": [{"name": "flow"}]}},
    },
    {"run_task_kwargs": {"count": 1, "launchType": None}},
    {"env": {"A": None}, "labels": [], "image": ""},
    {"labels": (label for label in "ab")},
)


@pytest.mark.parametrize("arguments", FINE)
def test_a_valid_run_config_causes_no_error_and_no_warning(
    arguments: Dict[str, Any],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ECSRun(**arguments)


def test_an_unknown_key_unlike_any_is_a_warning_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="unknown key") as warned:
        ECSRun(run_task_kwargs={"orbit": 1}, task_definition={"moon": {}})
    assert [str(warning.message) for warning in warned] == [
        "ECSRun: task_definition.moon: unknown key [unknown-key]",
        "ECSRun: run_task_kwargs.orbit: unknown key [unknown-key]",
    ]
    assert {warning.filename for warning in warned} == {__file__}


# --- local paths -------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_a_local_path_is_read_at_once(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text("family: f\ncpu: 512\n")
    run = ECSRun(task_definition_path=f"{scheme}{path}")
    assert run.task_definition == {"family": "f", "cpu": 512}
    assert run.task_definition_path is None
    assert vars(run) == vars(PrefectECSRun(task_definition_path=f"{scheme}{path}"))


def test_a_path_object_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text("family: f")
    assert ECSRun(task_definition_path=path).task_definition == {"family": "f"}


@pytest.mark.parametrize("scheme", ["s3", "gs", "gcs", "agent", "http", "https"])
def test_other_schemes_are_left_to_the_agent(scheme: str) -> None:
    run = ECSRun(task_definition_path=f"{scheme}://place/flow.yaml")
    assert run.task_definition is None
    assert run.task_definition_path == f"{scheme}://place/flow.yaml"


def test_a_definition_in_a_file_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text("containerdefinitions: []")
    with raises_code("unknown-key", ConfigurationError) as raised:
        ECSRun(task_definition_path=str(path))
    assert "task_definition.containerdefinitions: " in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    with raises_code("unreadable-file", SourceError) as raised:
        ECSRun(task_definition_path=str(path))
    assert f"task_definition_path {path}: " in str(raised.value)
    assert "No such file or directory" in str(raised.value)


#: What PyYAML says itself, and what libyaml says of the same, where it is there.
LIBYAML = {
    ", line 2, column 6: expected ',' or ']', but got '<stream end>'": (
        ", line 3, column 1: did not find expected ',' or ']'"
    ),
    ", line 1, column 5: mapping values are not allowed here": (
        ", line 1, column 5: mapping values are not allowed in this context"
    ),
    ", line 2, column 4: invalid start byte": (
        ", line 2, column 4: invalid leading UTF-8 octet"
    ),
    ", line 2, column 4: special characters are not allowed": (
        ", line 2, column 4: control characters are not allowed"
    ),
}

BAD_YAML = {
    "empty": (b"", "empty-file", ""),
    "only a comment": (b"# x\n", "empty-file", ""),
    "a list": (b"- family: f", "not-a-mapping", ", line 1, column 1: a list"),
    "a word": (b"family", "not-a-mapping", ", line 1, column 1: a single value"),
    "unclosed": (
        b"a: 1\nb: [1",
        "invalid-yaml",
        ", line 2, column 6: expected ',' or ']', but got '<stream end>'",
    ),
    "two colons": (
        b"a: b: c",
        "invalid-yaml",
        ", line 1, column 5: mapping values are not allowed here",
    ),
    "two documents": (
        b"a: 1\n---\nb: 1",
        "invalid-yaml",
        ", line 2, column 1: but found another document",
    ),
    "a tag": (
        b"a: !!python/object:os.system x",
        "invalid-yaml",
        ", line 1, column 4: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object:os.system'",
    ),
    "not UTF-8": (
        b"a: 1\nb: \xff",
        "invalid-yaml",
        ", line 2, column 4: invalid start byte",
    ),
    "a control character": (
        b"a: 1\nb: \x07",
        "invalid-yaml",
        ", line 2, column 4: special characters are not allowed",
    ),
    "no date": (b"a: 2022-13-45", "invalid-yaml", ": month must be in 1..12"),
    "itself": (b"a: &a [*a]", "invalid-yaml", ", line 1, column 8: "),
}


@pytest.mark.parametrize("text, code, reason", BAD_YAML.values(), ids=BAD_YAML.keys())
def test_bad_yaml_is_one_line_with_path_line_and_column(
    tmp_path: Path, text: bytes, code: str, reason: str
) -> None:
    with raises_code(code, SourceError) as raised:
        parse_mapping(text, "s3://b/k")
    assert raised.value.message.startswith(
        (f"s3://b/k{reason}", f"s3://b/k{LIBYAML.get(reason, reason)}")
    )
    path = tmp_path / "flow.yaml"
    path.write_bytes(text)
    with raises_code(code, SourceError) as raised:
        ECSRun(task_definition_path=str(path))
    assert f"ECSRun: task_definition_path {path}" in str(raised.value)


def test_good_yaml() -> None:
    text = "a: &x {b: 1}\nc: [*x, é]\n1: true\n"
    wanted = {"a": {"b": 1}, "c": [{"b": 1}, "é"], 1: True}
    assert parse_mapping(text, "x") == wanted
    assert parse_mapping(text.encode(), "x") == wanted


# --- what the API stored -----------------------------------------------------------


def test_no_run_config_is_an_empty_one() -> None:
    assert vars(ECSRun.from_serialized(None)) == vars(ECSRun())


def test_a_universal_run_gives_env_and_labels() -> None:
    stored = UniversalRun(env={"A": "1"}, labels=["a"]).serialize()
    assert vars(ECSRun.from_serialized(stored)) == vars(
        ECSRun(env={"A": "1"}, labels=["a"])
    )


def test_boxes_of_the_api_client_become_plain() -> None:
    stored = Box({"type": "ECSRun", "task_definition": {"containerDefinitions": [{}]}})
    definition = ECSRun.from_serialized(stored).task_definition
    assert definition == {"containerDefinitions": [{}]}
    assert type(definition) is dict
    assert type(definition["containerDefinitions"]) is list


def test_what_is_stored_is_not_read_or_judged_by_ecs_rules() -> None:
    stored = {
        "type": "ECSRun",
        "task_definition_path": "/not/there.yaml",
        "cpu": 1,
        "run_task_kwargs": {"count": 5, "networkconfiguration": 1},
    }
    run = ECSRun.from_serialized(stored)
    assert vars(run) == {
        **vars(ECSRun()),
        "task_definition_path": "/not/there.yaml",
        "cpu": "1",
        "run_task_kwargs": {"count": 5, "networkconfiguration": 1},
    }


def test_other_run_configs_are_refused_by_name() -> None:
    with raises_code("unsupported-run-config", UnsupportedRunConfig) as raised:
        ECSRun.from_serialized(KubernetesRun().serialize())
    assert "KubernetesRun" in str(raised.value)


@pytest.mark.parametrize(
    "stored, code, what",
    [
        ({}, "damaged-run-config", "type"),
        ({"type": None}, "damaged-run-config", "type"),
        ([], "damaged-run-config", "type"),
        ("ECSRun", "damaged-run-config", "type"),
        ({"type": "ECSRun", "env": []}, "wrong-type", "env"),
        ({"type": "ECSRun", "cpu": {}}, "wrong-type", "cpu"),
        ({"type": "ECSRun", "image": 1}, "wrong-type", "image"),
        ({"type": "UniversalRun", "labels": 1}, "wrong-type", "labels"),
        ({"type": "ECSRun", "run_task_kwargs": "x"}, "wrong-type", "run_task_kwargs"),
        (
            {"type": "ECSRun", "task_definition": {}, "task_definition_arn": "f:1"},
            "several-definitions",
            "task_definition and task_definition_arn",
        ),
    ],
)
def test_a_damaged_run_config_is_one_sentence(
    stored: Any, code: str, what: str
) -> None:
    with raises_code(code, RunConfigError) as raised:
        ECSRun.from_serialized(stored)
    assert what in str(raised.value)
    assert "ECSRun: " not in str(raised.value)


# --- two environments --------------------------------------------------------------

PROJECT = Path(__file__).parent.parent


def _environment(where: Path, *packages: str) -> Path:
    """A new virtual environment with `packages`; its Python."""
    venv.create(where, with_pip=True)
    python = where / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(install, check=True, cwd=where)
    return python


@pytest.fixture(scope="session")
def with_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _environment(tmp_path_factory.mktemp("author") / "venv", str(PROJECT))


@pytest.fixture(scope="session")
def with_prefect_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed = (f"prefect=={prefect.__version__}", "marshmallow<4", "setuptools<81")
    return _environment(tmp_path_factory.mktemp("image") / "venv", *needed)


AUTHOR = """
    import sys, cloudpickle, prefect
    from prefect_ecs_plugin import ECSRun
    flow = prefect.Flow("f", run_config=ECSRun(cpu=256, env={"A": 1}, labels=["a"]))
    with open(sys.argv[1], "wb") as file:
        file.write(cloudpickle.dumps(flow))
"""

IMAGE = """
    import sys, cloudpickle, prefect, importlib.util
    assert importlib.util.find_spec("prefect_ecs_plugin") is None
    with open(sys.argv[1], "rb") as file:
        flow = cloudpickle.loads(file.read())
    run = flow.run_config
    print(type(run).__module__, run.cpu, run.env, run.labels)
"""


@pytest.mark.packaging
def test_a_flow_pickled_with_it_loads_where_the_plugin_is_not_installed(
    with_plugin: Path, with_prefect_alone: Path, tmp_path: Path
) -> None:
    flow = tmp_path / "flow.pickle"
    _run(with_plugin, AUTHOR, flow)
    assert _run(with_prefect_alone, IMAGE, flow) == (
        "prefect.run_configs.ecs 256 {'A': 1} {'a'}\n"
    )


def _run(python: Path, program: str, argument: Path) -> str:
    command = [str(python), "-c", textwrap.dedent(program), str(argument)]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # Away from the checkout, whose folder would be importable.
    done = subprocess.run(
        command,
        check=True,
        cwd=argument.parent,
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout
