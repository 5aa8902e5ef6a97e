"""What the server answers: the shapes of its JSON, and a leased job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypedDict

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


class _Page(TypedDict, total=False):
    cursor: str


class _MayBeLeftOut(_Page, total=False):
    found_at_start: FoundAtStart
    namespace: str


class Stats(_MayBeLeftOut):
    """The server: its store, what a crash can lose, and its queues: a page of them, with a `cursor` if there
    are more. `size` is how many there are in all. `found_at_start` is left out for a token that may not see
    every queue, and in a namespace, whose name is in `namespace`."""

    redis: str
    durability: str
    version: str
    disk: Disk | None
    size: int
    queues: list[str]
    by_queue: dict[str, QueueCounts]


class Times(TypedDict):
    """How long something took, in seconds: half of all no longer than `p50`, 95 of 100 no longer than `p95`,
    both right to within half and double, and the mean."""

    p50: float
    p95: float
    mean: float


class Depth(TypedDict):
    """How many jobs there are, by state."""

    ready: int
    leased: int
    scheduled: int
    dead: int


class Happened(TypedDict):
    """What happened in a stretch of time, and how many jobs there were at its end. `wait` is None if no job
    was handed out for the first time, `run` if none was acked or failed."""

    pushed: int
    fetched: int
    done: int
    failed: int
    dead: int
    expired: int
    depth: Depth
    wait: Times | None
    run: Times | None


class _OfAQueue(TypedDict, total=False):
    oldest_seconds: float | None


class Bucket(Happened, _OfAQueue):
    """The same from `at` on, an RFC 3339 time. `oldest_seconds` is how long the oldest ready job had waited
    at the end; only of one queue."""

    at: str


class History(TypedDict):
    """What happened in a period: in buckets of `seconds` each, the oldest first, and in `total`. The last
    bucket is still open. `queue` is None for all queues together."""

    queue: str | None
    over: str
    seconds: int
    until: str
    total: Happened
    buckets: list[Bucket]


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
    leased_at: str | None
    lease_until: str | None
    worker: str | None
    progress: Any
    result: Any
    errors: list[JobFailure]
    finished_at: str | None
    group: str
    uniq: str
    traceparent: str
    cron: str
    expires_at: str
    kept_until: str
    reason: str
    cancel: bool
    saved: Any


class JobPage(TypedDict):
    """Some jobs of one state. `cursor` is None after the last page."""

    jobs: list[JobRecord]
    cursor: str | None


class HowFar(TypedDict):
    """How many jobs in how many queues were looked at."""

    jobs: int
    queues: int


class FoundJobs(TypedDict):
    """Jobs that match. `cursor` is None at the end; `spoilt` are queues that cannot be read."""

    jobs: list[JobRecord]
    looked: HowFar
    spoilt: list[str]
    cursor: str | None


class JobName(TypedDict):
    """A queue, and the id of a job in it."""

    queue: str
    id: str


class FailureKind(TypedDict):
    """Errors that are alike: `like` is what they have in common, `error` the first line of one of them.

    `queues` says how often they were found in which queues, 20 at most; `sample` is the last job.
    """

    like: str
    error: str
    count: int
    first_at: str
    last_at: str
    queues: dict[str, int]
    more_queues: int
    sample: JobName


class Failures(TypedDict):
    """Errors by their kind, those of most jobs first. `cursor` is None at the end."""

    failures: list[FailureKind]
    looked: HowFar
    spoilt: list[str]
    cursor: str | None


class Task(TypedDict):
    """A bulk task. `total` is how many jobs there are to look at, None if that is not known."""

    id: str
    act: str
    queues: str
    state: str
    filter: dict[str, Any]
    to: str | None
    rate: float | None
    limit: int | None
    status: Literal["running", "paused", "cancelling", "done", "cancelled", "failed"]
    looked: int
    matched: int
    done: int
    refused: int
    total: int | None
    queue: str | None
    waits: str | None
    problems: list[str]
    began_at: str
    ended_at: str | None
    by: str | None
    name: str | None


class DryRun(TypedDict):
    """What a task would find: `complete` says whether all jobs were looked at for that."""

    act: str
    queues: str
    dry_run: bool
    matched: int
    looked: HowFar
    complete: bool
    sample: list[JobRecord]


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
    """A number of jobs, and for how many seconds."""

    count: int
    seconds: float


class Policy(TypedDict):
    """The policy of a queue. Times are seconds; None means no limit."""

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


class Clock(TypedDict):
    """What the clock of a server for tests shows, and how many seconds it is ahead of the real time."""

    now: str
    ahead: float


class _Outcome(TypedDict):
    outcome: Literal["done", "dead", "fetched", "expired"]
    id: str
    at: str


class CronOutcome(_Outcome, total=False):
    """How a job that a recurring job pushed ended. `error` is why it is dead, cut to 200 bytes."""

    error: str


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
    last_outcome: CronOutcome | None
    paused: bool
    broken: str | None
    priority: int
    ttl: float
    attempts: int
    keep: float
    group: str


class AccessToken(TypedDict, total=False):
    """What is known of an access token. `token`, its text, is only in the answer of the call that made it."""

    id: str
    name: str
    token: str
    allow: list[str]
    deny: list[str]
    expires: str | None
    sources: list[str]
    rate: dict[str, float] | None
    created_at: str
    made_by: str | None
    namespace: str | None


class Quotas(TypedDict, total=False):
    """How much a namespace may have of each kind; None for what is unlimited."""

    queues: int | None
    jobs: int | None
    bytes: int | None
    connections: int | None
    requests: int | None


class NamespaceInfo(TypedDict, total=False):
    """What is known of a namespace. `usage` says what there is in it, where one was asked for."""

    namespace: str
    quotas: Quotas
    usage: dict[str, int]
    created_at: str
    made_by: str | None
    deleting: bool


class Link(TypedDict):
    """A URL, without the server's address, that is valid with `method` until `expires`, without a token."""

    url: str
    method: str
    allow: str
    expires: str


