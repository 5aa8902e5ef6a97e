"""Verbs on leases: lease, settle (ack, fail, release, extend)."""

from __future__ import annotations

import asyncio
import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from presque import codec, names
from presque.commands.call import Call, Reply, awaited
from presque.commands.times import moment
from presque.commands.who import ANYBODY, Who, not_allowed
from presque.engine.engine import Engine
from presque.engine.lines import Taker, Waiter
from presque.engine.records import PLAIN, trace_of
from presque.errors import CallerError, JobGone, LeaseLost, NotFound, PresqueError
from presque.fields import Field
from presque.job import NO_FIELDS, Ask, Leased, Settle, Settled, alike
from presque.names import QueueList
from presque.verbs.bounds import SETTLE_MOST
from presque.verbs.vocabulary import (
    BACKTRACE,
    ERROR,
    EXTEND_SECONDS,
    GIVE_BACK_DELAY,
    PROGRESS,
    RESULT,
    RETRY_IN,
    SAVED,
)

FORBIDDEN = Settled(403, "", None)


class _Lease(codec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    queue: str
    id: str | None = None
    ids: tuple[str, ...] | None = None
    lease: str


class Ack(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job is done."""

    result: codec.Raw = codec.NOTHING
    progress: codec.Raw = codec.NOTHING


class Fail(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job failed: it is retried later, or dead after its last attempt."""

    error: str = ""
    backtrace: str = ""
    retry_in: float | str | None = None
    retry: bool = True
    progress: codec.Raw = codec.NOTHING
    saved: codec.Raw = codec.NOTHING


class Release(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job is given back; this is not a failure."""

    delay: float | str | None = None
    progress: codec.Raw = codec.NOTHING
    saved: codec.Raw = codec.NOTHING


class Extend(_Lease, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job takes longer: the lease ends this many seconds from now."""

    seconds: float | str | None = None
    progress: codec.Raw = codec.NOTHING
    saved: codec.Raw = codec.NOTHING


class SettleRequest(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of /settle: any number of leases, answered in this order."""

    ack: tuple[Ack, ...] = ()
    fail: tuple[Fail, ...] = ()
    release: tuple[Release, ...] = ()
    extend: tuple[Extend, ...] = ()


async def run_lease(call: Call) -> Reply:
    """Lease jobs, after settling others if `settle` says so."""
    settled = b""
    if "settle" in call.fields:
        first = settles(codec.decode_request(call.fields["settle"], SettleRequest, "settle"))
        settled = settled_answer(first, await settle(call.engine, first, call.worker, call.who))
    ask, wait = lease_ask(call.fields, call.worker), call.get("wait", 0) / 1000
    begin = functools.partial(lease, call.engine, call.queues, ask, wait)
    found: list[Leased] | None = await awaited(call.engine, begin)
    undo = functools.partial(call.engine.give_back, found) if found else None
    return Reply(lease_answer(found or (), settled), undo=undo)


async def run_settle(call: Call) -> Reply:
    """End or extend many leases."""
    request = codec.decode_request(call.body, SettleRequest)
    asked = settles(request)
    settled = await settle(call.engine, asked, call.worker, call.who)
    return Reply(b'{"settled":%b}' % settled_answer(asked, settled))


async def run_settle_one(call: Call) -> Reply:
    """End or extend one lease. Raises what the status says if it was not done."""
    one = settle_of(call.verb.name, call.fields)
    [found] = await settle(call.engine, [one], call.worker)
    if found.status != 200:
        raise refusal(found.status, one.queue)
    return Reply.of(told(one, found))


def lease_ask(fields: Mapping[str, Any], worker: str | None) -> Ask:
    """What a lease asks for."""
    return Ask(fields.get("count", 1), fields.get("seconds"), worker or "", fields.get("attempt_id", ""))


def lease(engine: Engine, queues: QueueList, ask: Ask, wait: float, take: Taker) -> Waiter | None:
    """Lease jobs, waiting up to `wait` seconds for the first. See `Engine.lease` for the promises."""
    return engine.lease(queues, ask, wait, take)


def settles(request: SettleRequest) -> list[Settle]:
    """The leases of a settle request, checked, in the order in which they are answered."""
    found = _acks(request.ack)
    for fail in request.fail:
        found += _settle(
            "fail",
            fail,
            error=_text(ERROR, fail.error),
            backtrace=_text(BACKTRACE, fail.backtrace),
            retry_in=_milliseconds(RETRY_IN, fail.retry_in),
            retry=None if fail.retry else False,
            progress=_json(PROGRESS, fail.progress),
            saved=_json(SAVED, fail.saved),
        )
    for release in request.release:
        found += _settle(
            "release",
            release,
            delay=_milliseconds(GIVE_BACK_DELAY, release.delay) or None,
            progress=_json(PROGRESS, release.progress),
            saved=_json(SAVED, release.saved),
        )
    for extend in request.extend:
        found += _settle(
            "extend",
            extend,
            ms=_milliseconds(EXTEND_SECONDS, extend.seconds),
            progress=_json(PROGRESS, extend.progress),
            saved=_json(SAVED, extend.saved),
        )
    if len(found) > SETTLE_MOST:
        raise CallerError(f"at most {SETTLE_MOST} leases can be settled at once, not {len(found)}")
    return found


def settle_of(verb: str, fields: Mapping[str, Any]) -> Settle:
    """One lease to settle, from the fields of `ack`, `fail`, `release` or `extend`."""
    given = {name: fields[name] for name in ("error", "backtrace", "retry_in", "delay") if fields.get(name)}
    for name in ("result", "progress", "saved"):
        if name in fields:
            given[name] = codec.text(fields[name])
    if "retry_in" in fields:
        given["retry_in"] = fields["retry_in"]
    if fields.get("retry") is False:
        given["retry"] = False
    if "seconds" in fields:
        given["ms"] = fields["seconds"]
    return Settle(verb, fields["queue"], fields["id"], fields["lease"][:64], given or NO_FIELDS)


def given_back(queue: str, job: str, token: str, *, lost: bool) -> Settle:
    """How a lease ends whose holder disconnected: as a failure, tried again at once, if it was `lost`."""
    if lost:
        return Settle("fail", queue, job, token, {"error": "the connection was lost", "retry_in": 0})
    return Settle("release", queue, job, token)


async def settle(
    engine: Engine, leases: Sequence[Settle], worker: str | None, who: Who = ANYBODY
) -> list[Settled]:
    """End or extend leases of any queues. Returns what became of each, in their order: 403 for those of
    queues of which the asker may not lease."""
    found: asyncio.Future[list[Settled]] = asyncio.get_running_loop().create_future()

    def done(results: list[Settled] | PresqueError) -> None:
        if found.done():
            return
        if isinstance(results, PresqueError):
            found.set_exception(results)
        else:
            found.set_result(results)

    settle_all(engine, leases, worker, who, done)
    return await found


def settle_all(
    engine: Engine,
    leases: Sequence[Settle],
    worker: str | None,
    who: Who,
    done: Callable[[list[Settled] | PresqueError], None],
) -> None:
    """The same for a caller that does not wait: what is asked of the store after this comes after it."""
    may = {queue: who.allows("lease", queue) for queue in {one.queue for one in leases}} if who.layers else {}
    allowed = leases if all(may.values()) else [one for one in leases if may[one.queue]]

    def settled(results: list[Settled] | PresqueError) -> None:
        if not isinstance(results, PresqueError):
            if allowed is not leases:
                of_allowed = iter(results)
                results = [next(of_allowed) if may[one.queue] else FORBIDDEN for one in leases]
            if worker is not None:
                count(engine, worker, leases, results)
        done(results)

    engine.settle_all(allowed, settled)


def count(engine: Engine, worker: str, leases: Sequence[Settle], results: Sequence[Settled]) -> None:
    """Add what a worker settled to its counters."""
    settled = [one.verb for one, result in zip(leases, results, strict=True) if result.status == 200]
    done, failed = settled.count("ack"), settled.count("fail")
    if done or failed:
        engine.count_worker(worker, done, failed)


def told(one: Settle, result: Settled) -> dict[str, Any]:
    """What became of one lease, as the answers show it."""
    return {"queue": one.queue, "id": one.id} | _outcome(one.queue, result)


def refused(queue: str, result: Settled) -> PresqueError | None:
    """Why a lease could not be settled; None if it was."""
    return None if result.status == 200 else refusal(result.status, queue)


def _outcome(queue: str, result: Settled) -> dict[str, Any]:
    if result.status == 200 and result.moment is None:
        return {"status": 200, "state": result.state}
    answer: dict[str, Any] = {"status": result.status}
    if result.status != 200:
        error = refusal(result.status, queue)
        return answer | {"error": str(error), "code": error.code}
    answer["state"] = "leased" if result.state == "cancel" else result.state
    if result.state == "scheduled" and result.moment is not None:
        answer["run_at"] = moment(result.moment)
    elif result.moment is not None:
        answer["lease_until"] = moment(result.moment)
    if result.state == "cancel":
        answer["cancel"] = True
    return answer


def refusal(status: int, queue: str) -> PresqueError:
    """Why a lease was not settled."""
    if status == FORBIDDEN.status:
        return not_allowed("lease", queue)
    if status == 409:
        return LeaseLost()
    return JobGone() if status == 410 else NotFound("there is no such job in this queue")


def settled_answer(leases: Sequence[Settle], results: Sequence[Settled]) -> bytes:
    """What became of many leases, as JSON."""
    state = results[0].state if results else ""
    if results and results[0] == (200, state, None) and alike(results):
        _, queues, ids, _, _, together = zip(*leases, strict=True)
        if alike(queues) and not any(together):  # written in one go, which is felt in bench/lease_cpu.py
            before, after = f'{{"queue":"{queues[0]}","id":"', f'","status":200,"state":"{state}"}}'
            return f"[{before}{f'{after},{before}'.join(ids)}{after}]".encode()
    answer, at = [], 0
    while at < len(leases):
        end = at + (leases[at].together or 1)
        answer += _entry(leases[at:end], results[at:end])
        at = end
    return codec.encode(answer)


def _entry(leases: Sequence[Settle], results: Sequence[Settled]) -> list[dict[str, Any]]:
    """What became of the leases in one entry of a request. Neighbours that fared alike are told together."""
    one = leases[0]
    if not one.together:
        return [told(one, results[0])]
    found, ids = [], iter([lease.id for lease in leases])
    for result, same in itertools.groupby(results):
        its = list(itertools.islice(ids, len(list(same))))
        found.append({"queue": one.queue, "ids": its} | _outcome(one.queue, result))
    return found


def lease_answer(leased: Sequence[Leased], settled: bytes) -> bytes:
    """The answer of a lease: the jobs, each body as its own bytes, and what was settled first, if anything
    was: what `settled_answer` says."""
    jobs = _alike_answer(leased) or b",".join([job_answer(job) for job in leased])
    return b'{"jobs":[%b],"settled":%b}' % (jobs, settled) if settled else b'{"jobs":[%b]}' % jobs


def _alike_answer(leased: Sequence[Leased]) -> bytes:
    """What `job_answer` says of many jobs that one call leased from one queue, written with few steps of
    Python for each, which is felt in bench/lease_cpu.py. Nothing if they are not alike."""
    if not leased:
        return b""
    queues, ids, bodies, records, *common = zip(*leased, strict=True)
    headers = [record[:8] for record in records]
    different = set(headers)
    if not all(map(alike, (queues, *common))) or any(header[0] != PLAIN for header in different):
        return b""
    attempt, most, token, ends_at, saved = (values[0] for values in common)
    if saved:
        return b""
    abouts = {header: b",%b}" % _about(attempt, most, header[1:], token, ends_at) for header in different}
    parts = [b'","body":'] * (5 * len(leased))
    parts[0::5] = [b',{"queue":"%b","id":"' % queues[0].encode()] * len(leased)
    parts[1::5] = " ".join(ids).encode().split(b" ")
    parts[3::5] = bodies
    parts[4::5] = [abouts[header] for header in headers]
    parts[0] = parts[0][1:]  # no comma before the first
    return b"".join(parts)


def job_answer(job: Leased) -> bytes:
    """One leased job as the answers list it."""
    queue, job_id, body, record, attempt, max_attempts, token, ends_at, saved = job
    return b'{"queue":"%b","id":"%b","body":%b,%b%b%b}' % (
        queue.encode(),
        job_id.encode(),
        body,
        _about(attempt, max_attempts, record[1:8], token, ends_at),
        _traced(trace) if record[0] != PLAIN and (trace := trace_of(record)) else b"",
        b',"saved":%b' % saved if saved else b"",
    )


def _traced(trace: tuple[str, str | None]) -> bytes:
    parent, state = trace
    more = b',"tracestate":%b' % codec.encode(state) if state else b""
    return b',"traceparent":"%b"%b' % (parent.encode(), more)


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


def _acks(asked: Sequence[Ack]) -> list[Settle]:
    """What `_settle` makes of them. Many are acks of one job without a result: that is the short way."""
    ids = [one.id for one in asked if one.id is not None and one.ids is None]
    if len(ids) < len(asked) or any(map(_result, asked)) or any(map(_progress, asked)):
        found: list[Settle] = []
        for one in asked:
            result, progress = _json(RESULT, one.result), _json(PROGRESS, one.progress)
            found += _settle("ack", one, result=result, progress=progress)
        return found
    queues = [one.queue for one in asked]
    for queue in set(queues):
        names.queue(queue)
    names.jobs(ids)
    tokens = [one.lease[:64] for one in asked]
    return list(map(_made, zip(repeat("ack"), queues, ids, tokens, repeat(NO_FIELDS), repeat(0))))


_result, _progress = operator.attrgetter("result"), operator.attrgetter("progress")
_made: Callable[[tuple[Any, ...]], Settle] = functools.partial(tuple.__new__, Settle)


def _settle(verb: str, one: _Lease, **fields: Any) -> list[Settle]:
    """The leases of one entry."""
    names.queue(one.queue)
    given = {name: value for name, value in fields.items() if value is not None} or NO_FIELDS
    token = one.lease[:64]
    if one.ids is None:
        if one.id is None:
            raise CallerError("`id` is missing: name a job, or several as `ids`")
        return [Settle(verb, one.queue, names.job(one.id), token, given)]
    if one.id is not None:
        raise CallerError("give `ids` or `id`, not both")
    names.jobs(one.ids)
    rest = repeat(token), repeat(given), repeat(len(one.ids))
    return list(map(_made, zip(repeat(verb), repeat(one.queue), one.ids, *rest)))


def _milliseconds(field: Field, value: float | str | None) -> int | None:
    return None if value is None else int(field.read(value))


def _text(field: Field, value: str) -> str | None:
    return str(field.read(value)) if value else None


def _json(field: Field, value: codec.Raw) -> str | None:
    text = bytes(value)
    return codec.text(field.read(text)) if text else None
