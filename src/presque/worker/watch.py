"""Hears what jobs do to their process as they do it, so that it need not be looked at after each job.

Some things are told by Python's audit events (PEP 578): the working directory, the environment, limits, hooks
of asynchronous generators, signals that are sent. Signal handlers, blocked signals and the locale have no
events. But `signal.signal`, `signal.pthread_sigmask` and `locale.setlocale` are written in Python and call a
function of another module, by its name: that is heard. Who calls the function in C past them is not heard;
`surroundings` finds that at its next closer look.

What would end the worker is refused: signals to it, and, as there are no events for them, the functions
`os._exit`, `os.abort`, `signal.raise_signal` and their like are looked at before they are called.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` calls
import _thread
import contextlib
import functools
import locale
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from presque.worker.job import Job, current

_OBEYED = frozenset(
    getattr(signal, name)
    for name in (
        "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGKILL", "SIGSTOP",
    )
    if hasattr(signal, name)
)  # fmt: skip
"""What a worker obeys, or cannot hear."""
_HARMLESS = frozenset(
    (0, *(getattr(signal, name) for name in ("SIGCHLD", "SIGURG", "SIGWINCH") if hasattr(signal, name)))
)
_SIGNALS = "a job must not send its own worker a signal: call `self.stop()` to end it"
_ENDS = "a job must not end its own worker: return, or raise an exception"


class Watch:
    """Hears them as long as a worker runs jobs in this process."""

    def __init__(self) -> None:
        self.touched: set[str] = set()
        """What was touched that all jobs share: `chdir`, `putenv`, `limits`, `handlers`, `locale`."""
        self.own = 0
        """How often something was done that concerns the thread in which it was done."""
        self.hears_signals = self.hears_locale = False
        """Whether these are heard at all."""
        self.workers: set[int] = set()
        """The processes that a job must not end."""
        self._users = 0
        self._added = False
        self._hears: dict[str, Callable[..., None]] = {
            "os.chdir": lambda *_: self.touched.add("chdir"),
            "os.putenv": lambda *_: self.touched.add("putenv"),
            "os.unsetenv": lambda *_: self.touched.add("putenv"),
            "resource.setrlimit": lambda *_: self.touched.add("limits"),
            "resource.prlimit": lambda *_: self.touched.add("limits"),
            "os.kill": self._kills,
            "os.killpg": lambda group, number: self._kills(-(group or os.getpgrp()), number),
            "signal.pthread_kill": lambda _thread, number: self._kills(os.getpid(), number),
            "os.exec": self._ends,
        }

    def begin(self) -> None:
        """A hook cannot be removed again: it does nothing when nobody needs it."""
        self.workers.add(os.getpid())
        self._users += 1
        if not self._added:
            self._added = True
            sys.addaudithook(self._heard)
            self._look_at_what_ends()
            self.hears_signals = _calls(signal.signal, "_signal") and _calls(
                getattr(signal, "pthread_sigmask", None), "_signal"
            )
            if self.hears_signals:
                _tap(_signal, "signal", self._set_handler)
                _tap(_signal, "pthread_sigmask", self._set_mask)
            self.hears_locale = _calls(locale.setlocale, "_setlocale")
            if self.hears_locale:
                _tap(locale, "_setlocale", self._set_locale)

    def _look_at_what_ends(self) -> None:
        for name in ("_start_new_thread", "_start_joinable_thread"):  # the latter since Python 3.13
            _look_first((threading,), name, _begins_a_thread)
        for name in ("_exit", "abort"):
            _look_first((os, sys.modules[os.name]), name, self._ends)
        _look_first((signal, _signal), "raise_signal", lambda number: self._kills(os.getpid(), number))
        _look_first(
            (_thread,), "interrupt_main", lambda number=signal.SIGINT: self._kills(os.getpid(), number)
        )
        _look_first(
            (signal, _signal), "pidfd_send_signal", lambda file, number, *_: self._kills(_named(file), number)
        )

    def end(self) -> None:
        """One worker fewer."""
        self._users -= 1
        if not self._users:
            self.workers.clear()

    def _set_handler(self, *_: Any) -> None:
        self.touched.add("handlers")

    def _set_mask(self, *_: Any) -> None:
        self.own += 1

    def _set_locale(self, _category: int, value: Any = None) -> None:
        if value is not None:  # else it only asks
            self.touched.add("locale")

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._users:
            return
        hear = self._hears.get(event)
        if hear is not None:
            hear(*arguments)
        elif event.startswith("sys.set_asyncgen_hook"):
            self.own += 1

    def _kills(self, whom: int, number: int) -> None:
        """A signal is about to be sent, to a process or, as `os.kill` has it, to a group."""
        if number in _HARMLESS or _job() is None:
            return
        if whom > 0:
            hurts = whom in self.workers
        else:
            group = -whom or os.getpgrp()
            hurts = whom == -1 or group in map(_group, self.workers)
        if hurts and (number in _OBEYED or os.getpid() not in self.workers or _is_not_handled(number)):
            raise PermissionError(_SIGNALS)

    def _ends(self, *_: Any) -> None:
        if os.getpid() in self.workers and _job() is not None:
            raise PermissionError(_ENDS)


def _job() -> Job | None:
    """The job that runs here, or that has started this thread."""
    return current.get() or getattr(threading.current_thread(), _STARTED_BY, None)


_STARTED_BY = "_started_by_a_job_of_presque"


def _begins_a_thread(function: Any, *_: Any) -> None:
    """What is refused to a job is refused to the threads that it has started, too."""
    thread = getattr(function, "__self__", None)
    if isinstance(thread, threading.Thread) and (job := _job()) is not None:
        setattr(thread, _STARTED_BY, job)


def _is_not_handled(number: int) -> bool:
    """Whether Python knows of nobody who handles a signal: as a rule it ends the process then."""
    try:
        return _signal.getsignal(number) in (signal.SIG_DFL, None)
    except ValueError:  # there is no such signal
        return False


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _named(file: int) -> int:
    """The process that a descriptor stands for, 1 if that is not known."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/self/fdinfo/{file}").read_text().splitlines():
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return 1


def _calls(function: Any, name: str) -> bool:
    """Whether a function is written in Python, and looks up what it calls by this name."""
    code = getattr(function, "__code__", None)
    return code is not None and name in code.co_names


def _tap(module: Any, name: str, hear: Callable[..., None]) -> None:
    """Have `hear` called with the arguments after each call of a function, unless it raises."""
    function = getattr(module, name)

    @functools.wraps(function)
    def tapped(*arguments: Any) -> Any:
        result = function(*arguments)
        hear(*arguments)
        return result

    setattr(module, name, tapped)


def _look_first(modules: tuple[Any, ...], name: str, look: Callable[..., None]) -> None:
    """Have `look` called with the arguments before each call of a function; it may refuse it."""
    function = getattr(modules[0], name, None)
    if function is None:
        return

    @functools.wraps(function)
    def looked_at(*arguments: Any, **named: Any) -> Any:
        look(*arguments)
        return function(*arguments, **named)

    for module in modules:
        setattr(module, name, looked_at)


watch = Watch()
