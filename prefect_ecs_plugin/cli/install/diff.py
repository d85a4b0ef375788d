"""What differs between a file that `install` printed and what it prints now. Pure.

Comments, layout and the order of keys do not count, except in Terraform's language,
which has no parser here: there only whole lines of comment do not count.
"""

from __future__ import annotations

import difflib
import json
from typing import Any, List

import yaml

from ...errors import ConfigurationError
from . import cloudformation


def lines(old: str, new: str, output_format: str, file: str) -> List[str]:
    """The unified diff from `old` to `new`; empty if they mean the same.

    Args:
        old: The content of the file.
        new: What `install` prints now.
        output_format: The format of both.
        file: The file's name, for the diff's head and for errors.

    Raises:
        ConfigurationError: if the file does not have the format.
    """
    try:
        before, after = (_normalized(text, output_format) for text in (old, new))
    except ValueError as error:
        raise ConfigurationError(
            f"--diff: {file} is not an output of --format {output_format}: {error}.",
            code="not-this-format",
        ) from error
    return list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), file, "now", lineterm=""
        )
    )


def _normalized(text: str, output_format: str) -> str:
    if output_format == "terraform":
        lines = text.splitlines()
        return "\n".join(line for line in lines if not line.startswith("#"))
    if output_format == "cloudformation":
        return cloudformation.dump(_sorted(_parsed(text)))
    return json.dumps(json.loads(text), indent=2, sort_keys=True)


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=str)}
    return value


def _parsed(text: str) -> Any:
    try:
        parsed = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(parsed, dict):
        raise ValueError("it is not a mapping")
    return parsed


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's functions in their long form, and dates as text."""


def _function(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        value: Any = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = node.value.split(".") if name == "GetAtt" else node.value
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _function)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
