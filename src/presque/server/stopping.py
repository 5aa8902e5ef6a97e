"""How a server hears that it should stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def stop_signal() -> asyncio.Event:
    """Set by the first TERM, INT or HUP, to stop politely. A second TERM or INT ends the process at once.

    A HUP comes when a terminal is closed, often twice, and from tools that take it for a request to read
    files again. One that was ignored from the start, as by nohup, stays ignored.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set() and number != signal.SIGHUP:
            os._exit(128 + number)  # our own store follows by itself, cleanly: it gets a TERM when we die
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, asked, signal.SIGHUP)
    return stop


async def unless(stop: asyncio.Event, starting: Coroutine[Any, Any, T]) -> T | None:
    """What `starting` brings; None, and it is cancelled, if `stop` is asked for before."""
    start, asked = asyncio.create_task(starting), asyncio.create_task(stop.wait())
    await asyncio.wait((start, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if start.done():
        return start.result()
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    return None
