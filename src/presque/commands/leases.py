"""Verbs on leases: lease, settle (ack, fail, release, extend)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from presque import codec, names
from presque.commands import params
from presque.commands.times import moment
from presque.engine.engine import Engine
from presque.engine.lines import Taker, Waiter
from presque.engine.replies import traceparent_of
from presque.errors import CallerError, JobGone, LeaseLost, NotFound, NotJson, PresqueError
from presque.job import NO_FIELDS, LeaseAsk, Leased, Settle, Settled
from presque.names import QueueList

COUNT_MOST = 1000
SECONDS_MOST = 12 * 3600
SETTLE_MOST = 1000
TEXT_MOST = 64 * 1024
ATTEMPT_ID_MOST = 128


class LeaseRequest(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a lease. Every field may also be a parameter, but `settle`."""

    count: int | None = None
    seconds: float | None = None
    wait: float | None = None
    attempt_id: str | None = None
    settle: SettleRequest | None = None


class _Lease(codec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    queue: str
    id: str
    lease: str


class Ack(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job is done."""

    result: codec.Raw = codec.NOTHING


class Fail(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job did not work: it is tried again later, or dead."""

    error: str = ""
    backtrace: str = ""
    retry_in: float | None = None
    retry: bool = True


class Release(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job is given back; that is no failure."""

    delay: float = 0


class Extend(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job takes longer: the lease ends so many seconds from now."""

    seconds: float | None = None
    progress: codec.Raw = codec.NOTHING


class SettleRequest(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of /settle: any number of leases, answered in this order."""

    ack: tuple[Ack, ...] = ()
    fail: tuple[Fail, ...] = ()
    release: tuple[Release, ...] = ()
    extend: tuple[Extend, ...] = ()


def lease_ask(request: LeaseRequest, fields: Mapping[str, str], worker: str | None) -> tuple[LeaseAsk, float]:
    """What a lease asks for, and for how long it waits."""
    params.only(fields, ("count", "seconds", "wait", "attempt_id"))
    for name in fields:
        if getattr(request, name) is not None:
            raise CallerError(f"`{name}` is given in the body and in the query: give it once")
    count = _first(request.count, params.whole(fields, "count", 1, COUNT_MOST), 1)
    seconds = _first(request.seconds, params.seconds(fields, "seconds", 1, SECONDS_MOST), None)
    wait = _first(request.wait, params.seconds(fields, "wait", 0, params.WAIT_MOST), 0.0)
    attempt_id = _first(request.attempt_id, fields.get("attempt_id"), "")
    _within("count", count, 1, COUNT_MOST)
    if seconds is not None:
        _within("seconds", seconds, 1, SECONDS_MOST)
    _within("wait", wait, 0, params.WAIT_MOST)
    if len(attempt_id.encode()) > ATTEMPT_ID_MOST:
        raise CallerError(f"`attempt_id` should be at most {ATTEMPT_ID_MOST} bytes")
    return LeaseAsk(count, None if seconds is None else int(seconds * 1000), worker or "", attempt_id), wait


def lease(engine: Engine, queues: QueueList, ask: LeaseAsk, wait: float, take: Taker) -> Waiter | None:
    """Lease jobs, waiting up to `wait` seconds for the first. See `Engine.lease` for the promises."""
    return engine.lease(queues, ask, wait, take)


def settles(request: SettleRequest) -> list[Settle]:
    """The leases of a settle request, checked, in the order in which they are answered."""
    found = [
        *_acks(request.ack),
        *(
            _settle(
                "fail",
                one,
                error=_text("error", one.error),
                backtrace=_text("backtrace", one.backtrace),
                retry_in=_milliseconds("retry_in", one.retry_in),
                retry=None if one.retry else False,
            )
            for one in request.fail
        ),
        *(
            _settle("release", one, delay=_milliseconds("delay", one.delay) or None)
            for one in request.release
        ),
        *(
            _settle(
                "extend",
                one,
                ms=_milliseconds("seconds", one.seconds, 1, SECONDS_MOST),
                progress=_json("progress", one.progress),
            )
            for one in request.extend
        ),
    ]
    if len(found) > SETTLE_MOST:
        raise CallerError(f"at most {SETTLE_MOST} leases can be settled at once, not {len(found)}")
    return found


def single(
    verb: str, queue: str, job: str, body: bytes, fields: Mapping[str, str], header: str | None
) -> Settle:
    """One lease to settle by its own route. Its token comes in the header, the query or the body."""
    params.only(fields, ("lease",))
    given = codec.decode_request(body, dict[str, codec.Raw])
    tokens = [header, fields.get("lease")]
    if sum(token is not None for token in tokens) + ("lease" in given) != 1:
        raise CallerError("give the token of the lease once: in Presque-Lease, ?lease= or the body")
    token = next((t for t in tokens if t is not None), None)
    whole: dict[str, Any] = {**given, "queue": queue, "id": job}
    if token is not None:
        whole["lease"] = token
    request = codec.decode_request(codec.encode({verb: [whole]}), SettleRequest)
    return settles(request)[0]


async def settle(engine: Engine, leases: Sequence[Settle], worker: str | None) -> list[dict[str, Any]]:
    """End or extend leases of any queues. Returns what became of each, in their order."""
    results = await engine.settle_many(leases)
    if worker is not None:
        count(engine, worker, leases, results)
    return [told(one, result) for one, result in zip(leases, results, strict=True)]


def count(engine: Engine, worker: str, leases: Sequence[Settle], results: Sequence[Settled]) -> None:
    """Add what a worker settled to its counters."""
    settled = [one.verb for one, result in zip(leases, results, strict=True) if result.status == 200]
    done, failed = settled.count("ack"), settled.count("fail")
    if done or failed:
        engine.count_worker(worker, done, failed)


def told(one: Settle, result: Settled) -> dict[str, Any]:
    """What became of one lease, as the answers show it."""
    _, queue, job_id, _, _ = one
    if result.status == 200 and result.moment is None:
        return {"queue": queue, "id": job_id, "status": 200, "state": result.state}
    answer: dict[str, Any] = {"queue": queue, "id": job_id, "status": result.status}
    if result.status != 200:
        error = refusal(result.status)
        return answer | {"error": str(error), "code": error.code}
    answer["state"] = "leased" if result.state == "cancel" else result.state
    if result.state == "scheduled" and result.moment is not None:
        answer["run_at"] = moment(result.moment)
    elif result.moment is not None:
        answer["lease_until"] = moment(result.moment)
    if result.state == "cancel":
        answer["cancel"] = True
    return answer


def refusal(status: int) -> PresqueError:
    """Why a lease was not settled."""
    if status == 409:
        return LeaseLost()
    return JobGone() if status == 410 else NotFound("there is no such job in this queue")


def settled_part(settled: Sequence[dict[str, Any]]) -> bytes:
    """What the answer of a lease says of the leases that it settled first."""
    return b',"settled":' + codec.encode(settled)


def lease_answer(leased: Sequence[Leased], settled: bytes) -> bytes:
    """The answer of a lease: the jobs, each body as its own bytes, and what was settled first."""
    return b'{"jobs":[%b]%b}' % (b",".join([job_answer(job) for job in leased]), settled)


def job_answer(job: Leased) -> bytes:
    """One leased job as the answers list it."""
    queue, job_id, body, record, attempt, max_attempts, token, ends_at = job
    return b'{"queue":"%b","id":"%b","body":%b,%b%b}' % (
        queue.encode(),
        job_id.encode(),
        body,
        _about(attempt, max_attempts, record[1:8], token, ends_at),
        b',"traceparent":"%b"' % trace.encode() if (trace := traceparent_of(record)) else b"",
    )


@functools.lru_cache(maxsize=1024)
def _about(attempt: int, max_attempts: int, header: bytes, token: str, ends_at: int) -> bytes:
    """What jobs that were pushed together, and leased together, have in common. `header` is from a record."""
    return (
        b'"attempt":%d,"max_attempts":%d,"priority":%d,"pushed_at":"%b","lease":"%b","lease_until":"%b"'
        % (
            attempt,
            max_attempts,
            header[0],
            moment(int.from_bytes(header[1:], "big")).encode(),
            token.encode(),
            moment(ends_at).encode(),
        )
    )


def _acks(asked: Sequence[Ack]) -> Iterator[Settle]:
    """What `_settle` makes of them; most settles are acks without a result, so this is the short way."""
    for queue in {one.queue for one in asked}:
        names.queue(queue)
    for one in asked:
        result = _json("result", one.result) if one.result else None
        fields = {"result": result} if result else NO_FIELDS
        yield Settle("ack", one.queue, names.job(one.id), one.lease[:64], fields)


def _settle(verb: str, one: _Lease, **fields: Any) -> Settle:
    names.queue(one.queue)
    names.job(one.id)
    given = {name: value for name, value in fields.items() if value is not None}
    return Settle(verb, one.queue, one.id, one.lease[:64], given or NO_FIELDS)


def _first(inside: Any, outside: Any, default: Any) -> Any:
    if inside is not None:
        return inside
    return default if outside is None else outside


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise CallerError(f"`{name}` should be from {least:.15g} to {most:.15g}, not {params.figure(value)}")


def _milliseconds(
    name: str, value: float | None, least: float = 0, most: float = params.DELAY_MOST
) -> int | None:
    if value is None:
        return None
    _within(name, value, least, most)
    return int(value * 1000)


def _text(name: str, value: str) -> str | None:
    if len(value.encode()) > TEXT_MOST:
        raise CallerError(f"`{name}` should be at most {TEXT_MOST} bytes")
    return value or None


def _json(name: str, value: codec.Raw) -> str | None:
    try:
        text = codec.text(bytes(value))
    except UnicodeDecodeError:  # msgspec does not look into what is passed on as it came
        raise NotJson(f"`{name}` is not UTF-8") from None
    return _text(name, text)
