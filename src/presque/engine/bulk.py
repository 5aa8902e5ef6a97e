"""Bulk tasks: something is done to all jobs that match a filter, by whichever server is there.

A server has a task for a while (`CLAIM_MS`) and keeps telling the store that it still works on it
(lua/tasks.lua). If it falls silent another server takes the task over, from the step where it stands. How far
a task has come is noted together with what it does, so a kill of any server at any moment loses no count and
does nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from presque import codec
from presque.engine.background import Background
from presque.engine.bulk_steps import CLAIM_MS, Steps
from presque.engine.bulk_task import How, Task, What, read_task
from presque.engine.bulk_work import Work
from presque.errors import CallerError, NotFound, PresqueError, StoreUnavailable, shown

log = logging.getLogger("presque.engine")

LOOK_S = 1.0
AT_ONCE = 4  # tasks that one server works on


class Bulk:
    """The bulk tasks of one namespace."""

    def __init__(self, steps: Steps, background: Background) -> None:
        self._steps = steps
        self._call = steps.on_tasks
        self._background = background
        self._runs = False
        self._working: set[str] = set()
        self._look = asyncio.Event()

    # --- what callers ask for

    async def begin(self, what: What) -> Task:
        """Begin a task. Raises `CallerError` if there are too many."""
        put = "task_put_freeing" if what.act == "delete" else "task_put"  # also when the store is full
        reply = await self._call(put, codec.encode(what), codec.encode(How()))
        if reply == b"full":
            raise CallerError("there are 100 tasks that have not ended, the maximum; cancel some")
        self.look_soon()
        return read_task(reply)

    async def show(self, id: str) -> Task:
        """One task. Raises `NotFound`."""
        reply = await self._call("task_show", id)
        if not reply:
            raise missing(id)
        return read_task(reply)

    async def page(self, before: str, limit: int) -> list[Task]:
        """Tasks before this one, the newest first."""
        reply = await self._call("task_list", before, limit)
        return [read_task(reply[at : at + 5]) for at in range(0, len(reply), 5)]

    async def steer(self, id: str, word: str) -> Task:
        """`pause` a task, `resume` or `cancel` it. One that has ended stays as it is. Raises `NotFound`."""
        if not await self._call("task_steer", id, word):
            raise missing(id)
        self.look_soon()
        return await self.show(id)

    # --- the work

    def look_soon(self) -> None:
        """There may be a task that no server works on."""
        if self._runs:
            self._look.set()
        else:
            self._background.spawn(self.look())

    async def look(self) -> None:
        """Begin to work on tasks that no server works on: once, where nothing `run`s."""
        with contextlib.suppress(PresqueError):  # the next server that looks finds them
            await self._claim()

    async def run(self) -> None:
        """Work on tasks that no server works on, until cancelled."""
        said, self._runs = "", True
        while True:
            try:
                await self._claim()
                said = ""
            except StoreUnavailable:
                pass  # it is logged where the connection is kept
            except PresqueError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("task.failed reason=%r", said)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()

    async def _claim(self) -> None:
        room = AT_ONCE - len(self._working)
        if room <= 0:
            return
        reply = await self._call("task_claim", self._steps.me, CLAIM_MS, room)
        for at in range(0, len(reply), 5):
            task = read_task(reply[at : at + 5])
            if task.id not in self._working:
                self._working.add(task.id)
                self._background.spawn(self._work(task))

    async def _work(self, task: Task) -> None:
        """Go on with a task until it ends, somebody pauses it, or it is another server's."""
        try:
            await Work(self._steps, task).go()
        except StoreUnavailable:
            pass  # the next server that reaches the store takes it once the claim has ended
        except Exception as error:
            log.exception("task.broken id=%s reason=%r", task.id, str(error))
        finally:
            self._working.discard(task.id)
            self.look_soon()


def missing(id: str) -> NotFound:
    """There is none."""
    return NotFound(f"there is no task `{shown(id)}`: it never existed, or ended long ago")
