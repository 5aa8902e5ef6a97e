"""What all jobs of a process share, put back as it was after a job that has changed it.

The working directory, the environment, the import path, the standard streams, the set-up of logging, the
filters of warnings, the locale, the file mask, timers and the handlers of signals belong to the process, not
to a job. Where one job runs at a time they are looked at after each; where several do, as soon as none
runs, for nobody knows whose change it was. This is on the way of every job. So what can be heard as it is
done is not looked at (see `watch`), and what takes long to look at (all loggers there are, descriptors 0 to
2, handlers of signals that C code has set) is looked at after a job that took some time, and every two
milliseconds.
"""

from __future__ import annotations

import _imp as imp
import _signal  # type: ignore[import-not-found]  # without enums, which take longer than the call
import contextlib
import io
import locale
import logging
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TextIO

from presque.worker.glance import Glance, Look, looks_at
from presque.worker.interpreter import Interpreter, Own, time_zone
from presque.worker.job import Job
from presque.worker.logger import log
from presque.worker.signals import Signals
from presque.worker.watch import watch

SLOW_S = 0.002
LONG_S = 0.0005
"""Looking at everything takes less than a tenth of a job that took so long."""
_STREAMS = ("stdin", "stdout", "stderr")
_OF_A_LOGGER = ("disabled", "filters", "handlers", "level", "propagate")
_TIMERS = tuple(
    getattr(signal, name)
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
    if hasattr(signal, name)
)


