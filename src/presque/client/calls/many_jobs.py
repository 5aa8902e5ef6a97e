"""Many jobs: search, failures by kind, bulk tasks, import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.client.answers import DryRun, Failures, FoundJobs, Task
from presque.client.call import Call, answered, ask, object_of
from presque.client.pages import page_of
from presque.client.shapes import shaped


def search(
    queues: str | None, limit: int | None, cursor: str | None, only: Mapping[str, Any]
) -> Call[FoundJobs]:
    """A page of the jobs that match."""
    return ask("search", answered(FoundJobs), {"queues": queues, "limit": limit, "cursor": cursor, **only})


def failures(queues: str | None, state: str | None, cursor: str | None) -> Call[Failures]:
    """Errors by their kind."""
    return ask("failures", answered(Failures), {"queues": queues, "state": state, "cursor": cursor})


def import_lines(lines: bytes, name: str | None, batch: int | None) -> Call[int]:
    """Store jobs that were exported: how many."""
    fields = {"import_name": name, "batch": batch}
    return ask("import", lambda a: shaped(int, object_of(a)["imported"]), fields, body=lines)


def new_task(act: str, queues: str, fields: Mapping[str, Any]) -> Call[Task]:
    """Begin a bulk task."""
    return ask("new_task", answered(Task), {"act": act, "queues": queues, **fields})


def dry_run(act: str, queues: str, fields: Mapping[str, Any]) -> Call[DryRun]:
    """What a bulk task would find."""
    return ask("new_task", answered(DryRun), {"act": act, "queues": queues, **fields, "dry_run": True})


def tasks(limit: int | None, cursor: str | None) -> Call[tuple[list[Task], str | None]]:
    """A page of bulk tasks, the newest first, and the cursor for the next."""
    return ask("tasks", page_of(list[Task], "tasks"), {"limit": limit, "cursor": cursor})


def task(verb: str, id: str) -> Call[Task]:
    """Look at a bulk task (`task`), or control it."""
    return ask(verb, answered(Task), {"task_id": id})
