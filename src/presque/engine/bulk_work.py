"""One server's work on one bulk task.

A task goes through its queues in alphabetical order, state by state, a step at a time. It never keeps others
waiting for long: a step looks at 100 jobs or 1 MiB, and after each the store has as much time for others as
the step took.
"""

from __future__ import annotations

import asyncio
import logging

from presque.engine.bulk_steps import Steps
from presque.engine.bulk_task import Progress, Task, wanted
from presque.engine.finding import PIECE_JOBS
from presque.errors import DiskFull, PresqueError, QueueFull, StoreFull, StoreUnavailable
from presque.tokens import BadToken

log = logging.getLogger("presque.engine")

SAVE_S = 0.5
BURST_S = 0.1  # how much of its rate a task may do at once
REST_MOST_S = 0.05
WAIT_S = 0.5  # while jobs cannot be moved
PROBLEMS_MOST = 10
UNKNOWN = -1  # no step has this number: asked for it, the store says which one is due


class Work:
    """One server's work on one task."""

    def __init__(self, steps: Steps, task: Task) -> None:
        self._steps = steps
        self._task = task
        self._clock = asyncio.get_running_loop().time
        self._saved_at = self._clock()
        self._allowed_at = self._clock()
        self._allowed = 0.0

    async def go(self) -> None:
        """Work until the end, or until it is not ours any more."""
        task = self._task
        if task.status == "running" and not await self._through():
            task.status = await self._steps.save(task)
            if task.status == "running":
                return  # it waits
        if task.status == "paused":
            await self._steps.save(task)
        if task.status == "cancelling":
            await self._end("cancelled")

    async def _through(self) -> bool:
        """Go through the queues. False if somebody wants it to stop."""
        task, how = self._task, self._task.how
        try:
            queues = wanted(task.what)
        except (PresqueError, BadToken) as error:
            how.problems = (str(error),)
            await self._end("failed")
            return True
        while True:
            if not self._steps.valid(task):
                how.problems = [
                    *how.problems,
                    "the access token that began it is no longer valid",
                ]
                await self._end("failed")
                return True
            if how.queue is None:
                how.queue = await self._steps.next_queue(task, queues)
                if how.queue is None or self._left() <= 0:
                    await self._end("done")
                    return True
            try:
                if not await self._queue(how.queue):
                    return False
            except StoreUnavailable:
                raise
            except PresqueError as error:
                self._problem(how.queue, str(error))
            if not await self._leave_queue():
                return False

    async def _queue(self, queue: str) -> bool:
        """Do a queue. False if somebody wants it to stop."""
        progress = await self._begin(queue)
        while True:
            self._here(progress)
            if progress.over or self._left() <= 0:
                return True
            if not await self._alive():
                return False
            room = await self._room()
            if room > 0:
                began = self._clock()
                before = progress
                progress = await self._step(queue, before, room)
                self._allowed -= progress.done - before.done
                await asyncio.sleep(min(self._clock() - began, REST_MOST_S))

    async def _begin(self, queue: str) -> Progress:
        """How far it has come in a queue, once all that is on its way from there has arrived."""
        if self._task.what.act != "move":
            return await self._steps.step(self._task, queue, UNKNOWN, 0)
        progress, batch = await self._steps.left(self._task, queue)
        if batch:
            await self._steps.put(self._task, queue, batch)
        return progress

    async def _step(self, queue: str, before: Progress, room: int) -> Progress:
        """Make the next step in a queue, if nothing stands in the way: how far it has come then."""
        task, steps = self._task, self._steps
        if task.what.act != "move":
            return await steps.step(task, queue, before.step, room)
        try:
            room = min(room, await steps.room(task))
            if room == 0 or steps.disk.full:
                reason = str(steps.disk.refusal() if steps.disk.full else QueueFull())
                return await self._wait(before, reason)
            progress, batch = await steps.take(task, queue, before, room)
            if batch:
                await steps.put(task, queue, batch)
            elif progress.step == before.step:
                return await self._begin(queue)  # another server has begun with it
        except (StoreFull, DiskFull) as error:
            await self._wait(before, str(error))
            return await self._begin(queue)
        task.how.waits = None
        return progress

    async def _wait(self, progress: Progress, reason: str) -> Progress:
        self._task.how.waits = reason
        await asyncio.sleep(WAIT_S)
        return progress

    async def _leave_queue(self) -> bool:
        """Count what was done in a queue and go on to the next. False if somebody wants it to stop."""
        how = self._task.how
        queue, (looked, matched, done, refused) = how.queue, how.here
        how.looked, how.matched = how.looked + looked, how.matched + matched
        how.done, how.refused = how.done + done, how.refused + refused
        how.here, how.after, how.queue = (0, 0, 0, 0), queue or "", None
        going = await self._alive(now=True)
        if queue is not None and self._task.status != "lost":
            await self._forget(queue)
        return going

    async def _forget(self, queue: str) -> None:
        try:
            await self._steps.on_queue("bulk_forget", queue, self._task.id)
        except StoreUnavailable:
            raise
        except PresqueError:
            pass  # a queue that is spoilt: it has been reported

    def _here(self, progress: Progress) -> None:
        self._task.how.here = (progress.looked, progress.matched, progress.done, progress.refused)

    def _left(self) -> int:
        """To how many jobs it may still be done."""
        limit = self._task.what.limit
        return PIECE_JOBS if limit is None else limit - self._task.counts[2]

    async def _room(self) -> int:
        """To how many jobs it may be done now. Waits for a moment if the rate allows none."""
        rate, most = self._task.what.rate, min(PIECE_JOBS, self._left())
        if rate is None:
            return most
        now = self._clock()
        burst = max(1.0, rate * BURST_S)
        self._allowed = min(burst, self._allowed + (now - self._allowed_at) * rate)
        self._allowed_at = now
        if self._allowed >= 1:
            return min(most, int(self._allowed))
        await asyncio.sleep(min((1 - self._allowed) / rate, SAVE_S))
        return 0

    async def _alive(self, *, now: bool = False) -> bool:
        """Whether to go on: now and then it is noted how far it has come, and asked."""
        if not now and self._clock() - self._saved_at < SAVE_S:
            return True
        self._task.status = await self._steps.save(self._task)
        self._saved_at = self._clock()
        return self._task.status == "running" and self._steps.valid(self._task)

    async def _end(self, status: str) -> None:
        """It is over: leave nothing of it in the queue that it is in."""
        task = self._task
        queue = task.how.queue
        task.how.waits = None
        if queue is not None:
            self._here(await self._begin(queue))
        if await self._steps.save(task, status) != status:
            return  # another server ends it
        for one in (queue, task.what.to):
            if one is not None:
                await self._forget(one)
        self._steps.note_end(task, status)

    def _problem(self, queue: str, reason: str) -> None:
        how = self._task.how
        log.warning("task.problem id=%s queue=%s reason=%r", self._task.id, queue, reason)
        if len(how.problems) < PROBLEMS_MOST:
            how.problems = (*how.problems, f"{queue}: {reason}")
