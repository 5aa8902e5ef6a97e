"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait after each failure: twice as long each time, 5 s at most, and varied."""

    def __init__(self, first: float = 0.1, most: float = 5.0) -> None:
        self._first, self._most = first, most
        self._next = first

    def next(self) -> float:
        """How long to wait now."""
        wait = self._next
        self._next = min(self._most, self._next * 2)
        return wait * random.uniform(0.8, 1.2)  # noqa: S311  # nosec B311

    def reset(self) -> None:
        """It worked."""
        self._next = self._first
