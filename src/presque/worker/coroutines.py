"""Runs jobs whose `work` is `async def` as tasks of one event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from presque.worker import execution, loops, signals
from presque.worker.ahead import ROOM_MOST
from presque.worker.errors import Interrupted, JobCancelled, JobStopped, JobTimeout
from presque.worker.execution import Outcome
from presque.worker.executors import RAISE_AGAIN_S, Finished, Finishing, begin, log_start
from presque.worker.held import Held
from presque.worker.signals import Signals
from presque.worker.surroundings import NotOurs, Surroundings
from presque.worker.work import Work


class Tasks:
    """Runs jobs whose `work` is `async def` as tasks of one event loop, where `run` is called."""

    mode = "async"
    ahead_most = ROOM_MOST
    wants_texts = False

    def __init__(self, work: Work, slots: int) -> None:
        self.slots = slots
        self._work = work
        self._timeout = work.settings.timeout
        self._waiting: deque[Held] = deque()
        self._running: dict[Held, asyncio.Task[Outcome]] = {}
        self._telling: set[Held] = set()
        self._own: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._report = Finishing()
        self._pid = os.getpid()
        self.signals: Signals | None = None
        self.on_closed: Callable[[], None] = lambda: None
        """Called in the loop after the last job."""
        self.ends: Interrupted | None = None
        """Why tasks are cancelled that nobody here has cancelled: the program ends."""
        self._contexts = contextvars.copy_context()

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._report.attach(loop, finished)

    def run(self) -> None:
        """Work until closed, in a loop of our own."""
        run_tasks([self], self.signals)

    def begin(
        self,
        loop: asyncio.AbstractEventLoop,
        surroundings: Surroundings | NotOurs,
        settings: loops.SettingsOf | None = None,
    ) -> None:
        """Work in this loop, which runs here, until closed. Its `settings` are put back after each job."""
        self._contexts = contextvars.copy_context()
        self._surroundings = surroundings
        self._settings_of_loop = settings
        with self._lock:
            self._own = loop
        loop.call_soon(self._fill)

    def leave(self) -> None:
        """The loop is about to end."""
        with self._lock:
            self._own = None

    @property
    def closed(self) -> bool:
        """Whether the last job has ended."""
        return self._closed

    def put(self, jobs: Sequence[Held]) -> None:
        self._waiting.extend(jobs)
        self._soon(self._fill)

    def withdraw(self) -> list[Held]:
        taken = []
        while self._waiting:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:
                break
        return taken

    def interrupt(self, held: Held, reason: Interrupted) -> bool:
        held.job.cancelled = True
        self._soon(lambda: self._cancel(held, reason))
        return True

    def check(self, held: Held, now: float) -> None:
        """Each task has its own time limit. A cancel that it has swallowed is repeated."""
        if held.interrupted_at is not None and now - held.interrupted_at > RAISE_AGAIN_S:
            held.interrupted_at = now
            self._soon(lambda: self._cancel(held, held.interruption))

    def kill(self) -> None:
        """Tasks end with the process."""

    def close(self) -> None:
        self._closed = True
        self._soon(self.on_closed)

    def _soon(self, step: Callable[[], None]) -> None:
        """Do it in the loop of the tasks; one that has not begun yet does everything when it begins."""
        with self._lock:
            if self._own is not None and not self._own.is_closed():
                self._own.call_soon_threadsafe(step)

    def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._running) < self.slots:
            try:
                held = self._waiting.popleft()
            except IndexError:
                self._report.rest()
                return
            log_start(held, self._pid)
            begin(held, self._work.settings.worker_id)
            self._surroundings.began()
            self._begin(loop, held, execution.perform_async(self._work, held.job))
            if self._timeout is not None:
                late = JobTimeout(f"took longer than its time limit of {self._timeout:g} s")
                held.timer = loop.call_later(self._timeout, self._cancel, held, late)

    def _begin(self, loop: asyncio.AbstractEventLoop, held: Held, step: Coroutine[Any, Any, Outcome]) -> None:
        """Each task has a copy of the context that the worker was started in, not of another job's."""
        task = asyncio.Task(
            step, loop=loop, context=self._contexts.copy()
        )  # whatever the loop's factory does
        self._running[held] = task
        task.add_done_callback(functools.partial(self._ended, held), context=self._contexts)

    def _ended(self, held: Held, task: asyncio.Task[Outcome]) -> None:
        """The task of a job is over, whatever ended it."""
        loop = asyncio.get_running_loop()
        if held.interruption is None and self.ends is not None and task.cancelled():
            held.interruption, held.job.cancelled = self.ends, True
        reason = held.interruption
        if task.cancelled():
            why = reason or asyncio.CancelledError()
            if held not in self._telling:
                self._telling.add(held)
                self._begin(loop, held, execution.failed_async(self._work, held.job, why))
                return
            # `fail` was cancelled, perhaps by itself: it is not called again
            stops = isinstance(why, JobStopped | JobCancelled)
            outcome = execution.given_back(why) if stops else execution.outcome_of(why)
        else:
            raised = task.exception()
            outcome = execution.outcome_of(raised) if raised is not None else task.result()
        if reason is not None and not held.is_settled and not is_undelivered(task):
            counts = execution.overruled(outcome, reason)
            held.is_settled = True
            if counts is None:
                self._begin(loop, held, execution.failed_async(self._work, held.job, reason))
                return
            outcome = counts
        del self._running[held]
        self._telling.discard(held)
        if held.timer is not None:
            held.timer.cancel()
        held.ended_at = time.monotonic()
        self._surroundings.ended(held.job, held.ended_at, held.ended_at - (held.started_at or 0))
        if self._settings_of_loop is not None and self._settings_of_loop.changed(loop):
            self._surroundings.tell(held.job, "event loop")
        self._report.add(held, outcome)
        self._fill()

    def _cancel(self, held: Held, reason: Interrupted | None) -> None:
        task = self._running.get(held)
        if task is None or reason is None or held.is_settled:
            return
        if held.interruption is None or isinstance(reason, JobStopped):
            held.interruption = reason
        held.job.cancelled = True
        held.interrupted_at = time.monotonic()
        task.cancel(str(reason))


def run_tasks(executors: Sequence[Tasks], heard: Signals | None) -> None:
    """Run the jobs of these as tasks of one loop, here, until all are closed.

    A task of a job's own that raises SystemExit or KeyboardInterrupt ends `run_forever`, and a job may
    stop the loop or cancel all tasks that it finds. The loop goes on.
    """
    surroundings = Surroundings(heard)
    surroundings.enter()
    try:
        run_tasks_in(surroundings, executors)
    finally:
        surroundings.close()


def run_tasks_in(surroundings: Surroundings, executors: Sequence[Tasks]) -> None:
    """The same, where others share the surroundings."""
    loop = asyncio.new_event_loop()
    settings = loops.SettingsOf(loop)
    asyncio.set_event_loop(loop)
    forget = functools.partial(loops.forget, loop)
    try:
        for one in executors:
            one.on_closed = loop.stop
            one.begin(loop, surroundings, settings)
        signals.in_children.append(forget)
        while not all(one.closed for one in executors):
            loops.go_on(loop)
    finally:
        for one in executors:
            one.leave()
        signals.in_children.remove(forget)
        loops.close(loop)


def is_undelivered(task: asyncio.Task[Outcome]) -> bool:
    """Whether a task ended before the cancel that was meant for it could be raised in it."""
    return bool(getattr(task, "_must_cancel", False))
