"""What each option of the agent may be, as one table.

`ECSAgent` checks its arguments by it before it asks AWS for anything. The commands
check their options by it, which have the same names. It needs no server and no file.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from inspect import Parameter
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Callable, Iterator, Mapping, Tuple, Union

from .. import limits
from ..aws import container_logs, secret_arn
from ..errors import ConfigurationError
from ..observability import health, log_formats
from ..settings import ON_INTERRUPTION, PRICES
from ..validation import rules
from ..validation.arguments import strings, variables, wrong_type
from ..validation.excerpt import quoted
from ..validation.rules import Problem

#: Finds what is wrong with the value of an option; takes its name and the value.
Check = Callable[[str, Any], Iterator[Problem]]

LAUNCH_TYPES = ("FARGATE", "EC2")

#: A host name or an IP address.
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\Z")


@dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        least: The least that it may be.
        is_open: Whether it has to be more than that.
        is_whole: Whether it has to be an integer.
    """

    least: float = 0
    is_open: bool = False
    is_whole: bool = False

    def __call__(self, name: str, value: Any) -> Iterator[Problem]:
        """What is wrong with a value."""
        kind = Integral if self.is_whole else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            yield wrong_type(name, "an integer" if self.is_whole else "a number", value)
        elif not math.isfinite(value):
            yield _out_of_range(name, f"must be a finite number, not {value}")
        elif self.is_open and value <= self.least:
            yield _out_of_range(name, f"must be over {self.least}, not {value}")
        elif value < self.least:
            yield _out_of_range(name, f"must be at least {self.least}, not {value}")


def _out_of_range(name: str, message: str) -> Problem:
    return Problem(name, message, code="out-of-range")


def _instance(kind: Union[type, Tuple[type, ...]], wanted: str) -> Check:
    def check(name: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, kind):
            yield wrong_type(name, wanted, value)

    return check


_TEXT = _instance(str, "a string")
_PATH = _instance((str, os.PathLike), "a path")
_SWITCH = _instance(bool, "True or False")


def _launch_type(name: str, value: Any) -> Iterator[Problem]:
    yield from _TEXT(name, value)
    if isinstance(value, str) and value.upper() not in LAUNCH_TYPES:
        yield Problem(
            name,
            f"unknown launch type {quoted(value)}; use {' or '.join(LAUNCH_TYPES)}, or "
            "a capacityProviderStrategy in the file of --run-task-kwargs",
            code="unknown-launch-type",
        )


def _one_of(choices: Tuple[str, ...]) -> Check:
    def check(name: str, value: Any) -> Iterator[Problem]:
        if value not in choices:
            yield Problem(
                name,
                f"cannot be {quoted(value)}; use one of {', '.join(choices)}",
                code="unknown-choice",
            )

    return check


def _role(name: str, value: Any) -> Iterator[Problem]:
    yield from _TEXT(name, value)
    request = {"overrides": {"taskRoleArn": value}}  # which reads strings only
    for problem in rules.check_run_task(request, partial=True):
        if problem.certain:
            yield Problem(name, problem.message, problem.code)


def _hosts(name: str, value: Any) -> Iterator[Problem]:
    wrong = [*strings(name, value)]
    yield from wrong
    for host in () if wrong else value:
        if not _HOST.match(host):
            yield Problem(
                name,
                f"invalid host name {quoted(host)}; give one such as "
                "templates.example.com, without scheme, port and path",
                code="invalid-host",
            )


def _limits(name: str, value: Any) -> Iterator[Problem]:
    wrong = [*strings(name, value)]
    yield from wrong
    if not wrong:
        try:
            limits.merged(map(limits.parse, value))
        except ConfigurationError as error:
            yield Problem(name, error.message, error.code)


def _vcpus(name: str, value: Any) -> Iterator[Problem]:
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        yield wrong_type(name, "a number or 'quota'", value)
        return
    try:
        limits.vcpu_limits(value)
    except ConfigurationError as error:
        yield Problem("", error.message, error.code)


def _parsed(parse: Callable[[str, str], object]) -> Check:
    """A string that a function parses; it takes the option's name, too."""

    def check(name: str, value: Any) -> Iterator[Problem]:
        if not isinstance(value, str):
            yield wrong_type(name, "a string", value)
            return
        try:
            parse(name, value)
        except ConfigurationError as error:
            yield Problem("", error.message, error.code)

    return check


#: By the name of the argument.
CHECKS: Mapping[str, Check] = {
    "agent_config_id": _TEXT,
    "name": _TEXT,
    "labels": strings,
    "env_vars": variables,
    "max_polls": Number(is_whole=True),
    "agent_address": _parsed(lambda _, each: health.parse_address(each) if each else 0),
    "no_cloud_logs": _SWITCH,
    "task_definition_path": _PATH,
    "run_task_kwargs_path": _PATH,
    "aws_access_key_id": _TEXT,
    "aws_secret_access_key": _TEXT,
    "aws_session_token": _TEXT,
    "region_name": _TEXT,
    "cluster": _TEXT,
    "launch_type": _launch_type,
    "task_role_arn": _role,
    "execution_role_arn": _role,
    "botocore_config": _instance(Mapping, "a dict"),
    "launches_per_second": Number(is_open=True),
    "launch_timeout": Number(),
    "watch": _SWITCH,
    "start_attempts": Number(1, is_whole=True),
    "cancel_grace": Number(),
    "shutdown_grace": Number(),
    "start_deadline": Number(),
    "max_runtime": Number(),
    "max_delay": Number(),
    "api_key_secret_arn": _parsed(secret_arn.parse),
    "log_format": _parsed(lambda _, name: log_formats.check_format(name)),
    "template_hosts": _hosts,
    "flow_log_group": _parsed(container_logs.check_group),
    "on_interruption": _one_of(ON_INTERRUPTION),
    "max_interruptions": Number(is_whole=True),
    "spot_fallback": _SWITCH,
    "spot_patience": Number(),
    "max_memory": Number(1, is_whole=True),
    "limits": _limits,
    "limits_path": _PATH,
    "max_vcpus": _vcpus,
    "prices": _one_of(PRICES),
}


def mistakes(
    options: Mapping[str, Any],
    parameters: Mapping[str, Parameter] = MappingProxyType({}),
) -> Iterator[Tuple[str, Problem]]:
    """What is wrong with options, each with the option's name, as `CHECKS` has them.

    Args:
        options: Their values by name; what `CHECKS` has no row for is left out.
        parameters: Those of `ECSAgent`. None means that an option is not given, unless
            it has another default there.
    """
    for name, find in CHECKS.items():
        value = options.get(name)
        is_optional = name not in parameters or parameters[name].default is None
        if value is not None or not is_optional:
            for problem in find(name, value):
                yield name, problem


def check(arguments: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    """Refuse wrong arguments of `ECSAgent`.

    Args:
        arguments: Their values by name.
        parameters: As for `mistakes`.

    Raises:
        ConfigurationError: one line with each of them and what it has to be.
    """
    found = [problem for _, problem in mistakes(arguments, parameters)]
    rules.raise_certain(found, ConfigurationError, "ECSAgent: ")
