"""What all jobs of a process share, put back as it was after a job that has changed it.

The working directory, the environment, the import path, the standard streams, the set-up of logging, the
filters of warnings, the locale, the file mask, timers and the handlers of signals belong to the process, not
to a job. Where one job runs at a time they are looked at after each; where several do, as soon as none runs,
for nobody knows whose change it was. This is on the way of every job. So the directory and the environment
are asked of Python's audit events (PEP 578), and the locale and timers are looked at once a millisecond.

The same events keep a job from sending its own worker a signal that would stop it: the call raises in the
job. `Worker.stop` is for that.
"""

from __future__ import annotations

import contextlib
import locale
import logging
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any, TextIO

from presque.worker.job import Job, current
from presque.worker.logger import log
from presque.worker.signals import Signals

SLOW_S = 0.001
_STOPPING = frozenset(
    getattr(signal, name)
    for name in (
        "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGSTOP", "SIGTSTP",
        "SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGPIPE", "SIGXCPU",
    )
    if hasattr(signal, name)
)  # fmt: skip
_STREAMS = ("stdin", "stdout", "stderr")


class Surroundings:
    """How things were before the first job. `restore` is called after jobs."""

    def __init__(self, signals: Signals | None) -> None:
        _watch.begin()
        self._signals = signals
        self._told: set[str] = set()
        self._directory = _directory()
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._streams = [(name, getattr(sys, name), _copy(number)) for number, name in enumerate(_STREAMS)]
        self._filters = list(warnings.filters)
        self._mask = os.umask(0o022)
        os.umask(self._mask)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._root = logging.getLogger()
        self._handlers, self._level = list(self._root.handlers), self._root.level
        self._disabled = self._root.manager.disable
        self._levels = [(one, one.level, one.propagate) for one in _loggers()]
        self._alarm = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
        self._looked_at = time.monotonic()
        self._timer_runs = False

    def restore(self, job: Job, now: float) -> None:
        """Nothing runs that could have a right to what it has changed."""
        slow = now - self._looked_at > SLOW_S
        self.restore_shared(job, now)
        if _watch.chdir or _watch.putenv:
            _watch.chdir = _watch.putenv = False
            self._restore_watched(job)
        if sys.path != self._path:
            sys.path[:] = self._path
            self._tell(job, "sys.path")
        if warnings.filters != self._filters:
            warnings.filters[:] = self._filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001
            self._tell(job, "warnings.filters")
        if os.umask(self._mask) != self._mask:
            self._tell(job, "umask")
        if slow and locale.setlocale(locale.LC_ALL) != self._locale:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, self._locale)
            self._tell(job, "locale")
        if self._timer_runs:
            self._restore_timer(job)

    def restore_shared(self, job: Job, now: float) -> None:
        """What no job has a right to change, though others run."""
        if now - self._looked_at > SLOW_S:
            self._looked_at = now
            self._look_at_timer(job)
        if self._signals is not None and self._signals.were_changed():
            self._tell(job, "signal handlers")
        if self._streams_changed():
            for name, stream, copy in self._streams:
                if getattr(sys, name, None) is not stream or (stream is not None and stream.closed):
                    self._restore_stream(job, name, stream, copy)
        root = self._root
        if (
            root.handlers != self._handlers
            or root.level != self._level
            or root.manager.disable != self._disabled
        ):
            root.handlers[:] = self._handlers
            root.setLevel(self._level)
            logging.disable(self._disabled)
            self._tell(job, "logging")
        for logger, level, propagate in self._levels:
            if logger.disabled or logger.level != level or logger.propagate is not propagate:
                logger.disabled, logger.propagate = False, propagate
                logger.setLevel(level)
                self._tell(job, "logging")

    def _streams_changed(self) -> bool:
        try:
            (_, one, _), (_, out, _), (_, err, _) = self._streams
            same = sys.stdin is one and sys.stdout is out and sys.stderr is err
        except AttributeError:  # it has deleted one
            return True
        closed = (out is not None and out.closed) or (err is not None and err.closed)
        return not same or closed or (one is not None and one.closed)

    def close(self) -> None:
        """There are no more jobs."""
        _watch.end()
        for _, _, copy in self._streams:
            if copy is not None:
                os.close(copy)
        if self._directory is not None:
            os.close(self._directory)

    def _restore_watched(self, job: Job) -> None:
        if self._directory is not None:
            with contextlib.suppress(OSError):
                before = os.fstat(self._directory)
                if not _is_here(before):
                    os.fchdir(self._directory)
                    self._tell(job, "working directory")
        if os.environ != self._environment:
            for name in set(os.environ) - set(self._environment):
                del os.environ[name]
            for name, value in self._environment.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value
            self._tell(job, "environment")
        _watch.chdir = _watch.putenv = False

    def _look_at_timer(self, job: Job) -> None:
        """One that nobody would hear would end the process."""
        self._timer_runs = self._alarm is not None and bool(signal.getitimer(signal.ITIMER_REAL)[0])
        if self._timer_runs and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            self._restore_timer(job)

    def _restore_timer(self, job: Job) -> None:
        self._timer_runs = False
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._tell(job, "timer")
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGALRM) is not self._alarm:
            signal.signal(signal.SIGALRM, self._alarm)
            self._tell(job, "signal handlers")

    def _restore_stream(self, job: Job, name: str, stream: TextIO | None, copy: int | None) -> None:
        if stream is not None and stream.closed and copy is not None:
            number = _STREAMS.index(name)
            with contextlib.suppress(OSError):
                os.dup2(copy, number)
            stream = open(number, "r" if name == "stdin" else "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
            self._follow(getattr(sys, name, None), stream)
            self._streams[number] = (name, stream, copy)
        setattr(sys, name, stream)
        self._tell(job, f"sys.{name}")

    def _follow(self, old: Any, new: TextIO) -> None:
        """Log handlers that wrote to the stream of before write to the new one."""
        for handler in self._handlers:
            if isinstance(handler, logging.StreamHandler):
                with contextlib.suppress(Exception):
                    if handler.stream is old or handler.stream.closed:
                        handler.stream = new

    def _tell(self, job: Job, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("job.left_changed queue=%s id=%s what=%s", job.queue, job.id, what)


class _Watch:
    """Hears Python's audit events as long as a worker runs jobs in this process."""

    def __init__(self) -> None:
        self.chdir = self.putenv = False
        self.worker = os.getpid()
        self._users = 0
        self._added = False

    def begin(self) -> None:
        """There is no way to take a hook away again: it does nothing when nobody needs it."""
        self.worker = os.getpid()
        self._users += 1
        if not self._added:
            self._added = True
            sys.addaudithook(self._heard)

    def end(self) -> None:
        """One worker fewer."""
        self._users -= 1

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._users:
            return
        if event == "os.chdir":
            self.chdir = True
        elif event == "os.putenv" or event == "os.unsetenv":
            self.putenv = True
        elif event == "os.kill" or event == "os.killpg" or event == "signal.pthread_kill":
            self._check(event, *arguments)

    def _check(self, event: str, whom: int, number: int) -> None:
        if number not in _STOPPING or current.get() is None:
            return
        own = os.getpid()
        if event == "os.kill":
            hurts = whom == self.worker or (own == self.worker and whom in (0, -1, -os.getpgrp()))
        elif event == "os.killpg":
            hurts = own == self.worker and whom in (0, os.getpgrp())
        else:
            hurts = own == self.worker
        if hurts:
            raise PermissionError("a job must not send its own worker a signal: call `self.stop()` to end it")


_watch = _Watch()
guard = _watch.begin
"""Keep forked jobs from signalling their worker."""


def _directory() -> int | None:
    try:
        return os.open(".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return None


def _is_here(directory: os.stat_result) -> bool:
    try:
        here = os.stat(".")  # noqa: PTH116
    except OSError:
        return False  # it has been removed
    return (here.st_dev, here.st_ino) == (directory.st_dev, directory.st_ino)


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:
        return None


def _loggers() -> list[logging.Logger]:
    """The loggers of presque that a worker writes to."""
    names = ("presque", "presque.worker")
    return [logging.getLogger(name) for name in names]
