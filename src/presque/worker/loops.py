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
    except Exception:
        raise  # the loop itself is broken
    except BaseException as error:  # noqa: BLE001  (what ends a task of a job does not end the worker)
        log.warning("job.task_raised error=%s", reasons.named(error), extra={"trace": reasons.trace(error)})


_SHUT_DOWN = (("_executor_shutdown_called", "_default_executor"), ("_asyncgens_shutdown_called", None))


class SettingsOf:
    """How a loop was set up, put back as it was after jobs that have changed it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._debug = loop.get_debug()

    def changed(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether something had changed. Also what a job has shut down is opened again."""
        found = False
        if loop.get_debug() is not self._debug:
            loop.set_debug(self._debug)
            found = True
        if loop.get_exception_handler() is not None:
            loop.set_exception_handler(None)
            found = True
        if loop.get_task_factory() is not None:
            loop.set_task_factory(None)
            found = True
        for name, also in _SHUT_DOWN:  # those of asyncio's own loops; others have other names
            if getattr(loop, name, False):
                setattr(loop, name, False)
                if also is not None:
                    setattr(loop, also, None)
                found = True
        return found


def run(step: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run one step on a loop of its own."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return _result(loop, asyncio.Task(step, loop=loop))
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
        task = asyncio.Task(execution.perform_async(work, job), loop=loop)
        on_task(task)
        try:
            return _result(loop, task)
        except asyncio.CancelledError as error:
            return _result(loop, asyncio.Task(execution.failed_async(work, job, why() or error), loop=loop))
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
        closing = asyncio.Task(loop.shutdown_asyncgens(), loop=loop)
        closing.add_done_callback(_stop)
        late = loop.call_later(LEFT_TASKS_S, loop.stop)
        go_on(loop)
        late.cancel()
    with contextlib.suppress(Exception):
        asyncio.set_event_loop(None)
        loop.close()
