"""One client of the WebSocket door: messages in, messages out, and no socket.

A command is answered with its result; an `ack`, `fail`, `release` or `extend` without a `ref` only if it
could not be done. `lease` is different here: it grants credits. Up to `count` jobs of its queue list are
leased to this client at any time and come as events as soon as they are there; each job that is settled makes
room for another. So a client that does not read, or does not settle, gets no more than it has asked for.

What the client holds when it goes is released at once.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from presque import codec, names
from presque.commands import leases, table
from presque.engine.deliveries import Listener
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.errors import CallerError, PresqueError
from presque.job import Fetched, LeaseAsk, Leased, Settle, Settled
from presque.names import QueueList

CONSUMERS_MOST = 16
PENDING_MOST = 100
BEHIND_MOST = 8 * 1024 * 1024
WAIT_S = 3600.0
AGAIN_S = 1.0
SETTLING = (table.Ack, table.Fail, table.Release, table.Extend)


class Consumer:
    """One grant of credits: for which queues, how many, and how many of them are in use."""

    __slots__ = ("asking", "attempt", "count", "held", "idle", "ms", "queues", "waiter")

    def __init__(self, queues: QueueList) -> None:
        self.queues = queues
        self.count = 0
        self.ms: int | None = None
        self.held = 0
        self.asking = False
        self.attempt = ""  # the last look, if what it brought is unknown: asked again, it brings the same
        self.idle = False  # the last look brought nothing, so the next one waits
        self.waiter: Waiter | None = None


class Session:
    """What one client has asked for and holds. `send` takes the text of a message."""

    def __init__(
        self,
        engine: Engine,
        queues: str | None,
        worker: str | None,
        send: Callable[[bytes], None],
        cut: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._defaults = {"queue": queues} if queues else None
        self._worker = worker
        self._send = send
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._consumers: dict[QueueList, Consumer] = {}
        self._held: dict[tuple[str, str, str], Consumer] = {}
        self._commands: set[asyncio.Task[None]] = set()
        self._hungry: set[Consumer] = set()
        self._listeners: dict[str, Listener] = {}
        self._behind = 0  # bytes that were sent to it as a listener since it stopped reading
        self._paused = False
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether so many commands are under way that no more should be read."""
        return len(self._commands) >= PENDING_MOST

    def receive(self, message: bytes) -> None:
        """Carry out what a message says. What is wrong with it is answered, never raised."""
        if message.lstrip(b" \t\r\n")[:1] != b"[":
            self._command(message)
            return
        try:
            commands = table.split(message)
        except PresqueError as error:
            self._send(table.refusal(b"", error))
            return
        for one in commands:
            self._command(one)

    def pause(self) -> None:
        """The client does not read: ask for no more jobs."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        self._behind = 0
        self._feed_all()

    def end(self, *, lost: bool) -> None:
        """The client has gone, or has to go: give back what it holds, and let nothing more come.

        Of one that is lost without a goodbye each job counts as a failed attempt, so that a job which kills
        its consumers cannot live for ever.
        """
        if self._ended:
            return
        self._ended = True
        for consumer in self._consumers.values():
            self._leave(consumer)
        for listener in self._listeners.values():
            self._engine.deliveries.leave(listener)
        for task in self._commands:
            task.cancel()
        for queue, job, token in reversed(self._held):  # each goes to the head
            told = {"error": "the connection was lost", "retry_in": 0}
            fail = Settle("fail", queue, job, token, told)
            self._engine.settle(fail if lost else Settle("release", queue, job, token), _ignore)
        self._held.clear()

    # --- commands -------------------------------------------------------------------------------

    def _command(self, message: bytes) -> None:
        try:
            asked = self._read(message)
            if isinstance(asked, SETTLING):
                lease = table.settle_of(asked)
                self._engine.settle(lease, functools.partial(self._settled, lease, asked.ref))
            elif isinstance(asked, table.Lease):
                if names.queue_list(asked.queue).single is None:
                    self._grant(asked)
                else:
                    self._keep(self._listen_or_grant(asked, message))
            else:
                self._keep(self._run(asked, message))
        except PresqueError as error:
            self._send(table.refusal(message, error))
        except Exception:  # noqa: BLE001  (the last resort)
            self._send(table.broken(message))

    def _read(self, message: bytes) -> Any:
        codec.check(message)
        if self._defaults is None:
            return table.read(message)
        try:
            return table.read(message)
        except CallerError:
            return table.read(message, self._defaults)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _run(self, asked: Any, message: bytes) -> None:
        try:
            reply = await table.COMMANDS[asked.cmd].run(self._engine, asked, self._worker)
        except PresqueError as error:
            self._send(table.refusal(message, error))
        except Exception:  # noqa: BLE001  (the last resort)
            self._send(table.broken(message))
        else:
            self._send(table.with_ref(reply, asked.ref))

    # --- settling -------------------------------------------------------------------------------

    def _settled(self, lease: Settle, ref: codec.Raw, result: Settled | PresqueError) -> None:
        if self._ended:
            return
        if isinstance(result, PresqueError):
            reply = codec.encode(
                {"queue": lease.queue, "id": lease.id, "error": str(result), "code": result.code}
            )
            self._send(table.with_ref(reply, ref))
            return
        if self._worker is not None:
            leases.count(self._engine, self._worker, [lease], [result])
        if lease.verb != "extend" or result.status != 200:
            consumer = self._held.pop((lease.queue, lease.id, lease.token), None)
            if consumer is not None:
                consumer.held -= 1
                self._feed_soon(consumer)
        if bytes(ref) or result.status != 200 or result.state == "cancel":
            self._send(table.with_ref(codec.encode(leases.told(lease, result)), ref))

    # --- broadcast and round robin ----------------------------------------------------------------

    async def _listen_or_grant(self, asked: table.Lease, message: bytes) -> None:
        """Lease from one queue; where its policy `delivery` is for those connected, be one of them."""
        try:
            listener = self._listeners.pop(asked.queue, None)
            if listener is not None:
                self._engine.deliveries.leave(listener)
            if asked.count and await self._listen(asked.queue):
                delivery = "roundrobin" if self._listeners[asked.queue].turns else "broadcast"
                reply = codec.encode({"queue": asked.queue, "delivery": delivery})
                self._send(table.with_ref(reply, asked.ref))
            else:
                self._grant(asked)
        except PresqueError as error:
            self._send(table.refusal(message, error))

    async def _listen(self, queue: str) -> bool:
        if len(self._listeners) >= CONSUMERS_MOST:
            raise CallerError(f"a socket listens to at most {CONSUMERS_MOST} queues")
        listener = await self._engine.listener(queue, self._hear)
        if listener is None:
            return False
        if self._ended:
            self._engine.deliveries.leave(listener)
        self._listeners[queue] = listener
        return True

    def _hear(self, job: Fetched) -> None:
        event = b'{"event":"job",' + table.fetched(job)[1:]
        if self._paused:
            self._behind += len(event)
            if self._behind > BEHIND_MOST:
                self._loop.call_soon(self._cut)
                return
        self._send(event)

    # --- leases ---------------------------------------------------------------------------------

    def _grant(self, asked: table.Lease) -> None:
        if asked.wait or asked.attempt_id is not None:
            raise CallerError("`wait` and `attempt_id` are not for a socket: jobs come when they are there")
        queues = names.queue_list(asked.queue)
        ms = None
        if asked.count:
            request = leases.LeaseRequest(asked.count, asked.seconds)
            ms = leases.lease_ask(request, {}, None)[0].ms
        consumer = self._consumers.get(queues)
        if consumer is None:
            if len(self._consumers) >= CONSUMERS_MOST:
                raise CallerError(f"a socket leases from at most {CONSUMERS_MOST} queue lists")
            consumer = self._consumers[queues] = Consumer(queues)
        changed = (asked.count, ms) != (consumer.count, consumer.ms)
        consumer.count, consumer.ms = asked.count, ms
        if changed:
            self._leave(consumer)
        self._send(table.with_ref(codec.encode({"queue": asked.queue, "count": asked.count}), asked.ref))
        if not consumer.count and not consumer.held:
            del self._consumers[queues]
        self._feed(consumer)

    def _leave(self, consumer: Consumer) -> None:
        """Take back what a consumer waits for. A look that is under way may still bring something."""
        if consumer.waiter is not None:
            self._engine.leave(consumer.waiter)
            consumer.waiter = None
            consumer.asking = False

    def _feed_soon(self, consumer: Consumer) -> None:
        """Ask for more at the end of this turn, so that what is settled in one turn is asked for in one."""
        if not self._hungry:
            self._loop.call_soon(self._feed_hungry)
        self._hungry.add(consumer)

    def _feed_hungry(self) -> None:
        hungry, self._hungry = self._hungry, set()
        for consumer in hungry:
            self._feed(consumer)

    def _feed_all(self) -> None:
        for consumer in list(self._consumers.values()):
            self._feed(consumer)

    def _feed(self, consumer: Consumer) -> None:
        """Ask for as many jobs as there are credits left, unless that is under way."""
        free = consumer.count - consumer.held
        if free <= 0 or consumer.asking or self._paused or self._ended or self._engine.stopping:
            return
        consumer.asking = True
        attempt = consumer.attempt = consumer.attempt or secrets.token_hex(8)
        ask = LeaseAsk(free, consumer.ms, self._worker or "", attempt)
        if consumer.idle:
            # Each waiter has a place of its own: one that has left may not bring jobs any more.
            took = functools.partial(self._take_waited, consumer)
            consumer.waiter = self._engine.lease(consumer.queues, ask, WAIT_S, took)
        else:
            self._engine.lease(consumer.queues, ask, 0, functools.partial(self._take, consumer))

    def _take_waited(self, consumer: Consumer, found: list[Leased] | PresqueError | None) -> bool:
        consumer.waiter = None
        return self._take(consumer, found)

    def _take(self, consumer: Consumer, found: list[Leased] | PresqueError | None) -> bool:
        consumer.asking = False
        if self._ended:
            return False
        if isinstance(found, PresqueError):
            self._loop.call_later(AGAIN_S, self._feed, consumer)
            return True
        consumer.attempt = ""
        if not found:
            if consumer.idle:
                self._loop.call_later(AGAIN_S, self._feed, consumer)
            else:
                consumer.idle = True
                self._feed(consumer)
            return True
        consumer.idle = False
        if consumer.held + len(found) > consumer.count:
            self._feed_soon(consumer)
            return False
        for job in found:
            self._held[job.queue, job.id, job.token] = consumer
            self._send(b'{"event":"job",' + leases.job_answer(job)[1:])
        consumer.held += len(found)
        self._feed_soon(consumer)
        return True


def _ignore(_result: Any) -> None:
    pass
