"""What runs jobs, as the lease loop sees it: it knows nothing else of threads, tasks or processes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from presque.traces import tracing
from presque.worker.errors import Interrupted
from presque.worker.execution import Outcome
from presque.worker.held import Held
from presque.worker.logger import log
from presque.worker.signals import Signals

RAISE_AGAIN_S = 5.0
"""When a job swallows what is raised in it and continues, it is raised again after this many seconds."""

MANY = 64
"""After so many outcomes a thread of quick jobs lets the lease loop run, which may wait for Python's lock."""

LOOK_S = 0.001
"""After so long the lease loop looks whether more jobs are over."""

Finished = Callable[[list[tuple[Held, Outcome]]], None]


class Executor(Protocol):
    """Runs jobs. All but `run` is called from the lease loop's thread, and never blocks."""

    mode: str
    slots: int
    """How many jobs run at once."""
    ahead_most: int
    """How many quick jobs may be leased ahead at most: they wait behind others."""
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


class Finishing:
    """Carries outcomes from the threads of the jobs to the lease loop, many at a time.

    To wake the lease loop costs more than a quick job does (bench/workers.py). So after it has found outcomes
    it looks again by itself a moment later, and is woken only if it does not, or if nothing else runs.
    """

    def __init__(self) -> None:
        self._done: deque[tuple[Held, Outcome]] = deque()
        self._awaited = False
        self._next: asyncio.TimerHandle | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        """Where to report them."""
        self._loop, self._finished = loop, finished

    def add(self, held: Held, outcome: Outcome) -> None:
        """A job is over: from any thread."""
        self._done.append((held, outcome))
        if not self._awaited:
            self._wake()
        elif not len(self._done) % MANY:
            time.sleep(0)

    def rest(self) -> None:
        """No job is left to begin with: from any thread."""
        if self._done:
            self._wake()

    def _wake(self) -> None:
        self._awaited = True
        with contextlib.suppress(RuntimeError):  # the lease loop has ended: nobody waits for it
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._awaited = False
        done = [self._done.popleft() for _ in range(len(self._done))]
        if done:
            self._awaited = True
            self._next = self._loop.call_later(LOOK_S, self._collect)
            self._finished(done)


def begin(held: Held, worker: str) -> None:
    """A job begins now."""
    held.started_at = time.monotonic()
    job = held.job
    if job.span is None and (traced := tracing()) is not None:
        job.span = traced.begin_job(job.queue, job.id, job.attempt, (job.traceparent, job.tracestate), worker)


def end_span(held: Held, outcome: Outcome) -> None:
    """Tell the trace how a job went, once."""
    span, held.job.span = held.job.span, None
    if span is not None and (traced := tracing()) is not None:
        ago_s = time.monotonic() - held.ended_at if held.ended_at else 0.0
        traced.end_job(span, outcome.verb, outcome.error, outcome.raised, outcome.fields, ago_s)


def log_start(held: Held, pid: int) -> None:
    """One line as a job begins."""
    job = held.job
    log.info("job.started queue=%s id=%s attempt=%d pid=%d", job.queue, job.id, job.attempt, pid)
