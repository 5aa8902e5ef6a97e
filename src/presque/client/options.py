"""Options of a push, a change, a policy: the types of keyword arguments.

A `Duration` is seconds, a `timedelta`, or a text such as "90s" or "1h30m". A `Moment` is epoch seconds, an
RFC 3339 text, or a `datetime` that has a time zone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

Duration = float | str | timedelta
Moment = float | str | datetime


class BatchOptions(TypedDict, total=False):
    """Options of a push of one job or many.

    With an `idempotency_key` the same push may be sent again within a day without being stored twice.
    """

    delay: Duration | None
    delayed: Moment | None
    priority: int | None
    ttl: Duration | None
    attempts: int | None
    keep: Duration | None
    group: str | None
    idempotency_key: str | None
    traceparent: str | None
    tracestate: str | None


class PushOptions(BatchOptions, total=False):
    """Options of the push of one job: a unique key, too."""

    uniq: str | None
    uniq_until: Literal["fetch", "done"] | None


class Filter(TypedDict, total=False):
    """The filter of a search: see `GET /search` in the protocol."""

    state: Literal["scheduled", "ready", "leased", "done", "dead", "any"] | None
    find: str | None
    text: str | None
    error: str | None
    like: str | None
    older: Duration | None
    newer: Duration | None
    group: str | None
    worker: str | None
    priority: int | None


class TaskOptions(Filter, total=False):
    """Options of a bulk task: where to move jobs, how many a second, how many in all."""

    to: str | None
    rate: float | None
    limit: int | None


class Changes(TypedDict, total=False):
    """What can be changed of a job that waits. A `body` of None is a job that is null."""

    priority: int
    delay: Duration
    delayed: Moment
    body: Any


class BackoffOptions(TypedDict, total=False):
    """How long a failed job waits."""

    first: Duration
    factor: float
    most: Duration
    jitter: float


class RateOptions(TypedDict):
    """At most `count` jobs in any `seconds`."""

    count: int
    seconds: Duration


class PolicyOptions(TypedDict, total=False):
    """What can be set for all jobs of a queue. None restores the default."""

    lease: Duration | None
    max_attempts: int | None
    backoff: BackoffOptions | None
    ttl: Duration | None
    keep: Duration | None
    dead_most: int | None
    max_length: int | None
    overflow: Literal["reject"] | None
    max_leased: int | None
    group_leased: int | None
    rate: RateOptions | None
    expires: Duration | None
    delivery: Literal["queue", "broadcast", "roundrobin"] | None


class CronOptions(TypedDict, total=False):
    """Options of a recurring job, besides its queue, body and schedule."""

    timezone: str
    missed: Literal["once", "all", "skip"]
    overlap: Literal["allow", "skip"]
    priority: int
    ttl: Duration
    attempts: int
    keep: Duration
    group: str


class Settlements(TypedDict, total=False):
    """Leases to settle at once, as the body of `POST /settle`: each names `queue`, `id` and `lease`.

    Several jobs with the same token, such as those of one lease, can be one entry, with `ids` and no `id`.
    """

    ack: list[dict[str, Any]]
    fail: list[dict[str, Any]]
    release: list[dict[str, Any]]
    extend: list[dict[str, Any]]