class ServerFacts(TypedDict):
    """The state of a server process and its store; docs/protocol.md says what `store` and `settings` hold."""

    pid: int
    started_at: str
    now: str
    connections: int
    store: dict[str, Any]
    settings: list[dict[str, Any]] | None


class Rules(TypedDict):
    """What a token allows, or a condition that it was narrowed by. `allow` is None where that denies only."""

    allow: list[str] | None
    deny: list[str]


class Rights(TypedDict):
    """The caller and its rights. Where no `tokens` are used, everybody may do everything; otherwise all
    `rules` must allow it."""

    tokens: bool
    name: str | None
    namespace: str | None
    expires: str | None
    rules: list[Rules]


class WorkerRecord(TypedDict):
    """A worker, and what it said of itself when it was last heard from. `report` is None if it never did."""

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


class LeasedJob(NamedTuple):
    """A job that is held until it is settled, or until `lease_until`. `lease` is the proof of holding it.

    `value` is its JSON decoded. Times are RFC 3339 texts. `text` is the job as it was pushed, if it was asked
    for. `saved` is what an earlier attempt has left, None if there is nothing.
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
    saved: Any = None


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
    return Leased(_jobs(answer["jobs"]), answer.get("settled", []))


def settled(found: Any, asked: int) -> list[Settled]:
    """What became of this many leases. Raises `ValueError` if that is not what was found."""
    if type(found) is not list or len(found) != asked:
        raise ValueError("it does not say what became of each lease")
    for one in found:
        if type(one) is not dict or type(one.get("status", 200)) is not int:
            raise ValueError("it does not say what became of a lease")
    return found


_PLAIN = ("queue", "id", "body", "attempt", "max_attempts", "priority", "pushed_at", "lease", "lease_until")
_KINDS = (str, str, None, int, int, int, str, str, str)
_plain_of = itemgetter(*_PLAIN)
_NO_MORE = (None,) * (len(LeasedJob._fields) - len(_PLAIN))


def _jobs(found: Sequence[Mapping[str, Any]]) -> list[LeasedJob]:
    """Leased jobs. Those that have nothing but what all have are read together, see `bench/workers.py`."""
    if set(map(len, found)) != {len(_PLAIN)}:
        return [_job(one, one["body"]) for one in found]
    rows = list(map(_plain_of, found))
    for values, kind in zip(zip(*rows, strict=True), _KINDS, strict=True):
        if kind is not None and set(map(type, values)) != {kind}:
            raise ValueError("it is not a leased job")
    return [tuple.__new__(LeasedJob, row + _NO_MORE) for row in rows]


_texts_of = itemgetter("queue", "id", "pushed_at", "lease", "lease_until")
_numbers_of = itemgetter("attempt", "max_attempts", "priority")
_TEXTS, _NUMBERS = [str] * 5, [int] * 3


def _job(fields: Mapping[str, Any], value: Any, text: str | None = None) -> LeasedJob:
    """One leased job. On the way of every job: `bench/workers.py`."""
    texts, numbers = _texts_of(fields), _numbers_of(fields)
    group, traceparent = fields.get("group"), fields.get("traceparent")
    if list(map(type, texts)) != _TEXTS or list(map(type, numbers)) != _NUMBERS:
        raise ValueError("it is not a leased job")
    for more in (group, traceparent):
        if more is not None and type(more) is not str:
            raise ValueError("it is not a leased job")
    queue, id, pushed_at, lease, lease_until = texts
    attempt, most, priority = numbers
    return LeasedJob(
        queue, id, value, attempt, most, priority, pushed_at, lease, lease_until, group, traceparent, text,
        fields.get("saved"),
    )  # fmt: skip


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
