"""Moments as the answers write them: RFC 3339, UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def moment(milliseconds: int) -> str:
    """Milliseconds since the epoch as `2031-05-07T09:30:00.123Z`."""
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """Many moments of one answer fall into the same second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
