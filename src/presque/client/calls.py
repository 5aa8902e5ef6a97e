"""The verbs as data: for each the request to send, made by its row in `presque.verbs`, and how to read the
answer. No I/O.

`Client` and `AsyncClient` carry them out, each in its own way, so that both say and understand the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar, cast
from urllib.parse import quote, urlencode

from presque import quantities
from presque.client.answers import (
    AccessToken,
    Clock,
    Cron,
    DryRun,
    Failures,
    FoundJobs,
    History,
    JobPage,
    JobRecord,
    Leased,
    LeasedJob,
    Link,
    NamespaceInfo,
    Policy,
    QueueInfo,
    QueueStats,
    QueueWorkers,
    Reason,
    Rights,
    ServerFacts,
    Settled,
    State,
    Stats,
    Task,
    WorkerInfo,
    WorkerRecord,
    leased,
    settled,
)
from presque.client.errors import NO_JOB, ClientError, refusal
from presque.client.json_values import decoded, encoded
from presque.client.options import BatchOptions, Changes, Duration, PolicyOptions, PushOptions, Settlements
from presque.client.shapes import shaped
from presque.fields import Field, Fields, Kind
from presque.verbs import VERBS
from presque.verbs.bounds import PAGE_MOST
from presque.verbs.verb import Verb

T = TypeVar("T")

LEASE_MOST = 1000
"""Jobs in one lease."""
CRONS_MOST = 100_000
"""Recurring jobs in one list of all."""
Holder = LeasedJob | Mapping[str, Any]
"""What names a lease: a leased job, or a mapping with `queue`, `id` and `lease`."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was fetched. `body` is its text exactly as it was pushed."""

    queue: str
    id: str
    body: str

    @property
    def value(self) -> Any:
        """The JSON value, decoded at each access."""
        return decoded(self.body)


class Answer(NamedTuple):
    """What the server said. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Pushes:
    """What a push says of itself to those who trace: the queue, how many jobs if it is a batch, and the trace
    that they were given."""

    queue: str
    count: int | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    `reads` says that it changes nothing and may be repeated; `wait` is how many seconds the server may take
    on purpose; `meaning` makes the result of the answer, or raises a `ClientError`; `pushes` is there if it
    brings jobs.
    """

    method: str
    path: str
    meaning: Callable[[Answer], T]
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    reads: bool = False
    wait: float = 0
    pushes: Pushes | None = None

    def read(self, answer: Answer) -> T:
        """The result. Raises a `ClientError`, also for an answer that no presque would give."""
        try:
            return self.meaning(answer)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            text = f"the answer ({answer.status}) cannot be read: is there a presque at this address?"
            raise ClientError(text, status=answer.status, code="unreadable-answer") from error


# --- pushing and fetching


def push(queue: str, text: bytes, options: PushOptions) -> Call[str]:
    """Put a job on a queue: its id."""
    pushes = Pushes(queue, None, options.get("traceparent"))
    return _ask("push", _id, {"queue": queue, **options}, body=text, pushes=pushes)


def push_many(queue: str, texts: Iterable[str], options: BatchOptions) -> Call[list[str]]:
    """Put jobs on a queue, all or none: their ids."""
    bodies = list(texts)

    def meaning(answer: Answer) -> list[str]:
        ids = shaped(list[str], _object(answer)["ids"])
        if len(ids) != len(bodies):
            raise ValueError("it does not have an id for each job")
        return ids

    body = f'{{"jobs":[{",".join(bodies)}]}}'.encode()
    pushes = Pushes(queue, len(bodies), options.get("traceparent"))
    return _ask("push_many", meaning, {"queue": queue, **options}, body=body, pushes=pushes)


def put_back(queue: str, text: bytes, options: PushOptions, worker: str | None) -> Call[str]:
    """Put a failed job back: its new id."""
    pushes = Pushes(queue, None, options.get("traceparent"))
    return _ask("put_back", _id, {"queue": queue, **options}, body=text, worker=worker, pushes=pushes)


def fetch(queues: str, wait: Duration | None, worker: str | None) -> Call[Job | None]:
    """Take a job for good; None when there is none."""

    def meaning(answer: Answer) -> Job | None:
        if _nothing(answer):
            return None
        _accept(answer)
        return Job(answer.headers["presque-queue"], answer.headers["presque-job-id"], answer.body.decode())

    return _ask("fetch", meaning, {"queues": queues, "wait": wait}, worker=worker)


