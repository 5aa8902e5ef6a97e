"""Event loops in which jobs run. Whatever a job does to a loop, the loop goes on until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from presque.worker import execution, reasons
from presque.worker.execution import Outcome
from presque.worker.job import Job
from presque.worker.logger import log
from presque.worker.work import Work

LEFT_TASKS_S = 2.0
"""How long tasks that jobs have left running are waited for when their loop is closed."""


def go_on(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, or until a task that a job has started raises what ends it."""
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt) as error:
        log.warning("job.task_raised error=%s", reasons.named(error), extra={"trace": reasons.trace(error)})


def run(step: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run one step on a loop of its own."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return _result(loop, loop.create_task(step))
    finally:
        close(loop)


def run_alone(
    work: Work,
    job: Job,
    on_task: Callable[[asyncio.Task[Outcome]], None],
    why: Callable[[], BaseException | None],
) -> Outcome:
    """Do one job on a loop of its own. `on_task` gets its task, to cancel it, and `why` says why it was."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        task = loop.create_task(execution.perform_async(work, job))
        on_task(task)
        try:
            return _result(loop, task)
        except asyncio.CancelledError as error:
            return _result(loop, loop.create_task(execution.failed_async(work, job, why() or error)))
    finally:
        close(loop)


def _result(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Outcome]) -> Outcome:
    """Run the loop until the task is over. Raises `CancelledError` if it was cancelled."""
    while not task.done():
        task.add_done_callback(_stop)
        go_on(loop)
        task.remove_done_callback(_stop)
    return task.result()


def _stop(task: asyncio.Task[Any]) -> None:
    task.get_loop().stop()


def forget(loop: asyncio.AbstractEventLoop) -> None:
    """In a child that a job has forked: it must not go on with the jobs that wait on this loop.

    What the job itself does in its child is up to it. When it gives the loop back, the child ends.
    """
    ready = getattr(loop, "_ready", None)  # uvloop has none
    if ready is not None:
        ready.clear()
    loop.call_soon(os._exit, 0)


def close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what jobs have left running on a loop, wait a moment for it, and close the loop."""
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel()
    until = time.monotonic() + LEFT_TASKS_S
    while left and time.monotonic() < until:
        loop.call_later(0.005, loop.stop)
        go_on(loop)
        left = [task for task in left if not task.done()]
    with contextlib.suppress(Exception):
        closing = loop.create_task(loop.shutdown_asyncgens())
        closing.add_done_callback(_stop)
        late = loop.call_later(LEFT_TASKS_S, loop.stop)
        go_on(loop)
        late.cancel()
    with contextlib.suppress(Exception):
        asyncio.set_event_loop(None)
        loop.close()
