"""The files that a user gives to the sandbox, and `--param`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import click
import pytest
from codes import code_of

from prefect_ecs_plugin.sandbox import flow_files
from prefect_ecs_plugin.sandbox.flow_files import FlowFile, LoadedFlow, Param


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x=1", Param("", "x", 1)),
        ('x={"a": [null]}', Param("", "x", {"a": [None]})),
        ("x=word", Param("", "x", "word")),
        ("x=2022-01-31", Param("", "x", "2022-01-31")),
        ('x="1"', Param("", "x", "1")),
        ("x=", Param("", "x", "")),
        ("x=NaN", Param("", "x", "NaN")),
        ("x=http://h:1/?a=b", Param("", "x", "http://h:1/?a=b")),
        ("my flow:x=1", Param("my flow", "x", 1)),
        ("a:b:x=1", Param("a:b", "x", 1)),
    ],
)
def test_a_value_is_json_or_a_plain_word(text: str, expected: Param) -> None:
    assert flow_files.param(text) == expected


@pytest.mark.parametrize("text", ["x", "=1", "f:=1", "", "x=[1", 'x={"a"', 'x="a'])
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        flow_files.param(text)
    assert code_of(caught.value.message) == "invalid-option-value"


PARAMS = (Param("etl", "x", 2), Param("", "x", 1), Param("", "y", 3))


@pytest.mark.parametrize(
    "flow, expected",
    [
        (LoadedFlow("etl", ("x",)), {"x": 2}),  # its own wins, whatever the order
        (LoadedFlow("other", ("x", "y", "z")), {"x": 1, "y": 3}),
        (LoadedFlow("none"), {}),
    ],
)
def test_a_flow_gets_the_values_of_its_parameters(
    flow: LoadedFlow, expected: Dict[str, Any]
) -> None:
    assert flow_files.values(flow, PARAMS) == expected


@pytest.mark.parametrize(
    "required, code", [(("x",), None), (("x", "z"), "missing-parameter")]
)
def test_a_flow_without_a_value_for_a_required_parameter_is_skipped(
    required: Sequence[str], code: Optional[str]
) -> None:
    flow = LoadedFlow("f", ("x", "z"), tuple(required))
    problem = flow_files.lacks_values(FlowFile("f.py", (flow,)), flow, PARAMS)
    assert (problem and code_of(problem)) == code


def test_parameters_that_no_flow_has() -> None:
    files = [FlowFile("f.py", (LoadedFlow("f", ("x",)), LoadedFlow("g", ("y",))))]
    given = [flow_files.param(text) for text in ("x=1", "f:x=1", "g:x=1", "z=1")]
    assert flow_files.unknown(given, files) == ["g:x", "z"]


def test_a_folder_is_its_files_and_each_file_comes_once(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "c.txt", ".#a.py"):
        (tmp_path / name).touch()
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.py")
    given = [str(tmp_path / "b.py"), str(tmp_path), str(tmp_path / "link.txt")]
    assert flow_files.expanded(given) == [
        str(tmp_path / "b.py"),
        str(tmp_path / "a.py"),
    ]


ETL = FlowFile("d/etl.py", (LoadedFlow("etl"),), siblings=("helpers",))


@pytest.mark.parametrize(
    "file, named, code",
    [
        (ETL, ["d/etl.py"], None),
        (FlowFile("d/empty.py"), ["d/empty.py"], "no-flow"),
        (FlowFile("d/empty.py"), ["./d/empty.py"], "no-flow"),
        (FlowFile("d/empty.py"), ["d"], None),  # it came with its folder
        (FlowFile("d/helpers.py"), ["d/helpers.py"], None),  # a shell's *.py
        (FlowFile("e/helpers.py"), ["e/helpers.py"], "no-flow"),
        (FlowFile("d/typo.py", error="SyntaxError: x"), ["d"], "flow-not-loaded"),
    ],
)
def test_which_files_are_skipped(
    file: FlowFile, named: List[str], code: Optional[str]
) -> None:
    problem = flow_files.problem_of(file, named, [ETL, file])
    assert (problem and code_of(problem)) == code