def fetch_many(queue: str, count: int, worker: str | None) -> Call[list[str]]:
    """Take jobs for good: their texts."""

    def meaning(answer: Answer) -> list[str]:
        found = [] if _nothing(answer) else shaped(list[str], decoded(_accept(answer).body))
        if len(found) > count:
            raise ValueError("there are more jobs than were asked for")
        return found

    return _ask("fetch_many", meaning, {"queue": queue, "batch_size": count}, worker=worker)


# --- leases


def lease(
    queues: str,
    *,
    count: int | None = None,
    seconds: Duration | None = None,
    wait: Duration | None = None,
    attempt_id: str | None = None,
    worker: str | None = None,
    settlements: Settlements | None = None,
    texts: bool = False,
) -> Call[Leased]:
    """Lease jobs, after settling others if `settlements` are given."""
    # A repeated attempt gets its jobs again, however many are asked for now.
    most = LEASE_MOST if attempt_id is not None else count or 1
    to_settle = count_of(settlements or {})

    def meaning(answer: Answer) -> Leased:
        if answer.status == 204:
            return Leased([], paused=tuple(filter(None, answer.headers.get("presque-paused", "").split(","))))
        found = leased(_accept(answer).body, texts=texts)
        if len(found.jobs) > most:
            raise ValueError("there are more jobs than were asked for")
        return replace(found, settled=settled(found.settled, to_settle))

    asked = {"queues": queues, "count": count, "seconds": seconds, "wait": wait, "attempt_id": attempt_id}
    return _ask("lease", meaning, {**asked, "settle": settlements or None}, worker=worker)


def settle(settlements: Settlements, worker: str | None = None) -> Call[list[Settled]]:
    """Settle many leases: what became of each, acks first, then fails, releases and extensions."""
    asked = count_of(settlements)
    body = _written(VERBS["settle"].fields, settlements)
    return _ask("settle", lambda a: settled(_object(a)["settled"], asked), {}, body=body, worker=worker)


def settle_one(verb: str, holder: Holder, fields: Mapping[str, Any], worker: str | None) -> Call[Settled]:
    """Settle one lease. A field that is None is as if it were not given."""
    queue, id, lease = named(holder)
    given = {name: value for name, value in fields.items() if value is not None}
    return _ask(verb, _settled, {"queue": queue, "id": id, "lease": lease, **given}, worker=worker)


def named(holder: Holder) -> tuple[str, str, str]:
    """Queue, id and token of a lease."""
    if isinstance(holder, LeasedJob):
        return holder.queue, holder.id, holder.lease
    return str(holder["queue"]), str(holder["id"]), str(holder["lease"])


# --- single jobs


def job(queue: str, id: str, wait: Duration | None) -> Call[JobRecord]:
    """All that is known of a job, after waiting for its end if asked to."""
    return _ask("job", _record, {"queue": queue, "id": id, "wait": wait})


def jobs(queue: str, state: State, limit: int | None, cursor: str | None) -> Call[JobPage]:
    """A page of the jobs in one state."""
    return _ask("jobs", _of(JobPage), {"queue": queue, "state": state, "limit": limit, "cursor": cursor})


def change(queue: str, id: str, changes: Changes) -> Call[JobRecord]:
    """Change a job that waits."""
    return _ask("change", _record, {"queue": queue, "id": id, **changes})


def delete(queue: str, id: str) -> Call[bool]:
    """Take a job away: True, or False if it is leased and goes when its holder lets go."""
    return _ask("delete", lambda a: _accept(a).status == 204, {"queue": queue, "id": id})


def retry(queue: str, id: str) -> Call[JobRecord]:
    """Let a dead job be tried again."""
    return _ask("retry", _record, {"queue": queue, "id": id})


def retry_all(queue: str, limit: int | None, rate: float | None) -> Call[int]:
    """Let dead jobs be tried again: how many."""
    return _ask(
        "retry_all",
        lambda a: shaped(int, _object(a)["retried"]),
        {"queue": queue, "limit": limit, "rate": rate},
    )


def explain(queue: str, id: str) -> Call[list[Reason]]:
    """Why a job does not run."""
    return _ask("explain", lambda a: shaped(list[Reason], _object(a)["reasons"]), {"queue": queue, "id": id})


# --- many jobs


def search(
    queues: str | None, limit: int | None, cursor: str | None, only: Mapping[str, Any]
) -> Call[FoundJobs]:
    """A page of the jobs that match."""
    return _ask("search", _of(FoundJobs), {"queues": queues, "limit": limit, "cursor": cursor, **only})


