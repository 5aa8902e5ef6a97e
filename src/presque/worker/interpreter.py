"""What belongs to the interpreter and its libraries, as a table: how each is looked at, and put back.

It is looked at after each job, except for the loggers, of which there may be hundreds: see `surroundings`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without enums, which take longer than the call
import asyncio
import contextlib
import faulthandler
import gc
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

from presque.worker.glance import Look, looks_at
from presque.worker.watch import watch

_MISSING = object()
_BLOCKS = hasattr(signal, "pthread_sigmask")

# Attributes that are put back as they were: of which object, which, and what is logged when it had changed.
_ATTRIBUTES: tuple[tuple[Any, str, str], ...] = (
    *((sys, name, f"sys.{name}") for name in ("__stdin__", "__stdout__", "__stderr__")),
    *((sys, name, f"sys.{name}") for name in ("excepthook", "unraisablehook", "displayhook")),
    *((sys, name, f"sys.{name}") for name in ("path", "meta_path", "path_hooks")),
    *((sys, name, f"sys.{name}") for name in ("argv", "breakpointhook")),
    *((sys, name, f"sys.{name}") for name in ("tracebacklimit", "dont_write_bytecode")),
    (os, "environ", "environment"),
    (threading, "excepthook", "threading.excepthook"),
    (warnings, "showwarning", "warnings"),
    (logging, "raiseExceptions", "logging"),
    (logging, "lastResort", "logging"),
    (logging, "_logRecordFactory", "logging"),
    (logging, "_loggerClass", "logging"),
    (logging, "_warnings_showwarning", "logging"),
)  # fmt: skip

# Lists from which nothing may be missing. What a library adds when a job imports it first is to stay there.
_LISTS: tuple[tuple[Callable[[], list[Any]], str], ...] = (
    (lambda: sys.meta_path, "sys.meta_path"),
    (lambda: sys.path_hooks, "sys.path_hooks"),
    (lambda: gc.callbacks, "gc"),
)


def _set_collection(value: bool) -> None:
    (gc.enable if value else gc.disable)()


def _set_faulthandler(value: bool) -> None:
    if value:
        faulthandler.enable()
    else:
        faulthandler.disable()


# What is looked at and set by functions.
_VALUES: tuple[tuple[Callable[[], Any], Callable[[Any], Any], str], ...] = (
    (sys.getrecursionlimit, sys.setrecursionlimit, "recursion limit"),
    (sys.getswitchinterval, sys.setswitchinterval, "switch interval"),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits, "digits of integers"),
    (socket.getdefaulttimeout, socket.setdefaulttimeout, "time-out of sockets"),
    (gc.isenabled, _set_collection, "gc"),
    (gc.get_threshold, lambda value: gc.set_threshold(*value), "gc"),
    (gc.get_debug, gc.set_debug, "gc"),
    (faulthandler.is_enabled, _set_faulthandler, "faulthandler"),
    (threading.gettrace, threading.settrace, "trace function"),
    (threading.getprofile, threading.setprofile, "profile function"),
    (threading.stack_size, threading.stack_size, "stack size of threads"),
    (asyncio.get_event_loop_policy, asyncio.set_event_loop_policy, "event loop policy"),
    (lambda: sys.argv[:], lambda value: sys.argv.__setitem__(slice(None), value), "sys.argv"),
)  # fmt: skip


class Interpreter:
    """How it was. `changes` puts back what is different now, and yields what that was."""

    def __init__(self) -> None:
        self._attributes = [
            (holder, name, getattr(holder, name, _MISSING), what) for holder, name, what in _ATTRIBUTES
        ]
        self._lists = [(find, list(find()), what) for find, what in _LISTS]
        self._values = [(look, put, look(), what) for look, put, what in _VALUES]
        self._loggers = [_Logger(one) for one in _loggers()]
        self._limits = _limits()

    def changes(self) -> Iterator[str]:
        """Put back what has changed."""
        for holder, name, before, what in self._attributes:
            if getattr(holder, name, _MISSING) is not before:
                if before is _MISSING:
                    delattr(holder, name)
                else:
                    setattr(holder, name, before)
                yield what
        for find, members, what in self._lists:
            found = find()
            if found != members and any(all(one is not other for other in found) for one in members):
                found[:] = [*members, *(one for one in found if one not in members)]
                yield what
        for look, put, value, what in self._values:
            if look() != value:
                put(value)
                yield what

    def looks(self) -> Iterator[Look]:
        """What `changes` looks at, and those of `Own`, for a `Glance`."""
        for holder, rows in itertools.groupby(_ATTRIBUTES, key=itemgetter(0)):
            yield from looks_at(holder, [name for _, name, _ in rows])
        for find, _, _ in self._lists:
            yield find().copy
        for look, _, _, _ in self._values:
            yield look
        yield from (sys.gettrace, sys.getprofile)
        if not watch.hears_signals:
            yield _blocked

    def changes_of_loggers(self) -> Iterator[str]:
        """The same for all loggers."""
        for logger in self._loggers:
            if logger.is_changed():
                logger.put_back()
                yield "logging"

    def replaced(self, old: Any, new: Any) -> None:
        """A new stream stands in the place of an old one, which a job has closed."""
        for number, (holder, name, before, what) in enumerate(self._attributes):
            if before is old:
                setattr(holder, name, new)
                self._attributes[number] = (holder, name, new, what)

    def limits(self) -> Iterator[str]:
        """Put back the limits of resources, as far as the system lets us."""
        found = _limits()
        if found != self._limits:
            import resource

            for number, value in self._limits.items():
                if found.get(number) != value:
                    with contextlib.suppress(ValueError, OSError):
                        resource.setrlimit(number, value)
            yield "resource limits"


class _Logger:
    """The set-up of one logger and of its handlers."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._level, self._propagate, self._disabled = logger.level, logger.propagate, logger.disabled
        self._handlers, self._filters = list(logger.handlers), list(logger.filters)
        self._of_handlers = [(one, one.level, one.formatter, list(one.filters)) for one in logger.handlers]

    def is_changed(self) -> bool:
        """Whether it is set up otherwise now. There may be hundreds, so nothing is copied."""
        one = self._logger
        return (
            one.level != self._level
            or one.disabled is not self._disabled
            or one.propagate is not self._propagate
            or one.handlers != self._handlers
            or one.filters != self._filters
            or (
                bool(self._of_handlers)
                and any(
                    handler.level != level or handler.formatter is not formatter or handler.filters != filters
                    for handler, level, formatter, filters in self._of_handlers
                )
            )
        )

    def put_back(self) -> None:
        """Set it up as it was."""
        one = self._logger
        one.propagate, one.disabled = self._propagate, self._disabled
        one.handlers, one.filters = list(self._handlers), list(self._filters)
        one.setLevel(self._level)
        for handler, level, formatter, filters in self._of_handlers:
            handler.level, handler.formatter, handler.filters = level, formatter, list(filters)


