"""What the server answers: the shapes of its JSON, and a leased job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from presque.client.json_values import decoded

State = Literal["scheduled", "ready", "leased", "done", "dead"]


class LastMinute(TypedDict):
    """What happened to a queue in the last minute."""

    pushed: int
    processed: int
    failed: int


class QueueCounts(TypedDict):
    """Counts by state, of all time, and of the last minute. `oldest_seconds` is None when none is ready."""

    ready: int
    scheduled: int
    leased: int
    done: int
    dead: int
    processed: int
    failed: int
    expired: int
    oldest_seconds: float | None
    status: int
    last_minute: LastMinute


class QueueStats(QueueCounts):
    """The same with the name of the queue."""

    queue: str


class FoundAtStart(TypedDict):
    """What was there when the server started."""

    jobs: int
    queues: int


class Disk(TypedDict):
    """The disk of presque's own store: free bytes, the limit, and whether nothing is taken because of it."""

    free: int | None
    min_free: int
    full: bool


class Stats(TypedDict):
    """The server: its store, what a crash can lose, and its queues."""

    redis: str
    durability: str
    version: str
    found_at_start: FoundAtStart
    disk: Disk | None
    size: int
    queues: list[str]
    by_queue: dict[str, QueueCounts]


class QueueInfo(TypedDict):
    """The counts of the classic route."""

    queue_name: str
    job_count: int
    job_processed: int
    job_failed: int


class JobFailure(TypedDict):
    """One failed attempt. `at` is an RFC 3339 time."""

    at: str
    worker: str | None
    error: str
    backtrace: str | None


class JobRecord(TypedDict, total=False):
    """All that is known of a job. Times are RFC 3339 texts; those of some jobs only may be missing."""

    queue: str
    id: str
    state: State
    body: Any
    priority: int
    attempt: int
    max_attempts: int
    pushed_at: str
    run_at: str | None
    lease_until: str | None
    worker: str | None
    progress: Any
    result: Any
    errors: list[JobFailure]
    finished_at: str | None
    group: str
    uniq: str
    traceparent: str
    expires_at: str
    kept_until: str
    reason: str
    cancel: bool


class JobPage(TypedDict):
    """Some jobs of one state. `cursor` is None after the last page."""

    jobs: list[JobRecord]
    cursor: str | None


class Settled(TypedDict, total=False):
    """What became of one lease. `status` is 200, or why not: 409 lease lost, 410 job gone, 404 unknown."""

    queue: str
    id: str
    status: int
    state: Literal["done", "ready", "scheduled", "dead", "leased", "deleted"]
    run_at: str
    lease_until: str
    cancel: bool
    error: str
    code: str


class Reason(TypedDict):
    """One reason why a job does not run: a stable word, and a sentence."""

    code: str
    text: str


class Backoff(TypedDict):
    """How long a job waits after a failure, in seconds."""

    first: float
    factor: float
    most: float
    jitter: float


class Rate(TypedDict):
    """So many jobs in so many seconds."""

    count: int
    seconds: float


class Policy(TypedDict):
    """What holds for all jobs of a queue. Times are seconds; None is no limit."""

    queue: str
    lease: float
    max_attempts: int
    backoff: Backoff
    ttl: float | None
    keep: float
    dead_most: int
    max_length: int | None
    overflow: str
    max_leased: int | None
    group_leased: int | None
    rate: Rate | None
    expires: float | None
    delivery: Literal["queue", "broadcast", "roundrobin"]


class Cron(TypedDict, total=False):
    """A recurring job: its definition, the schedule in words, its next five moments.

    `broken` says why the server cannot read it; then what it could not read is None.
    """

    name: str
    queue: str | None
    body: Any
    schedule: str | None
    words: str | None
    timezone: str | None
    missed: Literal["once", "all", "skip"] | None
    overlap: Literal["allow", "skip"] | None
    next: list[str]
    last_fired: str | None
    paused: bool
    broken: str | None
    priority: int
    ttl: float
    attempts: int
    keep: float
    group: str


class WorkerRecord(TypedDict):
    """A worker, and what it said of itself when it was last heard of. `report` is None if it never did."""

    worker_id: str
    queues: list[str]
    started_at: str
    seen_at: str
    silent_seconds: float
    processed: int
    failed: int
    status: Literal["start", "quiet", "stop"]
    report: dict[str, Any] | None


class WorkerInfo(TypedDict):
    """One worker that is registered, and how many jobs it did."""

    worker_id: str
    started_at: str
    processed: int
    failed: int


