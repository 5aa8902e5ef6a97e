"""When the store may rewrite its log, which needs room on the disk before it frees some.

The store does it by itself when its log has doubled. On a disk with little room that would fill the disk,
and a store that finds its disk full ends itself. So it is forbidden there. A log of jobs that are gone may
be the very reason why there is little room: it is rewritten as soon as the remaining data fits.

A disk may also take no more files, though it has room. The store would try ten times a second to make those
of a new log, and write about each in its own log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from presque.store.disk import Disk

log = logging.getLogger("presque.store")

WORTH_BYTES = 8 * 1024 * 1024
PAUSE_S = 10.0


class Rewrites:
    """Decides for one run of the store. `ask` sends it a command and returns the reply."""

    def __init__(self, disk: Disk, clock: Callable[[], float]) -> None:
        self._disk = disk
        self._clock = clock
        self._automatic = True
        self._next = 0.0

    def tight(self, log_bytes: int) -> bool:
        """Whether the disk has no room for another log as long as this one, or for its files."""
        free = self._disk.free
        return self._disk.no_files or (
            bool(self._disk.least) and free is not None and free - log_bytes < self._disk.least
        )

    def begin(self, log_bytes: int) -> str:
        """The setting to start the store with."""
        self._automatic = not self.tight(log_bytes)
        return _PERCENTAGE[self._automatic]

    async def decide(self, log_bytes: int, ask: Callable[[str], Any]) -> None:
        """Let the store do it by itself, or forbid it, or have it done now. Raises `OSError`."""
        tight = self.tight(log_bytes)
        if tight == self._automatic:
            await ask(f"CONFIG SET auto-aof-rewrite-percentage {_PERCENTAGE[not tight]}")
            self._automatic = not tight
        if not tight or self._disk.no_files or self._clock() < self._next or log_bytes < WORTH_BYTES:
            return
        self._next = self._clock() + PAUSE_S
        facts = _facts(await ask("INFO"))
        data = int(facts.get("used_memory_dataset", log_bytes))
        free = self._disk.free or 0
        fits = free - data > self._disk.least // 4
        if facts.get("aof_rewrite_in_progress") == "0" and log_bytes - data > WORTH_BYTES and fits:
            log.info("store.rewriting log_bytes=%d data_bytes=%d free=%d", log_bytes, data, free)
            await ask("BGREWRITEAOF")


_PERCENTAGE: Mapping[bool, str] = {True: "100", False: "0"}


def _facts(said: object) -> dict[str, str]:
    return dict(line.split(":", 1) for line in str(said).splitlines() if ":" in line)
