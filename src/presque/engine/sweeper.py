"""Lets time do its work on queues that nobody fetches from: due jobs, ended leases, what has expired.

Who waits for a job is told in time without this. It is for what people see, and for memory. Any number of
servers may sweep, since each call is atomic and bounded.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence, Set

from presque.engine import calls
from presque.engine.keys import Keys
from presque.errors import PresqueError, StoreUnavailable
from presque.store.store import Store

log = logging.getLogger("presque.engine")

SWEEP_S = 1.0
SWEEP_TURNS = 5  # in which all queues have had their turn, unless there are too many for that
SWEPT_MOST = 2000  # queues in a turn


async def sweep(
    store: Store, keys: Keys, known: Set[str], forget: Callable[[str], Awaitable[object]]
) -> None:
    """Sweep the `known` queues, a part of them each second, until cancelled. They may become more or fewer.

    Those that have been empty and unused for as long as their policy `expires` says are forgotten.
    """
    left: list[str] = []
    share = 0
    spoilt: dict[str, str] = {}  # queues that cannot be swept, and why: told once
    while True:
        await asyncio.sleep(SWEEP_S)
        if not left:
            left = sorted(known)
            share = min(max(calls.QUEUES_A_CALL, math.ceil(len(left) / SWEEP_TURNS)), SWEPT_MOST)
        turn, left = left[:share], left[share:]
        for some in calls.split(turn):
            await _sweep_some(store, keys, some, forget, spoilt)


async def _sweep_some(
    store: Store,
    keys: Keys,
    queues: Sequence[str],
    forget: Callable[[str], Awaitable[object]],
    spoilt: dict[str, str],
) -> None:
    try:
        more = True
        while more:
            more, *expired = await store.ask(queues[0], calls.encode("sweep", keys.of_all(queues)))
        for position in expired:
            log.info("queue.expired queue=%s", queues[position - 1])
            await forget(queues[position - 1])
    except StoreUnavailable:
        pass  # it is logged where the connection is kept, and the next turn comes
    except PresqueError as error:
        if len(queues) > 1:  # one of them is spoilt: the others must not wait for it
            for queue in queues:
                await _sweep_some(store, keys, [queue], forget, spoilt)
        elif spoilt.get(queues[0]) != str(error):
            spoilt[queues[0]] = str(error)
            log.warning("sweep.failed queue=%s reason=%r", queues[0], str(error))
