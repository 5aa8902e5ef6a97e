"""Failure back-ends: where failed jobs are reported, besides the server, which keeps their last errors.

A back-end is anything that can be called with the job and the exception:

    Mailer(queue="mail", failure_backends=[to_file("failed.jsonl")]).start()
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from presque.worker import reasons
from presque.worker.job import Job

Backend = Callable[[Job, BaseException], None]


JOB_MOST = 256 * 1024
"""Characters of a job that go along with its failure. A longer one is left out: it is still in its queue."""


def to_file(path: str | Path) -> Backend:
    """Append each failure to a file, as one line of JSON: time, queue, id, attempt, job, error, backtrace."""

    def append(job: Job, error: BaseException) -> None:
        # One write with O_APPEND, so that forked children and other processes do not mix their lines.
        with Path(path).open("ab", buffering=0) as file:
            file.write(json.dumps(_record(job, error)).encode() + b"\n")

    return append


def to_queue(client: Any, queue: str) -> Backend:
    """Push each failure to a queue, where another worker can look after it. `client` is a `Client`.

    The job is left out, as null, when it is longer than 256 KiB; `queue` and `id` say where it is.
    """

    def push(job: Job, error: BaseException) -> None:
        client.push(queue, _record(job, error))

    return push


def _record(job: Job, error: BaseException) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "queue": job.queue,
        "id": job.id,
        "attempt": job.attempt,
        "job": _bounded(job.value),
        "error": reasons.sendable(reasons.named(error)),
        "backtrace": reasons.sendable(reasons.trace(error) or ""),
    }


def _bounded(value: Any) -> Any:
    """The job as it goes along: the one that `work` had, which may have changed it."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(text) if len(text) <= JOB_MOST else None
