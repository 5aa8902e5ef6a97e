"""Hears what jobs do to their process as they do it, so that it need not be looked at after each job.

Some things are told by Python's audit events (PEP 578): the working directory, the environment, limits, hooks
of asynchronous generators, signals that are sent. Signal handlers, blocked signals and the locale have no
events. But `signal.signal`, `signal.pthread_sigmask` and `locale.setlocale` are written in Python and call a
function of another module, by its name: that is heard. Who calls the function in C past them is not heard;
`surroundings` finds that at its next closer look.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` calls
import functools
import locale
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from presque.worker.job import current

_STOPPING = frozenset(
    getattr(signal, name)
    for name in (
        "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGSTOP", "SIGTSTP",
        "SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGPIPE", "SIGXCPU",
    )
    if hasattr(signal, name)
)  # fmt: skip


class Watch:
    """Hears them as long as a worker runs jobs in this process."""

    def __init__(self) -> None:
        self.touched: set[str] = set()
        """What was touched that all jobs share: `chdir`, `putenv`, `limits`, `handlers`, `locale`."""
        self.own = 0
        """How often something was done that concerns the thread in which it was done."""
        self.hears_signals = self.hears_locale = False
        """Whether these are heard at all."""
        self.worker = os.getpid()
        self._users = 0
        self._added = False

    def begin(self) -> None:
        """A hook cannot be removed again: it does nothing when nobody needs it."""
        self.worker = os.getpid()
        self._users += 1
        if not self._added:
            self._added = True
            sys.addaudithook(self._heard)
            self.hears_signals = _calls(signal.signal, "_signal") and _calls(
                getattr(signal, "pthread_sigmask", None), "_signal"
            )
            if self.hears_signals:
                _tap(_signal, "signal", self._set_handler)
                _tap(_signal, "pthread_sigmask", self._set_mask)
            self.hears_locale = _calls(locale.setlocale, "_setlocale")
            if self.hears_locale:
                _tap(locale, "_setlocale", self._set_locale)

    def end(self) -> None:
        """One worker fewer."""
        self._users -= 1

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
        if event == "os.chdir":
            self.touched.add("chdir")
        elif event == "os.putenv" or event == "os.unsetenv":
            self.touched.add("putenv")
        elif event == "resource.setrlimit" or event == "resource.prlimit":
            self.touched.add("limits")
        elif event == "os.kill" or event == "os.killpg" or event == "signal.pthread_kill":
            self._check(event, *arguments)
        elif event.startswith("sys.set_asyncgen_hook"):
            self.own += 1

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


watch = Watch()
