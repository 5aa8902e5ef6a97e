"""How commands end: exit codes, the same for every command but `check`, which has those of Nagios. No I/O.

One rule divides 1 and 2: 2 is a mistake in how presque is used, whether the command noticed it or the
server did, so that the same line fails again; 1 is all else that did not work.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from presque.errors import CallerError, InTheWay, PresqueError

DONE = 0
FAILED = 1
USAGE = 2
NOT_REACHED = 3
NOT_ALLOWED = 4
NOT_FOUND = 5
CONFLICT = 6
NOTHING_THERE = 7
INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended."""

MEANINGS = (
    (DONE, "done"),
    (FAILED, "it did not work, or not all of it"),
    (USAGE, "used wrongly: the command line, its input or the settings"),
    (NOT_REACHED, "the server could not be reached"),
    (NOT_ALLOWED, "not allowed"),
    (NOT_FOUND, "not found"),
    (CONFLICT, "conflict: a uniq key is taken, a lease has ended, a name is in use"),
    (NOTHING_THERE, "no job, or the queue is stopped"),
    (INTERRUPTED, "ended by Ctrl-C"),
    (BROKEN_PIPE, "nobody reads standard output any more"),
)
"""What each says, in the words of the help, the manual pages and the guide."""

AGAIN_S = 0.001


def heed_signals() -> None:
    """As process 1, end by what ends any other program, until something else hears it.

    The kernel drops signals for which process 1 has no handler: it would miss them while it imports.
    """
    if os.getpid() != 1:
        return
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, ended_by)


def ended_by(number: int, _frame: object) -> NoReturn:
    """End as a shell shows a program that this signal has ended."""
    raise EndedAsFirst(128 + number)


class EndedAsFirst(SystemExit):
    """A signal asked process 1 to end."""


class Ended(KeyboardInterrupt):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_what_is_dropped() -> None:
    """Let Ctrl-C end a command also where Python drops what is raised: in finalizers and in callbacks of weak
    references, of which every import has some. What was dropped is raised again a moment later.
    """
    sys.unraisablehook = _raise_again


def _raise_again(dropped: sys.UnraisableHookArgs) -> None:
    error = dropped.exc_value
    if not isinstance(error, KeyboardInterrupt | EndedAsFirst):
        sys.__unraisablehook__(dropped)
        return

    def again(_number: int, _frame: object) -> NoReturn:
        raise error

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


class Failure(Exception):
    """A command ends with a sentence on standard error, and with this exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def wrong_or_failed(error: PresqueError) -> int:
    """The exit code of what presque itself refused."""
    if isinstance(error, CallerError):
        return USAGE
    return CONFLICT if isinstance(error, InTheWay) else FAILED
