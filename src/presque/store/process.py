"""The process of the embedded store: how it dies with us, how its end is heard of, what it inherits."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

WAKE_S = 5.0
END_S = 60.0


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code when the process has ended. Where the kernel can tell, nobody asks."""
    if process.poll() is None and (descriptor := _pidfd(process.pid)) is not None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return process.wait()
    while (code := process.poll()) is None:
        await asyncio.sleep(0.05)
    return code


async def end(process: subprocess.Popen[bytes]) -> bool:
    """End a process: politely, then awake, then hard. Returns whether it had to be killed.

    It gets a TERM and END_S to write what it has. One that was stopped (SIGSTOP) cannot hear the TERM, so it
    gets a SIGCONT after WAKE_S. Killing is the last resort: what a store has acknowledged is in its files.
    """
    process.terminate()
    for seconds, then in ((WAKE_S, signal.SIGCONT), (END_S - WAKE_S, signal.SIGKILL)):
        try:
            async with asyncio.timeout(seconds):
                await ended(process)
        except TimeoutError:
            process.send_signal(then)
        else:
            return False
    await ended(process)
    return True


def _pidfd(pid: int) -> int | None:
    """A descriptor that is readable when the process has ended; None on macOS and old or caged kernels."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: ask the kernel for a TERM when its parent dies."""

    def ask_kernel() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we could ask
                os._exit(1)

    return ask_kernel


def status(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def cause(code: int) -> str:
    """Why a process ended, where how it ended tells; else empty."""
    if -code == signal.SIGXFSZ:
        return "a limit on the size of files was reached: raise it (ulimit -f, LimitFSIZE of systemd)"
    return ""


def environment() -> dict[str, str]:
    """What the store inherits: our environment without our settings, which may hold a password."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PRESQUE_")}
    # glibc keeps 7 freed pieces of a size at hand, and one call here frees hundreds at once. With more at
    # hand the store spends less time in malloc (bench/cpu.py prints its CPU per push).
    return {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=512"} | ours
