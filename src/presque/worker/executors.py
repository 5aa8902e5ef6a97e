"""What runs jobs, as the lease loop sees it, and the executor that runs them in this thread or in several.

The lease loop hands jobs over and hears how they went; it knows nothing else of threads, tasks or processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import Any, Protocol

from presque.worker import execution, interrupts, loops, signals
from presque.worker.errors import Interrupted, JobCancelled, JobStopped, JobTimeout
from presque.worker.execution import Outcome
from presque.worker.held import Held
from presque.worker.logger import log
from presque.worker.signals import Signals
from presque.worker.surroundings import Surroundings
from presque.worker.work import Work

RAISE_AGAIN_S = 5.0
"""A job that swallows what is raised in it, and goes on, has it raised again after so many seconds."""

Finished = Callable[[list[tuple[Held, Outcome]]], None]


class Executor(Protocol):
    """Runs jobs. All but `run` is called from the lease loop's thread, and never blocks."""

    mode: str
    slots: int
    """How many jobs run at once."""
    leads: bool
    """Whether jobs may be leased ahead: they would wait behind others that may take long or crash."""
    wants_texts: bool
    """Whether jobs are wanted as they were pushed, byte for byte."""
    signals: Signals | None
    """Where signals are heard, when it runs in the main thread."""

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        """Tell `finished`, in `loop`, how jobs went."""

    def put(self, jobs: Sequence[Held]) -> None:
        """Run these as soon as there is room."""

    def withdraw(self) -> list[Held]:
        """Take back the jobs that have not begun."""

    def interrupt(self, held: Held, reason: Interrupted) -> bool:
        """Make a running job stop, with this raised in it if possible. False: it cannot be stopped."""

    def check(self, held: Held, now: float) -> None:
        """Look after a running job: its time limit."""

    def kill(self) -> None:
        """End whatever runs at once, without a word, since the worker ends itself at once."""

    def close(self) -> None:
        """There will be no more jobs: `run` returns when those that run have ended, or cannot be stopped."""


class Threads:
    """Runs jobs one after the other where `run` is called, or several at once in threads."""

    leads = True
    wants_texts = False

    def __init__(self, work: Work, slots: int) -> None:
        self.mode = "inline" if slots == 1 else "threads"
        self.slots = slots
        self._work = work
        self._timeout = work.settings.timeout
        self._waiting: deque[Held] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._over = threading.Event()
        self._report = Finishing()
        self._running: Held | None = None
        self._main: int | None = None
        self._busy = 0
        self._pid = os.getpid()
        self._generation = signals.generation
        self.signals: Signals | None = None
        self._contexts = contextvars.copy_context()

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._loop = loop
        self._report.attach(loop, finished)

    def run(self) -> None:
        """Work until closed."""
        self._contexts = contextvars.copy_context()
        self._surroundings = Surroundings(self.signals)
        try:
            self._run()
        finally:
            self._surroundings.close()

    def _run(self) -> None:
        if self.slots == 1:
            interruptible = interrupts.SIGNAL is not None and hasattr(
                signal, "pthread_kill"
            )  # not on Windows
            if interruptible and threading.current_thread() is threading.main_thread():
                self._main = threading.get_ident()
            self._go_on()
            return
        # Daemons: a thread cannot be stopped, and a worker that was told to end does not wait for it.
        threads = [
            threading.Thread(target=self._go_on, name=f"presque-{number}", daemon=True)
            for number in range(1, self.slots + 1)
        ]
        for thread in threads:
            thread.start()
        self._over.wait()  # signals are heard elsewhere: nothing needs to interrupt this

    def put(self, jobs: Sequence[Held]) -> None:
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))

    def withdraw(self) -> list[Held]:
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
        return waiting

    def interrupt(self, held: Held, reason: Interrupted) -> bool:
        held.job.cancelled = True
        if held.interruption is None or not isinstance(reason, JobCancelled):
            held.interruption = reason
        if self._main is None or self._running is not held or isinstance(reason, JobCancelled):
            return False  # who deleted the job, or lost it, is no reason to cut code off in any place
        held.interrupted_at, held.is_to_raise = time.monotonic(), True
        self._prod(held)
        return True

    def check(self, held: Held, now: float) -> None:
        if held.interrupted_at is not None:
            if now - held.interrupted_at > RAISE_AGAIN_S:  # it has swallowed what was raised in it
                held.interrupted_at, held.is_to_raise = now, True
                self._prod(held)
        elif (
            self._timeout is not None
            and held.started_at is not None
            and now - held.started_at > self._timeout
        ):
            self.interrupt(held, JobTimeout(f"took longer than its time limit of {self._timeout:g} s"))

    def kill(self) -> None:
        """Threads end with the process."""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._over.set()

    def interrupted(self, frame: FrameType | None) -> None:
        """The handler of the signal, in the main thread: raise in the job what is to be raised in it."""
        held = self._running
        if held is None or not held.is_to_raise or held.interruption is None:
            return
        if not interrupts.may_raise(frame):
            interrupts.try_again()
            return
        held.is_to_raise, held.was_raised = False, True
        raise held.interruption

    def _prod(self, held: Held) -> None:
        """Send the signal to the thread in which the job runs, if it still does."""
        if self._running is held and held.is_to_raise and self._main is not None:
            assert interrupts.SIGNAL is not None
            signal.pthread_kill(self._main, interrupts.SIGNAL)

    def _next(self) -> Held | None:
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _go_on(self) -> None:
        inline = self.slots == 1
        chatty = log.is_enabled_for(logging.INFO)
        surroundings = self._surroundings
        while (held := self._next()) is not None:
            if chatty:
                log_start(held, self._pid)
            held.started_at = time.monotonic()
            if inline:
                self._running = held
            else:
                with self._changed:
                    self._busy += 1
            outcome = self._contexts.copy().run(execution.perform, self._work, held.job)
            if inline:
                self._running = None
            if signals.generation != self._generation:
                os._exit(0)  # a child that the job has forked, and that came back from it
            reason = held.interruption
            if reason is not None and (held.was_raised or held.job.saw_cancelled):
                counts = execution.overruled(outcome, reason)
                outcome = counts or execution.failed(self._work, held.job, reason)
            held.ended_at = time.monotonic()
            if inline:
                surroundings.restore(held.job, held.ended_at)
            else:
                with self._changed:
                    self._busy -= 1
                    if self._busy:
                        surroundings.restore_shared(held.job, held.ended_at)
                    else:
                        surroundings.restore(held.job, held.ended_at)
            self._report.add(held, outcome)