def failures(queues: str | None, state: str | None, cursor: str | None) -> Call[Failures]:
    """Errors by their kind."""
    return _ask("failures", _of(Failures), {"queues": queues, "state": state, "cursor": cursor})


def import_lines(lines: bytes, name: str | None, batch: int | None) -> Call[int]:
    """Store jobs that were exported: how many."""
    fields = {"import_name": name, "batch": batch}
    return _ask("import", lambda a: shaped(int, _object(a)["imported"]), fields, body=lines)


def new_task(act: str, queues: str, fields: Mapping[str, Any]) -> Call[Task]:
    """Begin a bulk task."""
    return _ask("new_task", _of(Task), {"act": act, "queues": queues, **fields})


def dry_run(act: str, queues: str, fields: Mapping[str, Any]) -> Call[DryRun]:
    """What a bulk task would find."""
    return _ask("new_task", _of(DryRun), {"act": act, "queues": queues, **fields, "dry_run": True})


def tasks(limit: int | None, cursor: str | None) -> Call[tuple[list[Task], str | None]]:
    """A page of bulk tasks, the newest first, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[Task], str | None]:
        page = _object(answer)
        next = page["cursor"]
        return shaped(list[Task], page["tasks"]), None if next is None else shaped(str, next)

    return _ask("tasks", meaning, {"limit": limit, "cursor": cursor})


def task(verb: str, id: str) -> Call[Task]:
    """Look at a bulk task (`task`), or control it."""
    return _ask(verb, _of(Task), {"task_id": id})


# --- queues


def purge(queue: str, forget: bool | None = None) -> Call[None]:
    """Delete all that a queue holds, and the queue itself if it is to be forgotten."""
    return _ask("purge", _none, {"queue": queue, "forget": forget})


def info(queue: str) -> Call[QueueInfo]:
    """The classic counts of a queue."""
    return _ask("info", _of(QueueInfo), {"queue": queue})


def queues(
    queues: str | None = None, busy: bool | None = None, cursor: str | None = None, limit: int | None = None
) -> Call[tuple[list[str], str | None]]:
    """A page of the names of queues, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[str], str | None]:
        page = _object(answer)
        next = page.get("cursor")
        return shaped(list[str], page["queues"]), None if next is None else shaped(str, next)

    return _ask("queues", meaning, {"queues": queues, "busy": busy, "limit": limit, "cursor": cursor})


def onward(cursor: str, following: str | None) -> str | None:
    """The cursor behind the page of `cursor`. Raises a `ClientError` if it does not lead further, since a
    server that answers the same page again and again would never be done with."""
    if following is not None and following <= cursor:
        raise ClientError("the pages of queues do not follow each other", code="unreadable-answer")
    return following


def size(queue: str) -> Call[int]:
    """How many jobs of a queue are ready."""
    return _ask("size", lambda a: shaped(int, _object(a)["size"]), {"queue": queue})


def peek(queue: str) -> Call[list[str]]:
    """The texts of the next jobs."""
    return _ask("size", lambda a: shaped(list[str], _object(a)["jobs"]), {"queue": queue, "with_desc": True})


def control(queue: str, status: str) -> Call[None]:
    """Start or stop a queue."""
    return _ask("control", _none, {"queue": queue}, body=encoded({"status": status}).encode())


def started(queue: str) -> Call[bool]:
    """Whether a queue is started."""
    return _ask("started", lambda a: shaped(int, _object(a)["status"]) == 1, {"queue": queue})


