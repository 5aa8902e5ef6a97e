"""From what the functions answer to values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from presque.engine.quotas import full_of
from presque.engine.records import (
    bodies_of,
    body_of,
    extras_of,
    priority_of,
    pushed_at_of,
    run_of,
)
from presque.errors import CallerError, JobExists, KeyReused, PresqueError, QueueFull
from presque.job import (
    Explained,
    Failure,
    Fetched,
    Job,
    JobState,
    Leased,
    QueueStats,
    Replayed,
    Settled,
    WorkerRecord,
    WorkerStats,
)

J = TypeVar("J", Fetched, Leased)

REFUSALS: dict[bytes, PresqueError] = {
    b"exists": JobExists(),
    b"late": CallerError("`ttl` ends before the job is due: nobody could ever take it"),
    b"differs": KeyReused(),
    b"full": QueueFull(),
}


def pushed(result: Any) -> int | PresqueError:
    """What became of one pushed job: its id, or why it was not stored."""
    if type(result) is int:
        return result
    return Replayed(result[0]) if isinstance(result, list) else refusal(result)


def refusal(word: bytes) -> PresqueError:
    """Why something was not stored."""
    return REFUSALS[word] if word in REFUSALS else full_of(word.decode())


class Taken(NamedTuple, Generic[J]):
    """The answer of one call that hands out jobs: of `fetch`, or of `lease`.

    `due_ms` tells for some queues in how many milliseconds their next job is due; `more` that another call
    would find more at once. The bodies of the `damaged` jobs are not what was pushed: nobody may get them.
    Queues that are `spoilt` were passed over. `largest` says how many bytes the largest record of each queue
    has.
    """

    jobs: list[J]
    stopped: list[str]
    due_ms: dict[str, int]
    more: bool
    damaged: list[J]
    spoilt: dict[str, str]
    largest: dict[str, int]


def fetched(reply: Any, queues: Sequence[str]) -> Taken[Fetched]:
    """The jobs that a fetch from `queues` took."""
    jobs: list[Fetched] = []
    largest: dict[str, int] = {}
    for position, ids, records, _, _ in _by_queue(reply):
        queue = queues[position - 1]
        names = list(map(bytes.decode, ids))
        jobs += map(_fetched, zip(repeat(queue), names, bodies_of(records), records))
        largest[queue] = max(map(len, records))
    return _taken(reply, queues, jobs, largest)


def leased(reply: Any, queues: Sequence[str]) -> Taken[Leased]:
    """The jobs that a lease from `queues` took."""
    jobs: list[Leased] = []
    largest: dict[str, int] = {}
    for position, ids, records, held, saved in _by_queue(reply):
        queue, token = queues[position - 1], held[0].decode()
        names = list(map(bytes.decode, ids))
        if len(held) == 4:  # these values hold for all jobs
            attempts, most, ends = map(repeat, held[1:])
        else:
            attempts, most, ends = held[1::3], held[2::3], held[3::3]
        bodies, kept = bodies_of(records), _saved(saved, len(names)) if saved else repeat(b"")
        told = zip(repeat(queue), names, bodies, records, attempts, most, repeat(token), ends, kept)
        jobs += map(_leased, told)
        largest[queue] = max(map(len, records))
    return _taken(reply, queues, jobs, largest)


# `_make` without a call of Python for each, which is felt in bench/lease_cpu.py.
_fetched: Callable[[tuple[Any, ...]], Fetched] = partial(tuple.__new__, Fetched)
_leased: Callable[[tuple[Any, ...]], Leased] = partial(tuple.__new__, Leased)
_body: Callable[[Fetched | Leased], bytes] = itemgetter(2)


def _by_queue(reply: Any) -> Iterable[Any]:
    flat = reply[3]
    return zip(flat[::5], flat[1::5], flat[2::5], flat[3::5], flat[4::5], strict=True)


def _saved(flat: Sequence[Any], count: int) -> list[bytes]:
    """What each of so many jobs has saved."""
    found = [b""] * count
    for position, text in zip(flat[::2], flat[1::2], strict=True):
        found[position - 1] = text
    return found


def _taken(reply: Any, queues: Sequence[str], jobs: list[J], largest: dict[str, int]) -> Taken[J]:
    more, stopped, due, _, passed_over = reply
    damaged = [] if all(map(_body, jobs)) else [job for job in jobs if not job.body]
    return Taken(
        [job for job in jobs if job.body] if damaged else jobs,
        [queues[position - 1] for position in stopped] if stopped else [],
        {queues[due[i] - 1]: due[i + 1] for i in range(0, len(due), 2)} if due else {},
        more == 1 or bool(damaged),
        damaged,
        spoilt(passed_over, queues) if passed_over else {},
        largest,
    )


_SETTLED = {word: Settled(200, word.decode()) for word in (b"done", b"ready", b"dead", b"deleted")}


def settled(reply: Any) -> Settled:
    """What became of one lease."""
    if type(reply) is bytes:
        return _SETTLED[reply]
    if type(reply) is int:
        return Settled(reply)
    word, moment = reply
    return Settled(200, word.decode(), moment)


def settled_all(reply: Sequence[Any], count: int) -> list[Settled]:
    """What became of each of so many leases. If it is the same for all, the store says it once. After a 0 it
    answers for the first of them alone, and is to be asked for the others."""
    if len(reply) == 1:
        return [settled(reply[0])] * count
    if reply and reply[0] == 0:
        return [settled(one) for one in reply[1:]]
    return [_SETTLED[one] if type(one) is bytes else settled(one) for one in reply]


def job(queue: str, reply: Sequence[Any]) -> Job:
    """A job as `show` and `list` tell it."""
    job_id, word, moment, record, packed, max_attempts, ahead = reply
    extras, run = extras_of(record), run_of(packed)
    state = JobState(word.decode())
    when = int(moment) if moment else None
    more = run.more
    return Job(
        queue=queue,
        id=job_id.decode(),
        state=state,
        body=body_of(record) or b"null",
        priority=priority_of(record),
        attempt=run.attempt,
        max_attempts=max_attempts,
        pushed_at=pushed_at_of(record),
        run_at=when if state is JobState.SCHEDULED else extras.get("run_at"),
        lease_until=when if state is JobState.LEASED else None,
        leased_at=run.leased_at if state is JobState.LEASED else None,
        kept_until=when if state is JobState.DONE else None,
        expires_at=extras["expires_at"] - ahead if "expires_at" in extras else None,
        finished_at=more.get("finished"),
        group=extras.get("group"),
        uniq=extras.get("uniq"),
        traceparent=extras.get("trace"),
        tracestate=extras.get("tracestate"),
        cron=extras.get("cron"),
        worker=run.worker or None,
        progress=_bytes(more.get("progress")),
        saved=_bytes(more.get("saved")),
        result=_bytes(more.get("result")),
        reason=more.get("reason"),
        cancelled=bool(more.get("cancel")),
        errors=tuple(
            Failure(int(one["at"]), one["worker"], one["error"], one.get("backtrace"))
            for one in more.get("errors", ())
        ),
        attempts=extras.get("attempts"),
        keep=extras.get("keep"),
        until_done=bool(extras.get("until_done")),
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def explained(reply: Sequence[Any], listeners: int) -> Explained:
    """What `explain` replies."""
    state, moment, stopped, ahead, leased, most, free_in, count, ms, group, held, group_most, *tries = reply
    return Explained(
        state=JobState(state.decode()),
        moment=int(moment) if moment else None,
        stopped_at=int(stopped) if stopped else None,
        ahead=None if ahead < 0 else ahead,
        leased=leased,
        max_leased=most,
        free_in_ms=int(free_in) if free_in else None,
        rate_count=count,
        rate_ms=ms,
        group=group.decode() or None,
        group_held=held,
        group_leased=group_most,
        attempt=tries[0],
        max_attempts=tries[1],
        listeners=listeners,
    )


def spoilt(flat: Sequence[Any], queues: Sequence[str]) -> dict[str, str]:
    """Which of the queues of a call were passed over, and what is wrong with each."""
    return {
        queues[position - 1]: reason.decode("utf-8", "replace")
        for position, reason in zip(flat[::2], flat[1::2], strict=True)
    }


def stats(reply: Sequence[Any], queues: Sequence[str]) -> tuple[list[QueueStats], dict[str, str]]:
    """The counts of each of `queues`, in their order, without those that are spoilt; and what is wrong with
    these."""
    names = [name.decode() for name in reply[0]]
    found = []
    for position, *figures in reply[3:]:
        queue, figure = queues[position - 1], dict(zip(names, figures, strict=True))
        oldest, started = figure.pop("oldest"), figure.pop("started")
        found.append(
            QueueStats(queue=queue, oldest_ms=None if oldest < 0 else oldest, started=started == 1, **figure)
        )
    return found, spoilt(reply[1], queues)


def worker(reply: Sequence[bytes], id: str) -> WorkerStats | None:
    """What is known of the worker `id`, or None if it was never heard from."""
    if not reply:
        return None
    started, processed, failed = map(int, reply)
    return WorkerStats(id, started, processed, failed)


def worker_records(reply: Sequence[Any]) -> list[WorkerRecord]:
    """All that is known of the registered workers."""
    now, *rest = reply
    found = []
    for at in range(0, len(rest), 8):
        id, queues, started, seen, processed, failed, asked, report = rest[at : at + 8]
        seen_ms = int(float(seen))
        found.append(
            WorkerRecord(
                worker=id.decode(),
                queues=queues.decode().split(),
                started_at=int(float(started)),
                seen_at=seen_ms,
                silent_ms=max(0, int(now) - seen_ms),
                processed=int(processed),
                failed=int(failed),
                asked=asked.decode(),
                report=report,
            )
        )
    return found
