"""How many jobs to hold ahead of those that run, so that quick jobs need few requests. No I/O.

The bound is a time, not a number: as many jobs as take about 50 ms.
"""

from __future__ import annotations

AHEAD_S = 0.05
ROOM_MOST = 1000
FIRST, GROWTH = 32, 4
"""How many are held ahead once the first job was quick, and how many times as many after each answer: each
step costs a round trip in which a quick worker is idle (bench/workers.py)."""


class Ahead:
    """Learns from how long jobs take. `most` is the bound whatever they take, 0 for none ahead."""

    def __init__(self, slots: int, most: int) -> None:
        self._slots, self._most = slots, most
        self._count = 0
        self._pace: float | None = None

    @property
    def some(self) -> bool:
        """Whether any are held ahead."""
        return self._count > 0

    def learn(self, busy_s: float, count: int) -> None:
        """This many jobs took this long, all together."""
        pace = busy_s / count
        self._pace = pace if self._pace is None else 0.7 * self._pace + 0.3 * pace
        wanted = int(self._slots * AHEAD_S / max(self._pace, 1e-6))
        self._count = min(wanted, max(FIRST, self._count * GROWTH), self._most)

    def forget(self) -> None:
        """A job takes long after all: hold none ahead until the next ones have been seen."""
        self._count, self._pace = 0, None

    def room(self, held: int) -> int:
        """How many jobs to ask for: none until a quarter of those held ahead are under way.

        The others are worked on until the answer comes.
        """
        if held - self._slots > self._count * 3 // 4:
            return 0
        return max(0, min(self._slots + self._count - held, ROOM_MOST))
