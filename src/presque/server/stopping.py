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
    """Set by the first TERM or INT, to stop politely. The second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # our own store follows by itself, cleanly: it gets a TERM when we die
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
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
