"""The files that a user gives: their flows, and the parameters of these (pure)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import click

from prefect_ecs_plugin.errors import PrefectECSError


class FlowError(PrefectECSError):
    """A flow, or the flows of a file, cannot be registered or run."""


@dataclass(frozen=True)
class LoadedFlow:
    """A flow as its file defines it.

    Attributes:
        name: Its name.
        parameters: The names of its parameters.
        required: Those of them that have no default.
        bucket: The S3 bucket that it is stored in; empty for another storage.
    """

    name: str
    parameters: Tuple[str, ...] = ()
    required: Tuple[str, ...] = ()
    bucket: str = ""


@dataclass(frozen=True)
class FlowFile:
    """A file that was loaded.

    Attributes:
        path: As the user gave it, or below the folder that the user gave.
        flows: The flows in it.
        siblings: Modules of its folder that it imports.
        error: Why it cannot be loaded, in one line; empty if it can.
    """

    path: str
    flows: Tuple[LoadedFlow, ...] = ()
    siblings: Tuple[str, ...] = ()
    error: str = ""


class Param(NamedTuple):
    """A value of `--param`: of one flow's parameter, or of each flow's (flow "")."""

    flow: str
    name: str
    value: Any

    def __str__(self) -> str:
        return f"{self.flow}:{self.name}" if self.flow else self.name


def param(text: str) -> Param:
    """Parse `NAME=JSON` or `FLOW:NAME=JSON`; a plain word is a string.

    Prefect's own `prefect run --param` takes a word without quotes as a string, too.

    Raises:
        click.BadParameter: It is neither.
    """
    match = re.fullmatch(r"(?:([^=]+):)?([^:=]+)=(.*)", text, re.DOTALL)
    if not match:
        raise click.BadParameter(
            f"{text!r} is not of the form NAME=JSON or FLOW:NAME=JSON "
            "[invalid-option-value]"
        )
    flow, name, value = match.groups()
    try:
        return Param(flow or "", name, json.loads(value, parse_constant=_refuse))
    except ValueError as error:
        if value.lstrip()[:1] not in ("{", "[", '"'):
            return Param(flow or "", name, value)
        raise click.BadParameter(
            f"the value of {name!r} is not JSON ({error}). Put the argument in single "
            f"quotes: --param '{name}=[\"a\", 1]' [invalid-option-value]"
        ) from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def expanded(paths: Iterable[str]) -> List[str]:
    """Return the files: those given, and the *.py files in the folders given.

    Each file comes once, however often it was given. Hidden files of a folder, such as
    editors leave there, do not count.
    """
    files: Dict[Path, str] = {}
    for path in map(Path, paths):
        for file in sorted(path.glob("[!.]*.py")) if path.is_dir() else [path]:
            files.setdefault(file.resolve(), str(file))
    return list(files.values())


def read(report: str) -> List[FlowFile]:
    """Return what `load_flows.py` has found."""
    return [_file(**json.loads(line)) for line in report.splitlines()]


def _file(
    path: str,
    flows: Sequence[Dict[str, Any]] = (),
    siblings: Sequence[str] = (),
    error: str = "",
) -> FlowFile:
    loaded = tuple(
        LoadedFlow(
            flow["name"],
            tuple(flow["parameters"]),
            tuple(flow["required"]),
            flow["bucket"],
        )
        for flow in flows
    )
    return FlowFile(path, loaded, tuple(siblings), error)


def problem_of(
    file: FlowFile, named: Iterable[str], others: Iterable[FlowFile]
) -> Optional[FlowError]:
    """Return why no flow of a file can run, None if there is no such reason.

    A file without a flow is no problem if it came with its folder, or if another file
    imports it.

    Args:
        file: The file.
        named: What the user gave.
        others: All files.
    """
    if file.error:
        return FlowError(
            f"{file.path} is skipped, since it cannot be loaded: {file.error}",
            code="flow-not-loaded",
        )
    path = Path(file.path)
    is_imported = any(
        path.stem in other.siblings and Path(other.path).parent == path.parent
        for other in others
    )
    if file.flows or is_imported or path not in map(Path, named):
        return None
    return FlowError(
        f"{file.path} is skipped, since there is no flow in it. Assign the flow to a "
        "variable of the module.",
        code="no-flow",
    )


def lacks_values(
    file: FlowFile, flow: LoadedFlow, params: Sequence[Param]
) -> Optional[FlowError]:
    """Return why a flow cannot run with these parameters, None if it can."""
    names = [name for name in flow.required if name not in values(flow, params)]
    if not names:
        return None
    return FlowError(
        f"Flow {flow.name!r} of {file.path} is skipped, since it needs a value for "
        f"{', '.join(names)}: add "
        + " ".join(f"--param {name}=JSON" for name in names),
        code="missing-parameter",
    )


def unknown(params: Iterable[Param], files: Iterable[FlowFile]) -> List[str]:
    """Return the parameters that no flow has."""
    known = {
        key
        for file in files
        for flow in file.flows
        for name in flow.parameters
        for key in (("", name), (flow.name, name))
    }
    return [str(param) for param in params if (param.flow, param.name) not in known]


def values(flow: LoadedFlow, params: Iterable[Param]) -> Dict[str, Any]:
    """Return the values of a flow's parameters; those with its name win."""
    ranked = sorted(params, key=lambda param: bool(param.flow))
    return {
        param.name: param.value
        for param in ranked
        if param.name in flow.parameters and param.flow in ("", flow.name)
    }
