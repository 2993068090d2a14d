"""Logs: one event, one line, on standard error.

The form depends on the reader. A person at a terminal gets aligned words, a file or a pipe gets logfmt, a
collector gets JSON when it asks for it. Under systemd every line begins with its priority, so that
`journalctl -p err` shows exactly the errors. The sentence of an event is never split up or reworded:
operators search for it.

Every value, also of a library's line, is redacted and stripped of control characters before it is written, so
a label with an escape sequence or a line break in it can neither colour a terminal nor forge a line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Literal, TextIO

import structlog

from containerstacks_billing.redaction import MASK, redactor

Form = Literal["auto", "terminal", "logfmt", "json"]
Logger = structlog.stdlib.BoundLogger
Event = MutableMapping[str, Any]

# The numbers of syslog, which journald reads in angle brackets at the start of a line.
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_IN_FRONT = ("time", "level", "event", "run", "batch", "token")
_SECRET_KEYS = re.compile(
    r"password|passwd|secret|authorization|database_url|webhook_url|admin_token|api_?key", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONGEST_VALUE = 4_000


def configure(
    level: str = "info",
    form: Form = "auto",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Set up logging of the whole process, libraries included; calling it again replaces the set-up."""
    stream = sys.stderr if stream is None else stream
    environment = os.environ if environment is None else environment
    journal = bool(environment.get("JOURNAL_STREAM"))
    if form == "auto":
        form = "terminal" if stream.isatty() and not journal else "logfmt"
    people = form == "terminal" and not journal
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _error_in_words(with_traceback=level == "debug"),
    ]
    if not journal:  # journald stamps every line itself
        stamp = structlog.processors.TimeStamper(
            fmt="%H:%M:%S" if people else "iso", utc=not people, key="time"
        )
        shared.append(stamp)
    handler = _Handler(stream, for_people=people)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _in_order,
                _cleaned(redactor(secrets), escape=form != "json"),
                _line(_renderer(form, may_colour(stream, environment)), journal=journal),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What the driver warns of it raises as well, and the error is translated there.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _Handler(logging.StreamHandler[TextIO]):
    """Handler of this program, which shows that logging was set up, and for which form."""

    def __init__(self, stream: TextIO, *, for_people: bool) -> None:
        super().__init__(stream)
        self.for_people = for_people


def is_configured() -> bool:
    """Return whether `configure` was called."""
    return any(isinstance(handler, _Handler) for handler in logging.getLogger().handlers)


def is_for_people() -> bool:
    """Return whether lines are written in the form of a terminal."""
    return any(isinstance(one, _Handler) and one.for_people for one in logging.getLogger().handlers)


def logger(name: str = "containerstacks_billing") -> Logger:
    """Return the logger of a module; events are sentences, facts are keywords."""
    log: Logger = structlog.stdlib.get_logger(name)
    return log


def debug(event: str, **facts: object) -> None:
    """Log what only matters when debugging, at no cost otherwise, also where logging was never set up."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        logger().debug(event, **facts)


@contextmanager
def bound(**identifiers: object) -> Iterator[None]:
    """Put identifiers (run, batch, token) on every line that this thread logs inside the block."""
    with structlog.contextvars.bound_contextvars(**identifiers):
        yield


def may_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether colours are wanted: on a capable terminal, unless NO_COLOR is set."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _error_in_words(*, with_traceback: bool) -> structlog.typing.Processor:
    """Turn exc_info into one value: class and message, and the traceback as well when debugging."""

    def processor(_logger: object, _method: str, event: Event) -> Event:
        information = event.pop("exc_info", None)
        error = sys.exc_info()[1] if information is True else information
        error = error[1] if isinstance(error, tuple) else error
        if isinstance(error, BaseException):
            event["error"] = f"{type(error).__name__}: {error}"
            if with_traceback:
                event["traceback"] = structlog.processors.ExceptionRenderer()(
                    _logger, _method, {"exc_info": error}
                )["exception"]
        return event

    return processor


def _in_order(_logger: object, _method: str, event: Event) -> Event:
    """Order the keys: what every line has, run and token, then the facts as given; None is left out."""
    keys = [*(key for key in _IN_FRONT if key in event), *(key for key in event if key not in _IN_FRONT)]
    return {key: event[key] for key in keys if event[key] is not None}


def _cleaned(redacted: Callable[[str], str], *, escape: bool) -> structlog.typing.Processor:
    """Redact every value and, where the form does not do it itself, escape its control characters."""

    def clean(value: object) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Decimal):
            # Money and hours have two digits at least: an amount of nothing is 0.00 beside hours of 0.00.
            exponent = value.as_tuple().exponent
            return f"{value:.2f}" if isinstance(exponent, int) and exponent > -2 else f"{value:f}"
        if isinstance(value, Mapping):
            return {str(key): clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [clean(item) for item in value]
        text = redacted(str(value))
        if len(text) > _LONGEST_VALUE:
            text = text[:_LONGEST_VALUE] + "..."
        return _CONTROL.sub(_escaped, text) if escape else text

    def processor(_logger: object, _method: str, event: Event) -> Event:
        return {
            key: MASK if isinstance(value, str) and _SECRET_KEYS.search(key) else clean(value)
            for key, value in event.items()
        }

    return processor


def _escaped(found: re.Match[str]) -> str:
    character = found.group(0)
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character, f"\\u{ord(character):04x}")


def _renderer(form: Form, colours: bool) -> structlog.typing.Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(default=str)
    if form == "logfmt":
        return _logfmt
    return structlog.dev.ConsoleRenderer(
        colors=colours, timestamp_key="time", pad_event_to=0, pad_level=True, sort_keys=False
    )


def _logfmt(_logger: object, _method: str, event: Event) -> str:
    """Write key=value pairs; values that hold spaces, quotes or = are quoted."""
    return " ".join(f"{_logfmt_key(key)}={_logfmt_value(value)}" for key, value in event.items())


def _logfmt_key(key: str) -> str:
    return re.sub(r"[\s=\"]+", "_", key)


def _logfmt_value(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text and not re.search(r"[\s\"=]", text):
        return text
    return '"' + text.replace('"', r"\"") + '"'


def _line(render: structlog.typing.Processor, *, journal: bool) -> structlog.typing.Processor:
    """Render the event and put the priority in front of it where journald reads it."""

    def processor(logger_: object, method: str, event: Event) -> str:
        priority = f"<{_PRIORITIES.get(str(event.get('level')), 6)}>" if journal else ""
        return priority + str(render(logger_, method, event))

    return processor
