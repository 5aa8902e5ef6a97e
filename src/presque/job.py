"""What a job is, the states it can be in, and what a push may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from presque.verbs.bounds import PRIORITY


class JobState(StrEnum):
    """Where a job is in its life."""

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"
    DELETED = "deleted"
    """Only reported to those who wait for the end of a job: a deleted job is not in the store."""


class PushOptions(msgspec.Struct, frozen=True):
    """How a job is to be stored. Times are milliseconds; None means that nothing was asked for.

    `delayed` is a moment since the epoch, `delay` and `ttl` count from the store's now. A job with a
    `uniq` key is refused while another job with that key waits; the key is free again when the job is
    fetched (`uniq_until="fetch"`) or finished (`"done"`). `attempts` and `keep` (seconds) override the
    policy of the queue. Jobs of different `group`s are handed out in turn. `traceparent` and `tracestate`
    (W3C Trace Context) are kept for whoever takes the job. Of all pushes with one `idempotency` key within a
    day only the first stores anything; `fingerprint` tells whether the others ask for the same. What is
    pushed for a moment of the recurring job `cron` has a `stamp` that grows: one up to the last that its
    queue took stores nothing, unless that one lies in the future by a clock that is `ahead` of the store's.
    """

    priority: int = PRIORITY
    delayed: int | None = None
    delay: int | None = None
    ttl: int | None = None
    attempts: int | None = None
    keep: int | None = None
    uniq: str | None = None
    uniq_until: str = "fetch"
    group: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    idempotency: str | None = None
    fingerprint: str | None = None
    cron: str | None = None
    stamp: str | None = None
    ahead: int | None = None


PLAIN = PushOptions()
"""The options of a push that asks for nothing special, as nearly all do."""


class Replayed(int):
    """The id of a job that an earlier push with the same Idempotency-Key stored: nothing was stored now."""


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

    `attempt` is how many times it has been handed out, this time included. `saved` is the JSON that the
    attempt before has left for this one, empty if it left nothing.
    """

    queue: str
    id: str
    body: bytes
    record: bytes
    attempt: int
    max_attempts: int
    token: str
    ends_at: int
    saved: bytes = b""


class Failure(msgspec.Struct, frozen=True):
    """One attempt that failed. `at` is milliseconds since the epoch."""

    at: int
    worker: str
    error: str
    backtrace: str | None


class Job(msgspec.Struct, frozen=True):
    """A job in the store. Moments are milliseconds since the epoch; None means that there is none.

    `run_at` is when a scheduled job is due, or when one that was scheduled became ready. `progress` and
    `result` are JSON as it came. `attempt` is 0 until the job is leased.
    """

    queue: str
    id: str
    state: JobState
    body: bytes
    priority: int
    attempt: int
    max_attempts: int
    pushed_at: int
    run_at: int | None = None
    lease_until: int | None = None
    leased_at: int | None = None
    kept_until: int | None = None
    expires_at: int | None = None
    finished_at: int | None = None
    group: str | None = None
    uniq: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    cron: str | None = None
    """The recurring job that pushed it."""
    worker: str | None = None
    progress: bytes | None = None
    saved: bytes | None = None
    result: bytes | None = None
    reason: str | None = None
    cancelled: bool = False
    errors: tuple[Failure, ...] = ()
    attempts: int | None = None
    """How many attempts it was pushed with; None: as the policy says."""
    keep: int | None = None
    """For how many seconds it is kept once it is done; None: as the policy says."""
    until_done: bool = False
    """Whether it holds its `uniq` key until it is finished."""


class Explained(msgspec.Struct, frozen=True):
    """What a job and its queue wait for. Moments are milliseconds since the epoch, as in `Job`.

    `ahead` is how many ready jobs come before it, None for too many to count. `free_in_ms` is how long the
    queue's rate allows nothing. `listeners` is how many servers have somebody waiting for a job of the queue,
    or may have.
    """

    state: JobState
    moment: int | None
    stopped_at: int | None
    ahead: int | None
    leased: int
    max_leased: int
    free_in_ms: int | None
    rate_count: int
    rate_ms: int
    group: str | None
    group_held: int
    group_leased: int
    attempt: int
    max_attempts: int
    listeners: int


class Ask(msgspec.Struct, frozen=True):
    """What a fetch or lease asks for: up to `count` jobs, for good, or for `ms` milliseconds (None: as the
    policy says).

    The same `attempt_id` a moment later gets the same leases again.
    """

    count: int = 1
    ms: int | None = None
    worker: str = ""
    attempt_id: str = ""
    for_good: bool = False


NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


def alike(values: Sequence[Any]) -> bool:
    """Whether all of these are the same. Most jobs that are handled together share these
    values, and shared values are handled once: see bench/lease_cpu.py."""
    return not values or values.count(values[0]) == len(values)


class Settle(NamedTuple):
    """One lease to end or extend: `ack`, `fail`, `release` or `extend`, with the fields of that verb.

    The fields of each verb are named in lua/settle.lua; times are milliseconds. `together` is how many jobs
    stand in the same entry of the request, under `ids`; 0 for one that stands there alone, as `id`.
    """

    verb: str
    queue: str
    id: str
    token: str
    fields: Mapping[str, Any] = NO_FIELDS
    together: int = 0


class Settled(NamedTuple):
    """What became of it: a status as of HTTP, and for 200 the job's new state and the moment it speaks of."""

    status: int
    state: str = ""
    moment: int | None = None


class QueueStats(msgspec.Struct, frozen=True):
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


class WorkerRecord(msgspec.Struct, frozen=True):
    """A registered worker and what it said of itself. Times are milliseconds since the epoch.

    `asked` is what it should be: `start`, `quiet` or `stop`. `report` is its JSON, empty if it never reports.
    """

    worker: str
    queues: list[str]
    started_at: int
    seen_at: int
    silent_ms: int
    processed: int
    failed: int
    asked: str
    report: bytes


class WorkerStats(msgspec.Struct, frozen=True):
    """What is known of one worker. `started_at` is milliseconds since the epoch."""

    worker: str
    started_at: int
    processed: int
    failed: int
