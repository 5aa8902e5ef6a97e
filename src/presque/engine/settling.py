"""Ends and extends leases: one by one, gathered into calls, or many together."""

from __future__ import annotations

import asyncio
import itertools
import operator
import random
from collections.abc import Callable, Sequence
from typing import Any

from presque import codec
from presque.engine import calls, replies
from presque.engine.batching import Batch, Batches, deal
from presque.engine.keys import Keys
from presque.errors import PresqueError
from presque.job import Settle, Settled
from presque.store.store import Store

SETTLE_A_CALL = 500


class Settling:
    """The settles of one namespace."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._batches = Batches(self._send, self._deliver)

    def settle(self, lease: Settle, done: Callable[[Settled | PresqueError], None]) -> None:
        """End or extend one lease; `done` gets what became of it. Harmless when repeated."""
        self._batches.add(lease.queue, done, _args([lease])[1])

    async def settle_many(self, leases: Sequence[Settle]) -> list[Settled]:
        """End or extend leases of any queues. Returns what became of each, in their order."""
        if len(leases) <= SETTLE_A_CALL and len({lease.queue for lease in leases}) == 1:
            return replies.settled_all(await self._ask(leases[0].queue, leases))
        by_queue: dict[str, list[int]] = {}
        for position, lease in enumerate(leases):
            by_queue.setdefault(lease.queue, []).append(position)
        parts = [
            (queue, positions[first : first + SETTLE_A_CALL])
            for queue, positions in by_queue.items()
            for first in range(0, len(positions), SETTLE_A_CALL)
        ]
        answers = await asyncio.gather(
            *(self._ask(queue, [leases[n] for n in some]) for queue, some in parts)
        )
        found = [Settled(404)] * len(leases)
        for (_, some), answer in zip(parts, answers, strict=True):
            for position, one in zip(some, replies.settled_all(answer), strict=True):
                found[position] = one
        return found

    async def _ask(self, queue: str, leases: Sequence[Settle]) -> Any:
        return await self._store.ask(queue, self._command(queue, *_args(leases)))

    def _command(self, queue: str, count: int, args: bytes) -> bytes:
        jitter = calls.argument(f"{random.random():.6f}".encode())  # noqa: S311 (no secret)
        return calls.encode_args("settle", self._keys.of(queue), 1 + count, jitter + args)

    def _send(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        count = ARGS_A_GROUP * len(batch.args)
        self._store.send(queue, self._command(queue, count, b"".join(batch.args)), receive)

    def _deliver(self, _queue: str, batch: Batch, reply: Any) -> None:
        if isinstance(reply, PresqueError):
            deal(batch.callers, [reply] * len(batch.callers))
            return
        deal(batch.callers, replies.settled_all(reply))


ARGS_A_GROUP = 4
_alike = operator.itemgetter(0, 3, 4)  # verb, token and fields of a `Settle`


def _args(leases: Sequence[Settle]) -> tuple[int, bytes]:
    """How many arguments of `settle` these leases of one queue are, and the arguments, encoded.

    Neighbours with the same verb, token and fields, such as all jobs of one lease, are one group.
    """
    parts: list[bytes] = []
    for (verb, token, fields), group in itertools.groupby(leases, _alike):
        packed = codec.pack(dict(fields)) if fields else b""
        ids = " ".join([one.id for one in group])
        parts += map(calls.argument, (verb.encode(), token.encode(), packed, ids.encode()))
    return len(parts), b"".join(parts)
