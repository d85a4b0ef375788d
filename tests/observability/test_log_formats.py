"""The formats of the agent's log, and that records are redacted for all handlers."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import click
import pytest
from codes import raises_code

import prefect_ecs_plugin
from prefect_ecs_plugin.cli.click_types import one_line_errors
from prefect_ecs_plugin.errors import ConfigurationError
from prefect_ecs_plugin.observability.log_formats import (
    JSONFormatter,
    check_format,
    install_redaction,
    log_context,
    write_json,
)

SECRET = "0123456789abcdef"


@pytest.fixture
def logger() -> logging.Logger:
    """A logger that prints nothing."""
    logger = logging.Logger("agent", logging.DEBUG)
    logger.addHandler(logging.NullHandler())
    return logger


@pytest.fixture
def lines(logger: logging.Logger) -> io.StringIO:
    """What a program's own handler prints of it."""
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    return handler.stream


def error_with(message: str) -> BaseException:
    """One that was raised, and has a cause."""
    try:
        try:
            raise KeyError(message)
        except KeyError as cause:
            raise ValueError(f"it was {message}") from cause
    except ValueError as error:
        return error


# -- No secret ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "message, arguments, expected",
    [
        (f"key {SECRET}", (), "key ***"),
        ("key %s, %d", (SECRET, 7), "key ***, 7"),
        ("key %(key)s", ({"key": SECRET},), "key ***"),
        ("100% of it", (), "100% of it"),
        ("password='x' of %s", ("me",), "password='***' of me"),
        ("one %s, two %s", (SECRET,), "one %s, two %s (its arguments do not fit)"),
        (ValueError(SECRET), (), "***"),
    ],
)
def test_messages_are_redacted(
    logger: logging.Logger,
    lines: io.StringIO,
    message: Any,
    arguments: Any,
    expected: str,
) -> None:
    install_redaction(logger).keep(SECRET)
    logger.info(message, *arguments)
    assert lines.getvalue() == f"INFO {expected}\n"


def test_tracebacks_and_stacks_are_redacted(
    logger: logging.Logger, lines: io.StringIO
) -> None:
    install_redaction(logger).keep(SECRET)
    logger.debug("in full", exc_info=error_with(SECRET))
    stack = {"levelno": logging.INFO, "stack_info": f"Stack: {SECRET}"}
    logger.handle(logging.makeLogRecord(stack))
    text = lines.getvalue()
    assert text.startswith("DEBUG in full\nTraceback (most recent call last):\n")
    assert "KeyError: '***'" in text
    assert "ValueError: it was ***" in text
    assert "Stack: ***" in text
    assert SECRET not in text


