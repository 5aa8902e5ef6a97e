"""Workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.client.answers import QueueWorkers, WorkerInfo, WorkerRecord
from presque.client.call import Call, accepted, answered, ask, no_content, object_of
from presque.client.json_values import decoded, encoded
from presque.client.shapes import shaped


def workers() -> Call[list[str]]:
    """The ids of the registered workers."""
    return ask("workers", lambda a: shaped(list[str], decoded(accepted(a).body)), {})


def worker_records() -> Call[list[WorkerRecord]]:
    """The workers, and what each is doing."""
    return ask("workers", lambda a: shaped(list[WorkerRecord], object_of(a)["workers"]), {"with_desc": True})


def worker_info(worker: str) -> Call[WorkerInfo]:
    """One worker."""
    return ask("workers", answered(WorkerInfo), {"worker_id": worker})


def queue_workers(queue: str) -> Call[QueueWorkers]:
    """The workers of one queue."""
    return ask("workers", answered(QueueWorkers), {"queue_name": queue})


def register(queue: str, worker: str | None) -> Call[None]:
    """The worker takes jobs of this queue."""
    return ask("register", no_content, {"queue": queue}, worker=worker)


def unregister(queue: str, worker: str | None) -> Call[None]:
    """The worker takes no more jobs of this queue."""
    return ask("unregister", no_content, {"queue": queue}, worker=worker)


def report(worker: str, report: Mapping[str, Any]) -> Call[str]:
    """Say what the worker is doing, and learn which state it is asked for: `start`, `quiet` or `stop`."""
    body = encoded(report).encode()
    return ask("report", lambda a: shaped(str, object_of(a)["status"]), {}, body=body, worker=worker)


def leave(worker: str) -> Call[None]:
    """The worker ends: it is forgotten."""
    return ask("leave", no_content, {}, worker=worker)


def tell_worker(worker: str, status: str) -> Call[None]:
    """Ask a worker to be quiet, to stop, or to go on."""
    return ask("tell_worker", no_content, {"worker_id": worker, "status": status})
