"""The agent's own log: JSON lines, and no secret in any line.

A filter redacts the record itself, including its traceback. Every handler therefore
gets the redacted record, also the handlers of a program that embeds the agent, and
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

from ..errors import ConfigurationError, code_of
from .redaction import Secrets

#: What `--log-format` takes.
FORMATS = ("text", "json")

#: The attribute of a record that has the run and the task which its line is about. Its
#: name is not `flow_run_id`: Prefect puts that on records, and logging refuses to
#: overwrite an attribute.
_CONTEXT = "prefect_ecs_context"


#: What a line is about that has no secret in it.
_IDS = frozenset({"flow_run_id", "task_arn"})


def log_context(
    run_id: Optional[str], task_arn: Optional[str] = None, **more: Any
) -> Dict[str, Any]:
    """What a line is about, to be given to a logger as `extra`.

    Args:
        run_id: The flow run, where it is known.
        task_arn: Its task, where there is one.
        more: Further keys of a line in JSON.
    """
    about = {"flow_run_id": run_id, "task_arn": task_arn, **more}
    return {_CONTEXT: {key: value for key, value in about.items() if value}}


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


# -- Redaction ----------------------------------------------------------------------


def install_redaction(logger: logging.Logger, *others: logging.Filterer) -> Secrets:
    """Redact every record that passes a logger.

    Args:
        logger: Its records are redacted before any handler gets them.
        others: Further loggers, or handlers.

    Returns:
        The secrets that are redacted; always the same object for the same logger.
    """
    known = (each for each in logger.filters if isinstance(each, RedactingFilter))
    redacting = next(known, None) or RedactingFilter(Secrets())
    for each in (logger, *others):
        each.addFilter(redacting)
    return redacting.secrets


class RedactingFilter(logging.Filter):
    """Lets every record pass, without secrets."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self.secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        about: Dict[str, Any] = getattr(record, _CONTEXT, {})
        run_id = about.get("flow_run_id")
        redact = self.secrets.redact_text
        for key in about.keys() - _IDS:  # names that users gave
            value = about[key]
            names = value if isinstance(value, list) else [value]
            redacted = [redact(str(name), run_id) for name in names]
            about[key] = redacted if isinstance(value, list) else redacted[0]
        trace, stack = _traceback(record), record.stack_info
        record.msg, record.args = redact(_message(record), run_id), ()
        record.exc_text = trace and redact(trace, run_id)
        record.exc_info = None  # or formatters would render it again, with secrets
        record.stack_info = stack and redact(stack, run_id)
        return True


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
            f"The log format {log_format!r} is not known; use {' or '.join(FORMATS)}.",
            code="unknown-log-format",
        )


def write_json(logger: logging.Logger) -> None:
    """Have a logger write one JSON object a line to stdout.

    Prefect gives the agent's logger a handler for text only where it has none. A
    handler that the program has set up stays as it is.
    """
    if not any(isinstance(each, logging.StreamHandler) for each in logger.handlers):
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JSONFormatter())
        logger.addHandler(handler)


def reformat(handlers: Iterable[logging.Handler]) -> None:
    """Have handlers that print lines print JSON."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setFormatter(JSONFormatter())


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON.

    The keys are `timestamp` (ISO 8601, UTC), `level`, `logger` and `message`, and
    where there are any `code` (that of the message), `flow_run_id`, `task_arn` and
    `exception`. The line about a stopped task has `flow`, `project` and `labels` too.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        message = _message(record)
        optional = {
            "code": code_of(message),
            **getattr(record, _CONTEXT, {}),
            "exception": "\n".join(
                filter(None, (_traceback(record), record.stack_info))
            ),
        }
        line = {
            "timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            **{key: value for key, value in optional.items() if value},
        }
        return json.dumps(line)


# -- A process of the agent's own -----------------------------------------------------


def take_over(logger: logging.Logger, log_format: str) -> Secrets:
    """Redact what any logger of this process writes; write it as JSON if asked for.

    Args:
        logger: The agent's.
        log_format: `text` leaves every format as it is.

    Returns:
        The secrets that are redacted.
    """
    if log_format == "json":
        write_json(logger)
        logging.captureWarnings(True)
        write_json(logging.getLogger("py.warnings"))
        reformat(_handlers())
    secrets = install_redaction(logger, *_handlers())

    def log(message: str, error: Optional[BaseException]) -> None:
        logger.critical("%s", message, exc_info=error)

    def print_as_python_does(message: str, error: Optional[BaseException]) -> None:
        lines = [f"{message}:\n"]
        if error is not None:
            lines += traceback.format_exception(type(error), error, error.__traceback__)
        with suppress(OSError, ValueError, AttributeError):  # there may be no stderr
            sys.stderr.write(secrets.redact_text("".join(lines)))
            sys.stderr.flush()

    _report_uncaught_errors(log if log_format == "json" else print_as_python_does)
    return secrets


def _handlers() -> Iterator[logging.Handler]:
    """Those of all loggers, and that of loggers that have none."""
    known = logging.root.manager.loggerDict.values()
    for logger in [logging.root, *known]:
        if isinstance(logger, logging.Logger):
            yield from logger.handlers
    if logging.lastResort is not None:
        yield logging.lastResort


def _report_uncaught_errors(
    report: Callable[[str, Optional[BaseException]], None],
) -> None:
    """Report what Python itself would write to stderr, with secrets."""

    def in_main_thread(
        kind: Type[BaseException], error: BaseException, trace: Any
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            report("The agent ended with an error [internal-error]", error)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if not issubclass(args.exc_type, SystemExit):
            name = args.thread.name if args.thread else "unknown"
            report(
                f"The thread {name} ended with an error [internal-error]",
                args.exc_value,
            )

    def unraisable(args: Any) -> None:
        what = args.err_msg or "Exception ignored in"
        report(
            f"Python ignored an error ({what}: {args.object!r}) [internal-error]",
            args.exc_value,
        )

    sys.excepthook = in_main_thread
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
