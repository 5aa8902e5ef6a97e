"""What the server answers: the shapes of its JSON, and a leased job."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

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
    tracestate: str
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
    """What became of one lease. `status` is 200, or why not: 409 lease lost, 410 job gone, 404 unknown.

    Those that were settled together, by `ids`, and fared alike have one such answer, with `ids`.
    """

    queue: str
    id: str
    ids: list[str]
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