class Surroundings:
    """How things were before the first job. `restore` is called after jobs."""

    def __init__(self, signals: Signals | None) -> None:
        watch.begin()
        self._signals = signals
        self._told: set[str] = set()
        self._directory = _directory()
        self._environ = os.environ
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
        self._levels = [(one, one.level, one.propagate, list(one.handlers)) for one in _loggers()]
        self._locks = _locks_of_logging()
        self._interpreter = Interpreter()
        self._own = Own()
        self._identities = [_identity(number) for number in range(3)]
        self._manners = [_manner(stream) for _, stream, _ in self._streams]
        self._alarm = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
        self._harmless = signal.ITIMER_VIRTUAL if signals is not None and signals.hears_timer else None
        """A timer whose signal does nothing: a closer look is soon enough."""
        self._looked_at = time.monotonic()
        self._timer_runs = False
        self._recursion_limit = sys.getrecursionlimit()
        self._lock = threading.Lock()
        self._running = 0
        self._glance = self._looked()

    def enter(self) -> None:
        """Called in each thread before its first job."""
        self._own.begin()

    def began(self) -> None:
        """A job begins beside others: from any thread."""
        with self._lock:
            self._running += 1

    def ended(self, job: Job, now: float, took_s: float) -> None:
        """It is over: put back what no job has a right to, and everything if no other runs. Never raises."""
        with self._lock:
            self._running -= 1
            if self._running:
                self.restore_shared(job, now)
            else:
                self.restore(job, now, took_s)

    def restore(self, job: Job, now: float, took_s: float) -> None:
        """Nothing runs that could have a right to what it has changed. Never raises."""
        closely = took_s > LONG_S or now - self._looked_at > SLOW_S
        if not closely and self._is_same():
            return
        try:
            self._make_room(job)
            differs = not closely and not self._looks_same()
            self._restore_shared(job, now)
            if not watch.touched.isdisjoint(("chdir", "putenv")) or os.environ is not self._environ:
                self._restore_watched(job)
            if "limits" in watch.touched:
                watch.touched.discard("limits")
                self._tell_all(job, self._interpreter.limits())
            if sys.path != self._path:
                sys.path[:] = self._path
                self.tell(job, "sys.path")
            if warnings.filters != self._filters:
                warnings.filters[:] = self._filters  # type: ignore[index]
                warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001
                self.tell(job, "warnings.filters")
            if os.umask(self._mask) != self._mask:
                self.tell(job, "umask")
            self._restore_rare(job)
            if self._timer_runs:
                self._restore_timers(job)
            if differs:
                self._glance = self._looked()  # some changes are let be
        except BaseException:  # noqa: BLE001  (what stands in the place of something may do anything)
            self._could_not(job)

    def restore_shared(self, job: Job, now: float) -> None:
        """What no job has a right to change, though others run. Never raises."""
        closely = now - self._looked_at > SLOW_S
        try:
            if closely or not self._is_same():
                self._make_room(job)
                self._restore_shared(job, now)
        except BaseException:  # noqa: BLE001  (as above)
            self._could_not(job)

    def _is_same(self) -> bool:
        """Whether nothing has changed that was heard, or that a glance can see."""
        try:
            same = os.environ is self._environ  # a dict of the same variables would equal it
            quiet = not watch.touched and self._own.heard == watch.own
            return same and quiet and self._glance.is_same()
        except Exception:  # noqa: BLE001  (so it has)
            return False

    def _looks_same(self) -> bool:
        try:
            return self._glance.is_same()
        except Exception:  # noqa: BLE001  (as above)
            return False

    def _looked(self) -> Glance:
        """A glance at how things are now, for `restore` and `restore_shared`."""
        root, presques = self._root, [one for one, *_ in self._levels]
        lists: list[list[Any]] = [sys.path, warnings.filters, root.handlers]  # type: ignore[list-item]
        lists += [members for one in presques for members in (one.handlers, one.filters)]
        looks: list[Look] = [
            *self._interpreter.looks(),
            *looks_at(sys, _STREAMS),
            *looks_at(warnings, ["filters"]),
            *(look for one in (root, *presques) for look in looks_at(one, _OF_A_LOGGER)),
            *(one.copy for one in lists),
            *(look for _, stream, _ in self._streams for look in _look_at(stream)),
            partial(getattr, root.manager, "disable"),
            partial(os.umask, self._mask),
            *_are_open([number for number in range(3) if self._identities[number]]),
            *(lock._is_owned for lock in self._locks),  # noqa: SLF001  (there is no public way)
            imp.lock_held,
            *(partial(_signal.getitimer, timer) for timer in _TIMERS if timer != self._harmless),
        ]
        if not watch.hears_locale:
            looks.append(partial(locale.setlocale, locale.LC_ALL))
        if self._signals is not None and not watch.hears_signals:
            looks.append(self._signals.handlers)
        return Glance(looks)

    def _make_room(self, job: Job) -> None:
        """With the recursion limit that a job has left there may be no room to put anything back."""
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
            self.tell(job, "recursion limit")

    def _restore_shared(self, job: Job, now: float) -> None:
        self._release_locks(job)
        if self._signals is not None and self._signals.were_changed():
            self.tell(job, "signal handlers")
        self._look_at_timers(job)
        self._tell_all(job, self._own.changes())
        if self._signals is not None and self._signals.set_others_again():
            self.tell(job, "signal handlers")
        watch.touched.discard("handlers")
        self._looked_at = now
        for number, (name, _, copy) in enumerate(self._streams):
            if copy is not None and _identity(number) != self._identities[number]:
                os.dup2(copy, number, inheritable=True)
                self.tell(job, f"sys.{name}")
        if self._streams_changed():
            for name, stream, copy in self._streams:
                if getattr(sys, name, None) is not stream or _is_closed(stream):
                    self._restore_stream(job, name, stream, copy)
        root = self._root
        if (
            root.handlers != self._handlers
            or root.level != self._level
            or root.manager.disable != self._disabled
        ):
            root.handlers = list(self._handlers)
            root.setLevel(self._level)
            logging.disable(self._disabled)
            self.tell(job, "logging")
        for logger, level, propagate, handlers in self._levels:
            if (
                logger.disabled
                or logger.filters
                or logger.level != level
                or logger.propagate is not propagate
                or logger.handlers != handlers
            ):
                logger.disabled, logger.propagate = False, propagate
                logger.handlers, logger.filters = list(handlers), []
                logger.setLevel(level)
                self.tell(job, "logging")

    def _restore_rare(self, job: Job) -> None:
        """What jobs seldom change."""
        self._tell_all(job, self._interpreter.changes())
        self._tell_all(job, self._interpreter.changes_of_loggers())
        for number, (name, stream, _) in enumerate(self._streams):
            if self._manners[number] and _manner(stream) != self._manners[number]:
                encoding, errors, buffered, through = self._manners[number]
                stream.reconfigure(
                    encoding=encoding, errors=errors, line_buffering=buffered, write_through=through
                )
                self.tell(job, f"sys.{name}")
        if locale.setlocale(locale.LC_ALL) != self._locale:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, self._locale)
            self.tell(job, "locale")
        watch.touched.discard("locale")

    def _release_locks(self, job: Job) -> None:
        """Those that all of logging needs. Only the thread that has taken a lock can give it back."""
        for lock in (*self._locks, *_locks_of_logging()):
            while lock._is_owned():  # noqa: SLF001  (there is no public way)
                lock.release()
                self.tell(job, "locks of logging")
        while imp.lock_held():
            try:
                imp.release_lock()
            except RuntimeError:  # another thread imports something
                break
            self.tell(job, "lock of imports")

    def _could_not(self, job: Job) -> None:
        if "all" not in self._told:
            self._told.add("all")
            log.exception("job.not_put_back queue=%s id=%s", job.queue, job.id)

    def _tell_all(self, job: Job, found: Iterable[str]) -> None:
        for what in found:
            self.tell(job, what)

    def _streams_changed(self) -> bool:
        try:
            (_, one, _), (_, out, _), (_, err, _) = self._streams
            same = sys.stdin is one and sys.stdout is out and sys.stderr is err
            closed = (out is not None and out.closed) or (err is not None and err.closed)
            return not same or closed or (one is not None and one.closed)
        except Exception:  # noqa: BLE001  (it has deleted one, or detached its buffer)
            return True

    def close(self) -> None:
        """Called after the last job."""
        watch.end()
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
                    self.tell(job, "working directory")
        os.environ = environ = self._environ
        if environ != self._environment:
            zone = environ.get("TZ")
            for name in set(environ) - set(self._environment):
                del environ[name]
            for name, value in self._environment.items():
                if environ.get(name) != value:
                    environ[name] = value
            if environ.get("TZ") != zone:
                time_zone()
            self.tell(job, "environment")
        watch.touched.difference_update(("chdir", "putenv"))

    def _look_at_timers(self, job: Job) -> None:
        """One that nobody would hear would end the process."""
        running = [signal.getitimer(timer)[0] for timer in _TIMERS]
        self._timer_runs = any(running)
        if running and running[0] and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            self._restore_timers(job)

    def _restore_timers(self, job: Job) -> None:
        self._timer_runs = False
        for timer in _TIMERS:
            if signal.setitimer(timer, 0)[0]:
                self.tell(job, "timer")
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGALRM) is not self._alarm:
            signal.signal(signal.SIGALRM, self._alarm)
            self.tell(job, "signal handlers")

    def _restore_stream(self, job: Job, name: str, stream: TextIO | None, copy: int | None) -> None:
        if _is_closed(stream) and copy is not None:
            number = _STREAMS.index(name)
            with contextlib.suppress(OSError):
                os.dup2(copy, number)
            stream = self._opened(number)
            self._follow(self._streams[number][1], stream)
            self._streams[number] = (name, stream, copy)
            self._manners[number] = _manner(stream)
        setattr(sys, name, stream)
        self.tell(job, f"sys.{name}")

    def _opened(self, number: int) -> Any:
        """A new stream for a standard descriptor, which writes as the one before did."""
        encoding, errors, buffered, through = self._manners[number] or (
            None,
            "backslashreplace",
            False,
            False,
        )
        mode = "r" if number == 0 else "w"
        stream = open(number, mode, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115  (it stays open)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=buffered, write_through=through)
        return stream

    def _follow(self, old: Any, new: TextIO) -> None:
        """What referred to the stream of before refers to the new one: log handlers, `sys.__stdout__`."""
        self._interpreter.replaced(old, new)
        for handler in self._handlers:
            if isinstance(handler, logging.StreamHandler) and (
                handler.stream is old or _is_closed(handler.stream)
            ):
                handler.stream = new

    def tell(self, job: Job, what: str) -> None:
        """Say once for each kind what a job has changed."""
        if what not in self._told:
            self._told.add(what)
            log.warning("job.left_changed queue=%s id=%s what=%s", job.queue, job.id, what)


