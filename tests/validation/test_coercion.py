"""Requests coerced to botocore's shapes: values converted, problems by place."""

from __future__ import annotations

import copy
import datetime
import enum
import json
import subprocess
import sys
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Dict, List, Optional, Set

import pytest
from box import Box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_ecs_plugin.validation import coercion

# No test fails because a machine is slow.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Stage(str, enum.Enum):
    PROD = "production"


class Port(enum.IntEnum):
    HTTP = 80


def coerce_container(**members: Any) -> Any:
    """One container definition, coerced, and the problems with it."""
    coerced, problems = coercion.coerce(
        "RegisterTaskDefinition", {"containerDefinitions": [members]}
    )
    return coerced["containerDefinitions"][0], problems


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
def test_values_are_coerced_to_the_types_of_the_model(
    written: Dict[str, Any], wanted: Dict[str, Any]
) -> None:
    coerced, problems = coerce_container(**written)
    assert (coerced, problems) == (wanted, [])
    plain = json.loads(json.dumps(coerced))
    assert coerced == plain


@pytest.mark.parametrize(
    "key, value, wanted, kind",
    [
        ("name", ["flow"], "a string", "a list"),
        ("name", float("nan"), "a string", "a number"),
        ("name", datetime.date(2022, 1, 1), "a string", "of type date"),
        ("memory", "1 GB", "an integer", "a string"),
        ("memory", "007", "an integer", "a string"),
        ("memory", 0.5, "an integer", "a number"),
        ("memory", True, "an integer", "true or false"),
        ("essential", "yes", "true or false", "a string"),
        ("essential", 1, "true or false", "an integer"),
        ("command", "python", "a list", "a string"),
        ("command", {"a"}, "a list", "of type set"),
        ("dockerLabels", ["a"], "a mapping", "a list"),
        ("healthCheck", "curl", "a mapping", "a string"),
    ],
)
def test_a_wrong_type_is_named_and_stays_as_it_is(
    key: str, value: Any, wanted: str, kind: str
) -> None:
    coerced, (problem,) = coerce_container(**{key: value})
    assert (problem.place, problem.code, problem.certain) == (
        f"containerDefinitions[0].{key}",
        "wrong-type",
        True,
    )
    assert wanted in problem.message
    assert problem.message.endswith(kind)
    assert coerced[key] is value or coerced[key] == value


def test_a_problem_does_not_repeat_a_value() -> None:
    _, problems = coerce_container(environment="PASSWORD=hunter2", memory="hunter2")
    assert "hunter2" not in repr(problems)


@pytest.mark.parametrize(
    "request_, place, meant",
    [
        (
            {"networkconfiguration": {}},
            "networkconfiguration",
            "'networkConfiguration'",
        ),
        (
            {"network_configuration": None},
            "network_configuration",
            "'networkConfiguration'",
        ),
        (
            {
                "networkConfiguration": {
                    "awsvpcConfiguration": {"subnets": ["s"], "securityGroup": ["g"]}
                }
            },
            "networkConfiguration.awsvpcConfiguration.securityGroup",
            "'securityGroups'",
        ),
        (
            {"overrides": {"containerOverrides": [{}, {"environmnet": []}]}},
            "overrides.containerOverrides[1].environmnet",
            "'environment'",
        ),
        ({"laucnhType": "EC2"}, "laucnhType", "'launchType'"),
        ({"retries": 3}, "retries", None),
        # The right key is given too, so this one is not meant for it.
        ({"cluster": "a", "clusters": ["b"]}, "clusters", None),
    ],
)
def test_an_unknown_key_is_named_with_the_likely_one(
    request_: Dict[str, Any], place: str, meant: Optional[str]
) -> None:
    _, (problem,) = coercion.coerce("RunTask", request_)
    assert (problem.place, problem.code) == (place, "unknown-key")
    assert problem.certain is (meant is not None)
    assert (meant or "unknown key") in problem.message


def test_a_strict_unknown_key_is_an_error() -> None:
    coerced, (problem,) = coercion.coerce(
        "RunTask", {"retries": {"n": None}}, strict=True
    )
    assert (problem.place, problem.code, problem.certain) == (
        "retries",
        "unknown-key",
        True,
    )
    assert coerced == {"retries": {}}


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
    """Otherwise an older botocore would call a newer one's key a misspelling."""
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
    "key, written, right, certain",
    [
        ("launchType", "fargate", "FARGATE", True),
        ("propagateTags", "none", "NONE", False),
    ],
)
def test_the_case_of_an_enum(key: str, written: str, right: str, certain: bool) -> None:
    coerced, (problem,) = coercion.coerce("RunTask", {key: written})
    assert coerced == {key: written}
    assert (problem.place, problem.code, problem.certain) == (
        key,
        "wrong-case",
        certain,
    )
    assert repr(right) in problem.message


