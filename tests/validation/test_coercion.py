"""Requests fitted to botocore's shapes: values turned, problems named by place."""

from __future__ import annotations

import copy
import datetime
import enum
import json
import subprocess
import sys
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Dict, List, Set

import pytest
from box import Box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.validation import coercion
from prefect_ecs_plugin.validation.rules import Problem

# No test fails because a machine is slow.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Stage(str, enum.Enum):
    PROD = "production"


class Port(enum.IntEnum):
    HTTP = 80


def fit_container(**members: Any) -> Any:
    """One container definition, fitted, and the problems with it."""
    fitted, problems = coercion.fit(
        "RegisterTaskDefinition", {"containerDefinitions": [members]}
    )
    return fitted["containerDefinitions"][0], problems


@pytest.mark.parametrize(
    "written, wanted",
    [
        ({"name": "flow"}, {"name": "flow"}),
        ({"name": 5}, {"name": "5"}),
        ({"name": 0.5}, {"name": "0.5"}),
        ({"name": True}, {"name": "true"}),
        ({"name": Stage.PROD}, {"name": "production"}),
        ({"name": Port.HTTP}, {"name": "80"}),
        ({"memory": 512}, {"memory": 512}),
        ({"memory": "512"}, {"memory": 512}),
        ({"memory": "5"}, {"memory": 5}),
        ({"memory": "-1"}, {"memory": -1}),
        ({"memory": 512.0}, {"memory": 512}),
        ({"memory": Port.HTTP}, {"memory": 80}),
        ({"essential": False}, {"essential": False}),
        ({"essential": "False"}, {"essential": False}),
        ({"command": ("sh", 1)}, {"command": ["sh", "1"]}),
        ({"dockerLabels": {1: 2, "n": None}}, {"dockerLabels": {"1": "2"}}),
        ({"memory": None, "command": ["a", None]}, {"command": ["a"]}),
        ({"environment": None}, {}),
    ],
)
def test_values_are_turned_into_what_the_model_wants(
    written: Dict[str, Any], wanted: Dict[str, Any]
) -> None:
    fitted, problems = fit_container(**written)
    assert (fitted, problems) == (wanted, [])
    plain = json.loads(json.dumps(fitted))
    assert fitted == plain


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("name", ["flow"], "a string is wanted here, and this is a list"),
        ("name", float("nan"), "a string is wanted here, and this is a number"),
        (
            "name",
            datetime.date(2022, 1, 1),
            "a string is wanted here, and this is of type date",
        ),
        ("memory", "1 GB", "an integer is wanted here, and this is a string"),
        ("memory", "007", "an integer is wanted here, and this is a string"),
        ("memory", 0.5, "an integer is wanted here, and this is a number"),
        ("memory", True, "an integer is wanted here, and this is true or false"),
        ("essential", "yes", "true or false is wanted here, and this is a string"),
        ("essential", 1, "true or false is wanted here, and this is an integer"),
        ("command", "python", "a list is wanted here, and this is a string"),
        ("command", {"a"}, "a list is wanted here, and this is of type set"),
        ("dockerLabels", ["a"], "a mapping is wanted here, and this is a list"),
        ("healthCheck", "curl", "a mapping is wanted here, and this is a string"),
    ],
)
def test_a_wrong_type_is_named_and_stays_as_it_is(
    key: str, value: Any, sentence: str
) -> None:
    fitted, problems = fit_container(**{key: value})
    assert problems == [Problem(f"containerDefinitions[0].{key}", sentence)]
    assert fitted[key] is value or fitted[key] == value


def test_no_value_stands_in_a_problem() -> None:
    _, problems = fit_container(environment="PASSWORD=hunter2", memory="hunter2")
    assert "hunter2" not in repr(problems)


