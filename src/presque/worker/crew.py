"""The worker of one process: a runner for each limit, and what they share.

Most workers have one runner. Several are needed where queues have limits of their own, or where jobs run in
different ways. All lease loops are tasks of one event loop, whose thread is the one that `run` is called in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from presque.client.async_client import AsyncClient
from presque.worker import reasons
from presque.worker.desk import Desk
from presque.worker.executors import Executor
from presque.worker.logger import log
from presque.worker.outbox import Letter
from presque.worker.reporting import Reporting
from presque.worker.runner import Runner
from presque.worker.signals import Signals
from presque.worker.work import Work

ANSWER_S = 10.0
ERRANDS_S = 2.0

Errand = Callable[[AsyncClient], Coroutine[Any, Any, None]]
"""Something to be done with the server beside the jobs."""


class Crew:
    """Runs the jobs of a process until it is asked to stop. What is asked of the process is asked of all."""

    def __init__(
        self,
        works: Sequence[Work],
        executors: Sequence[Executor],
        errands: Sequence[Errand] = (),
    ) -> None:
        self.settings = asked = works[0].settings
        self.executors = executors
        answer_s = max(1.0, min(ANSWER_S, asked.interval))
        self.client = AsyncClient(
            asked.base_uri, asked.token, answer_s, asked.worker_id, max_answer=asked.max_answer
        )
        desks: list[Desk] = []
        self.runners = [
            Runner(work, executor, self.client, desks)
            for work, executor in zip(works, executors, strict=True)
        ]
        self._reporting = Reporting(asked, self.client, self.runners, self._told)
        self._errands = errands
        self.signals: Signals | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- from other threads and from signal handlers

    def ask(self, what: str) -> None:
        """`finish`, `stop`, `kill`, `quiet` or `resume`: from any thread, also before and after the run."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._asked, what)
        else:
            self._asked(what)

    def _asked(self, what: str) -> None:
        ends = all(one.desk.stopping for one in self.runners)
        if what != "kill" and not (ends and what in ("quiet", "resume")):
            log.info("worker.asked what=%s", what)
        for runner in self.runners:
            runner.ask(what)

    def _told(self, status: str) -> None:
        if status == "stop":
            if not all(one.desk.stopping for one in self.runners):
                self._asked("finish")
            return
        news = [runner.told(status) for runner in self.runners]
        if any(news):
            log.info("worker.asked what=%s", "quiet" if status == "quiet" else "resume")

    def broke(self, error: BaseException) -> None:
        """Nothing runs jobs any more, so none is to be held: from the thread in which they ran."""
        text = f"the worker broke while the job ran: {reasons.named(error)}"
        if self._loop is not None and not self._loop.is_closed():
            for one in self.runners:
                self._loop.call_soon_threadsafe(one.broke, text)
        self.ask("stop")

    def kill(self) -> None:
        """End whatever jobs run at once, since the process is about to end."""
        for one in self.executors:
            one.kill()

    # --- the whole run

    async def run(self) -> None:
        """Work until told to stop. Raises a `ClientError` when the server refuses from the start."""
        self._loop = asyncio.get_running_loop()
        if self.signals is not None:
            self._loop.add_reader(self.signals.fileno(), self.signals.hear)
        reporting = self._beside(self._reporting.run())
        errands = [self._beside(errand(self.client)) for errand in self._errands]
        beside = [reporting, *errands]
        try:
            await self._run_all()
            if errands and not self.was_stopped:
                await asyncio.wait(errands, timeout=ERRANDS_S)  # a worker may have little to do itself
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._reporting.leave()
            self.client.close()
        for task in beside:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task beside the runners. If it breaks, the worker ends: it must not go on half alive."""
        task = asyncio.ensure_future(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._asked("finish")

        task.add_done_callback(ended)
        return task

    async def _run_all(self) -> None:
        """Run all runners. If one breaks, the others finish what they do, and the error is raised then."""
        tasks = [asyncio.ensure_future(one.run()) for one in self.runners]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if not all(one.done() for one in tasks):
                self._asked("finish")
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        # All of them are looked at: asyncio would log the others.
        errors = [task.exception() for task in tasks if not task.cancelled()]
        for error in errors:
            if error is not None:
                raise error

    # --- how it ended

    @property
    def was_stopped(self) -> bool:
        """Whether it was asked to stop its jobs instead of finishing them."""
        return any(one.was_stopped for one in self.runners)

    @property
    def left(self) -> list[Letter]:
        """What to tell the server once the jobs that would not stop have ended."""
        return [letter for one in self.runners for letter in one.left]
