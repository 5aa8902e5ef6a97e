"""Puts jobs on queues: one by one, gathered into calls, or many together.

`push` tells its result to a function instead of returning a future, which would cost another turn of the
event loop for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from presque import codec
from presque.engine import calls, replies
from presque.engine.batching import Batch, Batches, deal
from presque.engine.keys import Keys
from presque.engine.queues import Queues
from presque.engine.records import SEAL, seal, seals_of
from presque.errors import PresqueError
from presque.job import PLAIN, PushOptions
from presque.store.disk import OF_A_JOB, Disk
from presque.store.store import Store

Pushed = Callable[[int | PresqueError], object]
"""Gets the new job's id, or why it was not stored."""


NOTHING_MORE = calls.argument(b"")
"""What a job asks that is plain."""

COLUMNS_FROM = 8


class Prepared(msgspec.Struct, frozen=True):
    """A push of many jobs, encoded."""

    queue: str
    command: bytes
    count: int


class Pushing:
    """The pushes of one namespace."""

    def __init__(self, store: Store, keys: Keys, queues: Queues, disk: Disk) -> None:
        self._store = store
        self._keys = keys
        self._queues = queues
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._batches = Batches(self._send, self._deliver)

    def push(self, queue: str, body: bytes, options: PushOptions, done: Pushed) -> None:
        """Store one job; `done` gets its id once the store has it as safely as it is set to.

        The body must have been checked. `done` gets `JobExists`, `CallerError`, `StoreFull` or
        `StoreUnavailable` otherwise, and then nothing was stored, except that with `sent=True` nobody
        knows.
        """
        asked = NOTHING_MORE if options is PLAIN else calls.argument(pack(options))
        self._batches.add(queue, done, (asked, body), len(body))

    async def push_many(
        self, queue: str, bodies: Sequence[bytes], options: PushOptions, failures: int = 0
    ) -> list[int]:
        """Store all of these jobs or none. Returns their ids in the same order.

        `failures` counts that many failures for the queue in the same step.
        """
        return await self.push_prepared(self.prepare(queue, bodies, options, failures))

    def prepare(
        self, queue: str, bodies: Sequence[bytes], options: PushOptions, failures: int = 0
    ) -> Prepared:
        """The call that stores all of these jobs or none, for `push_prepared`."""
        count = len(bodies)
        key = options.idempotency
        if key is not None and count > 1:  # each job of a batch has a key of its own
            each = (msgspec.structs.replace(options, idempotency=f"{key}#{n}") for n in range(count))
            asked = [calls.argument(pack(one)) for one in each]
        else:
            asked = [NOTHING_MORE if options is PLAIN else calls.argument(pack(options))] * count
        args = b"%b$1\r\n1\r\n%b" % (calls.argument(b"%d" % failures), _encoded(asked, bodies))
        return Prepared(queue, calls.encode_args("push", self._keys.of(queue), 2 + 2 * count, args), count)

    async def push_prepared(self, call: Prepared) -> list[int]:
        """Make a call that was prepared."""
        if self._disk.full:
            raise self._disk.refusal()
        self._queues.register(call.queue)
        self._disk.spend(len(call.command) + OF_A_JOB * call.count)
        reply: list[Any] = await self._store.ask(call.queue, call.command)
        self._queues.pushed(call.queue, reply[0])
        if _all_stored(reply):
            return reply
        found = []
        for one in map(replies.pushed, reply):
            if isinstance(one, PresqueError):
                raise one
            found.append(one)
        return found

    def _send(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        if self._disk.full:
            self._loop.call_soon(receive, self._disk.refusal())
            return
        self._queues.register(queue)
        args = b"$1\r\n0\r\n$1\r\n0\r\n" + _encoded(*zip(*batch.args, strict=True))
        count = 2 + 2 * len(batch.callers)
        self._disk.spend(len(args) + OF_A_JOB * len(batch.callers))
        self._store.send(queue, calls.encode_args("push", self._keys.of(queue), count, args), receive)

    def _deliver(self, queue: str, batch: Batch, reply: Any) -> None:
        if isinstance(reply, PresqueError):
            deal(batch.callers, [reply] * len(batch.callers))
            return
        self._queues.pushed(queue, reply[0])
        deal(batch.callers, reply if _all_stored(reply) else [replies.pushed(one) for one in reply])


def _all_stored(reply: Sequence[Any]) -> bool:
    """Whether the reply to pushes is just the ids of new jobs."""
    return set(map(type, reply)) == {int}


def _encoded(asked: Sequence[bytes], bodies: Sequence[bytes]) -> bytes:
    """The arguments for so many jobs: what each one asks, which is encoded already, and its sealed body."""
    count = len(bodies)
    if count < COLUMNS_FROM:
        return b"".join([one + calls.argument(seal(body)) for one, body in zip(asked, bodies, strict=True)])
    # Column by column: a step of Python for each job is felt in bench/push_lines.py and bench/before.py.
    sizes = list(map(len, bodies))
    heads = {size: b"$%d\r\n" % (SEAL + size) for size in set(sizes)}
    jobs = [b"\r\n"] * (5 * count)
    jobs[0::5], jobs[1::5] = asked, map(heads.__getitem__, sizes)
    jobs[2::5], jobs[3::5] = seals_of(bodies), bodies
    return b"".join(jobs)


def pack(options: PushOptions) -> bytes:
    """The options of a push as lua/push.lua reads them."""
    asked = {
        "priority": options.priority,
        "delayed": options.delayed,
        "delay": options.delay,
        "ttl": options.ttl,
        "attempts": options.attempts,
        "keep": options.keep,
        "uniq": options.uniq,
        "until_done": True if options.uniq_until == "done" else None,
        "group": options.group,
        "trace": options.traceparent,
        "tracestate": options.tracestate,
        "key": options.idempotency,
        "fingerprint": options.fingerprint,
        "cron": options.cron,
        "stamp": options.stamp,
        "ahead": options.ahead,
    }
    return codec.pack({name: value for name, value in asked.items() if value is not None})
