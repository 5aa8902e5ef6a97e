"""The job as `work` sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from presque.client.answers import LeasedJob
from presque.client.calls import seconds_within
from presque.client.json_values import decoded, encoded
from presque.client.options import Duration

TEXT_MOST = 64 * 1024
"""Bytes that the server keeps of a result or a progress."""
LEASE_MOST = 43_200
"""Seconds for which a job may be leased or extended: twelve hours."""

Tell = Callable[["Job", Mapping[str, Any]], None]


class Job:
    """A job that is held while `work` runs: `self.job` inside of it.

    `value` is what `work` gets. `attempt` counts from 1, this time included. `cancelled` becomes true when
    somebody deleted the job, its lease was lost or the worker is stopping: a long job should look now and
    then, and stop. A job that has looked, and returns then, is not taken for done.
    """

    __slots__ = (
        "_cancelled",
        "attempt",
        "group",
        "id",
        "key",
        "lease",
        "max_attempts",
        "priority",
        "pushed_at",
        "queue",
        "saw_cancelled",
        "signalled",
        "tell",
        "text",
        "traceparent",
        "value",
    )

    def __init__(self, leased: LeasedJob, tell: Tell) -> None:
        self.queue = leased.queue
        self.id = leased.id
        self.value = leased.value
        self.attempt = leased.attempt
        self.max_attempts = leased.max_attempts
        self.priority = leased.priority
        self.pushed_at = leased.pushed_at
        self.group = leased.group
        self.traceparent = leased.traceparent
        self.lease = leased.lease
        self.key = (leased.queue, leased.id, leased.lease)
        self.text = leased.text
        self._cancelled = self.saw_cancelled = self.signalled = False
        self.tell = tell

    @property
    def cancelled(self) -> bool:
        """Whether the job should stop. That it looked, and was told so, is remembered in `saw_cancelled`."""
        if self._cancelled:
            self.saw_cancelled = True
        return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value

    def __repr__(self) -> str:
        return f"<Job {self.queue}/{self.id}, attempt {self.attempt}>"

    def extend(self, seconds: Duration | None = None) -> None:
        """Hold the job for so long from now, 1 to 43200 seconds, else for another whole lease.

        Leases are renewed while `work` runs, so this is for jobs that outlive their worker. The server hears
        of it in a moment; the call does not wait. Raises `ValueError` for any other duration.
        """
        wanted = seconds_within(1, LEASE_MOST, "a job can be held for", seconds)
        self.tell(self, {} if wanted is None else {"seconds": wanted})

    def progress(self, value: Any) -> None:
        """Show `value`, any JSON, to whoever looks at the job. Only the last of a quarter second is sent.

        Raises `ValueError` or `TypeError` when it is no JSON, or has more than 64 KiB.
        """
        text = encoded(value)
        if (size := len(text.encode())) > TEXT_MOST:
            raise ValueError(f"a progress may have {TEXT_MOST} bytes, not {size}")
        self.tell(self, {"progress": decoded(text)})  # a copy: the job's own may change before it is sent


current: ContextVar[Job | None] = ContextVar("presque_job", default=None)
"""The job that runs in this thread or task."""
