"""Where an exception may be raised in a job from outside: in its own code, and nowhere else.

A time limit, an operator and a stopping worker make a job stop by a signal whose handler raises. Python runs
that handler between any two instructions. Two things would go wrong if it always raised: the exception could
get lost, or get out, in code of presque; and a lock that code of others holds would never be released. The
locks of `logging` are those that a worker itself needs, so nothing is raised where a log line is written, nor
in the import machinery, nor where another signal is noted. The handler tries again a moment later.

The signal is SIGURG: by default it is ignored, so a program that a job starts is not hurt by it, and jobs use
it for nothing, unlike SIGALRM. Go's runtime interrupts its threads with it for the same reasons.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SIGNAL: int | None = getattr(signal, "SIGURG", None)
TIMER: int | None = getattr(signal, "SIGVTALRM", None)
"""What comes when the handler is to try again."""
AGAIN_S = 0.001
_OURS = ("presque.worker.signals", "presque.worker.logger")
"""Where signals are noted, and log lines written."""


def theirs(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call code that is not ours: it may be interrupted as long as this frame is on the stack."""
    return call(*arguments, **named)


_entries: set[CodeType] = {theirs.__code__}


def is_theirs(function: Callable[..., Any]) -> None:
    """What runs in this function may be interrupted, too."""
    _entries.add(function.__code__)


def may_raise(frame: FrameType | None) -> bool:
    """Whether a job's own code runs in this frame, and holds no lock that the worker needs."""
    if frame is not None and _module(frame).startswith("importlib."):
        return False
    while frame is not None:
        if frame.f_code in _entries:
            return True
        module = _module(frame)
        if module == "logging" or module.startswith("logging.") or module in _OURS:
            return False
        frame = frame.f_back
    return False


def try_again() -> None:
    """Have the handler called again in a moment: called by the handler, when the moment was a bad one.

    The moment is counted in processor time. A thread that sent the signal again would need Python's lock,
    which a job gives away where it writes a log line: it would come at the same bad moment each time.
    """
    if TIMER is not None:
        signal.setitimer(signal.ITIMER_VIRTUAL, AGAIN_S)


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if type(name) is str else ""
