"""Told by a server of itself, for longest_hold.py: how long its event loop was busy without a break.

And which function held up its store for longest. Both are CPU time, so that what else runs on the machine
counts for nothing.

Loaded into the server (`rig.presque(…, change=…)`). Each millisecond it looks how much CPU the thread of the
event loop has used since it looked last, and keeps the most. It overrates: several short turns within a
millisecond are added up. The functions of the store look at the CPU clock of the store when they begin and
end; they overrate as well, by what its other threads do meanwhile.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import time
from pathlib import Path

from presque.config.loading import Loaded
from presque.engine import library
from presque.server import serving

BEAT_S = 0.001
_MS = struct.Struct("d")


class Longest:
    """A figure in a file, which the server makes larger and the bench reads and sets back."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_MS.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _MS.size)

    @property
    def ms(self) -> float:
        """The longest turn in milliseconds since it was set back."""
        return float(_MS.unpack(self._memory)[0])

    @ms.setter
    def ms(self, value: float) -> None:
        self._memory[:] = _MS.pack(value)


TOLD = f"{library.NAME}_longest"
"""A function of the store: which one took longest since this was asked last, and how many microseconds."""

_CALL = "local reply = callback(keys, args)"
_TIMED = """local began = os.clock()
    local reply = callback(keys, args)
    local took = os.clock() - began
    if took > longest[2] then longest = {name, took} end"""
_TELL = f"""
redis.register_function('{TOLD}', function()
  local told = {{longest[1], math.floor(longest[2] * 1e6)}}
  longest = {{'', 0}}
  return told
end)
"""


def timed(source: str) -> str:
    """The functions of the store, which look at the clock."""
    head, found, rest = source.partition("\n")
    assert rest.count(_CALL) == 1
    return f"{head}{found}local longest = {{'', 0}}\n{rest.replace(_CALL, _TIMED)}{_TELL}"


def install(path: str) -> None:
    """Look at the loop of the server that is about to run in this process, and at its store."""
    source = library.source
    library.source = lambda **about: timed(source(**about))
    longest, run = Longest(Path(path)), serving._run
    last = 0.0

    async def watched(found: Loaded) -> int:
        loop = asyncio.get_running_loop()

        def beat() -> None:
            nonlocal last
            now = time.thread_time()
            longest.ms = max(longest.ms, (now - last) * 1000)
            last = now
            loop.call_later(BEAT_S, beat)

        beat()
        return await run(found)

    serving._run = watched
