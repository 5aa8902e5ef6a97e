"""A worker as process 1 of a container.

Process 1 becomes the parent of every process whose own parent has ended, and has to wait for it, or it stays
in the table of processes as a zombie until the container ends. A worker cannot do that itself: it could not
tell those from the children that a job has started and waits for. So it steps aside: process 1 passes signals
on, waits for everything that ends, and ends as the worker does; the worker is its child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn

from presque import exits
from presque.worker.logger import log
from presque.worker.watch import watch

_NOT_PASSED_ON = (
    "SIGKILL", "SIGSTOP", "SIGCHLD", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS",
    "SIGTTIN", "SIGTTOU", "SIGPROF", "SIGVTALRM",
)  # fmt: skip
TWICE_S = 0.5
"""What is sent to all processes of a container comes to the worker itself, too, and then from process 1."""
is_aside = False
"""Whether process 1 passes signals on to this process."""


def step_aside() -> None:
    """Go on as a child, if this is process 1. Returns in the child only."""
    global is_aside
    if os.getpid() != 1 or not hasattr(os, "fork"):
        return
    if threading.active_count() > 1:
        log.warning("worker.cannot_reap reason=%s", "other threads run: start the container with --init")
        return
    passed_on = signal.valid_signals() - {getattr(signal, name) for name in _NOT_PASSED_ON}
    heard = {*passed_on, signal.SIGCHLD}
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    child = os.fork()
    if child:
        _be_first(child, heard)
    is_aside = True
    for number in passed_on:
        if signal.getsignal(number) is exits.ended_by:
            signal.signal(number, signal.SIG_DFL)
    watch.workers.add(1)  # it passes on what is sent to it
    _take_the_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_the_terminal() -> None:
    """A group of its own, so that what is typed at a terminal arrives once."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
        if os.isatty(0):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def _be_first(worker: int, heard: set[signal.Signals]) -> NoReturn:
    """Pass signals on and bury the dead, until the worker has ended."""
    os.closerange(3, 65536)
    while True:
        number = signal.sigwait(heard)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, number)
            continue
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    code = os.waitstatus_to_exitcode(ended[1])
                    os._exit(code if code >= 0 else 128 - code)
