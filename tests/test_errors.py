"""Errors in one line, out of what the libraries wrap them in."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError

from prefect_ecs_plugin.errors import (
    ConfigurationError,
    RateLimited,
    code_of,
    reason,
    with_code,
    without_code,
)


def refused(wrapping: str) -> requests.ConnectionError:
    """As requests raises it around urllib3 1 and 2, which word it differently."""
    text = "Failed to establish a new connection: [Errno 111] Connection refused"
    cause: Any = NewConnectionError(None, text)  # type: ignore[arg-type]
    cause.args = (f"{wrapping}: {text}",)
    return requests.ConnectionError(MaxRetryError(None, "/", cause))  # type: ignore[arg-type]


def late() -> requests.ReadTimeout:
    text = "Read timed out. (read timeout=30)"
    error: Any = ReadTimeoutError(None, "/", text)  # type: ignore[arg-type]
    error.args = (f"HTTPConnectionPool(host='x', port=80): {text}",)
    return requests.ReadTimeout(error)


@pytest.mark.parametrize(
    "error, line",
    [
        (
            refused("<urllib3.connection.HTTPConnection object at 0x7f00>"),
            "Connection refused",
        ),
        (refused("HTTPConnection(host='x', port=80)"), "Connection refused"),
        (refused("HTTPSConnection(host='x', port=443)"), "Connection refused"),
        (late(), "Read timed out. (read timeout=30)"),
        (OSError(2, "No such file or directory"), "No such file or directory"),
        (RuntimeError("two\n  lines."), "two lines"),
        (RuntimeError(), "RuntimeError"),
        (ConfigurationError("No region.", code="no-region"), "No region"),
    ],
)
def test_the_reason_alone(error: Exception, line: str) -> None:
    assert reason(error) == line


@pytest.mark.parametrize("url", ["htp://x", "x:4200", "", "http:///x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(requests.RequestException) as caught:
        requests.get(url, timeout=1)
    assert reason(caught.value) == "it is not an http:// or https:// URL"


def test_a_message_ends_with_its_code() -> None:
    error = ConfigurationError("There is no AWS region.", code="no-region")
    assert str(error) == "There is no AWS region. [no-region]"
    assert (error.message, error.code) == ("There is no AWS region.", "no-region")
    assert code_of(error) == "no-region"


def test_a_message_around_another_one_keeps_its_code_at_the_end() -> None:
    inner = ConfigurationError("unknown key 'x'", code="unknown-key")
    outer = ConfigurationError(f"kwargs.yaml: {inner}", code=inner.code)
    assert str(outer) == "kwargs.yaml: unknown key 'x' [unknown-key]"
    assert outer.code == "unknown-key"
    told = ConfigurationError(f"{inner.message}; correct it", code=inner.code)
    assert str(told) == "unknown key 'x'; correct it [unknown-key]"


@pytest.mark.parametrize(
    "text, code",
    [
        ("no code", ""),
        ("labels=[a]", ""),
        ("a list [A b]", ""),
        ("a code [in-the] middle", ""),
        ("sentence [fargate-size]", "fargate-size"),
    ],
)
def test_a_code_is_a_word_in_brackets_at_the_end(text: str, code: str) -> None:
    assert code_of(text) == code
    assert with_code(text, "").startswith(without_code(text))
    assert code_of(with_code(text, "other")) == "other"


def test_an_error_can_be_pickled() -> None:
    error = RateLimited(12.0)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (RateLimited, str(error))
    assert (again.retry_after, again.code) == (12.0, "prefect-rate-limit")