class NotOurs:
    """The surroundings of jobs in a program that has more to do than these: nothing is put back."""

    def enter(self) -> None:
        """A thread begins with its jobs."""

    def began(self) -> None:
        """A job begins."""

    def ended(self, job: Job, now: float, took_s: float) -> None:
        """A job is over."""

    def tell(self, job: Job, what: str) -> None:
        """Something was changed."""


def _locks_of_logging() -> list[Any]:
    """Also those of all handlers. A handler may have none, or a job may have put something in its place."""
    handlers = [one() for one in logging._handlerList]  # type: ignore[attr-defined]  # noqa: SLF001
    locks = [logging._lock, *(getattr(one, "lock", None) for one in handlers)]  # type: ignore[attr-defined]  # noqa: SLF001
    return [one for one in locks if hasattr(one, "_is_owned")]


guard = watch.begin
"""Keep forked jobs from signalling their worker."""


def _is_closed(stream: Any) -> bool:
    """Whether a stream is of no use any more: closed, or without its buffer."""
    try:
        return stream is not None and bool(stream.closed)
    except Exception:  # noqa: BLE001  (an object of the job's own)
        return True


def _identity(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _look_at(stream: Any) -> Iterator[Look]:
    """What looks at how a stream writes, and whether it is open."""
    if stream is not None:
        names = ("encoding", "errors", "line_buffering", "write_through") if _manner(stream) else ()
        yield partial(attrgetter("closed", *names), stream)


def _are_open(numbers: Sequence[int]) -> Iterator[Look]:
    """What looks whether these descriptors are open."""
    if hasattr(select, "poll"):
        looking = select.poll()
        for number in numbers:
            looking.register(number, 0)  # no event is asked for: that it is closed is told in any case
        yield partial(looking.poll, 0)
    else:
        yield from (partial(os.get_inheritable, number) for number in numbers)


def _manner(stream: Any) -> tuple[Any, ...]:
    """How a stream writes: what `reconfigure` changes."""
    try:
        return stream.encoding, stream.errors, stream.line_buffering, stream.write_through
    except Exception:  # noqa: BLE001  (a stream of another kind, or one that is detached)
        return ()


def _directory() -> int | None:
    try:
        return os.open(".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return None


def _is_here(directory: os.stat_result) -> bool:
    try:
        here = os.stat(".")  # noqa: PTH116  (a step less after each job)
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
