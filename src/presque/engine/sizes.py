"""How large answers will be, guessed from the jobs that came before: so calls ask for the room they need.

A guess that is too low lets more bytes come at once than the budget of the store's connection allows, until
the first answer corrects it. One that is too high makes calls wait for each other without need.
"""

from __future__ import annotations

from collections.abc import Mapping

ANSWER_BYTES = 4 * 1024 * 1024
"""What one answer may hold. Its first job is handed out whatever its size."""

JOB_BYTES = 1024 * 1024
"""What one job may have, to look at: the usual largest body. A larger one comes, too."""

UNKNOWN = 16 * 1024
_QUEUES_MOST = 10_000


class Sizes:
    """The sizes of the jobs of each queue."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def of(self, queue: str, count: int) -> int:
        """The bytes that an answer with so many jobs of a queue may have."""
        one = self._sizes.get(queue, UNKNOWN)
        return max(one, min(ANSWER_BYTES, count * one))

    def saw(self, largest: Mapping[str, int]) -> None:
        """Learn from jobs that came: how large the largest of each queue was."""
        for queue, size in largest.items():
            if len(self._sizes) >= _QUEUES_MOST:
                self._sizes.clear()
            # Large jobs count at once, small ones bit by bit: a queue may hold both.
            self._sizes[queue] = max(size, self._sizes.get(queue, 0) * 3 // 4)
