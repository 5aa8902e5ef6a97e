"""Which queues need somebody to look at them, and why. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from presque.client.answers import QueueCounts

LATE_S = 300
UNSERVED_S = 10
SERIOUS = 3
"""From this level on jobs wait or fail."""


class Trouble(NamedTuple):
    """How bad it is, from 0 (all is well) to 4, and a word for it."""

    level: int
    word: str


def trouble(of: QueueCounts) -> Trouble:
    """What is wrong with a queue, the worst of it."""
    minute, oldest = of["last_minute"], of["oldest_seconds"] or 0
    moved = of["leased"] or minute["processed"]
    if not of["status"]:
        return Trouble(3 if of["ready"] else 1, "stopped")
    if of["ready"] and not moved and oldest > UNSERVED_S:
        return Trouble(4, "no worker")
    if minute["failed"] and minute["failed"] * 2 >= minute["processed"]:
        return Trouble(4, "failing")
    if oldest > LATE_S:
        return Trouble(3, "late")
    if of["dead"]:
        return Trouble(2, "dead jobs")
    if of["ready"] and minute["pushed"] > minute["processed"]:
        return Trouble(1, "growing")
    return Trouble(0, "")


Row = tuple[str, QueueCounts]
ORDERS: Mapping[str, Callable[[Row], Any]] = {
    "trouble": lambda row: (-trouble(row[1]).level, -(row[1]["oldest_seconds"] or 0), row[0]),
    "name": lambda row: row[0],
    "ready": lambda row: (-row[1]["ready"], row[0]),
    "dead": lambda row: (-row[1]["dead"], row[0]),
    "oldest": lambda row: (-(row[1]["oldest_seconds"] or 0), row[0]),
    "done": lambda row: (-row[1]["last_minute"]["processed"], row[0]),
}
"""The orders in which queues may stand, the first unless another is chosen."""


def ordered(queues: Mapping[str, QueueCounts], order: str, holding: str = "") -> list[Row]:
    """The queues whose names hold a text, in this order."""
    found: Iterable[Row] = ((name, of) for name, of in queues.items() if holding.lower() in name.lower())
    return sorted(found, key=ORDERS[order])