def _loggers() -> list[logging.Logger]:
    """All that exist. One that a library makes later is not looked after."""
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in known if isinstance(one, logging.Logger))]


def _limits() -> dict[int, tuple[int, int]]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    numbers = {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
    return {number: resource.getrlimit(number) for number in numbers}


class Own(threading.local):
    """What each thread has of its own: its trace and profile functions, and which signals it has blocked."""

    def begin(self) -> None:
        """Called in a thread before its first job."""
        self.trace, self.profile, self.blocked = sys.gettrace(), sys.getprofile(), _blocked()
        self.of_generators = _of_generators()
        self.heard = watch.own
        """How much had been heard when this thread was last in order."""

    def changes(self) -> Iterator[str]:
        """Put back what has changed in this thread since it began."""
        if sys.gettrace() is not self.trace:
            sys.settrace(self.trace)
            yield "trace function"
        if sys.getprofile() is not self.profile:
            sys.setprofile(self.profile)
            yield "profile function"
        if _blocked() != self.blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
            yield "blocked signals"
        found = _of_generators()
        if found is not None and found != self.of_generators:
            sys.set_asyncgen_hooks(*(self.of_generators or (None, None)))
            yield "hooks of generators"
        self.heard = watch.own


_blocked: Callable[[], set[Any]] = partial(_signal.pthread_sigmask, signal.SIG_BLOCK, ()) if _BLOCKS else set


def _of_generators() -> tuple[Any, ...] | None:
    """The hooks for asynchronous generators in this thread. A loop that runs sets them: None then."""
    return sys.get_asyncgen_hooks() if asyncio._get_running_loop() is None else None  # noqa: SLF001  (the public one raises)


def time_zone() -> None:
    """Have the C library look at the variable TZ again."""
    if hasattr(time, "tzset"):
        time.tzset()
