"""What is to be done with each job, as the executors see it: made of a `Worker` when it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from presque.worker.job import Job
from presque.worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Work:
    """How one worker does its jobs.

    `call` does a job, with all hooks and middleware around it, and returns its result, or an awaitable of it
    if `is_async`. Where some jobs are async and others are not, `asks` says it of each; where some fork,
    `forks`. `listeners` hear of each failure. `command` is what the shell runs instead of all that.
    """

    settings: Settings
    call: Callable[[Job], Any]
    is_async: bool = False
    listeners: Sequence[Callable[[Job, BaseException], None]] = ()
    before_fork: Callable[[Job], None] | None = None
    after_fork: Callable[[Job], None] | None = None
    command: str | None = None
    asks: Callable[[Job], bool] | None = None
    forks: Callable[[Job], bool] | None = None

    def awaits(self, job: Job) -> bool:
        """Whether this job is async."""
        return self.is_async if self.asks is None else self.asks(job)