def all_stats(
    queues: str | None = None, busy: bool | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[Stats]:
    """All that the dashboard shows, and a page of the queues."""
    fields = {"queues": queues, "busy": busy, "limit": limit, "cursor": cursor}
    return _ask("all_stats", _of(Stats), fields)


def stats(queue: str) -> Call[QueueStats]:
    """All that the dashboard shows of one queue."""
    return _ask("stats", _of(QueueStats), {"queue": queue})


def history(queue: str | None, over: str | None) -> Call[History]:
    """What happened in a period."""
    return _ask("history", _of(History), {"queue": queue, "over": over})


def policy(queue: str) -> Call[Policy]:
    """What holds for all jobs of a queue."""
    return _ask("policy", _of(Policy), {"queue": queue})


def change_policy(queue: str, changes: PolicyOptions) -> Call[Policy]:
    """Change the fields that are given."""
    return _ask("change_policy", _of(Policy), {"queue": queue, **changes})


# --- recurring jobs


def crons(cursor: str | None = None, limit: int | None = None) -> Call[tuple[list[Cron], str | None]]:
    """A page of recurring jobs, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[Cron], str | None]:
        page = _object(answer)
        next = page["cursor"]
        return shaped(list[Cron], page["crons"]), None if next is None else shaped(str, next)

    return _ask("crons", meaning, {"limit": limit, "cursor": cursor})


def joined(found: list[Cron], more: list[Cron]) -> list[Cron]:
    """Two pages of recurring jobs. Raises a `ClientError` if the second does not go on from the first.

    Otherwise a server that answers the same page again and again would never be done with.
    """
    if not found or not more or more[0]["name"] <= found[-1]["name"] or len(found) > CRONS_MOST:
        raise ClientError("the pages of recurring jobs do not follow each other", code="unreadable-answer")
    return found + more


def cron(name: str) -> Call[Cron]:
    """One recurring job."""
    return _ask("cron", _of(Cron), {"name": name})


def put_cron(name: str, fields: Mapping[str, Any]) -> Call[Cron]:
    """Define a recurring job."""
    return _ask("put_cron", _of(Cron), {"name": name, **fields})


def run_cron(name: str) -> Call[str]:
    """Push the job of a recurring job now: its id."""
    return _ask("run_cron", _id, {"name": name})


def pause_cron(name: str) -> Call[Cron]:
    """Pause a recurring job until it is resumed."""
    return _ask("pause_cron", _of(Cron), {"name": name})


def resume_cron(name: str) -> Call[Cron]:
    """Go on with a recurring job."""
    return _ask("resume_cron", _of(Cron), {"name": name})


def delete_cron(name: str) -> Call[None]:
    """Delete a recurring job."""
    return _ask("delete_cron", _none, {"name": name})


# --- the clock of a server for tests


def clock() -> Call[Clock]:
    """What the clock shows."""
    return _ask("clock", _of(Clock), {})


def move_clock(advance: Duration | None, at: datetime | float | None) -> Call[Clock]:
    """Move the clock."""
    return _ask("move_clock", _of(Clock), {"advance": advance, "at": at})


# --- workers


def workers() -> Call[list[str]]:
    """The ids of the registered workers."""
    return _ask("workers", lambda a: shaped(list[str], decoded(_accept(a).body)), {})


def worker_records() -> Call[list[WorkerRecord]]:
    """The workers, and what each is doing."""
    return _ask("workers", lambda a: shaped(list[WorkerRecord], _object(a)["workers"]), {"with_desc": True})


def worker_info(worker: str) -> Call[WorkerInfo]:
    """One worker."""
    return _ask("workers", _of(WorkerInfo), {"worker_id": worker})


def queue_workers(queue: str) -> Call[QueueWorkers]:
    """The workers of one queue."""
    return _ask("workers", _of(QueueWorkers), {"queue_name": queue})


def register(queue: str, worker: str | None) -> Call[None]:
    """The worker takes jobs of this queue."""
    return _ask("register", _none, {"queue": queue}, worker=worker)


def unregister(queue: str, worker: str | None) -> Call[None]:
    """The worker takes no more jobs of this queue."""
    return _ask("unregister", _none, {"queue": queue}, worker=worker)


def report(worker: str, report: Mapping[str, Any]) -> Call[str]:
    """Say what the worker is doing, and learn which state it is asked for: `start`, `quiet` or `stop`."""
    body = encoded(report).encode()
    return _ask("report", lambda a: shaped(str, _object(a)["status"]), {}, body=body, worker=worker)


def leave(worker: str) -> Call[None]:
    """The worker ends: it is forgotten."""
    return _ask("leave", _none, {}, worker=worker)


def tell_worker(worker: str, status: str) -> Call[None]:
    """Ask a worker to be quiet, to stop, or to go on."""
    return _ask("tell_worker", _none, {"worker_id": worker, "status": status})


# --- access tokens


def new_token(fields: Mapping[str, Any]) -> Call[AccessToken]:
    """Make an access token."""
    return _ask("new_token", _of(AccessToken), fields)


def tokens(cursor: str | None = None) -> Call[tuple[list[AccessToken], str | None]]:
    """A page of access tokens, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[AccessToken], str | None]:
        page = _object(answer)
        next = page["cursor"]
        return shaped(list[AccessToken], page["tokens"]), None if next is None else shaped(str, next)

    return _ask("tokens", meaning, {"cursor": cursor, "limit": PAGE_MOST})


