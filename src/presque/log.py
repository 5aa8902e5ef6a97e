"""How log lines look: one event a line, for people or for programs.

Write an event with the standard library alone, its fields in the format string:

    log = logging.getLogger("presque.store")
    log.info("store.started pid=%d dir=%s fsync=%s", pid, directory, fsync)

The format string must be a literal. The formatters read the names of the fields from it and the values
from the arguments, never from the finished text, so that a value that looks like a field stays a value.
A value is quoted where it would be read wrongly, and its control characters are escaped: nobody can
forge a line. Messages of other shapes (those of libraries) are shown as they are, escaped too; in JSON
they are the event `log` with the field `message`.

    2026-11-23 15:25:46.123 info    store.started pid=12 dir=/var/lib/presque fsync=always
    {"time":"2026-11-23T15:25:46.123Z","level":"info","event":"store.started","pid":12,…}

`time`, `level`, `event` and `logger` are ours: a field of that name is not shown in JSON. Never log
a job's body, a token or a password. The secret of a token that somebody took for a name is left out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from presque.masking import without_tokens

log = logging.getLogger("presque")

_event = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+)+\Z").match
_field = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL).match
_conversion = re.compile(r"%(?:%|[-+ #0]*\d*(?:\.\d+)?[a-zA-Z])")
_plain_value = re.compile(r"[^\s\"=\\]+\Z").match
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


def configure(format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:  # noqa: A002  (the word of the settings)
    """Send every log line to `stream` (standard error by default), in place of what was set up before.

    `auto` is plain on a terminal and JSON elsewhere. `level` is for presque; libraries speak from
    `warning` on, or from `debug` on when presque does.
    """
    stream = sys.stderr if stream is None else stream
    if stream is None:  # the program was started without a standard error
        stream = open(os.devnull, "w")  # noqa: PTH123, SIM115  (it stays open)
    handler = logging.StreamHandler(stream)
    if is_json(format, stream):
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(PlainFormatter(colours=stream.isatty() and not os.environ.get("NO_COLOR")))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(wanted if wanted == logging.DEBUG else max(wanted, logging.WARNING))
    logging.getLogger("presque").setLevel(wanted)


def catch_all() -> None:
    """Make lines of what Python would print to standard error by itself: warnings, and what nobody caught."""
    logging.captureWarnings(True)
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody has caught is a line as any other."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("process.broken error=%r", error, exc_info=(kind, error, trace))


def _log_thread(said: threading.ExceptHookArgs) -> None:
    error = said.exc_value
    if error is not None:
        thread = said.thread.name if said.thread is not None else None
        log.error("thread.broken thread=%s", thread, exc_info=(said.exc_type, error, said.exc_traceback))


def _log_unraisable(said: sys.UnraisableHookArgs) -> None:
    error = said.exc_value
    if error is not None:
        log.error(
            "process.error_ignored where=%r", said.object, exc_info=(said.exc_type, error, said.exc_traceback)
        )


def is_json(format: str, stream: TextIO | None = None) -> bool:  # noqa: A002  (as above)
    """Whether lines in this format are JSON."""
    stream = sys.stderr if stream is None else stream
    return format == "json" or (format == "auto" and not stream.isatty())


def parse(record: logging.LogRecord) -> tuple[str, dict[str, Any]] | None:
    """The event of a record and its fields, typed as they were passed; None if it is not an event line."""
    template, arguments = record.msg, record.args or ()
    if not isinstance(template, str) or not isinstance(arguments, tuple):
        return None
    event, *tokens = template.split(" ")
    if not _event(event):
        return None
    fields: dict[str, Any] = {}
    left = list(arguments)
    for token in tokens:
        match = _field(token)
        if match is None:
            return None
        value: Any = match[2]
        wants = sum(found != "%%" for found in _conversion.findall(value)) if arguments else 0
        if wants > len(left):
            return None
        taken, left = left[:wants], left[wants:]
        if taken and (value in ("%s", "%d") or (value == "%r" and isinstance(taken[0], str))):
            [value] = taken  # as it is: the formatter quotes what has to be quoted
        elif arguments:
            try:
                value = value % tuple(taken)
            except (TypeError, ValueError):
                return None
            if wants == 1 and isinstance(taken[0], float):
                value = _number(value)
        fields[match[1]] = value
    return None if left else (event, fields)


class PlainFormatter(logging.Formatter):
    """Local time, level, event and `key=value` fields: for people."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self.colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One line; the lines of a traceback follow it, indented so that none can pose as a log line."""
        time = datetime.fromtimestamp(record.created).astimezone()
        level = f"{record.levelname.lower():7}"
        if self.colours and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}\x1b[0m"
        parsed = parse(record)
        said, fields = (escaped(_message(record)), {}) if parsed is None else parsed
        fields = fields | _about(record)
        said = " ".join([said, *(f"{name}={_plain(value)}" for name, value in fields.items())])
        line = f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d} {level} {said}"
        trace = _trace(self, record)
        return without_tokens(line + "".join(f"\n    {escaped(part)}" for part in trace.splitlines()))


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always. A traceback is the field `traceback`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": time.replace("+00:00", "Z"), "level": record.levelname.lower()}
        event, fields = parse(record) or ("log", {"message": _message(record)})
        line |= {"event": event, "logger": record.name}
        for name, value in (fields | _about(record)).items():
            line.setdefault(name, _jsonable(value))
        if trace := _trace(self, record):
            line.setdefault("traceback", trace)
        return without_tokens(json.dumps(line, separators=(",", ":")))


def escaped(text: str) -> str:
    r"""`text` in one line without control characters: each becomes `\n`, `\x1b` or `\u2028`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _message(record: logging.LogRecord) -> str:
    """The finished text. A format string that does not fit its arguments must not cost the line."""
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return f"{record.msg} {record.args}"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    parts += [record.stack_info] if record.stack_info else []
    trace = getattr(record, "trace", None)  # of another process
    parts += [trace] if isinstance(trace, str) else []
    return "\n".join(parts)


def _about(record: logging.LogRecord) -> dict[str, Any]:
    """Fields that stand beside the message: which job a line of a worker is about."""
    found = getattr(record, "fields", None)
    return found if isinstance(found, dict) else {}


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    text = _text(value)
    if _plain_value(text) and text.isprintable():
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped(quoted)}"'


def _jsonable(value: object) -> object:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    # The path of a file need not be Unicode, and JSON must be.
    return _text(value).encode("utf-8", "backslashreplace").decode()


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:  # `%.1fms`: a number with its unit
        return text
