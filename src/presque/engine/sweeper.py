"""Lets time do its work on queues that nobody fetches from: due jobs, ended leases, what has expired.

Waiters do not depend on this. It keeps the counts fresh and frees memory. Any number of
servers may sweep, since each call is atomic and bounded.

Only busy queues are swept each time: those that hold jobs which are not dead, or are to be forgotten one day.
The sweep takes those that no longer are off that index, see `note_work` in lua/sweep.lua. A few of all
queues are swept beside them, which repairs the index should anything be lost there. So a queue that was used
once costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Sequence

from presque.engine import calls, replies
from presque.engine.keys import REGISTRY, Keys
from presque.engine.queues import Queues
from presque.errors import PresqueError, StoreUnavailable
from presque.names import is_queue
from presque.store.store import Store

log = logging.getLogger("presque.engine")

SWEEP_S = 1.0
SWEEP_TURNS = 5  # in which all busy queues have had their turn, unless there are too many for that
SWEPT_MOST = 2000  # queues in a turn
SWEPT_BESIDE = calls.QUEUES_A_CALL  # of all queues, in a turn
SPOILT_MOST = 1000


class Sweeper:
    """Sweeps the queues of one namespace, a part of them each second."""

    def __init__(self, store: Store, keys: Keys, queues: Queues) -> None:
        self._store = store
        self._keys = keys
        self._queues = queues
        self._busy_after = self._after = ""
        self._spoilt: dict[str, str] = {}  # queues that cannot be swept, and why: logged once

    async def run(self) -> None:
        """Sweep, until cancelled. Those that have been empty and unused for as long as their policy `expires`
        says are forgotten."""
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.turn()

    async def sweep_all(self) -> None:
        """Let time do all of its work on every queue where it may find some. Raises `PresqueError`."""
        index = self._queues.index
        async with contextlib.aclosing(index.all(index.busy)) as pages:
            async for page in pages:
                for some in calls.split(page):
                    await self._sweep(some)

    async def turn(self) -> None:
        """Sweep a part of the queues, once."""
        with contextlib.suppress(StoreUnavailable):  # it is logged where the connection is kept
            async for some in self._shares():
                await self._sweep(some)

    async def _shares(self) -> AsyncIterator[Sequence[str]]:
        """The queues of one turn, as many at a time as fit into a call."""
        index = self._queues.index
        try:
            busy = int(await self._store.call(REGISTRY, "ZCARD", index.busy))
            share = min(max(calls.QUEUES_A_CALL, math.ceil(busy / SWEEP_TURNS)), SWEPT_MOST)
            while share > 0:
                some = await index.page(index.busy, self._busy_after, limit=min(share, calls.QUEUES_A_CALL))
                self._busy_after = some[-1] if len(some) == min(share, calls.QUEUES_A_CALL) else ""
                share = share - len(some) if self._busy_after else 0
                yield some
        except StoreUnavailable:
            raise
        except PresqueError as error:
            self._tell(index.busy, error)
        try:
            some = await index.page(index.names, self._after, limit=SWEPT_BESIDE)
            self._after = some[-1] if len(some) == SWEPT_BESIDE else ""
            yield some
        except StoreUnavailable:
            raise
        except PresqueError as error:
            self._tell(index.names, error)

    async def _sweep(self, found: Sequence[str]) -> None:
        queues = [name for name in found if is_queue(name)]
        more = bool(queues)
        while more:
            try:
                call = calls.encode("sweep", self._keys.of_all(queues))
                more, expired, spoilt = await self._store.ask(queues[0], call)
                for queue, reason in replies.spoilt(spoilt, queues).items():
                    self._tell(queue, reason)
                for position in expired:
                    log.info("queue.expired queue=%s", queues[position - 1])
                    await self._queues.forget(queues[position - 1])
            except StoreUnavailable:
                raise
            except PresqueError as error:  # of a queue alone, or of one that is to be forgotten
                self._tell(queues[0], error)
                return

    def _tell(self, what: str, reason: object) -> None:
        if self._spoilt.get(what) != str(reason) and len(self._spoilt) < SPOILT_MOST:
            self._spoilt[what] = str(reason)
            log.warning("sweep.failed queue=%s reason=%r", what, str(reason))
