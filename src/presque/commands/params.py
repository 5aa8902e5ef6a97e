"""Reads and checks the fields of a request.

Every door hands over what it was sent as text; what comes back is typed and within bounds, or a
`CallerError` that says which field is wrong, what it should be, and that nothing was done.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from presque.errors import CallerError, UnknownParameter, shown
from presque.job import PLAIN, PRIORITY, PRIORITY_MOST, PushOptions

WAIT_MOST = 60
BATCH = 10
BATCH_MOST = 1000
DELAY_MOST = 10 * 365 * 24 * 3600
KEEP_MOST = 365 * 24 * 3600
ATTEMPTS_MOST = 1000
KEY_MOST = 255
MOMENT_MOST = 253_402_300_799_999  # the last millisecond of the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PUSH = ("delayed", "delay", "priority", "ttl", "attempts", "keep", "uniq", "uniq_until", "group")
PUSH_MANY = ("delayed", "delay", "priority", "ttl", "attempts", "keep", "group")

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z").match
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?\Z").match
# A plus sign in a query string is a space to most programs, so both are taken before the offset.
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,6})?)([Zz]|[+ -]\d\d:\d\d)\Z").match


def push_options(fields: Mapping[str, str], known: tuple[str, ...] = PUSH) -> PushOptions:
    """How a job is to be stored, from the fields of a push."""
    if not fields:
        return PLAIN
    only(fields, known)
    if "delay" in fields and "delayed" in fields:
        raise CallerError("give `delay` or `delayed`, not both")
    if "uniq_until" in fields and "uniq" not in fields:
        raise CallerError("`uniq_until` goes with `uniq`: give the key, too")
    return PushOptions(
        priority=whole(fields, "priority", 1, PRIORITY_MOST) or PRIORITY,
        delayed=_moment(fields, "delayed"),
        delay=_milliseconds(fields, "delay", 0, DELAY_MOST),
        ttl=_milliseconds(fields, "ttl", 0.001, DELAY_MOST),
        attempts=whole(fields, "attempts", 1, ATTEMPTS_MOST),
        keep=whole(fields, "keep", 0, KEEP_MOST),
        uniq=_key(fields, "uniq"),
        uniq_until=one_of(fields, "uniq_until", ("fetch", "done"), "fetch"),
        group=_key(fields, "group"),
    )


def with_headers(options: PushOptions, idempotency: str | None, traceparent: str | None) -> PushOptions:
    """The options with what the headers of a push add: `Idempotency-Key` and `traceparent`.

    A traceparent that is none is left out, as W3C Trace Context asks.
    """
    if idempotency is None and traceparent is None:
        return options
    if idempotency is not None:
        if len(idempotency) > 1 and idempotency.startswith('"') and idempotency.endswith('"'):
            idempotency = idempotency[1:-1]  # as a structured field writes it
        if not 1 <= len(idempotency.encode()) <= KEY_MOST:
            raise CallerError(f"`Idempotency-Key` should be a key of 1 to {KEY_MOST} bytes")
    if traceparent is not None and not _TRACEPARENT(traceparent):
        traceparent = None
    return dataclasses.replace(options, idempotency=idempotency, traceparent=traceparent)


def wait(fields: Mapping[str, str], prefer: str | None = None) -> tuple[float, bool]:
    """For how many seconds to wait for a job: the field `wait`, else what a `Prefer` header asks for, and
    whether it was the header that counted.

    A preference is a wish (RFC 7240), so one beyond the bound is cut down and an unreadable one ignored.
    """
    only(fields, ("wait",))
    asked = seconds(fields, "wait", 0, WAIT_MOST)
    if asked is not None:
        return asked, False
    for part in (prefer or "").split(","):
        name, _, value = part.partition("=")
        if name.strip().lower() == "wait" and _NUMBER(value.strip().strip('"')):
            return min(float(value.strip().strip('"')), WAIT_MOST), True
    return 0, False


def only(fields: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Raise `UnknownParameter` for a field that nobody reads."""
    for name in fields:
        if name not in known:
            raise UnknownParameter(name, known)


def whole(fields: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """A whole number within bounds; None when it was not given."""
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
        raise CallerError(f"`{name}` should be a whole number from {least} to {most}, not `{shown(text)}`")
    return int(text)


def seconds(fields: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    """A number of seconds within bounds, such as `20` or `0.5`; None when it was not given."""
    text = fields.get(name)
    if text is None:
        return None
    if not _NUMBER(text) or not least <= float(text) <= most:
        raise CallerError(f"`{name}` should be seconds from {least} to {most}, not `{shown(text)}`")
    return float(text)


def one_of(fields: Mapping[str, str], name: str, words: tuple[str, ...], default: str) -> str:
    """One of a few words."""
    text = fields.get(name, default)
    if text not in words:
        raise CallerError(f"`{name}` should be {' or '.join(f'`{w}`' for w in words)}, not `{shown(text)}`")
    return text


def flag(fields: Mapping[str, str], name: str) -> bool:
    """Whether a switch such as `with_desc=1` is on."""
    return one_of(fields, name, ("1", "0"), "0") == "1"


def figure(value: float) -> str:
    """A number that a caller sent, to be quoted in a sentence. An integer may be too large for a float."""
    try:
        return f"{value:.15g}"
    except OverflowError:
        return "one that is far too large"


def _milliseconds(fields: Mapping[str, str], name: str, least: float, most: float) -> int | None:
    found = seconds(fields, name, least, most)
    return None if found is None else math.ceil(found * 1000)


def _moment(fields: Mapping[str, str], name: str) -> int | None:
    """A moment as seconds since the epoch or as RFC 3339 writes it, in milliseconds since the epoch."""
    text = fields.get(name)
    if text is None:
        return None
    if _NUMBER(text):
        return _within(name, text, math.ceil(Decimal(text) * 1000))
    match = _RFC3339(text)
    if match:
        day, time, zone = match.groups()
        offset = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
        try:
            moment = datetime.fromisoformat(f"{day}T{time}{offset}")
        except (ValueError, OverflowError):
            pass
        else:
            return _within(name, text, -((_EPOCH - moment) // timedelta(milliseconds=1)))  # never early
    raise CallerError(
        f"`{name}` should be epoch seconds or a time like 2031-05-07T09:30:00Z, not `{shown(text)}`"
    )


def _within(name: str, text: str, moment: int) -> int:
    """A moment from 1970 on. After the year 9999 there is none: answers could not write it."""
    if moment > MOMENT_MOST:
        raise CallerError(f"`{name}` should be before the year 10000, not `{shown(text)}`")
    return max(0, moment)


def _key(fields: Mapping[str, str], name: str) -> str | None:
    text = fields.get(name)
    if text is not None and not 1 <= len(text.encode()) <= KEY_MOST:
        raise CallerError(f"`{name}` should be a key of 1 to {KEY_MOST} bytes")
    return text
