"""Durations and moments, as people write them on a command line."""

from __future__ import annotations

import re
from datetime import datetime

import click

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_parts = re.compile(
    r"(?:(?P<d>[0-9]{1,6})d)?(?:(?P<h>[0-9]{1,6})h)?(?:(?P<m>[0-9]{1,6})m(?!s))?"
    r"(?:(?P<s>[0-9]{1,9}(?:\.[0-9]{1,3})?)s)?(?:(?P<ms>[0-9]{1,9})ms)?"
).fullmatch
_seconds = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,3})?").fullmatch
_epoch = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,3})?").fullmatch
_rfc3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?P<offset>[Zz]|[+-][0-9]{2}:[0-9]{2})?"
).fullmatch


def duration(text: str) -> float:
    """Seconds in `90s`, `5m`, `1h30m`, `2d`, `500ms` or plain `20`. Raises `ValueError` with a sentence."""
    if _seconds(text):
        return float(text)
    match = _parts(text)
    if not text or match is None:
        raise ValueError("should be a duration such as 20, 90s, 5m, 1h30m or 500ms")
    return sum(float(count) * _UNITS[unit] for unit, count in match.groupdict().items() if count)


def moment(text: str) -> float:
    """Epoch seconds of an RFC 3339 time with its offset, or of epoch seconds. Raises `ValueError`."""
    if _epoch(text):
        return float(text)
    match = _rfc3339(text)
    try:
        # Python reads fractions of any length, and the Z, only in upper case.
        time = datetime.fromisoformat(text.upper()) if match else None
    except ValueError as error:
        raise ValueError(f"is no moment: {error}") from None
    if match is None or time is None:
        raise ValueError("should be a time such as 2026-05-01T09:00:00Z, or epoch seconds")
    if match["offset"] is None:
        raise ValueError("should say its offset: end it with Z, or with one such as +02:00")
    return time.timestamp()


class Duration(click.ParamType[float]):
    """A duration as an option: seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text, or fail as click wants it."""
        try:
            return value if isinstance(value, float) else duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[float]):
    """A moment as an option: epoch seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text, or fail as click wants it."""
        try:
            return value if isinstance(value, float) else moment(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
