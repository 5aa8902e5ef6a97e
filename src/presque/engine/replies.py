"""From what the functions answer to values. The counterpart of lua/head.lua's record layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from presque import codec
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

HEADER = 8
UNIQ, TTL, RUN_AT, LIMITS, PLACED, GROUP, TRACE = 1, 4, 8, 16, 32, 64, 128

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
    return Replayed(result[0]) if isinstance(result, list) else REFUSALS[result]


@dataclass(frozen=True, slots=True)
class Fetch:
    """The answer of one call of `fetch`.

    `due_ms` tells for some queues in how many milliseconds their next scheduled job is due; `more` that
    the call stopped at its bounds and another would find more at once.
    """

    jobs: list[Fetched]
    stopped: list[str]
    due_ms: dict[str, int]
    more: bool


def body_of(record: bytes) -> bytes:
    """The body of a stored job, as it came."""
    flags = record[0]
    if flags == 0:
        return record[HEADER:]
    return _fields_of(record)[1]


def traceparent_of(record: bytes) -> str | None:
    """The traceparent that came with a job."""
    if not record[0] & TRACE:
        return None
    found: str = _fields_of(record)[0]["traceparent"]
    return found


def _fields_of(record: bytes) -> tuple[dict[str, Any], bytes]:
    """What the header of a record says, and the body. Its counterpart is `parse` in lua/head.lua."""
    flags, at = record[0], HEADER
    found: dict[str, Any] = {}

    def number() -> int:
        nonlocal at
        at += 6
        return int.from_bytes(record[at - 6 : at], "big")

    if flags & UNIQ:
        found["uniq"], at = _text(record, at)
    if flags & TTL:
        found["expires_at"] = number()
    if flags & RUN_AT:
        found["run_at"] = number()
    if flags & LIMITS:
        at += 6
    if flags & PLACED:
        at += 1
    if flags & GROUP:
        found["group"], at = _text(record, at)
    if flags & TRACE:
        found["traceparent"], at = _text(record, at)
    return found, record[at:]


def _text(record: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + record[at]
    return record[at + 1 : end].decode(), end


def fetched(reply: Any, queues: Sequence[str]) -> Fetch:
    """The jobs that a fetch from `queues` took."""
    more, stopped, due, flat = reply
    # Records without options are cut right here: a call for each is felt in bench/fetch_http.py.
    jobs: list[Fetched] = []
    for position, ids, records in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        queue = queues[position - 1]
        jobs += map(
            Fetched._make,
            [
                (queue, job_id.decode(), record[HEADER:] if record[0] == 0 else body_of(record), record)
                for job_id, record in zip(ids, records, strict=True)
            ],
        )
    return Fetch(
        jobs,
        [queues[position - 1] for position in stopped],
        {queues[due[i] - 1]: due[i + 1] for i in range(0, len(due), 2)},
        more == 1,
    )


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer of one call of `lease`; as `Fetch`."""

    jobs: list[Leased]
    stopped: list[str]
    due_ms: dict[str, int]
    more: bool


def leased(reply: Any, queues: Sequence[str]) -> Lease:
    """The jobs that a lease from `queues` took."""
    more, stopped, due, flat = reply
    jobs = []
    for position, ids, records, told in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True):
        queue = queues[position - 1]
        for job_id, record, attempt, most, token, ends_at in zip(
            ids, records, told[::4], told[1::4], told[2::4], told[3::4], strict=True
        ):
            jobs.append(
                Leased(
                    queue, job_id.decode(), body_of(record), record, attempt, most, token.decode(), ends_at
                )
            )
    return Lease(
        jobs,
        [queues[position - 1] for position in stopped],
        {queues[due[i] - 1]: due[i + 1] for i in range(0, len(due), 2)},
        more == 1,
    )


def settled(reply: Any) -> Settled:
    """What became of one lease."""
    status, *rest = reply
    return Settled(status, rest[0].decode() if rest else "", rest[1] if len(rest) > 1 else None)


def job(queue: str, reply: Sequence[Any]) -> Job:
    """A job as `show` and `list` tell it."""
    job_id, word, moment, record, packed, max_attempts = reply
    header, body = _fields_of(record)
    state = JobState(word.decode())
    when = int(moment) if moment else None
    run: dict[str, Any] = codec.unpack(packed) if packed else {}
    if state is JobState.SCHEDULED:
        header["run_at"] = when
    return Job(
        queue=queue,
        id=job_id.decode(),
        state=state,
        body=body,
        priority=record[1],
        attempt=run.get("attempt", 0),
        max_attempts=max_attempts,
        pushed_at=int.from_bytes(record[2:8], "big"),
        lease_until=when if state is JobState.LEASED else None,
        kept_until=when if state is JobState.DONE else None,
        finished_at=run.get("finished"),
        worker=run.get("worker") or None,
        progress=_bytes(run.get("progress")),
        result=_bytes(run.get("result")),
        reason=run.get("reason"),
        cancelled=bool(run.get("cancel")),
        errors=tuple(
            Failure(int(one["at"]), one["worker"], one["error"], one.get("backtrace"))
            for one in run.get("errors", ())
        ),
        **header,
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


STATS_FIELDS = 13


def stats(reply: Sequence[int], queues: Sequence[str]) -> list[QueueStats]:
    """The counts of each of `queues`, in their order."""
    found = []
    for position, queue in enumerate(queues):
        (
            ready,
            scheduled,
            leased,
            done,
            dead,
            processed,
            failed,
            expired,
            oldest,
            started,
            pushed,
            taken,
            lost,
        ) = reply[position * STATS_FIELDS : (position + 1) * STATS_FIELDS]
        found.append(
            QueueStats(
                queue=queue,
                ready=ready,
                scheduled=scheduled,
                leased=leased,
                done=done,
                dead=dead,
                processed=processed,
                failed=failed,
                expired=expired,
                oldest_ms=None if oldest < 0 else oldest,
                started=started == 1,
                pushed_last_minute=pushed,
                processed_last_minute=taken,
                failed_last_minute=lost,
            )
        )
    return found


def worker(reply: Sequence[bytes], id: str) -> WorkerStats | None:
    """What is known of the worker `id`, or None if it was never heard of."""
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


def registered(reply: Sequence[bytes]) -> dict[str, list[str]]:
    """The registered workers and their queues. The store answers with a flat list or, in RESP3, a map."""
    if isinstance(reply, dict):
        pairs = list(reply.items())
    else:
        pairs = list(zip(reply[::2], reply[1::2], strict=True))
    return {id.decode(): queues.decode().split() for id, queues in sorted(pairs)}
