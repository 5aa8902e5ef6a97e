"""The engine: one method per verb, one call to the store each.

The verbs on the hot path (`push`, `fetch`) tell their result to a function instead of returning a future,
which would cost another turn of the event loop for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import logging
import operator
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from presque import codec
from presque.engine import calls, keys, library, replies
from presque.engine.batching import Batch, Batches
from presque.engine.crons import Crons
from presque.engine.deliveries import Deliveries, Listener
from presque.engine.events import Events, Hearer
from presque.engine.jobs import Jobs
from presque.engine.lines import Taker, Waiter
from presque.engine.records import body_of, seal, seal_all
from presque.engine.sizes import ANSWER_BYTES, Sizes
from presque.engine.sweeper import sweep
from presque.engine.wakeups import Wakeups
from presque.errors import PresqueError, QueueClosed, SetupError, StoreError, StoreUnavailable
from presque.job import (
    PLAIN,
    Fetched,
    LeaseAsk,
    Leased,
    PushOptions,
    QueueStats,
    Settle,
    Settled,
    WorkerRecord,
    WorkerStats,
)
from presque.names import QueueList, has_glob
from presque.store.address import Address
from presque.store.channels import Channels, Hearing
from presque.store.disk import OF_A_JOB, Disk
from presque.store.greeting import StoreInfo
from presque.store.store import Store

log = logging.getLogger("presque.engine")

FETCH_MOST = 1000
SETTLE_A_CALL = 500
COUNTED_AT_ONCE = 1000

DAMAGED = "the body in the store is not what was pushed: its checksum is wrong"

J = TypeVar("J", Fetched, Leased)

Pushed = Callable[[int | PresqueError], None]
"""Gets the new job's id, or why it was not stored."""


