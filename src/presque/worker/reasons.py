"""What an exception says, as text. Nothing that a job raises makes these functions raise.

An exception is code of somebody else: its `__str__`, its class and its properties may raise, return what is
not text, or be of any length.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from presque.worker.interrupts import theirs

ERROR_MOST = 2000
BACKTRACE_MOST = 16_000
MESSAGE_MOST = 4000
UNPRINTABLE = "<cannot be printed>"
FRAMES_MOST = 1000
EXCEPTIONS_MOST = 100
_LEAVES_MOST = 1000


OURS = ("presque.worker.", "presque.tasks.")
"""What of a traceback is not the job's own."""


def said(error: BaseException) -> str:
    """The text of an exception alone, at most 2000 characters."""
    try:
        return cut(str.__str__(theirs(str, error)), ERROR_MOST)
    except BaseException:  # noqa: BLE001  (its `__str__` is not ours)
        return UNPRINTABLE


def named(error: BaseException) -> str:
    """The class of an exception and its text. A group names the first exception in it."""
    text, name = said(error), kind(error)
    if is_a(error, BaseExceptionGroup) and (first := next(leaves(error), None)) is not None:
        text = f"{text}; first {kind(first)}: {said(first)}"
    return cut(f"{name}: {text}" if text else name, ERROR_MOST)


def trace(error: BaseException) -> str | None:
    """Its traceback from where the job's own code begins, at most 16,000 characters; None without one."""
    try:
        frames = error.__traceback__
        if frames is None:
            return None
        if _is_large(error):
            told = [(error, _of_the_job(frames))]
            if is_a(error, BaseExceptionGroup) and (first := next(leaves(error), error)) is not error:
                told.append((first, first.__traceback__))
            text = "".join(_formatted(one, trace, alone=True) for one, trace in told)
        else:
            text = _formatted(error, _of_the_job(frames), alone=False)
        return cut(text, BACKTRACE_MOST, BACKTRACE_MOST // 2)
    except BaseException:  # noqa: BLE001  (an exception of the job's own may raise when it is formatted)
        return f"{named(error)}\n(its traceback cannot be printed)\n"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group and its groups, the first thousand; the exception itself without a group."""
    waiting, count = [error], 0
    while waiting and count < _LEAVES_MOST:
        count += 1
        one = waiting.pop()
        if is_a(one, BaseExceptionGroup):
            try:
                waiting += reversed(_exceptions_of(one)[:_LEAVES_MOST])
            except BaseException:  # noqa: BLE001  (its `exceptions` are not ours)
                yield one
        else:
            yield one


def find(error: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """The exception itself, or the first in its group, that is of one of these kinds."""
    return next((one for one in leaves(error) if any(is_a(one, kind) for kind in kinds)), None)


def cut(text: str, most: int, tail: int = 0) -> str:
    """At most this many characters of a text: its beginning, and `tail` characters of its end."""
    if len(text) <= most:
        return text
    left_out = f"… {len(text) - most} characters left out …" if tail else "…"
    if tail:
        left_out = f"\n{left_out}\n"
    return text[: most - tail - len(left_out)] + left_out + (text[-tail:] if tail else "")


def sendable(text: str) -> str:
    """Without what cannot be written as UTF-8, such as the half characters of a file name."""
    return text.encode(errors="replace").decode()


def is_a(error: BaseException, kind: type[BaseException]) -> bool:
    """As `isinstance`, but by the class alone: `__class__` may be a property that raises."""
    return issubclass(type(error), kind)


def kind(error: BaseException) -> str:
    """The name of its class."""
    try:
        name = type.__dict__["__qualname__"].__get__(type(error))
        return cut(str.__str__(name), 200)
    except BaseException:  # noqa: BLE001  (its class is not ours)
        return "an exception"


def _of_the_job(trace: TracebackType) -> TracebackType | None:
    """The traceback from where the job's own code begins; all of it if that never ran."""
    own = trace
    while str(own.tb_frame.f_globals.get("__name__", "")).startswith(OURS):
        if own.tb_next is None:
            return trace
        own = own.tb_next
    return own


def _formatted(error: BaseException, frames: TracebackType | None, *, alone: bool) -> str:
    """As Python writes it, or alone: without its causes and the exceptions in it."""
    more: Any = {"_seen": set()} if alone else {}  # "the others have been told"
    found: Any = traceback.TracebackException(
        type(error), error, frames, compact=True, limit=-FRAMES_MOST, **more
    )
    if alone:
        found.__cause__ = found.__context__ = found.exceptions = None
    _shorten(found)
    return "".join(theirs(list, found.format()))


def _is_large(error: BaseException) -> bool:
    """Whether more exceptions hang together than anybody reads, which takes Python seconds to write."""
    waiting, seen = [error], {id(error)}
    while waiting and len(seen) <= EXCEPTIONS_MOST:
        one = waiting.pop()
        found = [_cause_of(one), _context_of(one)]
        if is_a(one, BaseExceptionGroup):
            found += _exceptions_of(one)[: EXCEPTIONS_MOST + 1]
        for other in found:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
    return len(seen) > EXCEPTIONS_MOST


# What a class of the job's own says in their place does not count.
_cause_of = BaseException.__dict__["__cause__"].__get__
_context_of = BaseException.__dict__["__context__"].__get__
_exceptions_of = BaseExceptionGroup.__dict__["exceptions"].__get__


def _shorten(found: traceback.TracebackException) -> None:
    """Cut long messages, so that the frames are not lost behind them."""
    waiting = [found]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or len(seen) > _LEAVES_MOST:
            continue
        seen.add(id(one))
        text = getattr(one, "_str", None)
        if isinstance(text, str) and len(text) > MESSAGE_MOST:
            one._str = cut(text, MESSAGE_MOST)  # type: ignore[attr-defined]  # noqa: SLF001
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
        waiting += one.exceptions or []
