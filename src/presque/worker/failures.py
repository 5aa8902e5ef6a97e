"""Failure back-ends: where failed jobs are told, besides the server, which keeps their last errors.

A back-end is anything that can be called with the job and the exception:

    Mailer(queue="mail", failure_backends=[to_file("failed.jsonl")]).start()
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from presque.worker.job import Job

Backend = Callable[[Job, BaseException], None]


def to_file(path: str | Path) -> Backend:
    """Append each failure to a file, as one line of JSON: time, queue, id, attempt, job, error, backtrace."""

    def append(job: Job, error: BaseException) -> None:
        line = json.dumps(_record(job, error), ensure_ascii=False) + "\n"
        # One write with O_APPEND, so that forked children and other processes do not mix their lines.
        with Path(path).open("ab", buffering=0) as file:
            file.write(line.encode(errors="replace"))

    return append


def to_queue(client: Any, queue: str) -> Backend:
    """Push each failure to a queue, where another worker can look after it. `client` is a `Client`."""

    def push(job: Job, error: BaseException) -> None:
        client.push(queue, _record(job, error))

    return push


def _record(job: Job, error: BaseException) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "queue": job.queue,
        "id": job.id,
        "attempt": job.attempt,
        "job": job.value,
        "error": f"{type(error).__qualname__}: {error}",
        "backtrace": "".join(traceback.format_exception(error)),
    }