def test_no_handler_is_given_what_it_could_format_anew(logger: logging.Logger) -> None:
    kept: List[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = kept.append  # type: ignore[assignment]
    logger.addHandler(handler)
    install_redaction(logger).keep(SECRET)
    logger.error("key %s", SECRET, exc_info=error_with(SECRET))
    assert SECRET not in repr([vars(record) for record in kept])


def test_a_logger_keeps_its_secrets_and_what_it_is_given_later_counts(
    logger: logging.Logger, lines: io.StringIO
) -> None:
    secrets = install_redaction(logger)
    assert install_redaction(logger) is secrets
    assert len(logger.filters) == 1
    secrets.learn("run-1", {"env": {"A_TOKEN": SECRET}})
    logger.info(SECRET)
    assert lines.getvalue() == "INFO ***\n"


def test_others_hide_the_same(logger: logging.Logger, lines: io.StringIO) -> None:
    other = logging.Logger("other")
    other.addHandler(logger.handlers[-1])
    install_redaction(logger, other).keep(SECRET)
    other.info(SECRET)
    assert lines.getvalue() == "INFO ***\n"


def test_errors_of_the_other_commands_are_redacted() -> None:
    with pytest.raises(click.ClickException) as caught, one_line_errors():
        raise ConfigurationError(
            "Cannot read http://me:my-password@host/t.yaml:\n no", code="a-code"
        )
    assert caught.value.message == "Cannot read http://me:***@host/t.yaml: no [a-code]"


def test_a_line_about_a_run_hides_the_secrets_of_this_run(
    logger: logging.Logger, lines: io.StringIO
) -> None:
    """Another run cannot make it unreadable."""
    secrets = install_redaction(logger)
    secrets.learn("run-1", {"env": {"A_TOKEN": SECRET}})
    secrets.learn("run-2", {"env": {"A_TOKEN": "cannot be launched"}})
    for extra in (log_context("run-1"), log_context("run-2"), {}):
        logger.info("run cannot be launched: %s", SECRET, extra=extra)
    assert lines.getvalue().splitlines() == [
        "INFO run cannot be launched: ***",
        f"INFO run ***: {SECRET}",
        "INFO run ***: ***",
    ]


def test_names_beside_a_line_are_redacted_too(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)
    install_redaction(logger).learn("run-1", {"env": {"A_TOKEN": SECRET}})
    names = {"flow": f"etl-{SECRET}", "labels": ["prod", SECRET], "project": None}
    logger.info("ended", extra=log_context("run-1", "arn:1", **names))
    line = json.loads(stream.getvalue())
    assert (line["flow"], line["labels"]) == ("etl-***", ["prod", "***"])
    assert (line["task_arn"], "project" in line) == ("arn:1", False)


#: Fails in all ways, in a process that an agent has taken over.
FAILS = """
import logging, sys, threading
from prefect_ecs_plugin.observability import log_formats

secret, log_format = sys.argv[1:]
log_formats.take_over(logging.getLogger("agent"), log_format).keep(secret)

class Ill:
    def __del__(self):
        raise ValueError("deleted " + secret)

def run():
    raise ValueError("thread " + secret)

thread = threading.Thread(target=run, name="Dying")
thread.start()
thread.join()
Ill()
raise ValueError("main " + secret)
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_guarantee_7_no_secret_in_what_python_says_of_errors(log_format: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAILS, SECRET, log_format],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == 1
    assert SECRET not in ended.stdout
    for words in ("thread ***", "deleted ***", "main ***", "The thread Dying"):
        assert words in ended.stdout
    if log_format == "text":
        assert ended.stdout.count("\nTraceback (most recent call last):\n") == 3
        assert ended.stdout.count(" [internal-error]:\n") == 3
    else:
        codes = [json.loads(line)["code"] for line in ended.stdout.splitlines()]
        assert codes == ["internal-error"] * 3


# -- JSON --------------------------------------------------------------------------


def written(**members: Any) -> Dict[str, Any]:
    """A record as the one line that is written for it, read again."""
    defaults = {"name": "agent", "levelname": "INFO", "msg": "hello", "created": 0.0}
    line = JSONFormatter().format(logging.makeLogRecord({**defaults, **members}))
    assert "\n" not in line
    assert line.isascii()
    return dict(json.loads(line))


def expected(**members: Any) -> Dict[str, Any]:
    return {
        "timestamp": "1970-01-01T00:00:00.000Z",
        "level": "INFO",
        "logger": "agent",
        "message": "hello",
        **members,
    }


@pytest.mark.parametrize(
    "record, line",
    [
        ({}, {}),
        ({"created": 1.5}, {"timestamp": "1970-01-01T00:00:01.500Z"}),
        ({"msg": 'two\nlines, "é" \ud800'}, {"message": 'two\nlines, "é" \ud800'}),
        ({"msg": "%s and %d", "args": ("a", 1)}, {"message": "a and 1"}),
        ({"msg": {"a": object}}, {"message": "{'a': <class 'object'>}"}),
        (log_context("r-1"), {"flow_run_id": "r-1"}),
        (log_context("r-1", "arn:1"), {"flow_run_id": "r-1", "task_arn": "arn:1"}),
        (log_context(None, "arn:1"), {"task_arn": "arn:1"}),
        ({"exc_text": "Traceback"}, {"exception": "Traceback"}),
        ({"exc_text": "T", "stack_info": "Stack"}, {"exception": "T\nStack"}),
        ({"flow_run_id": "Prefect's", "color": "red"}, {}),
        (
            {"msg": "It fails: %s [%s]", "args": ("why", "a-code")},
            {"message": "It fails: why [a-code]", "code": "a-code"},
        ),
    ],
)
def test_a_record_as_json(record: Dict[str, Any], line: Dict[str, Any]) -> None:
    assert written(**record) == expected(**line)


def test_an_error_that_was_not_formatted_before() -> None:
    error = error_with("oops")
    exception = written(exc_info=(type(error), error, error.__traceback__))["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert exception.endswith("\nValueError: it was oops")


def test_extra_never_overwrites_what_prefect_puts_on_records() -> None:
    """logging raises a KeyError then, which would be the launch's."""
    record = logging.makeLogRecord({"flow_run_id": "Prefect's", "task_run_id": "t"})
    assert not set(log_context("r-1", "arn:1")) & set(vars(record))


def log_calls() -> Iterator[Tuple[str, ast.Call]]:
    """Every call of a logger in the package, and where it stands."""
    package = Path(prefect_ecs_plugin.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "logger." in ast.unparse(node.func):
                yield f"{path.name}:{node.lineno}", node


@pytest.mark.skipif(sys.version_info < (3, 9), reason="needs ast.unparse")
def test_every_line_about_a_run_has_it_in_its_fields() -> None:
    opening = re.compile("['\"](Flow run|Task|The log of task) %s")
    about_runs = {
        place: call
        for place, call in log_calls()
        if opening.match(ast.unparse(call.args[0]))
    }
    assert len(about_runs) >= 10
    with_fields = [
        place
        for place, call in about_runs.items()
        if "extra" in [keyword.arg for keyword in call.keywords]
    ]
    assert with_fields == list(about_runs)


@pytest.mark.parametrize("own", [None, logging.StreamHandler, logging.NullHandler])
def test_a_handler_that_a_program_has_set_up_stays(own: Optional[Any]) -> None:
    logger = logging.Logger("agent")
    if own:
        logger.addHandler(own())
    before = list(logger.handlers)
    write_json(logger)
    write_json(logger)
    added = [handler for handler in logger.handlers if handler not in before]
    assert logger.handlers[: len(before)] == before
    assert [type(each) for each in added] == (
        [] if own is logging.StreamHandler else [logging.StreamHandler]
    )
    assert all(each.stream is sys.stdout for each in added)


def test_formats() -> None:
    check_format("text")
    check_format("json")
    with raises_code("unknown-log-format", ConfigurationError) as raised:
        check_format("xml")
    assert "'xml'" in str(raised.value)
