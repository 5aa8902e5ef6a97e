"""One client of the WebSocket door: messages in, messages out, and no socket.

A command is answered with its result; an `ack`, `fail`, `release` or `extend` without a `ref` only if it
could not be done. `lease` is different here: it grants credits, and jobs come as events (see consuming.py).
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from presque import codec
from presque.commands import jobs, leases, messages
from presque.commands.call import Undo
from presque.commands.carrying import BROKEN, Ended, admit, begun, carry_out, untraced
from presque.commands.consuming import Consumer
from presque.commands.messages import Asker, Message
from presque.commands.who import NOBODY
from presque.errors import CallerError, PresqueError, Refused
from presque.job import Fetched, Leased, Settle, Settled

PENDING_MOST = 100
LOOKS_MOST = 4  # commands under way at once whose answers may have 4 MiB
SETTLING = ("ack", "fail", "release", "extend")


class Send(Protocol):
    """Sends the text of a message; `undo` is called if the client leaves before it has taken that."""

    def __call__(self, text: bytes, undo: Undo | None = None) -> None: ...


class Session:
    """What one client has asked for and holds. `freed` is called when `kept` has become less."""

    def __init__(
        self,
        asker: Asker,
        send: Send,
        cut: Callable[[], None],
        freed: Callable[[], None],
    ) -> None:
        self._asker = asker
        self._send = send
        self._cut = cut
        self._freed = freed
        self.kept = 0  # bytes of the commands that wait or are under way
        self._consumer = self._consumer_of(asker)
        self._entered = False  # whether it is counted here in its namespace
        self._loop = asyncio.get_running_loop()
        self._commands: set[asyncio.Task[None]] = set()
        self._waiting: deque[bytes] = deque()
        self._looks = asyncio.Semaphore(LOOKS_MOST)
        self._readable = asyncio.Event()
        self._readable.set()

    @property
    def anonymous(self) -> bool:
        """Whether the client has still to say who it is."""
        return self._asker.who is NOBODY

    @property
    def error(self) -> Refused | None:
        """Why the session must end, now that access tokens may have become invalid."""
        guard = self._asker.service.guard
        return None if self.anonymous else guard.error_of(self._asker.who)

    @property
    def full(self) -> bool:
        """Whether so many commands are under way that no more should be read."""
        return len(self._commands) + len(self._waiting) >= PENDING_MOST

    def receive(self, text: bytes) -> None:
        """Carry out what a message says. What is wrong with it is answered, never raised."""
        commands = [text]
        if text.lstrip(b" \t\r\n")[:1] == b"[":
            try:
                codec.check(text)
                commands = messages.split(text)
            except PresqueError as error:
                self._send(messages.refusal(b"", error))
                return
        self.kept += sum(map(len, commands))
        self._waiting.extend(commands)
        self._begin()

    def pause(self) -> None:
        """The client does not read: ask for no more jobs, and begin no more commands."""
        self._readable.clear()
        self._consumer.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._readable.set()
        self._consumer.resume()
        self._begin()

    def end(self, *, lost: bool) -> None:
        """The client disconnected, or has to go: give back what it holds, and send nothing more."""
        self._consumer.end(lost=lost)
        if self._entered and self._asker.who.namespace is not None:
            self._entered = False
            self._asker.who.namespace.leave()
        self._waiting.clear()
        for task in self._commands:
            task.cancel()

    def _free(self, size: int) -> None:
        """A command of so many bytes is over."""
        self.kept -= size
        self._freed()

    # --- commands -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the commands that wait, as many as may be under way."""
        while self._waiting and len(self._commands) < PENDING_MOST and self._readable.is_set():
            self._command(self._waiting.popleft())

    def _command(self, text: bytes) -> None:
        try:
            codec.check(text)
            message = messages.read(self._asker, text)
            name = message.call.verb.name
            if name in SETTLING:
                return self._settle(message, len(text))
            if name == "hello":
                self._hello(message)
            else:
                work = self._lease if name == "lease" else self._run
                return self._keep(work(message, text), len(text))
        except PresqueError as error:
            self._refuse(text, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._send(messages.broken(text))
        return self._free(len(text))

    def _refuse(self, text: bytes, error: PresqueError) -> None:
        if isinstance(error, Refused):
            self._asker.service.audit.refused(error, self._asker.source)
        self._send(messages.refusal(text, error))

    def _hello(self, message: Message) -> None:
        """The client says who it is."""
        asker, call = self._asker, message.call
        if not self.anonymous:
            raise CallerError("this connection has logged in already")
        who = asker.service.guard.who(call.fields["token"], asker.source)
        if who.namespace is not None:
            who.namespace.enter()
            self._entered = True
        self._asker = msgspec.structs.replace(asker, who=who, service=asker.service.of(who))
        self._consumer = self._consumer_of(self._asker)
        self._send(messages.with_ref(codec.encode({"hello": who.name}), message.ref))

    def _consumer_of(self, asker: Asker) -> Consumer:
        return Consumer(asker.service.engine, asker.worker, self._deliver, self._cut)

    def _keep(self, work: Coroutine[Any, Any, None], size: int) -> None:
        task = self._loop.create_task(work)
        self._commands.add(task)
        task.add_done_callback(functools.partial(self._done, size))

    def _done(self, size: int, task: asyncio.Task[None]) -> None:
        self._commands.discard(task)
        self._free(size)
        self._begin()

    async def _run(self, message: Message, text: bytes) -> None:
        verb = message.call.verb
        try:
            if (verb.reads or verb.takes) and not verb.waits:  # its answer may be large
                async with self._looks:
                    await self._readable.wait()
                    reply = await carry_out(message.call)
            else:
                reply = await carry_out(message.call)
        except PresqueError as error:
            self._refuse(text, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._send(messages.broken(text))
        else:
            self._send(messages.with_ref(reply.object, message.ref), reply.undo)

    async def _lease(self, message: Message, text: bytes) -> None:
        """Grant credits, or listen."""
        call = message.call
        end = begun(call) or untraced
        try:
            call.fields = admit(call.service, call.verb, call.who, call.fields)
            asked = leases.lease_ask(call.fields, None)
            told = await self._consumer.listen_or_grant(call.queues, asked.count, asked.ms)
        except PresqueError as error:
            end(error)
            self._refuse(text, error)
        except Exception:  # noqa: BLE001  (the last resort)
            end(BROKEN)
            self._send(messages.broken(text))
        else:
            end(None)
            self._send(messages.with_ref(codec.encode(told), message.ref))

    # --- settling -------------------------------------------------------------------------------

    def _settle(self, message: Message, size: int) -> None:
        call = message.call
        end = begun(call) or untraced
        try:
            admit(call.service, call.verb, call.who, call.fields)
            lease = leases.settle_of(call.verb.name, call.fields)
        except PresqueError as error:
            end(error)
            raise
        self._consumer.settle(lease, functools.partial(self._settled, lease, message.ref, size, end))

    def _settled(
        self, lease: Settle, ref: bytes, size: int, end: Ended, result: Settled | PresqueError
    ) -> None:
        self._free(size)
        end(result if isinstance(result, PresqueError) else leases.refused(lease.queue, result))
        if isinstance(result, PresqueError):
            told = {"queue": lease.queue, "id": lease.id, "error": str(result), "code": result.code}
            self._send(messages.with_ref(codec.encode(told), ref))
        elif ref or result.status != 200 or result.state == "cancel":
            self._send(messages.with_ref(codec.encode(leases.told(lease, result)), ref))

    # --- jobs -----------------------------------------------------------------------------------

    def _deliver(self, job: Leased | Fetched) -> None:
        answer = leases.job_answer(job) if isinstance(job, Leased) else jobs.fetched_answer(job)
        self._send(b'{"event":"job",' + answer[1:])
