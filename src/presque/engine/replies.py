"""From what the functions answer to values. The counterpart of lua/head.lua's record layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from presque.errors import CallerError, JobExists, PresqueError
from presque.job import Fetched, QueueStats, WorkerStats

HEADER = 8
UNIQ, TTL, RUN_AT, LIMITS = 1, 4, 8, 16

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


STATS_FIELDS = 10


def stats(reply: Sequence[int], queues: Sequence[str]) -> list[QueueStats]:
    """The counts of each of `queues`, in their order."""
    found = []
    for position, queue in enumerate(queues):
        ready, scheduled, processed, failed, expired, oldest, started, pushed, taken, lost = reply[
            position * STATS_FIELDS : (position + 1) * STATS_FIELDS
        ]
        found.append(
            QueueStats(
                queue=queue,
                ready=ready,
                scheduled=scheduled,
                leased=0,
                done=0,
                dead=0,
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
