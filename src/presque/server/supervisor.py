"""Tells systemd the state of the server, as sd_notify(3) says: a datagram to the socket that it names.

Without a `NOTIFY_SOCKET` in the environment this does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator

log = logging.getLogger("presque.server")


def tell(state: str) -> None:
    """Send one state, such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # a name that is not in the file system
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.connect(address)
            to.sendall(state.encode())
    except OSError as error:
        log.warning("supervisor.not_told state=%s reason=%r", state, str(error))


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """While inside, tell the watchdog of systemd, if there is one, that the event loop runs."""
    period = int(os.environ.get("WATCHDOG_USEC") or 0) / 1_000_000
    if not period or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        yield
        return
    telling = asyncio.create_task(_lives(period / 2))
    try:
        yield
    finally:
        telling.cancel()


async def _lives(every_s: float) -> None:
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(every_s)
