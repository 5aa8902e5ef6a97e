"""Runs jobs in the thread that started the worker, or several at once in threads."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType

from presque.worker import execution, interrupts, signals
from presque.worker.ahead import ROOM_MOST
from presque.worker.errors import Interrupted, JobCancelled, JobKilled, JobTimeout
from presque.worker.execution import Outcome
from presque.worker.executors import RAISE_AGAIN_S, Finished, Finishing, begin, log_start
from presque.worker.held import Held
from presque.worker.logger import log
from presque.worker.signals import Signals
from presque.worker.surroundings import NotOurs, Surroundings
from presque.worker.work import Work

HANDLERS_S = 1.0
"""How often the handlers of signals are set again where no job runs in the main thread."""


class Threads:
    """Runs jobs one after the other where `run` is called, or several at once in threads."""

    ahead_most = ROOM_MOST
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
        self._pid = os.getpid()
        self._generation = signals.generation
        self.signals: Signals | None = None
        self._contexts = contextvars.copy_context()

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._loop = loop
        self._report.attach(loop, finished)

    def run(self) -> None:
        """Work until closed, in this thread if one job runs at a time."""
        self._contexts = contextvars.copy_context()
        surroundings = Surroundings(self.signals)
        try:
            if self.slots == 1:
                self._be_interruptible()
                self._go_on(surroundings, self._do_alone)
            else:
                self.begin(surroundings)
                self.wait()
        finally:
            surroundings.close()

    def begin(self, surroundings: Surroundings | NotOurs) -> None:
        """Work in threads of our own until closed."""
        self.mode = "threads"
        # Daemons: a thread cannot be stopped, and a worker that is asked to end does not wait for it.
        for number in range(1, self.slots + 1):
            threading.Thread(
                target=self._go_on,
                args=(surroundings, self._do_beside),
                name=f"presque-{number}",
                daemon=True,
            ).start()

    def wait(self) -> None:
        """Wait in the main thread until closed: only it can set handlers that C code has changed."""
        while not self._over.wait(HANDLERS_S):
            if self.signals is not None:
                self.signals.set_others_again()

    def _be_interruptible(self) -> None:
        on_a_unix = interrupts.SIGNAL is not None and hasattr(signal, "pthread_kill")
        if on_a_unix and threading.current_thread() is threading.main_thread():
            self._main = threading.get_ident()

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
            return False  # a deleted job or a lost lease does not justify cutting code off just anywhere
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

    def rung(self, number: int, _frame: FrameType | None) -> None:
        """The handler of alarms for which a job has none, in the main thread."""
        held = self._running
        if held is not None:
            name = signal.Signals(number).name
            self.interrupt(held, JobKilled(f"its alarm rang ({name}), and it has no handler for that signal"))

    def _prod(self, held: Held) -> None:
        """Send the signal to the thread in which the job runs, if it still does."""
        if self._running is held and held.is_to_raise and self._main is not None:
            assert interrupts.SIGNAL is not None
            signal.pthread_kill(self._main, interrupts.SIGNAL)

    def _next(self) -> Held | None:
        try:
            return self._waiting.popleft()  # no lock is needed: see `bench/workers.py`
        except IndexError:
            return self._next_that_comes()

    def _next_that_comes(self) -> Held | None:
        self._report.rest()
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _go_on(self, surroundings: Surroundings | NotOurs, do: Callable[..., Outcome]) -> None:
        """Do one job after the other in this thread."""
        chatty = log.is_enabled_for(logging.INFO)
        surroundings.enter()
        while (held := self._next()) is not None:
            if chatty:
                log_start(held, self._pid)
            begin(held, self._work.settings.worker_id)
            self._report.add(held, do(held, held.started_at or 0, surroundings))

    def _do_alone(self, held: Held, began: float, surroundings: Surroundings) -> Outcome:
        self._running = held
        outcome = self._contexts.copy().run(execution.perform, self._work, held.job)
        self._running = None
        outcome = self._counts(held, outcome)
        now = held.ended_at = time.monotonic()
        surroundings.restore(held.job, now, now - began)
        return outcome

    def _do_beside(self, held: Held, began: float, surroundings: Surroundings | NotOurs) -> Outcome:
        surroundings.began()
        outcome = self._contexts.copy().run(execution.perform, self._work, held.job)
        outcome = self._counts(held, outcome)
        now = held.ended_at = time.monotonic()
        surroundings.ended(held.job, now, now - began)
        return outcome

    def _counts(self, held: Held, outcome: Outcome) -> Outcome:
        """What becomes of the job if it was asked to stop meanwhile."""
        if signals.generation != self._generation:
            os._exit(0)  # a child that the job has forked, and that came back from it
        reason = held.interruption
        if reason is not None and (held.was_raised or held.job.saw_cancelled):
            counts = execution.overruled(outcome, reason)
            outcome = counts or execution.failed(self._work, held.job, reason)
        return outcome