def test_an_unlisted_value_of_an_enum_may_be_new() -> None:
    coerced, (problem,) = coercion.coerce("RunTask", {"launchType": "MOON"})
    assert coerced == {"launchType": "MOON"}
    assert (problem.place, problem.code, problem.certain) == (
        "launchType",
        "unknown-value",
        False,
    )
    assert "EC2, FARGATE" in problem.message


def test_missing_keys_are_reported_below_the_top_level_only() -> None:
    assert coercion.coerce("RegisterTaskDefinition", {}) == ({}, [])
    coerced, (problem,) = coerce_container(secrets=[{"name": "KEY", "valueFrom": None}])
    assert coerced == {"secrets": [{"name": "KEY"}]}
    assert problem.place == "containerDefinitions[0].secrets[0].valueFrom"
    assert problem.code == "missing-key"


@pytest.mark.parametrize("params", [None, [], "family: x"])
def test_params_that_are_not_a_mapping(params: Any) -> None:
    coerced, (problem,) = coercion.coerce("RunTask", params)
    assert coerced == {}
    assert (problem.place, problem.code) == ("", "wrong-type")


def test_boxes_and_proxies_become_plain() -> None:
    box = Box({"containerDefinitions": [{"name": "flow", "command": ["a"]}]})
    coerced, problems = coercion.coerce("RegisterTaskDefinition", MappingProxyType(box))
    assert problems == []
    (flow,) = coerced["containerDefinitions"]
    found = [type(coerced), type(coerced["containerDefinitions"]), type(flow)]
    assert found == [dict, list, dict]
    assert type(flow["command"]) is list


def test_botocore_is_imported_only_when_it_is_used() -> None:
    program = (
        "import sys, prefect_ecs_plugin.validation.coercion; "
        "assert not [name for name in sys.modules if name.startswith('boto')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


WORDS = st.text(max_size=4) | st.sampled_from(["true", "512", "FARGATE", "fargate"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
DEPTH = 5

# Values that can be coerced to each type.
COERCIBLE = {
    "string": st.booleans() | NUMBERS | WORDS,
    "integer": st.integers() | st.integers(-9, 10**6).map(str),
    "boolean": st.sampled_from([True, False, "true", "False"]),
}


def _values(shape: Any, wrong: st.SearchStrategy[Any], depth: int = 0) -> Any:
    """Values that fit a shape, or any of `wrong` in their place."""
    if shape.type_name in COERCIBLE:
        return COERCIBLE[shape.type_name] | wrong
    if shape.type_name == "structure":
        return _structure(shape, wrong, depth) | (wrong if depth else st.nothing())
    if shape.type_name == "list":
        inner = st.deferred(lambda: _values(shape.member, wrong, depth + 1))
        most = 2 if depth < DEPTH else 0
        return st.lists(inner, max_size=most).map(tuple) | wrong
    return st.dictionaries(WORDS, COERCIBLE["string"], max_size=2) | wrong


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
def test_coercing_twice_is_coercing_once_and_changes_no_input(
    operation: str, data: Any
) -> None:
    written = data.draw(_requests(operation, SCALARS))
    before = copy.deepcopy(written)
    coerced, _ = coercion.coerce(operation, written)
    assert written == before
    assert coercion.coerce(operation, coerced)[0] == coerced
    assert json.loads(json.dumps(coerced)) == coerced


@UNTIMED
@given(data=st.data())
def test_what_can_be_coerced_is_what_botocore_takes(data: Any) -> None:
    written = data.draw(_requests("RunTask", st.nothing()))
    coerced, problems = coercion.coerce("RunTask", written, strict=True)
    assert [p for p in problems if p.certain and p.code != "wrong-case"] == []
    assert _refused_by_botocore("RunTask", coerced) == set()


@UNTIMED
@given(data=st.data())
def test_what_botocore_refuses_is_a_problem(data: Any) -> None:
    written = data.draw(_requests("RunTask", SCALARS))
    coerced, problems = coercion.coerce(
        "RunTask", {**written, "taskDefinition": "f:1"}, strict=True
    )
    if _refused_by_botocore("RunTask", coerced):
        assert any(problem.certain for problem in problems)


def _refused_by_botocore(operation: str, params: Dict[str, Any]) -> Set[str]:
    from botocore.validate import ParamValidator

    report = ParamValidator().validate(params, _input_shape(operation))
    # Lengths and ranges are for the rules, which know what ECS makes of them.
    return {kind for kind, *_ in report._errors} - {"invalid range", "invalid length"}
