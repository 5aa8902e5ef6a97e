"""The verbs as data: for each the request to send, and how to read the answer. No I/O.

`Client` and `AsyncClient` carry them out, each in its own way, so that both say and understand the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar, cast
from urllib.parse import quote, urlencode

from presque.client.answers import (
    Cron,
    JobPage,
    JobRecord,
    Leased,
    LeasedJob,
    Policy,
    QueueInfo,
    QueueStats,
    QueueWorkers,
    Reason,
    Settled,
    State,
    Stats,
    WorkerInfo,
    WorkerRecord,
    leased,
    settled,
)
from presque.client.errors import NO_JOB, ClientError, refusal
from presque.client.json_values import checked as checked
from presque.client.json_values import decoded
from presque.client.json_values import encoded as encoded
from presque.client.shapes import shaped

T = TypeVar("T")

LEASE_MOST = 1000
"""Jobs in one lease."""
Holder = LeasedJob | Mapping[str, Any]
"""What names a lease: a leased job, or a mapping with `queue`, `id` and `lease`."""


class BatchOptions(TypedDict, total=False):
    """What may be said about a push. `delay`, `ttl` and `keep` are seconds.

    `delayed` is epoch seconds, an RFC 3339 text or a `datetime` with a time zone. With an `idempotency_key`
    the same push may be sent again within a day without being stored twice.
    """

    delay: float | None
    delayed: float | str | datetime | None
    priority: int | None
    ttl: float | None
    attempts: int | None
    keep: float | None
    group: str | None
    idempotency_key: str | None
    traceparent: str | None


class PushOptions(BatchOptions, total=False):
    """What may be said about the push of one job: a unique key, too."""

    uniq: str | None
    uniq_until: Literal["fetch", "done"] | None


class Settlements(TypedDict, total=False):
    """Leases to settle at once, as the body of `POST /settle`: each names `queue`, `id` and `lease`."""

    ack: list[dict[str, Any]]
    fail: list[dict[str, Any]]
    release: list[dict[str, Any]]
    extend: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was fetched. `body` is its text exactly as it was pushed."""

    queue: str
    id: str
    body: str

    @property
    def value(self) -> Any:
        """The JSON value, decoded again at each look."""
        return decoded(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    `reads` says that it changes nothing and may be repeated; `wait` is how many seconds the server may take
    on purpose; `meaning` makes the result of the answer, or raises a `ClientError`.
    """

    method: str
    path: str
    meaning: Callable[[Answer], T]
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    reads: bool = False
    wait: float = 0

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
    query, headers = _push_options(options)
    return Call("POST", f"/q/{_name(queue)}{query}", _id, text, headers)


def push_many(queue: str, texts: Iterable[str], options: BatchOptions) -> Call[list[str]]:
    """Put jobs on a queue, all or none: their ids."""
    query, headers = _push_options(options)
    bodies = list(texts)
    body = f'{{"jobs":[{",".join(bodies)}]}}'.encode()

    def meaning(answer: Answer) -> list[str]:
        ids = shaped(list[str], _object(answer)["ids"])
        if len(ids) != len(bodies):
            raise ValueError("it does not have an id for each job")
        return ids

    return Call("POST", f"/qb/{_name(queue)}{query}", meaning, body, headers)


def put_back(queue: str, text: bytes, worker: str | None) -> Call[str]:
    """Put a failed job back: its new id."""
    return Call("PUT", f"/q/{_name(queue)}", _id, text, _worker(worker))


def fetch(queues: str, wait: float | None, worker: str | None) -> Call[Job | None]:
    """Take a job for good; None when there is none."""

    def meaning(answer: Answer) -> Job | None:
        if _nothing(answer):
            return None
        _accept(answer)
        return Job(answer.headers["presque-queue"], answer.headers["presque-job-id"], answer.body.decode())

    return Call(
        "GET", f"/q/{_name(queues)}{_query(wait=wait)}", meaning, headers=_worker(worker), wait=wait or 0
    )


def fetch_many(queue: str, count: int, worker: str | None) -> Call[list[str]]:
    """Take jobs for good: their texts."""

    def meaning(answer: Answer) -> list[str]:
        found = [] if _nothing(answer) else shaped(list[str], decoded(_accept(answer).body))
        if len(found) > count:
            raise ValueError("there are more jobs than were asked for")
        return found

    return Call("GET", f"/qb/{_name(queue)}{_query(batch_size=count)}", meaning, headers=_worker(worker))


# --- leases


def lease(
    queues: str,
    *,
    count: int | None = None,
    seconds: float | None = None,
    wait: float | None = None,
    attempt_id: str | None = None,
    worker: str | None = None,
    settlements: Settlements | None = None,
    texts: bool = False,
) -> Call[Leased]:
    """Lease jobs, after settling others if `settlements` are given."""
    asked = {"count": count, "seconds": seconds, "wait": wait, "attempt_id": attempt_id}
    fields: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if settlements:
        fields["settle"] = settlements

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

    return Call(
        "POST",
        f"/q/{_name(queues)}/lease",
        meaning,
        encoded(fields).encode(),
        _worker(worker),
        wait=wait or 0,
    )


def settle(settlements: Settlements, worker: str | None = None) -> Call[list[Settled]]:
    """Settle many leases: what became of each, acks first, then fails, releases and extensions."""
    asked = count_of(settlements)
    return Call(
        "POST",
        "/settle",
        lambda a: settled(_object(a)["settled"], asked),
        encoded(settlements).encode(),
        _worker(worker),
    )


def settle_one(verb: str, holder: Holder, fields: Mapping[str, Any], worker: str | None) -> Call[Settled]:
    """Settle one lease."""
    queue, id, lease = named(holder)
    given = {name: value for name, value in fields.items() if value is not None}
    headers = {"Presque-Lease": lease, **(_worker(worker) or {})}
    return Call("POST", f"/j/{_name(queue)}/{_name(id)}/{verb}", _settled, encoded(given).encode(), headers)


def named(holder: Holder) -> tuple[str, str, str]:
    """Queue, id and token of a lease."""
    if isinstance(holder, LeasedJob):
        return holder.queue, holder.id, holder.lease
    return str(holder["queue"]), str(holder["id"]), str(holder["lease"])


# --- single jobs


def job(queue: str, id: str, wait: float | None) -> Call[JobRecord]:
    """All that is known of a job, after waiting for its end if asked to."""
    path = f"/j/{_name(queue)}/{_name(id)}{_query(wait=wait)}"
    return Call("GET", path, _record, reads=True, wait=wait or 0)


def jobs(queue: str, state: State, limit: int | None, cursor: str | None) -> Call[JobPage]:
    """A page of the jobs in one state."""
    path = f"/j/{_name(queue)}{_query(state=state, limit=limit, cursor=cursor)}"
    return Call("GET", path, _of(JobPage), reads=True)


def change(queue: str, id: str, fields: Mapping[str, Any]) -> Call[JobRecord]:
    """Change a job that waits."""
    given = {name: _moment(value) for name, value in fields.items()}
    return Call("PATCH", f"/j/{_name(queue)}/{_name(id)}", _record, encoded(given).encode())


def delete(queue: str, id: str) -> Call[bool]:
    """Take a job away: True, or False if it is leased and goes when its holder lets go."""
    return Call("DELETE", f"/j/{_name(queue)}/{_name(id)}", lambda a: _accept(a).status == 204)


def retry(queue: str, id: str) -> Call[JobRecord]:
    """Let a dead job be tried again."""
    return Call("POST", f"/j/{_name(queue)}/{_name(id)}/retry", _record)


def retry_all(queue: str, limit: int | None, rate: float | None) -> Call[int]:
    """Let dead jobs be tried again: how many."""
    given = {name: value for name, value in {"limit": limit, "rate": rate}.items() if value is not None}
    return Call(
        "POST",
        f"/j/{_name(queue)}/retry",
        lambda a: shaped(int, _object(a)["retried"]),
        encoded(given).encode(),
    )


def explain(queue: str, id: str) -> Call[list[Reason]]:
    """Why a job does not run."""
    path = f"/j/{_name(queue)}/{_name(id)}/explain"
    return Call("GET", path, lambda a: shaped(list[Reason], _object(a)["reasons"]), reads=True)


# --- queues


def purge(queue: str) -> Call[None]:
    """Delete all that a queue holds."""
    return Call("DELETE", f"/q/{_name(queue)}", _none)


def info(queue: str) -> Call[QueueInfo]:
    """The classic counts of a queue."""
    return Call("GET", f"/j/{_name(queue)}", _of(QueueInfo), reads=True)


def status(queue: str | None) -> Call[dict[str, Any]]:
    """The names of all queues, or the size of one."""
    return Call("GET", f"/status/{_name(queue or '')}", _object, reads=True)


def peek(queue: str) -> Call[list[str]]:
    """The texts of the next jobs."""
    return Call(
        "GET",
        f"/status/{_name(queue)}?with_desc=1",
        lambda a: shaped(list[str], _object(a)["jobs"]),
        reads=True,
    )


def control(queue: str, status: str) -> Call[None]:
    """Start or stop a queue."""
    return Call("POST", f"/control/{_name(queue)}", _none, encoded({"status": status}).encode())


def started(queue: str) -> Call[bool]:
    """Whether a queue is started."""
    return Call(
        "GET", f"/control/{_name(queue)}", lambda a: shaped(int, _object(a)["status"]) == 1, reads=True
    )


def all_stats() -> Call[Stats]:
    """All that the dashboard shows."""
    return Call("GET", "/stats/", _of(Stats), reads=True)


def stats(queue: str) -> Call[QueueStats]:
    """All that the dashboard shows of one queue."""
    return Call("GET", f"/stats/{_name(queue)}", _of(QueueStats), reads=True)


def policy(queue: str) -> Call[Policy]:
    """What holds for all jobs of a queue."""
    return Call("GET", f"/p/{_name(queue)}", _of(Policy), reads=True)


def change_policy(queue: str, fields: Mapping[str, Any]) -> Call[Policy]:
    """Change the fields that are given."""
    return Call("PATCH", f"/p/{_name(queue)}", _of(Policy), encoded(fields).encode())


# --- recurring jobs


def crons(after: str | None) -> Call[tuple[list[Cron], str | None]]:
    """A page of recurring jobs, and the cursor for the next."""
    path = "/cron/" if after is None else f"/cron/?cursor={_name(after)}"
    return Call("GET", path, _crons, reads=True)


def _crons(answer: Answer) -> tuple[list[Cron], str | None]:
    page = _object(answer)
    return shaped(list[Cron], page["crons"]), _cursor(page["cursor"])


def cron(name: str) -> Call[Cron]:
    """One recurring job."""
    return Call("GET", f"/cron/{_name(name)}", _of(Cron), reads=True)


def put_cron(name: str, fields: Mapping[str, Any]) -> Call[Cron]:
    """Define a recurring job."""
    return Call("PUT", f"/cron/{_name(name)}", _of(Cron), encoded(fields).encode())


def run_cron(name: str) -> Call[str]:
    """Push the job of a recurring job now: its id."""
    return Call("POST", f"/cron/{_name(name)}/run", _id)


def pause_cron(name: str) -> Call[Cron]:
    """Push no more of a recurring job until it is resumed."""
    return Call("POST", f"/cron/{_name(name)}/pause", _of(Cron))


def resume_cron(name: str) -> Call[Cron]:
    """Go on with a recurring job."""
    return Call("POST", f"/cron/{_name(name)}/resume", _of(Cron))


def delete_cron(name: str) -> Call[None]:
    """Push no more of a recurring job."""
    return Call("DELETE", f"/cron/{_name(name)}", _none)


# --- workers


def workers() -> Call[list[str]]:
    """The ids of the registered workers."""
    return Call("GET", "/w/", lambda a: shaped(list[str], decoded(_accept(a).body)), reads=True)


def worker_records() -> Call[list[WorkerRecord]]:
    """The workers, and what each is doing."""
    return Call(
        "GET", "/w/?with_desc=1", lambda a: shaped(list[WorkerRecord], _object(a)["workers"]), reads=True
    )


def worker_info(worker: str) -> Call[WorkerInfo]:
    """One worker."""
    return Call("GET", f"/w/{_query(worker_id=worker)}", _of(WorkerInfo), reads=True)


def queue_workers(queue: str) -> Call[QueueWorkers]:
    """The workers of one queue."""
    path = f"/w/{_query(queue_name=queue)}"
    return Call("GET", path, _of(QueueWorkers), reads=True)


def register(queue: str, worker: str | None) -> Call[None]:
    """The worker takes jobs of this queue."""
    return Call("POST", f"/w/{_name(queue)}", _none, headers=_worker(worker))


def unregister(queue: str, worker: str | None) -> Call[None]:
    """The worker takes no more jobs of this queue."""
    return Call("DELETE", f"/w/{_name(queue)}", _none, headers=_worker(worker))


def report(worker: str, report: Mapping[str, Any]) -> Call[str]:
    """Say what the worker is doing, and hear what it is asked to be: `start`, `quiet` or `stop`."""
    body = encoded(report).encode()
    return Call("PUT", "/w/", lambda a: shaped(str, _object(a)["status"]), body, _worker(worker))


def leave(worker: str) -> Call[None]:
    """The worker ends: it is forgotten."""
    return Call("DELETE", "/w/", _none, headers=_worker(worker))


def tell_worker(worker: str, status: str) -> Call[None]:
    """Ask a worker to be quiet, to stop, or to go on."""
    return Call("POST", "/w/", _none, encoded({"worker_id": worker, "status": status}).encode())


# --- what calls are made of


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


def _cursor(found: Any) -> str | None:
    return None if found is None else shaped(str, found)


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


def _name(name: str) -> str:
    return quote(name, safe=",*!:@~+")


def _worker(worker: str | None) -> dict[str, str] | None:
    return None if worker is None else {"X-presque-workerid": worker}


def _push_options(options: Mapping[str, Any]) -> tuple[str, dict[str, str] | None]:
    rest = dict(options)
    headers = {
        "Idempotency-Key": rest.pop("idempotency_key", None),
        "traceparent": rest.pop("traceparent", None),
    }
    given = {name: value for name, value in headers.items() if value is not None}
    return _query(**rest), given or None


def _query(**parameters: object) -> str:
    given = {name: _parameter(value) for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _parameter(value: object) -> str:
    value = _moment(value)
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _moment(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone names no moment: give it one")
        return value.isoformat()
    return value
