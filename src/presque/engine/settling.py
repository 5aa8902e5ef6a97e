"""Ends and extends leases: one by one, gathered into calls, or many together."""

from __future__ import annotations

import asyncio
import functools
import itertools
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from presque import codec
from presque.engine import calls, replies
from presque.engine.batching import Batch, Batches, deal
from presque.engine.keys import Keys
from presque.errors import PresqueError
from presque.job import Settle, Settled, alike
from presque.store.store import Store
from presque.store.wire import into

SETTLE_A_CALL = 500


class Settling:
    """The settles of one namespace."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._batches = Batches(self._send, self._deliver)

    def settle(self, lease: Settle, done: Callable[[Settled | PresqueError], None]) -> None:
        """End or extend one lease; `done` gets what became of it. Harmless when repeated."""
        _, args = _args([lease])
        self._batches.add(lease.queue, done, args, len(args))

    async def settle_many(self, leases: Sequence[Settle]) -> list[Settled]:
        """End or extend leases of any queues. Returns what became of each, in their order."""
        found: asyncio.Future[list[Settled]] = self._loop.create_future()
        self.settle_all(leases, into(found))
        return await found

    def settle_all(self, leases: Sequence[Settle], done: Callable[[Any], None]) -> None:
        """The same for a caller that does not wait: `done` gets the list, or a `PresqueError`.

        All calls are on their way to the store when this returns, so what is asked next comes after them.
        """
        if len(leases) <= SETTLE_A_CALL and len({lease.queue for lease in leases}) == 1:
            self._ask(leases[0].queue, leases, done)
            return
        by_queue: dict[str, list[int]] = {}
        for position, lease in enumerate(leases):
            by_queue.setdefault(lease.queue, []).append(position)
        parts = [
            (queue, positions[first : first + SETTLE_A_CALL])
            for queue, positions in by_queue.items()
            for first in range(0, len(positions), SETTLE_A_CALL)
        ]
        if not parts:
            done([])
        found = [Settled(404)] * len(leases)
        missing = len(parts)
        error: PresqueError | None = None

        def receive(some: list[int], answer: list[Settled] | PresqueError) -> None:
            nonlocal missing, error
            if isinstance(answer, PresqueError):
                error = error or answer
            else:
                for position, one in zip(some, answer, strict=True):
                    found[position] = one
            missing -= 1
            if not missing:
                done(error or found)

        for queue, some in parts:
            self._ask(queue, [leases[n] for n in some], functools.partial(receive, some))

    def give_back(self, leases: Sequence[Settle]) -> None:
        """Let jobs go back to the head of their queues, where they keep their order."""
        for first in reversed(range(0, len(leases), SETTLE_A_CALL)):
            self.settle_all(leases[first : first + SETTLE_A_CALL], calls.ignore)

    def _ask(self, queue: str, leases: Sequence[Settle], done: Callable[[Any], None]) -> None:
        found: list[Settled] = []

        def receive(reply: Any) -> None:
            if isinstance(reply, PresqueError):
                done(reply)
                return
            found.extend(replies.settled_all(reply, len(leases) - len(found)))
            if len(found) < len(leases):
                send()
            else:
                done(found)

        def send() -> None:
            self._store.send(queue, self._command(queue, *_args(leases[len(found) :])), receive)

        send()

    def _command(self, queue: str, count: int, args: bytes) -> bytes:
        jitter = calls.argument(f"{random.random():.6f}".encode())  # noqa: S311 (no secret)  # nosec B311
        return calls.encode_args("settle", self._keys.of(queue), 1 + count, jitter + args)

    def _send(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        count = ARGS_A_GROUP * len(batch.args)
        self._store.send(queue, self._command(queue, count, b"".join(batch.args)), receive)

    def _deliver(self, queue: str, batch: Batch, reply: Any) -> None:
        if isinstance(reply, PresqueError):
            deal(batch.callers, [reply] * len(batch.callers))
            return
        found = replies.settled_all(reply, len(batch.callers))
        deal(batch.callers[: len(found)], found)
        for caller, args in zip(batch.callers[len(found) :], batch.args[len(found) :], strict=True):
            self._batches.add(queue, caller, args, len(args))


ARGS_A_GROUP = 4
_alike = operator.itemgetter(0, 3, 4)  # verb, token and fields of a `Settle`


def _args(leases: Sequence[Settle]) -> tuple[int, bytes]:
    """How many arguments of `settle` these leases of one queue are, and the arguments, encoded.

    Neighbours with the same verb, token and fields, such as all jobs of one lease, are one group.
    """
    verbs, _, ids, tokens, fields, _ = zip(*leases, strict=True)
    if alike(tokens) and alike(verbs) and alike(fields):
        return ARGS_A_GROUP, _group(verbs[0], tokens[0], fields[0], ids)
    groups = [
        _group(verb, token, fields, [one.id for one in group])
        for (verb, token, fields), group in itertools.groupby(leases, _alike)
    ]
    return ARGS_A_GROUP * len(groups), b"".join(groups)


def _group(verb: str, token: str, fields: Mapping[str, Any], ids: Sequence[str]) -> bytes:
    packed = codec.pack(dict(fields)) if fields else b""
    return b"".join(map(calls.argument, (verb.encode(), token.encode(), packed, " ".join(ids).encode())))
