"""The agent's own log: how its lines look, and that no secret stands in them.

of_run        the run and the task that a line speaks of
discreet      what a logger writes passes a filter that knows the agent's secrets
write_json    a logger writes one JSON object a line
take_over     the same for all that a process writes, when the agent is all it does

A filter masks the record itself, including its traceback. Every handler therefore
gets the masked record, also the handlers of a program that embeds the agent, and
formats need no change.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Type

from ..errors import ConfigurationError
from .redaction import Secrets

#: What `--log-format` takes.
FORMATS = ("text", "json")

#: The attribute of a record that says of which run and task it speaks. `flow_run_id`
#: itself can be taken: Prefect puts it on records, and logging refuses to overwrite.
_ABOUT = "speaks_of"


def log_context(
    run_id: Optional[str], task_arn: Optional[str] = None
) -> Dict[str, Any]:
    """What a line speaks of, to be given to a logger as `extra`.

    Args:
        run_id: The flow run, where it is known.
        task_arn: Its task, where there is one.
    """
    about = {"flow_run_id": run_id, "task_arn": task_arn}
    return {_ABOUT: {key: value for key, value in about.items() if value}}


def log_full_error(
    logger: logging.Logger, error: BaseException, extra: Mapping[str, Any]
) -> None:
    """Log an error's traceback at DEBUG; the line before it says what happened.

    Args:
        logger: The agent's own log.
        error: Any exception.
        extra: What `log_context` returned.
    """
    logger.debug("The error in full", exc_info=error, extra=extra)


# -- No secret ----------------------------------------------------------------------


def install_redaction(logger: logging.Logger, *others: logging.Filterer) -> Secrets:
    """Let no secret pass through a logger.

    Args:
        logger: Of what is logged to it, records are masked before anybody sees them.
        others: Further loggers, or handlers.

    Returns:
        The secrets it hides; always the same ones for the same logger.
    """
    known = (each for each in logger.filters if isinstance(each, RedactingFilter))
    discretion = next(known, None) or RedactingFilter(Secrets())
    for each in (logger, *others):
        each.addFilter(discretion)
    return discretion.secrets


class RedactingFilter(logging.Filter):
    """Lets every record pass, without secrets."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self.secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        run_id = getattr(record, _ABOUT, {}).get("flow_run_id")
        record.msg, record.args = self.secrets.hidden(_message(record), run_id), ()
        record.exc_text = self._masked(_traceback(record), run_id)
        record.exc_info = None  # keeps formatters from rendering it again, unmasked
        record.stack_info = self._masked(record.stack_info, run_id)
        return True

    def _masked(self, text: Optional[str], run_id: Optional[str]) -> Optional[str]:
        return text and self.secrets.hidden(text, run_id)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # logging would print the arguments
        return f"{record.msg} (its arguments do not fit)"


def _traceback(record: logging.LogRecord) -> Optional[str]:
    if record.exc_info and not record.exc_text:
        return logging.Formatter().formatException(record.exc_info)
    return record.exc_text


# -- JSON ---------------------------------------------------------------------------


def check_format(log_format: str) -> None:
    """Refuse a format that does not exist.

    Raises:
        ConfigurationError: one line with those that do.
    """
    if log_format not in FORMATS:
        raise ConfigurationError(
            f"The log format {log_format!r} is not known; use {' or '.join(FORMATS)}."
        )


def write_json(logger: logging.Logger) -> None:
    """Have a logger write one JSON object a line to stdout.

    Prefect gives the agent's logger a handler for text only where it has none. One
    that a program has set up itself stays as it is.
    """
    if not any(isinstance(each, logging.StreamHandler) for each in logger.handlers):
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JSONFormatter())
        logger.addHandler(handler)


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON.

    The keys are `timestamp` (ISO 8601, UTC), `level`, `logger` and `message`, and
    where there are any `flow_run_id`, `task_arn` and `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        about: Mapping[str, str] = getattr(record, _ABOUT, {})
        line = {
            "timestamp": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            **about,
            **_exception(record),
        }
        return json.dumps(line)


def _timestamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _exception(record: logging.LogRecord) -> Dict[str, str]:
    parts = filter(None, (_traceback(record), record.stack_info))
    text = "\n".join(parts)
    return {"exception": text} if text else {}


# -- A process of the agent's own -----------------------------------------------------


def reformat(handlers: Iterable[logging.Handler]) -> None:
    """Have handlers that print lines print JSON."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setFormatter(JSONFormatter())


def take_over(logger: logging.Logger, log_format: str) -> Secrets:
    """Make what any logger of this process writes discreet, and JSON if asked for.

    Args:
        logger: The agent's.
        log_format: `text` leaves every format as it is.

    Returns:
        The secrets that are hidden.
    """
    if log_format == "json":
        write_json(logger)
        logging.captureWarnings(True)
        write_json(logging.getLogger("py.warnings"))
        reformat(_handlers())
    secrets = install_redaction(logger, *_handlers())
    _catch_the_rest(_logging_to(logger) if log_format == "json" else _printing(secrets))
    return secrets


def _handlers() -> Iterator[logging.Handler]:
    """Those of all loggers, and that of loggers that have none."""
    known = logging.root.manager.loggerDict.values()
    for logger in [logging.root, *known]:
        if isinstance(logger, logging.Logger):
            yield from logger.handlers
    if logging.lastResort is not None:
        yield logging.lastResort


#: Told what broke off, as the subject of a sentence, and the error.
_Tell = Callable[[str, Optional[BaseException]], None]


def _catch_the_rest(tell: _Tell) -> None:
    """Tell without secrets what Python itself would write to stderr."""

    def in_main_thread(
        kind: Type[BaseException], error: BaseException, trace: Any
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            tell("The agent broke off", error)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, SystemExit):
            name = args.thread.name if args.thread else "A thread"
            tell(f"{name} broke off", args.exc_value)

    def unraisable(args: Any) -> None:
        what = args.err_msg or "Exception ignored in"
        tell(f"{what}: {args.object!r}", args.exc_value)

    sys.excepthook = in_main_thread
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


def _logging_to(logger: logging.Logger) -> _Tell:
    return lambda what, error: logger.critical("%s", what, exc_info=error)


def _printing(secrets: Secrets) -> _Tell:
    """Prints a traceback as Python does, but without secrets."""

    def tell(what: str, error: Optional[BaseException]) -> None:
        lines = [f"{what}:\n"]
        if error is not None:
            lines += traceback.format_exception(type(error), error, error.__traceback__)
        with suppress(OSError, ValueError, AttributeError):  # there may be no stderr
            sys.stderr.write(secrets.hidden("".join(lines)))
            sys.stderr.flush()

    return tell
