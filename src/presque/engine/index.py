"""Sets of names of queues in the store, read a page at a time: whatever there is, nobody waits for all of it.

There are three (lua/head.lua): all queues, the busy ones, the stopped ones. Each is in alphabetical order,
and a page begins behind a name. So a row is never repeated or left out, whatever comes and goes between two
pages.

Patterns are compared in pieces of CHECKS_A_TURN comparisons, and between two pieces the event loop serves
others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from presque import names
from presque.engine.calls import QUEUES_A_CALL
from presque.engine.keys import REGISTRY, Keys
from presque.errors import StoreError
from presque.names import QueueList
from presque.store.store import Store

log = logging.getLogger("presque.engine")

PAGE = 500
CHECKS_A_TURN = 250
LOOKED_MOST = 10_000  # names that are looked at for one page of those that match
AFTER_ALL = "\x7f"  # stands behind every character of a name


class Index:
    """The sets of names of one namespace."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self.names = keys.registry()[0]
        self.busy = keys.busy()
        self.stopped = keys.stopped()
        self._spoilt: set[str] = set()  # logged once

    async def count(self) -> int:
        """How many queues there are."""
        return int(await self._store.call(REGISTRY, "ZCARD", self.names))

    async def page(self, of: str, after: str = "", begins: str = "", limit: int = PAGE) -> list[str]:
        """The first names behind `after` that begin with `begins`, in alphabetical order."""
        low = f"({after}" if after and after >= begins else f"[{begins}"
        high = f"[{begins}{AFTER_ALL}"
        found = await self._store.call(REGISTRY, "ZRANGEBYLEX", of, low, high, "LIMIT", 0, limit)
        return [name.decode("utf-8", "replace") for name in found]

    async def all(self, of: str, begins: str = "") -> AsyncGenerator[list[str], None]:
        """All names that begin with `begins`, a page at a time, except what is not a queue name."""
        after = ""
        while True:
            page = await self.page(of, after, begins)
            if page:
                yield [name for name in page if names.is_queue(name)]
            if len(page) < PAGE:
                return
            after = page[-1]

    async def select(
        self, of: str, wanted: QueueList | None, after: str, limit: int
    ) -> tuple[list[str], str | None]:
        """A page of the names behind `after` that belong to a list, and the cursor for the next page: None
        when there is none. Where few match a page may be short, or empty, and still have a next."""
        found: list[str] = []
        looked = 0
        begins = "" if wanted is None else _in_common([names.beginning(one) for one in wanted.items])
        while True:
            page = await self.page(of, after, begins, limit + 1 if wanted is None else PAGE)
            proper = [name for name in page if names.is_queue(name)]
            found += proper if wanted is None else await _in_pieces(proper, wanted.matches, wanted.weight)
            if len(found) > limit:
                return found[:limit], found[limit - 1]
            if len(page) < (limit + 1 if wanted is None else PAGE):
                return found, None
            after, looked = page[-1], looked + len(page)
            if looked >= LOOKED_MOST or len(found) == limit:
                return found, after

    async def pieces(self, queues: QueueList) -> AsyncGenerator[list[str], None]:
        """The queues to take jobs off, most preferred first, as many at a time as fit into one call: those
        that are named, and of those that the patterns stand for the busy ones."""
        piece: list[str] = []
        for number, item in enumerate(queues.items):
            if not names.has_glob(item):
                if not _before(queues, number, item):
                    piece.append(item)
                continue
            first_here = functools.partial(_picked, queues, number)
            async with contextlib.aclosing(self._busy(names.beginning(item))) as pages:
                async for page in pages:
                    piece += await _in_pieces(page, first_here, queues.weight)
                    while len(piece) >= QUEUES_A_CALL:
                        yield piece[:QUEUES_A_CALL]
                        piece = piece[QUEUES_A_CALL:]
        if piece:
            yield piece

    async def _busy(self, begins: str) -> AsyncGenerator[list[str], None]:
        """The busy queues, a page at a time; all queues if it cannot be read which are busy."""
        try:
            async for page in self.all(self.busy, begins):
                yield page
        except StoreError as error:
            if self.busy not in self._spoilt:
                self._spoilt.add(self.busy)
                log.error("store.key_spoilt key=%s reason=%r", self.busy, str(error))
            async for page in self.all(self.names, begins):
                yield page


def _in_common(texts: Sequence[str]) -> str:
    """What all of these begin with."""
    low, high = min(texts), max(texts)
    return low[: next((at for at, one in enumerate(low) if not high.startswith(one, at)), len(low))]


def _picked(queues: QueueList, number: int, name: str) -> bool:
    """Whether a pattern, the item of that number, stands for a queue, and no item before it does."""
    return queues.picks(queues.items[number], name) and not _before(queues, number, name)


def _before(queues: QueueList, number: int, name: str) -> bool:
    """Whether an item before that of this number names a queue, or stands for it."""
    return any(
        queues.picks(one, name) if names.has_glob(one) else one == name for one in queues.items[:number]
    )


async def _in_pieces(page: Iterable[str], matches: Callable[[str], bool], weight: int) -> list[str]:
    """Those names that match. Each costs `weight` comparisons; others are served between two pieces."""
    found = []
    checked = 0
    for name in page:
        if checked >= CHECKS_A_TURN:
            checked = 0
            await asyncio.sleep(0)
        checked += weight
        if matches(name):
            found.append(name)
    return found
