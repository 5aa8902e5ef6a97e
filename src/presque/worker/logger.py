"""The log of a worker.

A handler or a filter of the application that raises does not stop a worker. Nor does one that never returns,
or whose lock a job keeps: what the lease loop has to say is written by a thread of its own, so that leases
are renewed meanwhile, and a lock that nobody gives back is not waited for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

LINES_MOST = 10_000
LOCK_S = 1.0
"""How long a line waits for the lock of a handler, unless the last one has waited in vain."""
FLUSH_S = 1.0
IDLE_S = 5.0
_CALLER = 4
"""How many frames above `_record` the line was written."""


class Log:
    """What the standard logger of this name offers a worker, and never raises."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._own = _Own()
        self._patience_s = LOCK_S
        self._writer = _Writer(self._write)

    def is_enabled_for(self, level: int) -> bool:
        """Whether a line of this level would be written. Unlike the logger's own it takes no lock."""
        one = self._logger
        return not one.disabled and one.manager.disable < level and one.getEffectiveLevel() <= level

    def debug(self, line: str, *values: Any) -> None:
        """For finding faults."""
        self._say(logging.DEBUG, line, values)

    def info(self, line: str, *values: Any) -> None:
        """What happens."""
        self._say(logging.INFO, line, values)

    def warning(self, line: str, *values: Any, extra: dict[str, Any] | None = None) -> None:
        """What somebody should look at."""
        self._say(logging.WARNING, line, values, extra=extra)

    def error(self, line: str, *values: Any) -> None:
        """What somebody must look at."""
        self._say(logging.ERROR, line, values)

    def exception(self, line: str, *values: Any) -> None:
        """The same with the traceback of the exception that is being handled."""
        self._say(logging.ERROR, line, values, traced=True)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """This thread waits for no handler: what it says is written by another one."""
        self._own.is_apart = True
        try:
            yield
        finally:
            self._own.is_apart = False
            self.flush()

    def flush(self, within: float = FLUSH_S) -> None:
        """Wait until everything is written, but no longer than this."""
        self._writer.flush(within)

    def _say(self, level: int, line: str, values: tuple[Any, ...], **more: Any) -> None:
        with contextlib.suppress(Exception):
            if self.is_enabled_for(level):
                record = self._record(level, line, values, **more)
                if self._own.is_apart or self._writer.is_stuck or not self._handle(record):
                    self._writer.put(record)

    def _record(
        self, level: int, line: str, values: tuple[Any, ...], extra: Any = None, *, traced: bool = False
    ) -> logging.LogRecord:
        one = self._logger
        file, number, function, _ = one.findCaller(stacklevel=_CALLER)
        error = sys.exc_info() if traced else None
        return one.makeRecord(one.name, level, file, number, line, values, error, function, extra)

    def _handle(self, record: logging.LogRecord) -> bool:
        """Write a line, unless somebody keeps a lock that it needs."""
        taken = []
        try:
            for handler in self._handlers():
                if handler.lock is not None:
                    if not handler.lock.acquire(timeout=self._patience_s):
                        self._patience_s = 0.0
                        return False
                    taken.append(handler.lock)
            self._patience_s = LOCK_S
            self._logger.handle(record)
        finally:
            for lock in taken:
                lock.release()
        return True

    def _write(self, record: logging.LogRecord) -> None:
        """The same, if need be without the locks."""
        if not self._handle(record) and self._logger.filter(record):
            for handler in self._handlers():
                if record.levelno >= handler.level and handler.filter(record):
                    _emit(handler, record)

    def _handlers(self) -> Iterator[logging.Handler]:
        one: logging.Logger | None = self._logger
        while one is not None:
            yield from one.handlers
            one = one.parent if one.propagate else None


def _emit(handler: logging.Handler, record: logging.LogRecord) -> None:
    if isinstance(handler, logging.StreamHandler):  # its own `emit` takes the lock, to flush
        handler.stream.write(handler.format(record) + handler.terminator)
        handler.stream.flush()
    else:
        handler.emit(record)


class _Own(threading.local):
    is_apart = False


class _Writer:
    """A thread that writes lines for others. It ends when there have been none for a while."""

    def __init__(self, write: Callable[[logging.LogRecord], None]) -> None:
        self._write = write
        self.begin_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin_anew)

    def begin_anew(self) -> None:
        """Also in a child, where the thread does not exist: its lines are not for the child to write."""
        self._lines: deque[logging.LogRecord] = deque(maxlen=LINES_MOST)
        self._changed = threading.Condition()
        self._runs = False
        self._since: float | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether a handler does not return."""
        since = self._since
        return since is not None and time.monotonic() - since > LOCK_S

    def put(self, record: logging.LogRecord) -> None:
        """Write this. If lines come faster than they can be written, the oldest are lost."""
        with self._changed:
            self._lines.append(record)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="presque-log", daemon=True).start()
            self._changed.notify()

    def flush(self, within: float) -> None:
        """Wait until it has nothing to write, but no longer than this."""
        until = time.monotonic() + within
        while (self._lines or self._since is not None) and time.monotonic() < until:
            time.sleep(0.002)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._since = None
                if not self._changed.wait_for(lambda: self._lines, IDLE_S):
                    self._runs = False
                    return
                self._since = time.monotonic()
                record = self._lines.popleft()
            with contextlib.suppress(Exception):
                self._write(record)


log = Log("presque.worker")
