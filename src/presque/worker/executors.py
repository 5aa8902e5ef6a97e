"""What runs jobs, as the lease loop sees it, and the executor that runs them in this thread or in several.

The lease loop hands jobs over and hears how they went; it knows nothing else of threads, tasks or processes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from presque.worker import execution
from presque.worker.errors import Interrupted, JobCancelled, JobTimeout
from presque.worker.execution import Outcome
from presque.worker.held import Held
from presque.worker.work import Work

log = logging.getLogger("presque.worker")


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
        self._done: deque[tuple[Held, Outcome]] = deque()
        self._announced = False
        self._running: Held | None = None
        self._main: int | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._loop, self._finished = loop, finished

    def run(self) -> None:
        """Work until closed."""
        if self.slots == 1:
            interruptible = hasattr(signal, "pthread_kill")  # not on Windows
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
        if self._main is None or self._running is not held or isinstance(reason, JobCancelled):
            return False  # who deleted the job, or lost it, is no reason to cut code off in any place
        held.interruption = reason
        signal.pthread_kill(self._main, signal.SIGALRM)
        return True

    def check(self, held: Held, now: float) -> None:
        if self._timeout is None or held.started_at is None or held.interruption is not None:
            return
        if now - held.started_at > self._timeout:
            self.interrupt(held, JobTimeout(f"took longer than its time limit of {self._timeout:g} s"))

    def kill(self) -> None:
        """Threads end with the process."""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._over.set()

    def alarm(self) -> None:
        """The handler of SIGALRM, in the main thread: raise in the job what is to be raised in it."""
        held = self._running
        if held is not None and held.interruption is not None:
            raise held.interruption

    def _next(self) -> Held | None:
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _go_on(self) -> None:
        work, inline = self._work, self.slots == 1
        chatty = log.isEnabledFor(logging.INFO)
        while (held := self._next()) is not None:
            if chatty:
                log_start(held, os.getpid())
            held.started_at = time.monotonic()
            outcome = self._inline(held) if inline else execution.perform(work, held.job)
            held.ended_at = time.monotonic()
            self._done.append((held, outcome))
            if not self._announced:
                self._announced = True
                self._loop.call_soon_threadsafe(self._collect)

    def _inline(self, held: Held) -> Outcome:
        """A signal may raise anywhere between the two assignments, also outside of `work`."""
        try:
            self._running = held
            outcome = execution.perform(self._work, held.job)
            self._running = None
        except Interrupted as reason:
            self._running = None
            outcome = execution.failed(self._work, held.job, reason)
        return outcome

    def _collect(self) -> None:
        self._announced = False
        done = []
        while self._done:
            done.append(self._done.popleft())
        self._finished(done)


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
        self._running: dict[Held, asyncio.Task[None]] = {}
        self._own: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._done: deque[tuple[Held, Outcome]] = deque()
        self._announced = False

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._loop, self._finished = loop, finished

    def run(self) -> None:
        """Work until closed."""
        asyncio.run(self._serve())

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
        """Each task has its own time limit."""

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

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        with self._lock:
            self._own = asyncio.get_running_loop()
        self._fill()
        if self._closed:
            self._end()
        await self._over.wait()
        with self._lock:
            self._own = None

    def _end(self) -> None:
        assert self._over is not None
        self._over.set()

    def _fill(self) -> None:
        while len(self._running) < self.slots:
            try:
                held = self._waiting.popleft()
            except IndexError:
                return
            self._running[held] = asyncio.get_running_loop().create_task(self._run(held))

    async def _run(self, held: Held) -> None:
        log_start(held, os.getpid())
        held.started_at = time.monotonic()
        outcome = await self._outcome(held)
        held.ended_at = time.monotonic()
        del self._running[held]
        self._done.append((held, outcome))
        if not self._announced:
            self._announced = True
            self._loop.call_soon_threadsafe(self._collect)
        self._fill()

    async def _outcome(self, held: Held) -> Outcome:
        try:
            if self._timeout is None:
                return await execution.perform_async(self._work, held.job)
            async with asyncio.timeout(self._timeout):
                return await execution.perform_async(self._work, held.job)
        except TimeoutError:
            text = f"took longer than its time limit of {self._timeout:g} s"
            return execution.failed(self._work, held.job, JobTimeout(text))
        except asyncio.CancelledError as error:
            return execution.failed(self._work, held.job, held.interruption or error)

    def _cancel(self, held: Held, reason: Interrupted) -> None:
        task = self._running.get(held)
        if task is not None:
            held.interruption = reason
            task.cancel(str(reason))

    def _collect(self) -> None:
        self._announced = False
        done = []
        while self._done:
            done.append(self._done.popleft())
        self._finished(done)


def log_start(held: Held, pid: int) -> None:
    """One line as a job begins."""
    job = held.job
    log.info("job.started queue=%s id=%s attempt=%d pid=%d", job.queue, job.id, job.attempt, pid)
