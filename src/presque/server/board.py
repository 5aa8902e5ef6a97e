"""What each process of one server counts, where all of them can read it: a request for the figures of a
server reaches one process only.

It is a file without a name that all of them have open, with a place for each. A place holds bytes and their
checksum: a process that reads while another one writes notices that, and reads again. The one who owns a
place may have been killed in the middle of writing; then nothing is known of it until it is replaced.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from zlib import crc32

PLACE_BYTES = 256 * 1024
TRIES = 10

_HEAD = struct.Struct("<II")


class Board:
    """A place for each of `count` processes. Processes share it by its file descriptor `fd`."""

    def __init__(self, count: int, fd: int | None = None) -> None:
        self.count = count
        self._file = tempfile.TemporaryFile() if fd is None else None  # noqa: SIM115  (it lives as long as we)
        if self._file is not None:
            self._file.truncate(count * PLACE_BYTES)
            fd = self._file.fileno()
        assert fd is not None
        self.fd = fd
        self._map = mmap.mmap(fd, count * PLACE_BYTES)

    def put(self, number: int, told: bytes) -> None:
        """What process `number` reports from now on. What does not fit is left out."""
        if len(told) > PLACE_BYTES - _HEAD.size:
            told = b""
        start = number * PLACE_BYTES
        self._map[start : start + _HEAD.size + len(told)] = _HEAD.pack(len(told), crc32(told)) + told

    def all(self) -> dict[int, bytes]:
        """What each process reported last, by its number; without those that have reported nothing."""
        found = {number: self._read(number) for number in range(self.count)}
        return {number: told for number, told in found.items() if told}

    def _read(self, number: int) -> bytes:
        start = number * PLACE_BYTES
        for _ in range(TRIES):
            length, checksum = _HEAD.unpack_from(self._map, start)
            told = self._map[start + _HEAD.size : start + _HEAD.size + min(length, PLACE_BYTES)]
            if crc32(told) == checksum:
                return told
        return b""

    def close(self) -> None:
        """Let go of it. Others that have it open keep it."""
        self._map.close()
        if self._file is not None:
            self._file.close()
