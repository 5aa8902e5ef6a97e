"""What a job is, the states it can be in, and what a push may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

PRIORITY = 5
PRIORITY_MOST = 9


class JobState(StrEnum):
    """Where a job is in its life."""

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How a job is to be stored. Times are milliseconds; None means that nothing was asked for.

    `delayed` is a moment since the epoch, `delay` and `ttl` count from the store's now. A job with a
    `uniq` key is refused while another job with that key waits; the key is free again when the job is
    fetched (`uniq_until="fetch"`) or finished (`"done"`). `attempts` and `keep` (seconds) override the
    policy of the queue.
    """

    priority: int = PRIORITY
    delayed: int | None = None
    delay: int | None = None
    ttl: int | None = None
    attempts: int | None = None
    keep: int | None = None
    uniq: str | None = None
    uniq_until: str = "fetch"


PLAIN = PushOptions()
"""The options of a push that asks for nothing special, as nearly all do."""


class Fetched(NamedTuple):
    """A job that was taken off its queue for good: its queue, its id, and its body as it came.

    `record` is the job as the store held it, to put it back if its taker turns out to be gone.
    """

    queue: str
    id: str
    body: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The counts and counters of one queue at one moment."""

    queue: str
    ready: int
    scheduled: int
    leased: int
    done: int
    dead: int
    processed: int
    failed: int
    expired: int
    oldest_ms: int | None
    started: bool
    pushed_last_minute: int
    processed_last_minute: int
    failed_last_minute: int


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What is known of one worker. `started_at` is milliseconds since the epoch."""

    worker: str
    started_at: int
    processed: int
    failed: int
