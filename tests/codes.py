"""Messages by their codes: what tests assert in place of whole sentences.

The sentences themselves stand in one place, docs/troubleshooting.md, where
tests/test_docs.py compares them with the source.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterable, Iterator, List, Type

import pytest

from prefect_ecs_plugin.errors import PrefectECSError, code_of

__all__ = ["code_of", "codes_of", "raises_code"]


@contextmanager
def raises_code(
    code: str, error: Type[PrefectECSError] = PrefectECSError
) -> Iterator[pytest.ExceptionInfo[PrefectECSError]]:
    """Expect an error of this plugin with a code, in one line.

    Args:
        code: The code that the message has to end with.
        error: The class of the error, or one that it derives from.
    """
    with pytest.raises(error) as raised:
        yield raised
    assert code_of(raised.value) == code, str(raised.value)
    assert raised.value.code == code
    assert "\n" not in str(raised.value)


def codes_of(messages: Iterable[object]) -> List[str]:
    """The codes of several messages (problems, findings, lines of a log).

    Args:
        messages: Any iterable of what `str` makes sentences of.
    """
    return [code_of(each) for each in messages]
