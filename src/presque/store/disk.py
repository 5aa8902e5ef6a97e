"""How much room is left on the disk that holds the data, and whether anything may still grow.

Below a limit of free bytes nothing that makes the data grow is taken, so that what frees it can go on: each
fetch and each ack is written to the disk, too. A store that finds its disk full ends itself.

Looking costs a system call, so it is done once a second, and between two looks whatever is written is
counted against what was found. Pushes are taken again when there is an eighth more than the limit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from pathlib import Path

from presque.errors import DiskFull
from presque.store.directory import free_bytes, free_files

log = logging.getLogger("presque.store")

LOOK_EVERY_S = 1.0
FILES_LEAST, FILES_ENOUGH = 4, 8  # a rewrite of the store's log makes three
FSYNC_PATIENCE_S = 2.0
OF_A_JOB = 256
"""Bytes that the store writes for a job beside its body, roughly."""


class Disk:
    """The disk that holds the data. Without a `directory` there is nothing to watch, and it is never full.

    `least` is in bytes, 0 for no limit. `writers` is how many
    processes write as this one does. `look` must be called, or `watch` run, for `full` to be true.
    """

    def __init__(self, directory: Path | None, least: int, *, writers: int = 1, tell: bool = False) -> None:
        self.directory = directory
        self.least = least
        self.full = False
        self.free: int | None = None
        """Bytes, as last seen; None if nobody could tell."""
        self.no_files = False
        """Whether it takes no more files, which the store needs to rewrite its log."""
        self._writers = writers
        self._tell = tell
        self._room = 0
        self._syncing: tuple[float, asyncio.Future[float | None]] | None = None

    def look(self) -> None:
        """Look at once."""
        if self.directory is None:
            return
        try:
            self.free = free_bytes(self.directory)
            self._look_for_files(free_files(self.directory))
        except OSError:  # the store will find out, if it is more than a moment
            self.free = None
            return
        self._room = self.free - self.least
        if not self.least:
            return
        if not self.full and self._room < 0:
            self.full = True
            if self._tell:
                log.warning("disk.low dir=%s free=%d limit=%d", self.directory, self.free, self.least)
        elif self.full and self._room >= self.least // 8:
            self.full = False
            if self._tell:
                log.info("disk.enough dir=%s free=%d limit=%d", self.directory, self.free, self.least)

    def _look_for_files(self, free: int | None) -> None:
        least = FILES_ENOUGH if self.no_files else FILES_LEAST
        short = free is not None and free < least
        if short == self.no_files:
            return
        self.no_files = short
        if self._tell and short:
            log.warning("disk.no_files dir=%s free=%s", self.directory, free)
        elif self._tell:
            log.info("disk.files_again dir=%s free=%s", self.directory, free)

    def spend(self, count: int) -> None:
        """Count bytes that are about to be written; look again when there may be no room for them."""
        self._room -= count * self._writers
        if self._room < 0 and self.least and self.directory is not None and not self.full:
            self.look()

    def refusal(self) -> DiskFull:
        """Why nothing may grow now."""
        return DiskFull(self.free or 0, self.least)

    async def fsync_seconds(self) -> float | None:
        """How long an fsync of a small new file takes on this disk now; None if that cannot be measured.

        One at a time: while an earlier one has not come back, it tells how long that has taken so far.
        """
        if self.directory is None:
            return None
        if self._syncing is None or self._syncing[1].done():
            self._syncing = time.monotonic(), asyncio.ensure_future(asyncio.to_thread(_fsync, self.directory))
        began, task = self._syncing
        done, _ = await asyncio.wait([task], timeout=FSYNC_PATIENCE_S)
        if not done:
            return time.monotonic() - began
        return task.result()

    async def watch(self) -> None:
        """Look every second, until cancelled."""
        while self.directory is not None:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)


def _fsync(directory: Path) -> float | None:
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:  # has no name that anybody could see
            file.write(bytes(512))
            began = time.perf_counter()
            os.fsync(file.fileno())
            return time.perf_counter() - began
    except OSError:
        return None
