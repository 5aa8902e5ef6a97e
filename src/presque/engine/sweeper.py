"""Lets time do its work on queues that nobody fetches from: due jobs, ended leases, what has expired.

Who waits for a job is told in time without this. It is for what people see, and for memory. Any number of
servers may sweep, since each call is atomic and bounded.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence, Set

from presque.engine import calls
from presque.engine.keys import Keys
from presque.errors import PresqueError, StoreUnavailable
from presque.store.store import Store

log = logging.getLogger("presque.engine")

SWEEP_S = 1.0
SWEEP_TURNS = 5  # in which all queues have had their turn, unless there are too many for that
SWEPT_MOST = 2000  # queues in a turn


async def sweep(store: Store, keys: Keys, known: Set[str]) -> None:
    """Sweep the `known` queues, a part of them each second, until cancelled. They may become more."""
    left: list[str] = []
    share = 0
    while True:
        await asyncio.sleep(SWEEP_S)
        if not left:
            left = sorted(known)
            share = min(max(calls.QUEUES_A_CALL, math.ceil(len(left) / SWEEP_TURNS)), SWEPT_MOST)
        turn, left = left[:share], left[share:]
        for some in calls.split(turn):
            await _sweep_some(store, keys, some)


async def _sweep_some(store: Store, keys: Keys, queues: Sequence[str]) -> None:
    try:
        while await store.ask(queues[0], calls.encode("sweep", keys.of_all(queues))):
            pass
    except StoreUnavailable:
        pass  # it is logged where the connection is kept, and the next turn comes
    except PresqueError as error:
        log.warning("sweep.failed reason=%s", error)