def joined_tokens(found: list[AccessToken], more: list[AccessToken]) -> list[AccessToken]:
    """Two pages of access tokens. Raises a `ClientError` if the second does not go on from the first."""
    if not found or not more or more[0]["id"] <= found[-1]["id"]:
        raise ClientError("the pages of access tokens do not follow each other", code="unreadable-answer")
    return found + more


def revoke_token(id: str) -> Call[None]:
    """Make an access token invalid."""
    return _ask("revoke_token", _none, {"token_id": id})


def new_namespace(name: str, quotas: Mapping[str, Any]) -> Call[NamespaceInfo]:
    """Make a namespace."""
    return _ask("new_namespace", _of(NamespaceInfo), {"namespace": name, "quotas": quotas})


def namespaces(cursor: str | None = None) -> Call[tuple[list[NamespaceInfo], str | None]]:
    """A page of namespaces, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[NamespaceInfo], str | None]:
        page = _object(answer)
        next = page["cursor"]
        return shaped(list[NamespaceInfo], page["namespaces"]), None if next is None else shaped(str, next)

    return _ask("namespaces", meaning, {"cursor": cursor, "limit": PAGE_MOST})


def joined_namespaces(found: list[NamespaceInfo], more: list[NamespaceInfo]) -> list[NamespaceInfo]:
    """Two pages of namespaces. Raises a `ClientError` if the second does not go on from the first."""
    if not found or not more or more[0]["namespace"] <= found[-1]["namespace"]:
        raise ClientError("the pages of namespaces do not follow each other", code="unreadable-answer")
    return found + more


def namespace(name: str) -> Call[NamespaceInfo]:
    """One namespace, and what there is in it."""
    return _ask("namespace", _of(NamespaceInfo), {"namespace": name})


def change_namespace(name: str, quotas: Mapping[str, Any]) -> Call[NamespaceInfo]:
    """Change quotas of a namespace."""
    return _ask("change_namespace", _of(NamespaceInfo), {"namespace": name, "quotas": quotas})


def delete_namespace(name: str) -> Call[None]:
    """Delete a namespace with all that is in it."""
    return _ask("delete_namespace", _none, {"namespace": name})


def audit(limit: int | None, cursor: str | None) -> Call[tuple[list[dict[str, Any]], str | None]]:
    """A page of the audit, newest first, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[dict[str, Any]], str | None]:
        page = _object(answer)
        next = page["cursor"]
        return shaped(list[dict[str, Any]], page["audit"]), None if next is None else shaped(str, next)

    return _ask("audit", meaning, {"limit": limit, "cursor": cursor})


def link(queue: str, id: str, allow: str, expires: Any) -> Call[Link]:
    """Make a URL that is good for one act on one job."""
    return _ask("link", _of(Link), {"queue": queue, "id": id, "allow": allow, "expires": expires})


def whoami() -> Call[Rights]:
    """Who the caller is, and what the caller may do."""
    return _ask("whoami", _of(Rights), {})


def server() -> Call[ServerFacts]:
    """How the server and its store are."""
    return _ask("server", _of(ServerFacts), {})


# --- how a verb is asked


def _ask(
    name: str,
    meaning: Callable[[Answer], T],
    given: Mapping[str, Any],
    *,
    body: bytes | None = None,
    worker: str | None = None,
    pushes: Pushes | None = None,
) -> Call[T]:
    """The request that asks this verb. Each field goes where its row in `verbs` says: path, header, query or
    body. One that is None is as if it were not given, unless null means something; one that no row knows is
    sent as well, so that the server says what is wrong with it.
    """
    verb, parts, nullable = _row(name)
    left = {field: value for field, value in given.items() if value is not None or field in nullable}
    path = "".join([part if text else quote(left.pop(part), safe=",*!:@~+") for part, text in parts])
    wait = seconds_of("wait", left.get("wait")) or 0
    if verb.body == "fields":
        headers = _of_headers(verb, left)
        body, query = _written(verb.fields, left), ""
    else:
        parameters, headers = parameters_of(name, left)
        query = urlencode(parameters) if parameters else ""
    if worker is not None:
        headers["X-presque-workerid"] = worker
    return Call(
        verb.method, f"{path}?{query}" if query else path, meaning, body, headers or None,
        reads=verb.reads, wait=wait, pushes=pushes,
    )  # fmt: skip


