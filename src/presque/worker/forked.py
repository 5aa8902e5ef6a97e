"""What a forked child does besides its job: it becomes a process of its own, hears that it should stop, says
how the job went, and ends as a Python program ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import io
import logging
import mmap
import os
import signal
import sys
import threading
import weakref
from _io import _IOBase, _RawIOBase  # those of `io` are abstract, and take long to ask
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from presque.client.json_values import encoded
from presque.worker import interrupts
from presque.worker.errors import Interrupted, JobCancelled, JobStopped, JobTimeout
from presque.worker.job import Job

CHANGED_BY_US = (
    "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGCHLD", "SIGURG",
)  # fmt: skip
LATE, CANCELLED, STOPPED = 1, 2, 3
"""What the parent writes into the byte that it shares with a child, before it sends the signal."""
_PR_SET_PDEATHSIG = 1
_of_the_parent: list[object] = []
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def settle_in(parent: int, to_close: Iterable[int]) -> None:
    """Become a process of its own: signals, group, input, and none of the parent's connections and exits."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    signal.set_wakeup_fd(-1)
    for changed in CHANGED_BY_US:
        signal.signal(signal.Signals[changed], signal.SIG_DFL)
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    for number in to_close:
        with contextlib.suppress(OSError):
            os.close(number)
    _forget_exits_of_the_parent()
    gc.freeze()  # at the end it is known what is the child's own: see `_close_files`
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:  # Python's own generator does this by itself
        with contextlib.suppress(Exception):
            numpy.seed()


def _forget_exits_of_the_parent() -> None:
    """What the parent has registered to be done at its end is not for its children to do."""
    with contextlib.suppress(Exception):
        atexit._clear()  # noqa: SLF001  (there is no public way)
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # noqa: SLF001
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # noqa: SLF001
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children = set()  # type: ignore[attr-defined]  # noqa: SLF001


def wind_up() -> None:
    """What Python does at the end of a program: wait for threads, call what was registered, flush."""
    multiprocessing = sys.modules.get("multiprocessing.util")
    steps: list[Callable[[], Any]] = [threading._shutdown]  # type: ignore[attr-defined]  # noqa: SLF001
    if multiprocessing is not None:
        steps.append(multiprocessing._exit_function)  # noqa: SLF001
    for step in (*steps, atexit._run_exitfuncs, logging.shutdown, _close_files):  # noqa: SLF001
        with contextlib.suppress(BaseException):
            step()


def _close_files() -> None:
    """Write out what the job has left in the buffers of files. Those of the parent are not ours to write."""
    found = gc.get_objects()
    if any(one is _of_the_parent for one in found):
        return  # the job has called `gc.unfreeze`: nobody knows whose files they are
    own = [one for one in found if issubclass(type(one), _IOBase)]
    texts = [one for one in own if issubclass(type(one), io.TextIOWrapper)]
    buffers = [one for one in own if issubclass(type(one), io.BufferedWriter | io.BufferedRandom)]
    below = (_RawIOBase, io.BytesIO, io.StringIO, io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    others = [one for one in own if not issubclass(type(one), below)]  # compressed ones, for instance
    for one in (*texts, *others, *buffers):
        with contextlib.suppress(BaseException):
            one.close()


class Interrupting:
    """Raises in the job what the parent asks for, where that does no harm, or cancels the job's task."""

    def __init__(self, told: mmap.mmap, job: Job, late: str) -> None:
        self._told, self._job, self._late = told, job, late
        self._over = False
        self.raised: Interrupted | None = None
        self.task: asyncio.Task[Any] | None = None
        for number in (signal.SIGURG, signal.SIGVTALRM):
            signal.signal(number, self._interrupt)

    def on_task(self, task: asyncio.Task[Any]) -> None:
        """From now on the job is this task."""
        self.task = task

    def end(self) -> None:
        """The job is over."""
        self._over = True

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        if self._over or not self._told[0]:
            return
        reason = self._reason(self._told[0])
        self._job.cancelled = True
        if interrupts.may_raise(frame):
            self._told[0] = 0  # heard: the parent need not send the signal again
            self.raised = reason
            raise reason
        if self.task is not None and not self.task.done():
            self._told[0] = 0
            self.raised = reason
            self.task.get_loop().call_soon_threadsafe(self.task.cancel, str(reason))
            return
        interrupts.try_again()

    def _reason(self, code: int) -> Interrupted:
        if code == LATE:
            return JobTimeout(self._late)
        if code == STOPPED:
            return JobStopped("the worker was stopped")
        return JobCancelled("the job was cancelled, or its lease was lost")


def say(pipe: int, message: Mapping[str, Any]) -> bool:
    """Write one line to the parent. False: the job has closed the pipe.

    It begins with a line end, too: the job may have written into the pipe, or a line was cut off.
    """
    data = b"\n" + encoded(message).encode() + b"\n"
    try:
        while data:
            data = data[os.write(pipe, data) :]
    except OSError:
        return False
    return True


def identity(descriptor: int) -> tuple[int, int] | None:
    """Which file is open under a number, None if none is."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def flush() -> None:
    """Write out what the standard streams hold. One that is closed, or broken, holds nothing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def fill_standard_streams() -> None:
    """Open those of the first three descriptors that are closed: a connection must not take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest that is free
