"""The job as `work` sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from presque.client.call import seconds_within
from presque.client.json_values import decoded, encoded, is_deeper
from presque.client.leased import LeasedJob
from presque.client.options import Duration

TEXT_MOST = 64 * 1024
"""Bytes that the server keeps of a result, a progress, or what a job saves."""
LEVELS_MOST = 500
"""How deep it may be nested: Python reads and writes about a thousand levels, less the depth of its stack."""
LEASE_MOST = 43_200
"""Seconds for which a job may be leased or extended: twelve hours."""

SAVED_WITHIN_S = 10.0
"""How long a job waits for the server to have what it saves."""
_LOOK_S, _LOOK_MOST_S = 0.0005, 0.02

Tell = Callable[["Job", Mapping[str, Any]], None]


class Stored:
    """How many of the states that a job has saved are at the server."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


NOTHING_STORED = Stored()
"""Shared by all jobs that have saved nothing yet: most never do."""


class Job:
    """A job that is held while `work` runs: `self.job` inside of it.

    `value` is what `work` gets. `attempt` counts from 1, this time included. `cancelled` becomes true when
    somebody deleted the job, its lease was lost or the worker is stopping: a long job should look now and
    then, and stop. A job that has looked, and returns then, is not taken for done.
    """

    __slots__ = (
        "_cancelled",
        "_leased",
        "_saves",
        "saved",
        "saw_cancelled",
        "signalled",
        "span",
        "stored",
        "tell",
        "value",
    )

    def __init__(self, leased: LeasedJob, tell: Tell) -> None:
        self._leased = leased
        self.value = leased.value
        self._cancelled = self.saw_cancelled = self.signalled = False
        self.span: Any = None  # of this attempt, where traces are made; in another process its `traceparent`
        self.tell = tell
        self.saved: Any = leased.saved
        """What this job has saved last, in this attempt or an earlier one; None if nothing."""
        self.stored: Stored = NOTHING_STORED
        self._saves = 0

    # What the server said of it: nothing that `work` may change, since the worker goes by it.

    @property
    def queue(self) -> str:
        """Its queue."""
        return self._leased.queue

    @property
    def id(self) -> str:
        """Its id, unique in its queue."""
        return self._leased.id

    @property
    def attempt(self) -> int:
        """How often it was handed out, this time included."""
        return self._leased.attempt

    @property
    def max_attempts(self) -> int:
        """How often it is handed out at most."""
        return self._leased.max_attempts

    @property
    def priority(self) -> int:
        """Its priority, 0 to 9."""
        return self._leased.priority

    @property
    def pushed_at(self) -> str:
        """When it was pushed, as an RFC 3339 text."""
        return self._leased.pushed_at

    @property
    def group(self) -> str | None:
        """The group it was pushed with."""
        return self._leased.group

    @property
    def traceparent(self) -> str | None:
        """The trace it was pushed in."""
        return self._leased.traceparent

    @property
    def tracestate(self) -> str | None:
        """What came with the `traceparent`."""
        return self._leased.tracestate

    @property
    def lease(self) -> str:
        """The proof of holding it."""
        return self._leased.lease

    @property
    def text(self) -> str | None:
        """It as it was pushed, where that was asked for."""
        return self._leased.text

    @property
    def key(self) -> tuple[str, str, str]:
        """Which job this is, in which lease."""
        leased = self._leased
        return leased.queue, leased.id, leased.lease

    @property
    def cancelled(self) -> bool:
        """Whether the job should stop. `saw_cancelled` remembers that the job has seen it."""
        if self._cancelled:
            self.saw_cancelled = True
        return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value

    def __repr__(self) -> str:
        return f"<Job {self.queue}/{self.id}, attempt {self.attempt}>"

    def extend(self, seconds: Duration | None = None) -> None:
        """Hold the job for this long from now, 1 to 43200 seconds, else for another whole lease.

        Leases are renewed while `work` runs, so this is for jobs that outlive their worker. The server hears
        of it in a moment; the call does not wait. Raises `ValueError` for any other duration.
        """
        wanted = seconds_within(1, LEASE_MOST, "a job can be held for", seconds)
        self.tell(self, {} if wanted is None else {"seconds": wanted})

    def progress(self, value: Any) -> None:
        """Show `value`, any JSON, to anyone who looks at the job. Of those within a quarter of a second only
        the last is sent. The very last one is kept with the job, however soon the job ends.

        Raises `ValueError` or `TypeError` when it is not JSON, or is longer than 64 KiB.
        """
        self.tell(self, {"progress": _copy("a progress", value)})

    def save(self, value: Any) -> bool:
        """Save `value`, any JSON, for the next attempt at this job, which finds it in `saved`; None removes
        it.

        Returns True once the server has it: then not even the death of this worker loses it. False if the
        server has not answered for ten seconds, or the lease was lost. In code that runs in an event loop it
        returns False at once; `await asave(…)` waits there. Either way it is sent until the server has it or
        the job has ended; then it is told with the failure. Once the job is done it is gone.

        Raises `ValueError` or `TypeError` when it is not JSON, or is longer than 64 KiB.
        """
        number = self._save(value)
        if _in_a_loop():
            return self.stored.count >= number
        until, pause = time.monotonic() + SAVED_WITHIN_S, _LOOK_S
        while self._awaits(number, until):
            time.sleep(pause)
            pause = min(2 * pause, _LOOK_MOST_S)
        return self.stored.count >= number

    async def asave(self, value: Any) -> bool:
        """The same for `async` work: other jobs go on meanwhile."""
        number = self._save(value)
        until, pause = time.monotonic() + SAVED_WITHIN_S, _LOOK_S
        while self._awaits(number, until):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_MOST_S)
        return self.stored.count >= number

    def _save(self, value: Any) -> int:
        self.saved = _copy("what a job saves", value)
        self._saves += 1
        if self.stored is NOTHING_STORED:
            self.stored = Stored()
        self.tell(self, {"saved": self.saved, "save": self._saves})
        return self._saves

    def _awaits(self, number: int, until: float) -> bool:
        return self.stored.count < number and not self._cancelled and time.monotonic() < until


def _copy(what: str, value: Any) -> Any:
    """A value as it is sent: the job's own may change meanwhile. Raises `ValueError` or `TypeError`."""
    text = encoded(value)
    if (trouble := unkept(text)) is not None:
        raise ValueError(f"{what} cannot be kept: {trouble}")
    return decoded(text)


def unkept(text: str) -> str | None:
    """Why the server does not keep this JSON of a result, a progress or what a job saves; None if it does."""
    if (size := len(text.encode())) > TEXT_MOST:
        return f"it has {size} bytes, {TEXT_MOST} at most are kept"
    if is_deeper(text, LEVELS_MOST):
        return f"it is nested deeper than {LEVELS_MOST} levels"
    return None


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


current: ContextVar[Job | None] = ContextVar("presque_job", default=None)
"""The job that runs in this thread or task."""


def current_job() -> Job:
    """The job that runs in this thread or task: its id, queue and attempt, `extend()` and `progress()`.

    Threads that a job starts know nothing of it, unless they run in a copy of its context, as those of
    `asyncio.to_thread` do. Raises `RuntimeError` where no job runs.
    """
    job = current.get()
    if job is None:
        raise RuntimeError("no job runs here: `current_job()` is for use inside of one")
    return job