class Tasks:
    """Runs jobs whose `work` is `async def` as tasks of one event loop, where `run` is called."""

    mode = "async"
    leads = True
    wants_texts = False

    def __init__(self, work: Work, slots: int) -> None:
        self.slots = slots
        self._work = work
        self._timeout = work.settings.timeout
        self._waiting: deque[Held] = deque()
        self._running: dict[Held, asyncio.Task[Outcome]] = {}
        self._own: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._report = Finishing()
        self._pid = os.getpid()
        self.signals: Signals | None = None
        self._contexts = contextvars.copy_context()

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._report.attach(loop, finished)

    def run(self) -> None:
        """Work until closed.

        A task of a job's own that raises SystemExit or KeyboardInterrupt ends `run_forever`, and a job may
        stop the loop or cancel all tasks that it finds. The loop goes on.
        """
        self._contexts = contextvars.copy_context()
        self._surroundings = Surroundings(self.signals)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        forget = functools.partial(loops.forget, loop)
        try:
            with self._lock:
                self._own = loop
            signals.in_children.append(forget)
            loop.call_soon(self._fill)
            while not self._closed:
                loops.go_on(loop)
        finally:
            with self._lock:
                self._own = None
            signals.in_children.remove(forget)
            loops.close(loop)
            self._surroundings.close()

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
        self._soon(self._end)

    def _soon(self, step: Callable[[], None]) -> None:
        """Do it in the loop of the tasks; one that has not begun yet does everything when it begins."""
        with self._lock:
            if self._own is not None and not self._own.is_closed():
                self._own.call_soon_threadsafe(step)

    def _end(self) -> None:
        asyncio.get_running_loop().stop()

    def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._running) < self.slots:
            try:
                held = self._waiting.popleft()
            except IndexError:
                return
            log_start(held, self._pid)
            held.started_at = time.monotonic()
            self._begin(loop, held, execution.perform_async(self._work, held.job))
            if self._timeout is not None:
                late = JobTimeout(f"took longer than its time limit of {self._timeout:g} s")
                held.timer = loop.call_later(self._timeout, self._cancel, held, late)

    def _begin(self, loop: asyncio.AbstractEventLoop, held: Held, step: Coroutine[Any, Any, Outcome]) -> None:
        """Each task has a copy of the context that the worker was started in, not of another job's."""
        task = loop.create_task(step, context=self._contexts.copy())
        self._running[held] = task
        task.add_done_callback(functools.partial(self._ended, held), context=self._contexts)

    def _ended(self, held: Held, task: asyncio.Task[Outcome]) -> None:
        """The task of a job is over, whatever ended it."""
        loop = asyncio.get_running_loop()
        reason = held.interruption
        if task.cancelled():
            why = reason or asyncio.CancelledError()
            self._begin(loop, held, execution.failed_async(self._work, held.job, why))
            return
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
        if held.timer is not None:
            held.timer.cancel()
        held.ended_at = time.monotonic()
        if self._running:
            self._surroundings.restore_shared(held.job, held.ended_at)
        else:
            self._surroundings.restore(held.job, held.ended_at)
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


class Finishing:
    """Carries outcomes from the threads of the jobs to the lease loop, many at a time."""

    def __init__(self) -> None:
        self._done: deque[tuple[Held, Outcome]] = deque()
        self._announced = False

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        """Where they are to be told."""
        self._loop, self._finished = loop, finished

    def add(self, held: Held, outcome: Outcome) -> None:
        """A job is over: from any thread."""
        self._done.append((held, outcome))
        if not self._announced:
            self._announced = True
            with contextlib.suppress(RuntimeError):  # the lease loop has ended: nobody waits for it
                self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._announced = False
        done = []
        while self._done:
            done.append(self._done.popleft())
        self._finished(done)


def is_undelivered(task: asyncio.Task[Outcome]) -> bool:
    """Whether a task ended before the cancel that was meant for it could be raised in it."""
    return bool(getattr(task, "_must_cancel", False))


def log_start(held: Held, pid: int) -> None:
    """One line as a job begins."""
    job = held.job
    log.info("job.started queue=%s id=%s attempt=%d pid=%d", job.queue, job.id, job.attempt, pid)