@pytest.mark.parametrize(
    "request_, problem",
    [
        (
            {"networkconfiguration": {}},
            Problem(
                "networkconfiguration",
                "unknown key, did you mean 'networkConfiguration'?",
            ),
        ),
        (
            {"network_configuration": None},
            Problem(
                "network_configuration",
                "unknown key, did you mean 'networkConfiguration'?",
            ),
        ),
        (
            {
                "networkConfiguration": {
                    "awsvpcConfiguration": {"subnets": ["s"], "securityGroup": ["g"]}
                }
            },
            Problem(
                "networkConfiguration.awsvpcConfiguration.securityGroup",
                "unknown key, did you mean 'securityGroups'?",
            ),
        ),
        (
            {"overrides": {"containerOverrides": [{}, {"environmnet": []}]}},
            Problem(
                "overrides.containerOverrides[1].environmnet",
                "unknown key, did you mean 'environment'?",
            ),
        ),
        (
            {"laucnhType": "EC2"},
            Problem("laucnhType", "unknown key, did you mean 'launchType'?"),
        ),
        (
            {"retries": 3},
            Problem("retries", "unknown key", certain=False),
        ),
        # The right key is given too, so this one is not meant for it.
        (
            {"cluster": "a", "clusters": ["b"]},
            Problem("clusters", "unknown key", certain=False),
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_likely_one(
    request_: Dict[str, Any], problem: Problem
) -> None:
    assert coercion.fit("RunTask", request_)[1] == [problem]


def test_an_unknown_key_is_an_error_for_who_sends_the_request() -> None:
    fitted, problems = coercion.fit("RunTask", {"retries": {"n": None}}, strict=True)
    assert problems == [Problem("retries", "unknown key")]
    assert fitted == {"retries": {}}


@pytest.mark.parametrize(
    "key, meant",
    [
        ("Name", ["name"]),
        ("nmae", ["name"]),
        ("anme", ["name"]),
        ("hstnme", ["hostname"]),
        ("hstnm", []),
        ("cluuter", ["cluster"]),
        ("cluuuer", []),
        ("nam", ["name"]),
        ("names", ["name"]),
        ("cpus", ["cpu"]),
        ("gpu", []),
        ("links", []),
        ("imagee", ["image"]),
        ("img", []),
        ("port_mappings", ["portMappings"]),
        ("portMapings", ["portMappings"]),
        ("portMap", []),
        ("policy", ["policies"]),
        ("base", []),
        ("", []),
    ],
)
def test_likely_meant(key: str, meant: List[str]) -> None:
    known = [
        "name",
        "cpu",
        "image",
        "portMappings",
        "policies",
        "memory",
        "hostname",
        "cluster",
    ]
    assert coercion.likely_meant(key, known) == meant


def test_the_nearest_key_is_named_alone() -> None:
    assert coercion.likely_meant("Names", ["named", "name"]) == ["name"]


def test_equally_near_keys_are_all_named() -> None:
    known = ["cpuOverride", "gpuOverride", "other"]
    assert coercion.likely_meant("xpuOverride", known) == ["cpuOverride", "gpuOverride"]


@pytest.mark.parametrize("operation", ["RunTask", "RegisterTaskDefinition"])
def test_no_known_key_looks_like_a_misspelling_of_its_sibling(operation: str) -> None:
    """Else an older botocore would call a newer one's key a misspelling."""
    for members in _structures(operation):
        for name in members:
            others = [other for other in members if other != name]
            assert coercion.likely_meant(name, others) == []


@lru_cache(maxsize=None)
def _input_shape(operation: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model("ecs", "service-2"), "ecs")
    return model.operation_model(operation).input_shape


def _structures(operation: str) -> List[List[str]]:
    todo, seen = [_input_shape(operation)], {}
    while todo:
        shape = todo.pop()
        if shape.type_name == "list":
            todo.append(shape.member)
        elif shape.type_name == "structure" and shape.name not in seen:
            seen[shape.name] = list(shape.members)
            todo.extend(shape.members.values())
    return list(seen.values())


@pytest.mark.parametrize(
    "request_, problem",
    [
        (
            {"launchType": "fargate"},
            Problem("launchType", "'fargate' is written 'FARGATE'"),
        ),
        (
            {"propagateTags": "none"},
            Problem("propagateTags", "'none' is written 'NONE'", certain=False),
        ),
    ],
)
def test_the_case_of_an_enum(request_: Dict[str, Any], problem: Problem) -> None:
    assert coercion.fit("RunTask", request_) == (request_, [problem])


def test_an_unlisted_value_of_an_enum_may_be_new() -> None:
    fitted, (problem,) = coercion.fit("RunTask", {"launchType": "MOON"})
    assert fitted == {"launchType": "MOON"}
    assert (problem.place, problem.certain) == ("launchType", False)
    assert problem.message.startswith("'MOON' is none of EC2, FARGATE, ")


def test_missing_keys_count_inside_only() -> None:
    assert coercion.fit("RegisterTaskDefinition", {}) == ({}, [])
    assert fit_container(secrets=[{"name": "KEY", "valueFrom": None}]) == (
        {"secrets": [{"name": "KEY"}]},
        [
            Problem(
                "containerDefinitions[0].secrets[0].valueFrom",
                "is missing and has to be given",
            )
        ],
    )


@pytest.mark.parametrize("params", [None, [], "family: x"])
def test_params_that_are_no_mapping(params: Any) -> None:
    fitted, (problem,) = coercion.fit("RunTask", params)
    assert fitted == {}
    assert problem.message.startswith("a mapping is wanted here")


def test_boxes_and_proxies_become_plain() -> None:
    box = Box({"containerDefinitions": [{"name": "flow", "command": ["a"]}]})
    fitted, problems = coercion.fit("RegisterTaskDefinition", MappingProxyType(box))
    assert problems == []
    (flow,) = fitted["containerDefinitions"]
    found = [type(fitted), type(fitted["containerDefinitions"]), type(flow)]
    assert found == [dict, list, dict]
    assert type(flow["command"]) is list


def test_knows() -> None:
    assert coercion.knows("RunTask", "startedBy")
    assert not coercion.knows("RunTask", "started_by")


def test_nothing_of_aws_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys, prefect_ecs_plugin.validation.coercion; "
        "assert not [name for name in sys.modules if name.startswith('boto')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


WORDS = st.text(max_size=4) | st.sampled_from(["true", "512", "FARGATE", "fargate"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
DEPTH = 5

# Values that can be turned into each type.
TURNABLE = {
    "string": st.booleans() | NUMBERS | WORDS,
    "integer": st.integers() | st.integers(-9, 10**6).map(str),
    "boolean": st.sampled_from([True, False, "true", "False"]),
}


def _values(shape: Any, wrong: st.SearchStrategy[Any], depth: int = 0) -> Any:
    """Values that fit a shape, or any of `wrong` in their place."""
    if shape.type_name in TURNABLE:
        return TURNABLE[shape.type_name] | wrong
    if shape.type_name == "structure":
        return _structure(shape, wrong, depth) | (wrong if depth else st.nothing())
    if shape.type_name == "list":
        inner = st.deferred(lambda: _values(shape.member, wrong, depth + 1))
        most = 2 if depth < DEPTH else 0
        return st.lists(inner, max_size=most).map(tuple) | wrong
    return st.dictionaries(WORDS, TURNABLE["string"], max_size=2) | wrong


def _structure(shape: Any, wrong: st.SearchStrategy[Any], depth: int) -> Any:
    def member(name: str) -> Any:
        return st.deferred(lambda: _values(shape.members[name], wrong, depth + 1))

    required = {name: member(name) for name in shape.required_members}
    others = set(shape.members) - set(required) if depth < DEPTH else set()
    unknown = {} if wrong.is_empty else {"unknown": wrong, 1: wrong}
    optional = {**{name: member(name) for name in sorted(others)}, **unknown}
    return st.fixed_dictionaries(required, optional=optional)


def _requests(operation: str, wrong: st.SearchStrategy[Any]) -> Any:
    return _values(_input_shape(operation), wrong)


@pytest.mark.parametrize("operation", ["RunTask", "RegisterTaskDefinition"])
@UNTIMED
@given(data=st.data())
def test_fitting_twice_is_fitting_once_and_changes_no_input(
    operation: str, data: Any
) -> None:
    written = data.draw(_requests(operation, SCALARS))
    before = copy.deepcopy(written)
    fitted, _ = coercion.fit(operation, written)
    assert written == before
    assert coercion.fit(operation, fitted)[0] == fitted
    assert json.loads(json.dumps(fitted)) == fitted


@UNTIMED
@given(data=st.data())
def test_what_can_be_turned_is_what_botocore_takes(data: Any) -> None:
    written = data.draw(_requests("RunTask", st.nothing()))
    fitted, problems = coercion.fit("RunTask", written, strict=True)
    assert [p for p in problems if "is written" not in p.message if p.certain] == []
    assert _refused_by_botocore("RunTask", fitted) == set()


@UNTIMED
@given(data=st.data())
def test_what_botocore_refuses_is_a_problem(data: Any) -> None:
    written = data.draw(_requests("RunTask", SCALARS))
    fitted, problems = coercion.fit(
        "RunTask", {**written, "taskDefinition": "f:1"}, strict=True
    )
    if _refused_by_botocore("RunTask", fitted):
        assert any(problem.certain for problem in problems)


def _refused_by_botocore(operation: str, params: Dict[str, Any]) -> Set[str]:
    from botocore.validate import ParamValidator

    report = ParamValidator().validate(params, _input_shape(operation))
    # Lengths and ranges are for the rules, which know what ECS makes of them.
    return {kind for kind, *_ in report._errors} - {"invalid range", "invalid length"}
