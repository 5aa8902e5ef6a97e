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


class Leased(NamedTuple):
    """A job that is held for a while: until `ends_at` (ms since the epoch), proven by `token`.

    `attempt` is how many times it has been handed out, this time included.
    """

    queue: str
    id: str
    body: bytes
    record: bytes
    attempt: int
    max_attempts: int
    token: str
    ends_at: int


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """What a lease asks for: up to `count` jobs for `ms` milliseconds (None: as the policy says).

    The same `attempt_id` a moment later gets the same jobs again.
    """

    count: int = 1
    ms: int | None = None
    worker: str = ""
    attempt_id: str = ""


class Settle(NamedTuple):
    """One lease to end or extend. What `first` to `fourth` mean is the verb's: see lua/settle.lua."""

    verb: str
    queue: str
    id: str
    token: str
    first: str = ""
    second: str = ""
    third: str = ""
    fourth: str = ""


class Settled(NamedTuple):
    """What became of it: a status as of HTTP, and for 200 the job's new state and the moment it speaks of."""

    status: int
    state: str = ""
    moment: int | None = None


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
