"""Durations, sizes, moments, numbers and switches as people write them: one grammar for all of presque.

The server's parameters, the settings, the workers, the clients and the command line read the same texts, so
that what one of them takes the others take. A value may come typed (from JSON or YAML, or from Python) or as
text (from a query string, a header, the environment or a flag).

What a reader refuses is a `ValueError` that holds the second half of a sentence, "should be … , not …": its
caller knows what the value is called and where it came from, and begins the sentence.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from presque.errors import shown

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

DURATION = "a duration such as 20, 0.5, 500ms, 90s, 5m, 1h30m or 2d"
MOMENT = "epoch seconds or a time such as 2031-05-07T09:30:00Z"
SIZE = "a size such as 512KiB, 2MiB or 1GiB, or a number of bytes"

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SIZES = {"": 1, "b": 1} | {
    # `MB` is 1024 KiB here, as it is in the configuration of the store.
    name: count
    for letter, count in (("k", KIB), ("m", MIB), ("g", GIB), ("t", TIB))
    for name in (letter, f"{letter}b", f"{letter}ib")
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_MOST = 253_402_300_799_999  # the last millisecond of the year 9999
_DURATION_MOST = 10**15  # milliseconds; more than 30 000 years

_number = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?").fullmatch
_whole = re.compile(r"-?[0-9]{1,18}").fullmatch
_parts = re.compile(
    "".join(
        rf"(?:(?P<{unit}>[0-9]{{1,12}}(?:\.[0-9]{{1,9}})?){unit}{'(?!s)' if unit == 'm' else ''})?"
        for unit in _UNITS
    )
).fullmatch
_size = re.compile(r"([0-9]{1,15})[ ]?([A-Za-z]{0,3})").fullmatch
# A plus sign in a query string is a space to most programs, so both are taken before the offset. A leap
# second is the second before it, as most clocks count.
_rfc3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)?", re.ASCII
).fullmatch


def milliseconds(value: object) -> int:
    """A duration in whole milliseconds, rounded up: seconds, a text such as `1h30m`, or a `timedelta`.

    In a text the units are w, d, h, m, s and ms, the largest first. Raises `ValueError`.
    """
    if type(value) is int:
        if 0 <= value <= _DURATION_MOST // 1000:
            return value * 1000
    elif isinstance(value, float):
        if 0 <= value <= _DURATION_MOST / 1000:
            return math.ceil(Decimal(repr(value)) * 1000)  # the digits that were given, not their binary kin
    elif isinstance(value, timedelta):
        if value >= timedelta(0):
            return -(-value // timedelta(milliseconds=1))
    elif isinstance(value, str):
        if _number(value):
            return math.ceil(Decimal(value) * 1000)
        match = _parts(value) if value else None
        if match is not None:
            total = sum(Decimal(count) * _UNITS[unit] for unit, count in match.groupdict().items() if count)
            if total <= _DURATION_MOST:
                return math.ceil(total)
    raise should_be(DURATION, value)


def seconds(value: object) -> float:
    """The same in seconds."""
    return milliseconds(value) / 1000


def moment(value: object) -> int:
    """A moment in milliseconds since the epoch: epoch seconds, an RFC 3339 text, or an aware `datetime`.

    Rounded up, so that what should happen at this moment is never early. A moment before 1970 counts as 1970;
    the last one is the end of the year 9999 in UTC. Raises `ValueError`.
    """
    found = _moment(value)
    if found is None:
        raise should_be(MOMENT, value)
    if found > _EPOCH_MOST:
        raise ValueError(f"should be before the year 10000, not {quoted(value)}")
    return max(0, found)


def _moment(value: object) -> int | None:
    if type(value) is int:
        return value * 1000 if 0 <= value < 10**15 else None
    if isinstance(value, float):
        return math.ceil(Decimal(repr(value)) * 1000) if 0 <= value < 10**15 else None
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise ValueError("should have a time zone: a naive datetime does not say which moment it is")
        return -((_EPOCH - value) // timedelta(milliseconds=1))
    if not isinstance(value, str):
        return None
    if _number(value):
        return math.ceil(Decimal(value) * 1000)
    match = _rfc3339(value)
    if match is None:
        return None
    day, hours, second, fraction, zone = match.groups()
    if zone is None:
        raise ValueError("should end with Z or with an offset such as +02:00")
    offset = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    leap = second == "60"
    try:
        # Python knows neither leap seconds nor fractions of any length.
        found = datetime.fromisoformat(f"{day}T{hours}{'59' if leap else second}{offset}")
    except ValueError:
        return None
    return (found - _EPOCH) // timedelta(seconds=1) * 1000 + math.ceil(Decimal(fraction or "0") * 1000)


def size(value: object) -> int:
    """A number of bytes: `1048576`, `512KiB`, `512K`, `2MiB`, `1GiB`. Raises `ValueError`."""
    if type(value) is int and value >= 0:
        return value
    match = _size(value) if isinstance(value, str) else None
    unit = match[2].lower() if match else None
    if match is None or unit not in _SIZES:
        raise should_be(SIZE, value)
    return int(match[1]) * _SIZES[unit]


def size_text(count: int) -> str:
    """Write a number of bytes the way `size` reads it, in the largest unit that is exact."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count and count % unit == 0:
            return f"{count // unit}{name}"
    return str(count)


def whole(value: object) -> int:
    """A whole number, typed or as text. Raises `ValueError`."""
    if type(value) is int:
        return value
    if isinstance(value, str) and _whole(value):
        return int(value)
    raise should_be("a whole number", value)


def yes_or_no(value: object) -> bool:
    """A switch: true or false, or one of the words for them in any case. Raises `ValueError`."""
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else None
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise should_be("true or false", value)


def counted(count: int, what: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def should_be(wanted: str, value: object) -> ValueError:
    """What a reader raises: the second half of the sentence."""
    return ValueError(f"should be {wanted}, not {quoted(value)}")


def quoted(value: object) -> str:
    """A value as the person who wrote it would recognise it, made safe and short enough for a sentence."""
    match value:
        case None:
            return "null"
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f"`{shown(value)}`" if value else "empty"
        case int():
            return f"`{value}`" if abs(value) < 10**24 else "a number of more than 24 digits"
        case float():
            return "a number that is too large" if math.isinf(value) else f"`{value:.17g}`"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"