class Engine:
    """The queues of one namespace in one store."""

    def __init__(self, address: Address, namespace: str = "presque", disk: Disk | None = None) -> None:
        self.disk = Disk(None, 0) if disk is None else disk
        self.keys = keys.Keys(namespace)
        self.store = Store(address, library.functions(), on_connected=self._connected)
        self.channels = Channels(address)
        self.jobs = Jobs(self.store, self.channels, self.keys, self.disk)
        self.crons = Crons(self.store, self.keys, self.push, self.disk)
        self.wakeups = Wakeups(self, self.channels, self.keys)
        self.deliveries = Deliveries(self.store, self.channels, self.keys)
        self.events = Events(self.store, self.channels, self.keys)
        self._loop = asyncio.get_running_loop()
        self._known: set[str] = set()
        self._sizes = Sizes()
        self._registry = self.keys.registry()
        self._pushes = Batches(self._send_pushes, self._deliver_pushes)
        self._fetches = Batches(self._send_fetches, self._deliver_fetches)
        self._settles = Batches(self._send_settles, self._deliver_settles)
        self._worker_counts: dict[str, list[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reach the store and begin to sweep. Raises `SetupError` if the store will not do."""
        try:
            await self.store.connect()
            await self._check_layout()
            await self.channels.connect()
            await self._hear_of_queues()
        except BaseException:
            await self.stop()
            raise
        self._spawn(sweep(self.store, self.keys, self._known))
        self._spawn(self.crons.run())
        self._spawn(self.disk.watch())

    async def count(self) -> tuple[int, int]:
        """How many jobs there are in how many queues, jobs of every state. Raises `PresqueError`."""
        found: list[int] = []
        for first in range(0, len(names := sorted(self._known)), COUNTED_AT_ONCE):
            some = names[first : first + COUNTED_AT_ONCE]
            found += await asyncio.gather(
                *(self.store.call(name, "HLEN", self.keys.of(name)[1]) for name in some)
            )
        return sum(found), len(found)

    async def _check_layout(self) -> None:
        """Raise `SetupError` for data that another presque wrote in a layout that is not known here."""
        found = (await self._call("layout", keys.REGISTRY, self._registry)).decode()
        if found != str(library.LAYOUT):
            raise SetupError(
                f"the data at {self.store.address}, namespace {self.keys.namespace}, has layout {found}, and "
                f"this presque reads layout {library.LAYOUT}: let the presque that wrote it empty its "
                "queues, or use another namespace or data directory"
            )

    async def _hear_of_queues(self) -> None:
        """Know of all queues, now and from now on. Raises `SetupError` if the store does not let us hear."""
        hearing = self.channels.hear(
            self._registry[1], lambda name: self._new_queue(name.decode()), self._look_for_queues
        )
        try:
            await hearing.begun()
        except StoreError as error:
            raise SetupError(
                f"the store's user may not listen to channels: {error}; "
                f"allow it with `&{self.keys.namespace}:*`"
            ) from None
        except StoreUnavailable as error:
            raise SetupError(f"no store at {self.store.address}: {error}") from None
        await self.queues()

    def stop_waiting(self) -> None:
        """Answer everybody who waits with "nothing", and let nobody wait from now on."""
        self._stopping = True
        self.wakeups.stop()
        self.jobs.stop_waiting()

    async def stop(self) -> None:
        """End what runs in the background, then the connection."""
        self.stop_waiting()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.channels.close()
        await self.store.close()

    @property
    def stopping(self) -> bool:
        """Whether nobody may wait any more."""
        return self._stopping

    @property
    def info(self) -> StoreInfo | None:
        """What the store said of itself when it was last reached."""
        return self.store.info

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- push -----------------------------------------------------------------------------------

    def push(self, queue: str, body: bytes, options: PushOptions, done: Pushed) -> None:
        """Store one job; `done` gets its id once the store has it as safely as it is set to.

        The body must have been checked. `done` gets `JobExists`, `CallerError`, `StoreFull` or
        `StoreUnavailable` otherwise, and then nothing was stored, except that with `sent=True` nobody
        knows.
        """
        if self.disk.full:
            self._loop.call_soon(done, self.disk.refusal())
        elif options is PLAIN:
            self._pushes.add(queue, done, b"$0\r\n\r\n" + calls.argument(seal(body)))
        else:
            self._pushes.add(queue, done, calls.argument(pack(options)) + calls.argument(seal(body)))

    async def push_many(
        self, queue: str, bodies: Sequence[bytes], options: PushOptions, failures: int = 0
    ) -> list[int]:
        """Store all of these jobs or none. Returns their ids in the same order.

        `failures` counts that many failures for the queue in the same step.
        """
        if self.disk.full:
            raise self.disk.refusal()
        self._register(queue)
        key = options.idempotency
        if key is not None and len(bodies) > 1:  # each job of a batch has a key of its own
            each = (dataclasses.replace(options, idempotency=f"{key}#{n}") for n in range(len(bodies)))
            asked = [calls.argument(pack(one)) for one in each]
        else:
            asked = [calls.argument(b"" if options is PLAIN else pack(options))] * len(bodies)
        jobs = [
            b"%b$%d\r\n%b\r\n" % (packed, len(body), body)
            for packed, body in zip(asked, seal_all(bodies), strict=True)
        ]
        args = b"%b$1\r\n1\r\n%b" % (calls.argument(b"%d" % failures), b"".join(jobs))
        self.disk.spend(len(args) + OF_A_JOB * len(bodies))
        call = calls.encode_args("push", self.keys.of(queue), 2 + 2 * len(bodies), args)
        reply = await self.store.ask(queue, call)
        if reply[0] == 1:
            self._send_register(queue)  # as in `_deliver_pushes`
        found = []
        for one in map(replies.pushed, reply):
            if isinstance(one, PresqueError):
                raise one
            found.append(one)
        return found

    def _send_pushes(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        self._register(queue)
        count, args = 2 + 2 * len(batch.callers), b"$1\r\n0\r\n$1\r\n0\r\n" + b"".join(batch.args)
        self.disk.spend(len(args) + OF_A_JOB * len(batch.callers))
        self.store.send(queue, calls.encode_args("push", self.keys.of(queue), count, args), receive)

    def _deliver_pushes(self, queue: str, batch: Batch, reply: Any) -> None:
        if isinstance(reply, PresqueError):
            for done in batch.callers:
                done(reply)
            return
        if reply[0] == 1:
            # A queue that begins to count is new to the store, though we may have known it: the store may
            # have been emptied meanwhile.
            self._send_register(queue)
        for done, result in zip(batch.callers, reply, strict=True):
            done(result if type(result) is int else replies.pushed(result))

    def _register(self, queue: str) -> None:
        """Make a queue known before its first job: the next call on the connection comes after this one."""
        if queue not in self._known:
            self._send_register(queue)

    def _send_register(self, queue: str) -> None:
        self.store.send(
            keys.REGISTRY,
            calls.encode("register", self._registry, queue),
            functools.partial(self._registered, queue),
        )

    def _registered(self, queue: str, reply: Any) -> None:
        if reply == 1:
            self._new_queue(queue)  # the message that tells of it may come later than its first jobs
        elif not isinstance(reply, PresqueError):
            self._known.add(queue)

    # --- fetch ----------------------------------------------------------------------------------

    def fetch(self, queues: QueueList, wait: float, take: Taker) -> Waiter | None:
        """Take one job off the first of `queues` that has one, for good; wait up to `wait` seconds for it.

        `take` gets the job, None when there is nothing, or a `PresqueError` (`QueueClosed` when the one
        queue named is stopped). If it answers False nobody was there any more: the job goes to the next
        who waits, or back to the head of its queue. Who leaves before passes the returned waiter to
        `leave`.
        """
        single = queues.single
        if wait <= 0:
            if single is not None:
                self._fetches.add(single, take)
            else:
                self._spawn(self._look(queues, take))
            return None
        waiter = Waiter(queues, take)
        if single is not None:
            hearing = self.wakeups.hear(single)
            hearing.then(functools.partial(self._look_first, single, waiter, wait, hearing))
        else:
            # A job may arrive in a queue already looked at, so stand in line before looking.
            self.wakeups.wait(waiter, wait, self._known)
            if not waiter.gone:
                self._spawn(self._look_in_line(waiter, functools.partial(self._look, queues)))
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """The one who waits has gone."""
        self.wakeups.leave(waiter)

    def lease(self, queues: QueueList, ask: LeaseAsk, wait: float, take: Taker) -> Waiter | None:
        """Lease jobs off the first of `queues` that have any; wait up to `wait` seconds for the first.

        `take` gets a list of `Leased` jobs, an empty one when there is nothing, or a `PresqueError`. If it
        answers False nobody was there any more, and the jobs are released at once.
        """
        if wait <= 0:
            self._spawn(self._look_to_lease(queues, ask, take))
            return None
        waiter = Waiter(queues, take, ask)
        self.wakeups.wait(waiter, wait, self._known)
        if not waiter.gone:
            self._spawn(self._look_in_line(waiter, functools.partial(self._look_to_lease, queues, ask)))
        return waiter

    async def _look_to_lease(self, queues: QueueList, ask: LeaseAsk, take: Taker) -> None:
        names = queues.expand(self._known)
        found: list[Leased] = []
        try:
            for some in calls.split(names):
                more = True
                while more and len(found) < ask.count:
                    part = dataclasses.replace(ask, count=ask.count - len(found))
                    reply = self.sound(replies.leased(await self._ask_to_lease(some, part), some))
                    found += reply.jobs
                    more = reply.more and not reply.jobs
                    for queue, due in reply.due_ms.items():
                        self.wakeups.due_in(queue, due)
        except PresqueError as error:
            if not found:
                take(error)
                return
        if not take(found or None):
            self.give_back(found)

    async def _ask_to_lease(self, queues: Sequence[str], ask: LeaseAsk) -> Any:
        size = self._sizes.of(queues[0], ask.count)
        return await self.store.ask(queues[0], self._lease_command(queues, ask), size)

    def _lease_command(self, queues: Sequence[str], ask: LeaseAsk) -> bytes:
        ms, nonce = "" if ask.ms is None else str(ask.ms), secrets.token_hex(8)
        args = (ask.count, ANSWER_BYTES, ms, ask.worker, nonce, ask.attempt_id)
        return calls.encode("lease", self.keys.of_all(queues), *args)

    def lease_jobs(self, queue: str, ask: LeaseAsk, receive: Callable[[Any], None]) -> None:
        """Lease jobs; `receive` gets the reply of `lease` or a `PresqueError`."""
        size = self._sizes.of(queue, ask.count)
        self.store.send(queue, self._lease_command((queue,), ask), receive, size)

    def settle(self, lease: Settle, done: Callable[[Settled | PresqueError], None]) -> None:
        """End or extend one lease; `done` gets what became of it. Harmless when repeated."""
        self._settles.add(lease.queue, done, _settle_args([lease])[1])

    async def settle_many(self, leases: Sequence[Settle]) -> list[Settled]:
        """End or extend leases of any queues. Returns what became of each, in their order."""
        if len(leases) <= SETTLE_A_CALL and len({lease.queue for lease in leases}) == 1:
            command = self._settle_command(leases[0].queue, *_settle_args(leases))
            return replies.settled_all(await self.store.ask(leases[0].queue, command))
        by_queue: dict[str, list[int]] = {}
        for position, lease in enumerate(leases):
            by_queue.setdefault(lease.queue, []).append(position)
        parts = [
            (queue, positions[first : first + SETTLE_A_CALL])
            for queue, positions in by_queue.items()
            for first in range(0, len(positions), SETTLE_A_CALL)
        ]
        answers = await asyncio.gather(
            *(
                self.store.ask(queue, self._settle_command(queue, *_settle_args([leases[n] for n in some])))
                for queue, some in parts
            )
        )
        found = [Settled(404)] * len(leases)
        for (_, some), answer in zip(parts, answers, strict=True):
            for position, one in zip(some, answer, strict=True):
                found[position] = replies.settled(one)
        return found

    def _settle_command(self, queue: str, count: int, args: bytes) -> bytes:
        jitter = calls.argument(f"{random.random():.6f}".encode())  # noqa: S311 (no secret)
        return calls.encode_args("settle", self.keys.of(queue), 1 + count, jitter + args)

    def _send_settles(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        count = 4 * len(batch.args)
        self.store.send(queue, self._settle_command(queue, count, b"".join(batch.args)), receive)

    def _deliver_settles(self, _queue: str, batch: Batch, reply: Any) -> None:
        if isinstance(reply, PresqueError):
            for done in batch.callers:
                done(reply)
            return
        for done, one in zip(batch.callers, reply, strict=True):
            done(replies.settled(one))

    async def listener(self, queue: str, take: Callable[[Fetched], None]) -> Listener | None:
        """Let `take` have the jobs of a queue whose policy `delivery` is for those connected, until
        `deliveries.leave`. None if its jobs are to be fetched or leased, as is usual."""
        delivery = (await self.jobs.policy(queue)).get("delivery", "queue")
        if delivery == "queue":
            return None
        return await self.deliveries.listen(queue, take, turns=delivery == "roundrobin")

    async def fetch_many(self, queue: str, count: int) -> list[Fetched]:
        """Take up to `count` jobs (1000 at most) off one queue for good. Raises `QueueClosed` if stopped.

        Returns fewer than there are when their bodies are large: 8 MiB in one answer is the most.
        """
        while True:
            reply = await self._fetch_call([queue], min(count, FETCH_MOST), ANSWER_BYTES)
            if reply.stopped:
                raise QueueClosed
            if reply.jobs or not reply.more:
                return reply.jobs

    def _send_fetches(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        self.take_jobs(queue, len(batch.callers), receive)

    def _deliver_fetches(self, queue: str, batch: Batch, reply: Any) -> None:
        """Deal out what one call fetched, in the order in which the takers asked."""
        nothing: PresqueError | None = None
        jobs: list[Fetched] = []
        due_ms: dict[str, int] = {}
        more = False
        if isinstance(reply, PresqueError):
            nothing = reply
        else:
            answer = self.sound(replies.fetched(reply, (queue,)))
            jobs, due_ms, more = answer.jobs, answer.due_ms, answer.more
            if answer.stopped:
                nothing = QueueClosed()
        dealt = 0
        for take in batch.callers:
            if dealt == len(jobs):
                if more:
                    self._fetches.add(queue, take)  # the call has stopped at its bounds
                else:
                    take(nothing)
            elif take(jobs[dealt]):
                dealt += 1
        self.give_back(jobs[dealt:])
        for due in due_ms.values():
            self.wakeups.due_in(queue, due)

    def _look_first(
        self, queue: str, waiter: Waiter, wait: float, hearing: Hearing, unheard: PresqueError | None
    ) -> None:
        """Look at the one queue of a waiter, now that it is heard, or cannot be."""
        if waiter.gone:
            hearing.end()
            return
        found = functools.partial(self._first_look, queue, waiter, wait, hearing, hearing.count, unheard)
        self._fetches.add(queue, found)

    def _first_look(
        self,
        queue: str,
        waiter: Waiter,
        wait: float,
        hearing: Hearing,
        count: int,
        unheard: PresqueError | None,
        found: Fetched | PresqueError | None,
    ) -> bool:
        """What a waiter's first look at its one queue brought: take it, or stand in line for more."""
        try:
            if waiter.gone:
                return False
            if found is None or isinstance(found, QueueClosed):
                if isinstance(unheard, StoreError):
                    found = unheard
                else:
                    self.wakeups.wait(waiter, wait, self._known, found)
                    if hearing.count != count:  # messages come over a connection of their own
                        self.wakeups.serve(queue)
                    return True
            waiter.gone = True
            return waiter.take(found)
        finally:
            hearing.end()

    async def _look_in_line(self, waiter: Waiter, look: Callable[[Taker], Awaitable[None]]) -> None:
        """Look for one that stands in line already, once its queues are heard, or cannot be."""
        unheard = await self.wakeups.heard(waiter)

        def take(found: Any) -> bool:
            if found is None and isinstance(unheard, StoreError):
                found = unheard
            return True if found is None else self.wakeups.deal(waiter, found)

        if not waiter.gone:
            await look(take)

    async def _look(self, queues: QueueList, take: Taker) -> None:
        """Fetch from a queue list: ask for many queues in one call, again until one has a job."""
        names = queues.expand(self._known)
        try:
            for some in calls.split(names):
                while True:
                    reply = await self._fetch_call(some, 1, 1)
                    for queue, due in reply.due_ms.items():
                        self.wakeups.due_in(queue, due)
                    if reply.jobs:
                        self.give_back([job for job in reply.jobs if not take(job)])
                        return
                    if not reply.more:
                        break
            take(None)
        except PresqueError as error:
            take(error)

    async def _fetch_call(self, queues: Sequence[str], count: int, most_bytes: int) -> replies.Taken[Fetched]:
        command = calls.encode("fetch", self.keys.of_all(queues), count, most_bytes)
        reply = await self.store.ask(queues[0], command, self._sizes.of(queues[0], count))
        return self.sound(replies.fetched(reply, queues))

    def take_jobs(self, queue: str, count: int, receive: Callable[[Any], None]) -> None:
        """Fetch up to `count` jobs; `receive` gets the reply of `fetch` or a `PresqueError`."""
        command = calls.encode("fetch", self.keys.of(queue), count, ANSWER_BYTES)
        self.store.send(queue, command, receive, self._sizes.of(queue, count))

    def give_back(self, jobs: Iterable[Fetched | Leased]) -> None:
        """Put jobs whose taker has gone back at the head of their queues.

        A lease that a repeated request has got, too, stays: that one's answer may have been read.
        """
        for job in jobs:
            if isinstance(job, Leased):
                self.settle(Settle("give_back", job.queue, job.id, job.token), _ignore)
            else:
                self._spawn(self._unfetch(job))

    def sound(self, taken: replies.Taken[J]) -> replies.Taken[J]:
        """The same answer, while the damaged jobs in it are put where nobody gets them: they are dead."""
        self._sizes.saw(taken.jobs)
        for job in taken.damaged:
            log.error("job.damaged queue=%s id=%s", job.queue, job.id)
            if isinstance(job, Leased):
                fields = {"error": DAMAGED, "retry": False, "reason": "damaged"}
                self.settle(Settle("fail", job.queue, job.id, job.token, fields), _ignore)
            else:
                self._spawn(self._unfetch(job, "damaged"))
        return taken

    async def _unfetch(self, job: Fetched, *reason: str) -> None:
        while True:
            try:
                await self._call("unfetch", job.queue, self.keys.of(job.queue), job.id, job.record, *reason)
            except PresqueError as error:
                # Unsent, it is tried again; with its outcome unknown it must not be.
                if self._stopping or not isinstance(error, StoreUnavailable) or error.sent:
                    log.error("job.not_put_back id=%s reason=%s", job.id, error)
                    return
            else:
                return

    # --- what the store tells -------------------------------------------------------------------

    def _new_queue(self, queue: str) -> None:
        self._known.add(queue)
        self.wakeups.new_queue(queue)
        self.events.new_queue(queue)

    def _connected(self) -> None:
        """The store can be called (again). It may be another one, or have lost its data."""
        self.wakeups.serve_all()
        self.deliveries.connected()
        self.events.connected()
        self._look_for_queues()

    def _look_for_queues(self) -> None:
        """Queues may have become known that nobody heard of."""
        self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        with contextlib.suppress(PresqueError):  # then the next connection catches up
            for queue in await self.queues():
                self._new_queue(queue)

    async def watch(self, hearer: Hearer, wanted: Sequence[QueueList]) -> None:
        """Tell `hearer` what happens to jobs of the `wanted` queues, in place of those wanted before: until
        `events.rest`. It is heard once this has returned. Raises `PresqueError`."""

        def is_wanted(queue: str) -> bool:
            return any(one.matches(queue) for one in wanted)

        named = {item for one in wanted for item in one.items if not has_glob(item)}
        await self.channels.caught_up()  # a queue that was new before this is not new
        await self.events.watch(hearer, is_wanted, self._known, named)

    # --- queues ---------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        """The names of all queues, in alphabetical order."""
        names = {
            name.decode() for name in await self.store.call(keys.REGISTRY, "SMEMBERS", self._registry[0])
        }
        # Added, not put in place of what is known: a new queue may have been heard of since the answer.
        self._known |= names
        return sorted(names)

    async def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """The counts and counters of these queues, in their order; zeros for one never seen."""
        found: list[QueueStats] = []
        for some in calls.split(queues):
            found += replies.stats(await self._call("stats", some[0], self.keys.of_all(some)), some)
        return found

    async def peek(self, queue: str, count: int) -> tuple[int, list[tuple[str, bytes]]]:
        """How many jobs are ready, and id and body of those that would be fetched next (8 MiB at most)."""
        command = calls.encode("peek", self.keys.of(queue), count, ANSWER_BYTES)
        ready, *found = await self.store.ask(queue, command, ANSWER_BYTES if count else 0)
        return ready, [
            (job_id.decode(), body)
            for job_id, record in zip(found[::2], found[1::2], strict=True)
            if (body := body_of(record))
        ]

    async def start_queue(self, queue: str) -> None:
        """Let a stopped queue hand out jobs again."""
        await self._call("control", queue, self.keys.of(queue), "start")

    async def stop_queue(self, queue: str) -> None:
        """Hand out nothing from this queue until it is started again. Pushes go on."""
        await self._call("control", queue, self.keys.of(queue), "stop")

    async def started(self, queue: str) -> bool:
        """Whether the queue hands out jobs. One never seen does."""
        return bool(await self._call("control", queue, self.keys.of(queue), "ask"))

    async def stopped(self, queues: QueueList) -> list[str]:
        """Which of these queues are stopped."""
        stats = await self.stats(queues.expand(self._known))
        return [one.queue for one in stats if not one.started]

    async def purge(self, queue: str) -> int:
        """Delete all jobs of the queue, its counters and its uniq keys. Returns how many jobs went."""
        return int(await self._call("purge", queue, self.keys.of(queue)))

    # --- workers --------------------------------------------------------------------------------

    async def register_worker(self, worker: str, queue: str) -> None:
        """The worker takes jobs of this queue from now on."""
        await self._call("worker_register", keys.WORKERS, self.keys.workers(), worker, queue)

    async def unregister_worker(self, worker: str, queue: str) -> None:
        """The worker takes no more jobs of this queue. After its last queue it is forgotten."""
        await self._call("worker_unregister", keys.WORKERS, self.keys.workers(), worker, queue)

    async def workers(self) -> dict[str, list[str]]:
        """The registered workers and the queues each of them takes jobs of."""
        return replies.registered(await self._call("worker_list", keys.WORKERS, self.keys.workers()))

    async def worker(self, worker: str) -> WorkerStats | None:
        """What is known of one worker; None for one never heard of."""
        return replies.worker(
            await self._call("worker_show", keys.WORKERS, self.keys.workers(), worker), worker
        )

    async def report_worker(self, worker: str, report: bytes, queues: Iterable[str]) -> str:
        """Keep what a worker says of itself, register it for `queues`, and return what it is asked to be."""
        reply = await self._call("worker_report", keys.WORKERS, self.keys.workers(), worker, report, *queues)
        return str(reply.decode())

    async def leave_worker(self, worker: str) -> None:
        """Forget a worker that has ended."""
        await self._call("worker_leave", keys.WORKERS, self.keys.workers(), worker)

    async def tell_worker(self, worker: str, status: str) -> bool:
        """Ask a worker to be `start`, `quiet` or `stop` when it reports next; False if it does not report."""
        return bool(await self._call("worker_tell", keys.WORKERS, self.keys.workers(), worker, status))

    async def worker_records(self, most: int) -> list[WorkerRecord]:
        """The registered workers, those heard of last first, `most` of them."""
        return replies.worker_records(
            await self._call("worker_records", keys.WORKERS, self.keys.workers(), most)
        )

    def count_worker(self, worker: str, processed: int, failed: int) -> None:
        """Add to a worker's counters, a moment later. A lost store may lose the count, never a job."""
        if not self._worker_counts:
            self._loop.call_soon(self._send_worker_counts)
        counts = self._worker_counts.setdefault(worker, [0, 0])
        counts[0] += processed
        counts[1] += failed

    def _send_worker_counts(self) -> None:
        counts, self._worker_counts = self._worker_counts, {}
        for worker, (processed, failed) in counts.items():
            self.store.send(
                keys.WORKERS,
                calls.encode("worker_count", self.keys.workers(), worker, processed, failed),
                _ignore,
            )

    # --- calls ----------------------------------------------------------------------------------

    async def _call(self, name: str, tag: str, names: tuple[str, ...], *args: str | bytes | int) -> Any:
        return await self.store.ask(tag, calls.encode(name, names, *args))


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
        "key": options.idempotency,
        "fingerprint": options.fingerprint,
    }
    return codec.pack({name: value for name, value in asked.items() if value is not None})


def _ignore(_reply: Any) -> None:
    pass


_alike = operator.itemgetter(0, 3, 4)  # verb, token and fields of a `Settle`


def _settle_args(leases: Sequence[Settle]) -> tuple[int, bytes]:
    """How many arguments of `settle` these leases of one queue are, and the arguments, encoded.

    Neighbours with the same verb, token and fields, such as all jobs of one lease, are one group.
    """
    parts: list[bytes] = []
    for (verb, token, fields), group in itertools.groupby(leases, _alike):
        packed = codec.pack(dict(fields)) if fields else b""
        ids = " ".join([one.id for one in group])
        parts += map(calls.argument, (verb.encode(), token.encode(), packed, ids.encode()))
    return len(parts), b"".join(parts)
