"""Moments as the answers write them: RFC 3339, UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

LAST_MS = 253_402_300_799_999


def moment(milliseconds: int) -> str:
    """Milliseconds since the epoch as `2031-05-07T09:30:00.123Z`.

    A moment after the year 9999, which RFC 3339 cannot write, is written as the last one of that year.
    """
    milliseconds = min(milliseconds, LAST_MS)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """Many moments of one answer fall into the same second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
