"""From what the functions answer to values. The counterpart of lua/head.lua's record layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from presque.errors import CallerError, JobExists, PresqueError
from presque.job import Fetched, Leased, QueueStats, Settled, WorkerStats

HEADER = 8
UNIQ, TTL, RUN_AT, LIMITS, PLACED = 1, 4, 8, 16, 32

REFUSALS: dict[bytes, PresqueError] = {
    b"exists": JobExists(),
    b"late": CallerError("`ttl` ends before the job is due: nobody could ever take it"),
}


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
    at = HEADER
    if flags & UNIQ:
        at += 1 + record[at]
    if flags & TTL:
        at += 6
    if flags & RUN_AT:
        at += 6
    if flags & LIMITS:
        at += 6
    if flags & PLACED:
        at += 1
    return record[at:]


def fetched(reply: Any, queues: Sequence[str]) -> Fetch:
    """The jobs that a fetch from `queues` took."""
    more, stopped, due, flat = reply
    jobs = [
        Fetched(queues[position - 1], job_id.decode(), body_of(record), record)
        for position, ids, records in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        for job_id, record in zip(ids, records, strict=True)
    ]
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


def registered(reply: Sequence[bytes]) -> dict[str, list[str]]:
    """The registered workers and their queues. The store answers with a flat list or, in RESP3, a map."""
    if isinstance(reply, dict):
        pairs = list(reply.items())
    else:
        pairs = list(zip(reply[::2], reply[1::2], strict=True))
    return {id.decode(): queues.decode().split() for id, queues in sorted(pairs)}
