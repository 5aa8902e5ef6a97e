"""What a worker says of itself every few seconds, for `presque workers` and `GET /w/`. No I/O."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from presque.version import __version__
from presque.worker.held import Held

# The server takes 16 KiB. The queue list and these bounds leave room for the rest.
JOBS_MOST = 10
NAMES_MOST, NAMES_BYTES_MOST = 256, 4096
LIST_BYTES_MOST = 8448  # the longest queue list


def report(
    *, lists: Sequence[str], state: str, mode: str, slots: int, queues: Iterable[str],
    running: Sequence[Held], held: int, processed: int, failed: int, memory: int | None, now: float,
) -> dict[str, Any]:  # fmt: skip
    """The body of `PUT /w/`. `lists` are the queue lists that are asked for, `queues` those that it has to do
    with, `running` the jobs that are being done, `memory` bytes."""
    return {
        "queues": some(queues),
        "list": ",".join(dict.fromkeys(lists))[:LIST_BYTES_MOST],
        "state": state,
        "mode": mode,
        "concurrency": slots,
        "jobs": [
            {"queue": one.job.queue, "id": one.job.id, "seconds": round(now - (one.started_at or now), 3)}
            for one in running[:JOBS_MOST]
        ],
        "running": len(running),
        "held": held,
        "processed": processed,
        "failed": failed,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "memory": memory,
        "version": __version__,
    }


def named(queues: str) -> list[str]:
    """The queues that a list asks for by their names."""
    return [one for one in queues.split(",") if one and not set("*?!") & set(one)]


def some(names: Iterable[str]) -> list[str]:
    """As many of the names as a report has room for, in their order."""
    found: list[str] = []
    left = NAMES_BYTES_MOST
    for name in names:
        left -= len(name) + 3
        if left < 0 or len(found) == NAMES_MOST:
            break
        found.append(name)
    return found