def parameters_of(name: str, given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """How these fields of a verb are said: those in the query of its URL, and those in headers."""
    verb = VERBS[name]
    left = {field: value for field, value in given.items() if value is not None}
    headers = _of_headers(verb, left)
    return {field: _text(verb.fields.get(field), field, value) for field, value in left.items()}, headers


def _of_headers(verb: Verb, left: dict[str, Any]) -> dict[str, str]:
    """Take those fields out that are said in headers."""
    return {str(row.header): str(left.pop(row.name)) for row in verb.headers.values() if row.name in left}


@cache
def _row(name: str) -> tuple[Verb, list[tuple[str, bool]], frozenset[str]]:
    """A verb, its path as texts (True) and names of fields (False), and what may be null."""
    verb = VERBS[name]
    pieces = re.split(r"[{}]", verb.path)
    parts = [(piece, number % 2 == 0) for number, piece in enumerate(pieces)]
    nullable = {one.name for one in verb.fields.values() if one.nullable or one.kind is Kind.JSON}
    return verb, parts, frozenset(nullable)


def seconds_of(name: str, value: Duration | None) -> float | None:
    """A duration in seconds. Raises `ValueError` with a sentence about what is called so."""
    if value is None:
        return None
    try:
        found = quantities.milliseconds(value)
    except ValueError as error:
        raise ValueError(f"`{name}` {error}") from None
    return found // 1000 if found % 1000 == 0 else found / 1000


def seconds_within(least: float, most: float, what: str, value: Duration | None) -> float | None:
    """The same within bounds. Raises `ValueError`: so many seconds is `what` may be, and not this."""
    try:
        found = seconds_of(what, value)
    except ValueError:
        found = -1.0
    if found is not None and not least <= found <= most:
        raise ValueError(f"{what} {least:g} to {most:.15g} seconds, not {value}")
    return found


def _plain(field: Field | None, name: str, value: Any) -> Any:
    """A value as JSON can say it: durations are seconds, moments are RFC 3339 texts in UTC."""
    kind = None if field is None else field.kind
    if field is not None and kind is Kind.LIST and isinstance(value, list | tuple):
        return [_plain(field.of, name, one) for one in value]
    if field is not None and kind is Kind.OBJECT and isinstance(value, Mapping):
        rows = {row.name: row for row in field.fields}
        return {part: _plain(rows.get(part), part, one) for part, one in value.items()}
    if kind is Kind.DURATION and isinstance(value, timedelta):
        return seconds_of(name, value)
    if kind is Kind.MOMENT and isinstance(value, datetime):
        try:
            quantities.moment(value)
        except ValueError as error:
            raise ValueError(f"`{name}` {error}") from None
        return value.astimezone(UTC).isoformat()
    return value


def _written(fields: Fields, given: Mapping[str, Any]) -> bytes:
    """The JSON body that says these fields."""
    try:
        return encoded(given).encode()
    except TypeError:  # a duration or a moment: seldom, so what is sent all day is not searched for them
        return encoded({name: _plain(fields.get(name), name, one) for name, one in given.items()}).encode()


def _text(field: Field | None, name: str, value: Any) -> str:
    """A parameter of a query."""
    if field is not None and field.kind is Kind.DURATION:
        value = seconds_of(name, value)
    value = _plain(field, name, value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


# --- what an answer means


def count_of(settlements: Settlements) -> int:
    """How many leases are to be settled."""
    return sum(len(cast(Sequence[Any], leases)) for leases in settlements.values())


def _accept(answer: Answer) -> Answer:
    if answer.status >= 300:
        raise refusal(answer.status, answer.body, answer.headers)
    return answer


def _object(answer: Answer) -> dict[str, Any]:
    return shaped(dict, decoded(_accept(answer).body))


def _of(kind: type[T]) -> Callable[[Answer], T]:
    return lambda answer: shaped(kind, _object(answer))


def _id(answer: Answer) -> str:
    return shaped(str, _object(answer)["id"])


def _record(answer: Answer) -> JobRecord:
    found = shaped(JobRecord, _object(answer))
    if not {"queue", "id", "state"} <= found.keys():
        raise ValueError("it is not a job")
    return found


def _settled(answer: Answer) -> Settled:
    [found] = settled([_object(answer)], 1)
    return found


def _none(answer: Answer) -> None:
    _accept(answer)


def _nothing(answer: Answer) -> bool:
    """Whether this is the 404 that only says that no job waits."""
    if answer.status != 404:
        return False
    return refusal(answer.status, answer.body, answer.headers).code == NO_JOB
