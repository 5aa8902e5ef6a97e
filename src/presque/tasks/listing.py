"""`presque worker --list`: what modules declare, and what of it is on the server."""

from __future__ import annotations

from collections.abc import Sequence

from presque.client.client import Client
from presque.client.errors import ClientError
from presque.tasks.lanes import Lane
from presque.tasks.putting import Declared
from presque.tasks.worker import Found


def listing(found: Found, lanes: Sequence[Lane], client: Client) -> str:
    """Tasks with their queues and how they run, worker classes, recurring jobs, and orphans, as text."""
    rows = [("task", "queue", "runs", "at once")]
    by_queue = {queue: lane for lane in lanes for queue in lane.queues}
    for task in found.tasks:
        if task.queue in by_queue:
            lane = by_queue[task.queue]
            runs = "fork" if task.said.get("fork") else "async" if task.definition.is_async else "threads"
            version = "" if task.definition.version == 1 else f" (version {task.definition.version})"
            rows.append(
                (f"{task.name}{version}", task.queue, runs, str(lane.settings.get("concurrency", "-")))
            )
    for kind in found.classes:
        queues = kind.queues or getattr(kind, "queue", None) or "-"
        listed = queues if isinstance(queues, str) else ",".join(queues)
        rows.append((f"{kind.__module__}:{kind.__name__}", listed, "class", "-"))
    parts = [_table(rows)]
    if found.recurring:
        zones = [(one.name, one.schedule, one.options.get("timezone", "UTC")) for one in found.recurring]
        parts.append(_table([("recurring job", "schedule", "zone"), *zones]))
    parts += _orphans(found, client)
    return "\n\n".join(parts)


def _orphans(found: Found, client: Client) -> list[str]:
    try:
        there = client.crons()
    except ClientError as error:
        return [f"orphans are not known: {error}"]
    orphans = Declared(found.recurring, found.modules).orphans(there)
    if not orphans:
        return []
    rows = [(one["name"], one["queue"] or "-", one["schedule"] or "-") for one in orphans]
    said = "declared by this code once, and still on the server; presque cron delete NAME removes one"
    return [f"{_table([('orphan', 'queue', 'schedule'), *rows])}\n{said}"]


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
