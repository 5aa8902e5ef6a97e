"""How a store ends: our own, and one that outlived its presque.

Nobody kills a store while it works. It gets a TERM, or is told to shut down, and a minute to write its data;
only one that has not ended by then is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import hiredis

from presque.errors import SetupError
from presque.store.asking import Call, connected, is_busy
from presque.store.directory import is_private, is_same, remove_private
from presque.store.process import END_S, WAKE_S, end

log = logging.getLogger("presque.store")

POLL_S = 0.005
TELL_EVERY_S = 5.0


async def stop_orphan(directory: Path) -> None:
    """Stop a store that outlived its presque, so that two never write the same files. Waits for its end.

    Raises `SetupError` if it does not stop.
    """
    try:
        pid_text, _, path = (directory / "store.address").read_bytes().strip().partition(b" ")
        pid, socket = int(pid_text), Path(os.fsdecode(path))
    except (OSError, ValueError):
        return
    if not is_private(socket.parent):
        return
    try:
        # The socket tells who runs there. The pid may by now be that of any process.
        async with connected(socket) as call, telling(lambda: log.info("store.stopping pid=%d", pid)):
            try:
                await _shut_down(call, directory, pid, WAKE_S)
            except TimeoutError:
                await _wake_and_shut_down(socket, directory, call.pid or pid)
    except OSError:  # nobody listens there, or not any more
        with contextlib.suppress(OSError):
            remove_private(socket)


async def _wake_and_shut_down(socket: Path, directory: Path, pid: int) -> None:
    """The same for a store that does not answer: it may have been stopped (SIGSTOP), so it gets a SIGCONT.

    One that does not end within a minute is killed, if the kernel says that it works in this directory.
    """
    if not _works_in(pid, directory):
        raise SetupError(
            f"the store of an earlier presque (pid {pid}) does not answer, and may use the data in "
            f"{directory}; stop it, or choose another directory with --data"
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
        try:
            async with connected(socket) as call:
                await _shut_down(call, directory, pid, END_S)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            log.error("store.killed pid=%d seconds=%d", pid, END_S)
        except OSError:
            pass  # it has ended
    while _works_in(pid, directory):
        await asyncio.sleep(POLL_S)


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a process has its working directory there, as a store has in its data. False without /proc."""
    try:
        return is_same(Path(f"/proc/{pid}/cwd").resolve(strict=True), directory)
    except OSError:
        return False


async def end_ours(process: subprocess.Popen[bytes]) -> bool:
    """End our store. Returns whether it had to be killed, which the log says."""
    async with telling(lambda: log.info("store.stopping pid=%d", process.pid)):
        killed = await end(process)
    if killed:
        log.error("store.killed pid=%d seconds=%d", process.pid, END_S)
    return killed


async def _shut_down(call: Call, directory: Path, pid: int, patience: float) -> None:
    """Return if the store that answers here runs on another directory. Otherwise shut it down; the caller
    sees the connection fail with `OSError`. Raises `TimeoutError` if it does not answer for `patience`
    seconds, or has not ended END_S after it was asked to."""
    while is_busy(found := await asyncio.wait_for(call("CONFIG GET dir"), patience)):
        await asyncio.sleep(POLL_S)
    refused = found
    if not isinstance(found, hiredis.ReplyError):
        if not is_same(Path(found[1]), directory):  # as in a copy of a directory that is in use
            return
        log.warning("store.orphan_stopped pid=%d", pid)
        refused = await asyncio.wait_for(call("SHUTDOWN"), END_S)
    raise SetupError(
        f"the store of an earlier presque (pid {pid}) still uses the data in {directory} and does not stop: "
        f"{refused}; stop it, or choose another directory with --data"
    )


@contextlib.asynccontextmanager
async def telling(say: Callable[[], None]) -> AsyncIterator[None]:
    """Call `say` every few seconds while inside, so that nobody takes a long wait for a hang."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            say()

    teller = asyncio.create_task(tell())
    try:
        yield
    finally:
        teller.cancel()
