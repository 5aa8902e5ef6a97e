"""Runs the jobs of one queue in the way that each asks for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from presque.worker.ahead import ROOM_MOST
from presque.worker.errors import Interrupted
from presque.worker.execution import Outcome
from presque.worker.executors import Executor, Finished
from presque.worker.held import Held
from presque.worker.job import Job
from presque.worker.signals import Signals


class Mixed:
    """Runs some jobs in threads and some as tasks, as each asks for, so many at once in all.

    All of it happens in the lease loop's thread.
    """

    mode = "mixed"
    ahead_most = ROOM_MOST
    wants_texts = False

    def __init__(self, slots: int, choose: Callable[[Job], Executor], parts: Sequence[Executor]) -> None:
        self.slots = slots
        self.parts = parts
        self._choose = choose
        self._waiting: deque[Held] = deque()
        self._running: dict[Held, Executor] = {}
        self.signals: Signals | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        def done(jobs: list[tuple[Held, Outcome]]) -> None:
            for held, _ in jobs:
                self._running.pop(held, None)
            finished(jobs)
            self._fill()

        for part in self.parts:
            part.attach(loop, done)

    def put(self, jobs: Sequence[Held]) -> None:
        self._waiting.extend(jobs)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            held = self._waiting.popleft()
            part = self._running[held] = self._choose(held.job)
            part.put([held])

    def withdraw(self) -> list[Held]:
        waiting = list(self._waiting)
        self._waiting.clear()
        for part in self.parts:
            for held in part.withdraw():
                self._running.pop(held, None)
                waiting.append(held)
        return waiting

    def interrupt(self, held: Held, reason: Interrupted) -> bool:
        part = self._running.get(held)
        return part is not None and part.interrupt(held, reason)

    def check(self, held: Held, now: float) -> None:
        part = self._running.get(held)
        if part is not None:
            part.check(held, now)

    def kill(self) -> None:
        for part in self.parts:
            part.kill()

    def close(self) -> None:
        for part in self.parts:
            part.close()
