"""Workers whose jobs save how far they got, come again later, and tell something as they end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from presque import Snooze, Worker
from tests.worker.jobs import note


class Plain(Worker):
    """Without async."""

    def work(self, job: Any) -> Any:
        note("began", id=self.job.id, attempt=self.job.attempt, saved=self.job.saved)
        if "save" in job and self.job.attempt == 1 and self.job.saved is None:
            for state in job["save"]:
                stored = self.job.save(state)
            note("saved", stored=stored, saved=self.job.saved)
        if "stay" in job and self.job.attempt == 1:
            time.sleep(600)
        return ends(self, job)


class Async(Worker):
    """The same on an event loop."""

    async def work(self, job: Any) -> Any:
        note("began", id=self.job.id, attempt=self.job.attempt, saved=self.job.saved)
        if "save" in job and self.job.attempt == 1 and self.job.saved is None:
            for state in job["save"]:
                stored = await self.job.asave(state)
            note("saved", stored=stored, saved=self.job.saved)
        if "stay" in job and self.job.attempt == 1:
            await asyncio.sleep(600)
        return ends(self, job)

    async def fail(self, job: Any, error: BaseException) -> None:
        note("failed", error=str(error))


def ends(self: Worker, job: Any) -> Any:
    """How it goes on."""
    if "late_save" in job and self.job.attempt == 1:
        self.job.tell(self.job, {"saved": job["late_save"], "save": 1})  # as `save`, and does not wait
    for value in job.get("progress", ()):
        self.job.progress(value)
    if "snooze" in job and self.job.saved is None:
        error: Exception = Snooze(job["snooze"], "the other side is busy")
        if "group" in job:
            error = ExceptionGroup("some", [ValueError("x"), ExceptionGroup("more", [error])])
        self.job.save({"snoozed": 1})
        raise error
    if "raise" in job and self.job.attempt == 1:
        raise ValueError(job["raise"])
    return job.get("return")
