"""Signals, heard apart from the jobs, whatever those do.

Python runs its handlers in the main thread, which may be deep in a job, or wait for a lock that nothing
interrupts because the kernel gave the signal to another thread. So what counts is the byte that Python's
own handler, in C, writes into a socket at once (`signal.set_wakeup_fd`). A thread that does nothing else
reads it, or the lease loop where it has the main thread to itself: neither writes log lines first, so that no
lock of a log handler can make a worker deaf.

A child that a job forks would inherit the handlers and the socket: a signal for the child would be heard by
the worker. From before the fork until the child has let go of both, the signals are blocked.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without enums: it is asked after each job
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from presque.worker.guard import guard
from presque.worker.interrupts import TIMER
from presque.worker.job import current

Handler = Callable[[int, FrameType | None], None]
_set_handler = _signal.signal
"""Itself, whoever hears its calls later: see `watch`."""
_CATCHABLE = sorted(
    int(number)
    for number in signal.valid_signals()
    if number not in (getattr(signal, "SIGKILL", None), getattr(signal, "SIGSTOP", None))
)
_USED = [number for number in _CATCHABLE if number < getattr(signal, "SIGRTMIN", 1000)]
OF_THE_JOBS_OWN = frozenset(("raise_signal", "interrupt_main"))


class Signals:
    """Hears some signals: `obey` is called with each, from a thread or by `hear`.

    `raising` are called in the main thread, as Python does it: they may raise in what runs there.
    """

    def __init__(
        self, numbers: set[int], obey: Callable[[int], None], raising: Mapping[int, Handler]
    ) -> None:
        self._obey = obey
        self._raising = dict(raising)
        self._numbers = set(numbers)
        self._before: dict[int, Any] = {}
        self._others: list[tuple[int, Any]] = []
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._wakeup_before = -1
        self._thread: threading.Thread | None = None
        self._own: Handler = self._noted
        self._handlers = [self._own] * len(self._numbers)
        self._main = threading.main_thread().ident

    @property
    def hears_timer(self) -> bool:
        """Whether the signal of the timer in processor time has a handler of ours."""
        return TIMER in self._raising

    def begin(self) -> None:
        """Hear them from now on, in the main thread."""
        self._before = {number: signal.getsignal(number) for number in (*self._numbers, *self._raising)}
        self._wakeup_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._set()
        ours = (*self._numbers, *self._raising)
        found = [(number, _signal.getsignal(number)) for number in _CATCHABLE if number not in ours]
        self._others = [(number, handler) for number, handler in found if handler is not None]

    def end(self) -> None:
        """Those who heard them before do so again."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):
            self._reading.shutdown(socket.SHUT_RDWR)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1)
        self._reading.close()
        self._writing.close()

    def listen(self) -> None:
        """Hear them in a thread of their own."""
        self._thread = threading.Thread(target=self._listen, name="presque-signals", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """What becomes readable when a signal has come."""
        return self._reading.fileno()

    def hear(self) -> None:
        """Obey the signals that have come; called when there is something to read."""
        with contextlib.suppress(OSError):
            for number in self._reading.recv(4096, socket.MSG_DONTWAIT):
                self._hear(number)

    def were_changed(self) -> bool:
        """Whether a job has put handlers of its own in place of ours. They are set again."""
        if threading.get_ident() != self._main:
            return False  # nor can others change them
        if list(map(_signal.getsignal, self._numbers)) == self._handlers:
            return False
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._set()
        return True

    def handlers(self) -> list[Any]:
        """The handlers of all signals that jobs use, as Python knows them."""
        return list(map(_signal.getsignal, _USED))

    def set_others_again(self) -> bool:
        """Whether a job has changed the handlers of signals that are not ours. They are set again.

        Ours are set again, too, without looking: C code may have put its own in their place.
        """
        if threading.get_ident() != self._main:
            return False
        changed = False
        for number, before in self._others:
            if _signal.getsignal(number) is not before:
                _set_handler(number, before)
                changed = True
        self._set()
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        return changed

    def _set(self) -> None:
        for number in self._numbers:
            _set_handler(number, self._own)
        for number, handler in self._raising.items():
            _set_handler(number, handler)

    def _listen(self) -> None:
        while True:
            try:
                found = self._reading.recv(4096)
            except OSError:
                return
            if not found:
                return
            for number in found:
                try:  # noqa: SIM105  (`suppress` needs functions that a job may have broken)
                    self._hear(number)
                except BaseException:  # noqa: BLE001, S110  (the next one is to be heard)
                    pass

    def _hear(self, number: int) -> None:
        if number in self._numbers:
            self._obey(number)

    def _noted(self, number: int, frame: FrameType | None) -> None:
        """The byte has been written, unless a job has moved the wake-up descriptor."""
        fileno = self._writing.fileno()
        if fileno >= 0 and signal.set_wakeup_fd(fileno, warn_on_full_buffer=False) != fileno:
            with contextlib.suppress(OSError):
                self._writing.send(bytes([number]))
        job = current.get()
        if job is not None and frame is not None and OF_THE_JOBS_OWN.intersection(frame.f_code.co_names):
            job.signalled = True

    # --- around a fork

    def before_fork(self) -> None:
        """From now on no signal reaches this thread, nor the child that it is about to fork."""
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._numbers, *self._raising})

    def in_parent(self) -> None:
        """The fork is over."""
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)

    def let_go(self) -> None:
        """In a child: it hears its signals itself."""
        with contextlib.suppress(ValueError, OSError):
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        for end in (self._reading, self._writing):
            with contextlib.suppress(OSError):
                end.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


class _Masks(threading.local):
    """The signals that a thread had blocked before it began to fork."""

    before: set[int] = set()  # noqa: RUF012  (never changed in place)


_masks = _Masks()
_heard: Signals | None = None
_quietly = False
_registered = False
generation = 0
"""How often this process and its parents have been forked. A child must never do its parent's work."""
in_children: list[Callable[[], None]] = []
"""What is called first of all in a child that is forked."""


def watch_forks() -> None:
    """Let go of what is for the parent alone in every child that is forked from now on."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


@contextlib.contextmanager
def heard(signals: Signals) -> Iterator[Signals]:
    """Hear signals as long as it lasts, in the main thread only."""
    global _heard
    watch_forks()
    _heard = signals
    signals.begin()
    try:
        yield signals
    finally:
        if _heard is signals:  # and this is not a child
            _heard = None
            signals.end()


def fork() -> int:
    """Fork for a job: the worker itself tells the guard of it."""
    global _quietly
    _quietly = True
    try:
        return os.fork()
    finally:
        _quietly = False


def _before_fork() -> None:
    if _heard is not None:
        _heard.before_fork()


def _in_parent() -> None:
    if _heard is not None:
        _heard.in_parent()


def _in_child() -> None:
    global _heard, generation
    generation += 1
    guard.forget(tell=not _quietly)
    for step in in_children:
        step()
    if _heard is not None:
        heard_before, _heard = _heard, None
        heard_before.let_go()
