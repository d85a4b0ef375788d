"""How a launch waits without holding a thread.

A launch is a generator: ordinary code from its start to its end that says
`yield Pause(...)` or `yield future` wherever it has to wait. The caller decides how to
wait: `run_blocking` sleeps, the dispatcher continues the launch later, a simulation
advances its clock.
"""

from __future__ import annotations

import enum
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Generator, TypeVar, Union

Result = TypeVar("Result")


class Cause(str, enum.Enum):
    """What a wait is for; `Pause.reason` says it to people."""

    NOT_DUE = "not_due"
    RATE_LIMIT = "rate_limit"
    CAPACITY = "capacity"
    DEFINITION = "definition"
    OUTAGE = "outage"
    RESTART = "restart"
    RECOVERY = "recovery"
    OTHER = "other"


@dataclass(frozen=True)
class Pause:
    """Continue after some time.

    Attributes:
        seconds: How long, from now.
        reason: Why, in words that fit after "waits because".
        cause: The kind of reason.
    """

    seconds: float
    reason: str = ""
    cause: Cause = Cause.OTHER


class Interrupted(BaseException):
    """Raised at the wait of steps that have to end now.

    Not an `Exception`, so that no handler treats it as a failure of the run.
    """


#: What a launch yields: a time to wait for, or a result of another thread.
Wait = Union[Pause, "Future[Any]"]
Steps = Generator[Wait, None, Result]


def run_blocking(steps: Steps[Result], sleep: Callable[[float], None]) -> Result:
    """Run steps to their end in this thread.

    Args:
        steps: The generator to run.
        sleep: Called with the seconds of each pause.

    Returns:
        What the steps return; what they raise is raised here.
    """
    while True:
        try:
            wait = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # StopIteration is untyped
        if isinstance(wait, Pause):
            sleep(wait.seconds)
        else:
            wait.exception()


def as_steps(call: Callable[[], Result]) -> Callable[[], Steps[Result]]:
    """An ordinary call as steps that do not wait."""

    def steps() -> Steps[Result]:
        yield from ()
        return call()

    return steps


def in_thread(call: Callable[[], Result], name: str) -> Future[Result]:
    """What an ordinary call returns or raises, in a thread that keeps no process alive.

    Args:
        call: Made at once.
        name: The thread's.
    """
    done: Future[Result] = Future()
    threading.Thread(target=resolve, args=(done, call), name=name, daemon=True).start()
    return done


def resolve(done: Future[Result], call: Callable[[], Result]) -> None:
    """Set what a call returns or raises as the result of a future."""
    try:
        result = call()
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(result)