class QueueWorkers(TypedDict):
    """The ids of the workers of one queue, and how many of its jobs were done."""

    queue_name: str
    workers_list: list[str]
    processed: int
    failed: int


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job that is held until it is settled, or until `lease_until`. `lease` is the proof of holding it.

    `value` is its JSON decoded. Times are RFC 3339 texts. `text` is the job as it was pushed, if it was asked
    for.
    """

    queue: str
    id: str
    value: Any
    attempt: int
    max_attempts: int
    priority: int
    pushed_at: str
    lease: str
    lease_until: str
    group: str | None = None
    traceparent: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Leased:
    """The answer to a lease: jobs, what became of leases settled with it, and which queues are stopped."""

    jobs: list[LeasedJob]
    settled: list[Settled] = field(default_factory=list)
    paused: tuple[str, ...] = ()


def leased(body: bytes, *, texts: bool) -> Leased:
    """Read the answer to a lease, with the text of each job if `texts` are asked for.

    Raises `ValueError` or `LookupError` for what is not one.
    """
    if texts:
        jobs, rest = _apart(body.decode())
        found = [_job(decoded(fields), decoded(text), text) for fields, text in jobs]
        return Leased(found, decoded(rest).get("settled", []))
    answer = decoded(body)
    if type(answer["jobs"]) is not list:
        raise ValueError("its jobs are not a list")
    return Leased([_job(one, one["body"]) for one in answer["jobs"]], answer.get("settled", []))


def settled(found: Any, asked: int) -> list[Settled]:
    """What became of so many leases. Raises `ValueError` if that is not what was found."""
    if type(found) is not list or len(found) != asked:
        raise ValueError("it does not say what became of each lease")
    for one in found:
        if type(one) is not dict or type(one.get("status", 200)) is not int:
            raise ValueError("it does not say what became of a lease")
    return found


def _job(fields: Mapping[str, Any], value: Any, text: str | None = None) -> LeasedJob:
    job = LeasedJob(
        fields["queue"], fields["id"], value, fields["attempt"], fields["max_attempts"], fields["priority"],
        fields["pushed_at"], fields["lease"], fields["lease_until"], fields.get("group"),
        fields.get("traceparent"), text,
    )  # fmt: skip
    texts = (job.queue, job.id, job.pushed_at, job.lease, job.lease_until)
    numbers = (job.attempt, job.max_attempts, job.priority)
    if any(type(one) is not str for one in texts) or any(type(one) is not int for one in numbers):
        raise ValueError("it is not a leased job")
    for more in (job.group, job.traceparent):
        if more is not None and type(more) is not str:
            raise ValueError("it is not a leased job")
    return job


_plain = re.compile(r"[^,\]}\s]+").match
_token = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL).finditer


def _apart(text: str) -> tuple[list[tuple[str, str]], str]:
    """The jobs of an answer, each as its fields with a null body and the body, and the answer without jobs.

    Brackets are counted, so that the depth of a job costs no stack. A body is what stands at the second
    level of the list `jobs` under the key `body`; what comes behind it begins with the key `attempt`.
    """
    jobs: list[tuple[str, str]] = []
    begin = text.index('"jobs":[') + len('"jobs":')
    end = begin
    for start, stop in _members(text, begin):
        opening = text.index('"body":', start) + len('"body":')
        closing = text.index(",", _end_of_value(text, opening))  # spaces around a job are part of it
        jobs.append((f"{text[start:opening]}null{text[closing:stop]}", text[opening:closing]))
        end = stop
    end = text.index("]", end)
    return jobs, f"{text[:begin]}[{text[end:]}"


def _members(text: str, begin: int) -> Iterator[tuple[int, int]]:
    """Where each object of the array that begins at `begin` starts and stops."""
    at = begin + 1
    while text[at] != "]":
        stop = _end_of_value(text, at)
        yield at, stop
        at = stop + 1 if text[stop] == "," else stop


def _end_of_value(text: str, at: int) -> int:
    """Just behind the JSON value that begins at `at`."""
    while text[at] in " \t\r\n":
        at += 1
    depth = 0
    for match in _token(text, at):
        found = match[0]
        if depth == 0 and match.start() > at and found[0] in '"{[]}':
            break  # a number, true, false or null, and then something else
        if found in ("[", "{"):
            depth += 1
        elif found in ("]", "}"):
            depth -= 1
        if depth == 0:
            return match.end()
    plain = _plain(text, at)
    assert plain is not None
    return plain.end()
