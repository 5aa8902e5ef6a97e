"""Where the jobs of a crew run.

Those of a single runner run as its executor runs them by itself. Those of several run beside one another: in
threads, and in one loop for all that is async.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence

from presque.worker.coroutines import Tasks, run_tasks_in
from presque.worker.executors import Executor
from presque.worker.forker import Forker
from presque.worker.forks import Forks
from presque.worker.job import Job
from presque.worker.mixed import Mixed
from presque.worker.programs import Programs
from presque.worker.settings import WrongSetting
from presque.worker.signals import Signals
from presque.worker.surroundings import NotOurs, Surroundings
from presque.worker.threads import Threads
from presque.worker.work import Work

TASKS = 100
"""How many jobs an `async def work` does at once, unless told otherwise."""
MIXED = 10
"""The same for a queue that has async jobs and others."""


def executors_of(works: Sequence[Work]) -> tuple[list[Executor], Forker | None]:
    """What runs the jobs of these, and the process that forks for some of them, where not all fork."""
    forking = [one for one in works if _forks(one)]
    if forking and not hasattr(os, "fork"):
        raise WrongSetting("this system cannot fork: leave out `fork`, or run the worker on a Unix")
    if len(forking) == len(works) and not any(one.forks for one in works):
        kinds = [(Forks if one.command is None else Programs, one) for one in works]
        return [kind(one, one.settings.concurrency or 1) for kind, one in kinds], None
    forker = Forker() if forking else None
    return [_executor_of(one, forker) for one in works], forker


def _forks(work: Work) -> bool:
    return work.command is not None or work.settings.fork or work.forks is not None


def _executor_of(work: Work, forker: Forker | None) -> Executor:
    asked = work.settings
    if asked.fork and forker is not None:
        return forker.lane(work, asked.concurrency or 1)
    if work.asks is not None:
        return _mixed(work, asked.concurrency or MIXED, forker)
    if work.is_async:
        return Tasks(work, asked.concurrency or TASKS)
    return Threads(work, asked.concurrency or 1)


def _mixed(work: Work, slots: int, forker: Forker | None) -> Mixed:
    threads, tasks = Threads(work, slots), Tasks(work, slots)
    if work.forks is None or forker is None:
        return Mixed(slots, lambda job: tasks if work.awaits(job) else threads, (threads, tasks))
    forks, apart = work.forks, forker.lane(work, slots)

    def choose(job: Job) -> Executor:
        if forks(job):
            return apart
        return tasks if work.awaits(job) else threads

    return Mixed(slots, choose, (threads, tasks, apart))


def parts_of(executors: Sequence[Executor]) -> Iterator[Executor]:
    """The executors, and in place of a mixed one those that it is made of."""
    for one in executors:
        if isinstance(one, Mixed):
            yield from one.parts
        else:
            yield one


def run_here(executors: Sequence[Executor], heard: Signals | None) -> None:
    """Run jobs in this thread until all executors are closed."""
    [first, *others] = executors
    if not others and isinstance(first, Threads | Tasks):
        first.signals = heard
        first.run()
        return
    surroundings = Surroundings(heard)
    surroundings.enter()
    threads, tasks = _sorted(executors)
    try:
        for one in threads:
            one.signals = heard
            one.begin(surroundings)
        if tasks:
            run_tasks_in(surroundings, tasks)
        for one in threads:
            one.wait()
    finally:
        surroundings.close()


def begin_in(loop: asyncio.AbstractEventLoop, executors: Sequence[Executor]) -> None:
    """Run jobs in a program and an event loop that belong to somebody else."""
    threads, tasks = _sorted(executors)
    for one in threads:
        one.begin(NotOurs())
    for task in tasks:
        task.begin(loop, NotOurs())


def _sorted(executors: Sequence[Executor]) -> tuple[list[Threads], list[Tasks]]:
    parts = list(parts_of(executors))
    return [one for one in parts if isinstance(one, Threads)], [
        one for one in parts if isinstance(one, Tasks)
    ]
