"""How a request is answered: what a plan sees of the connection that its request came from.

An answer is written whole, or as a stream of parts. `take` and `answer_bytes` are on the way of each push and
fetch, and written for that (bench/push_http.py).
"""

from __future__ import annotations

import abc
import asyncio
import functools
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from time import perf_counter
from typing import Any, Protocol, cast

import msgspec

from presque.errors import OurFault, PresqueError, Refused
from presque.http import answers, problems
from presque.http.answers import CLOSE, Answer
from presque.http.door import Door, Upgraded
from presque.http.outflow import Outflow, Stuck
from presque.http.proxies import Client
from presque.http.states import IDLE, NEXT, OWING, RECEIVING, STREAMING, State
from presque.http.tallies import Tally

log = logging.getLogger("presque.http")

SLOW_S = 1.0


class Asking(Protocol):
    """A plan that asks the engine for something and answers when that is there."""

    def take(self, connection: Answering, found: Any) -> bool:
        """Answer with what the engine has found, or with the `PresqueError` it has. Returns False if the
        client has disconnected."""


class Asked:
    """What an answer depends on: some of what the head of its request says."""

    __slots__ = (
        "classic", "client", "cors", "method", "request_id", "route", "tally", "upload", "version_1_0",
    )  # fmt: skip

    classic: bool  # how its errors are written
    client: Client
    cors: bytes  # further lines for the head of the answer
    method: str
    request_id: str | None
    route: str
    tally: Tally  # where its answers are counted
    upload: bool
    version_1_0: bool


class Answering(asyncio.Protocol, abc.ABC):
    """A connection, as far as plans see it."""

    __slots__ = (
        "_began", "_buffer", "_cancel", "_proxied", "_served", "_stuck", "_undo", "_usual", "_waits",
        "asking", "closing", "deadline", "direct", "door", "state", "transport",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        self.door = door
        self.state = IDLE
        self.deadline = 0.0  # when to give up on what the client owes us; 0, or nothing, while we owe it
        self.transport: asyncio.Transport
        self.direct: Client  # at the other end of the connection, which may be a proxy
        self._proxied = False  # it is a proxy, and what it says of its clients is believed
        self._buffer = bytearray()  # what has come of the next request, and what was pipelined behind it
        self._usual: Asked | None = None  # the request before, which the next one may repeat
        self._served: Asked  # the request that is being served
        self.asking: Asking  # its plan, where `take` gets what the plan has asked for
        self._began = 0.0  # when it was there whole, and those before it were answered
        self.closing = b""  # the header that says so if the connection ends after the current answer
        self._stuck: Stuck | None = None  # what the client has not taken, while it does not read
        self._undo: Callable[[], object] | None = None  # what the end of the connection puts back meanwhile
        self._cancel: Callable[[], object] | None = None  # what the end of the connection cancels
        self._waits: Callable[[], bool] | None = None

    @property
    def address(self) -> str:
        """The address of the client that sent the request that is being served; "" if it has none.

        Clients that send the same head share what was understood of it, so that does not know the address;
        but for those of a proxy, whose heads name it.
        """
        return self._served.client.address if self._proxied else self.direct.address

    @property
    def gone(self) -> bool:
        """Whether the client has disconnected, so that nothing can be given to it."""
        return self.transport.is_closing()

    def until_left(self, cancel: Callable[[], object], waits: Callable[[], bool] | None = None) -> None:
        """Call `cancel` if the client leaves before it is answered. Where `waits` says so, a client that
        closes its sending side has left."""
        self._cancel = cancel
        self._waits = waits

    def spawn(self, work: Coroutine[Any, Any, None], waits: Callable[[], bool] | None = None) -> None:
        """Run what cannot be done in one go; it gives the answer, and is cancelled when the client leaves."""
        task = self.door.loop.create_task(self._carried(work))
        task.add_done_callback(lambda _task: work.close())  # it has not begun if the client left at once
        self._cancel = task.cancel
        self._waits = waits

    async def _carried(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PresqueError as error:
            if self.state in OWING:
                self.answer_error(error)
            else:
                self.broken()
        except Exception:  # noqa: BLE001  (the last resort)
            self.broken()

    def take(self, found: Any) -> bool:
        """Let the plan that asks have what the engine has found.

        The engine calls this method as it is: to make a `partial` for each request, and to call it, costs
        more (bench/before.py).
        """
        return self.asking.take(self, found)

    def answer_bytes(self, status: bytes, message: bytes) -> bool:
        """Answer with these bytes, head and all, which say this status. Returns False if the client has
        disconnected."""
        transport = self.transport
        if transport.is_closing():
            return False
        served = self._served
        took = perf_counter() - self._began
        served.tally.add(status, took)
        if took > SLOW_S:
            self._tell_slow(served, took)
        if served.cors:
            message = answers.with_lines(message, served.cors)
        transport.write(message)
        if served is self._usual and not self._buffer:
            self._cancel = self._waits = None
            self.state = IDLE
            door = self.door
            door.under_way -= 1
            self.deadline = door.idle_until
        else:
            self._began += took  # when the next one begins, if it is there
            self.finish()
        return True

    def _tell_slow(self, served: Asked, took: float) -> None:
        """Log a request that took long though it waited for nothing; thousands of them as sums."""
        if not served.upload and not (self._waits is not None and self._waits()):
            verb = served.tally.verb
            self.door.sums.tell(f"slow {verb}", functools.partial(_tell_slow, verb, took, served.request_id))

    def answer(self, answer: Answer) -> bool:
        """Answer, with a body of known length. Returns False if the client has disconnected."""
        if self.state is RECEIVING:
            self.closing = CLOSE
        head = answers.head(answer, self.door.date, close=bool(self.closing))
        message = head if self._served.method == "HEAD" else head + cast(bytes, answer.body)
        given = self.answer_bytes(b"%d" % answer.status, message)
        if answer.undo is not None:
            if given:
                self.unless_taken(answer.undo)
            else:
                answer.undo()
        return given

    def unless_taken(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the client leaves before it has taken the answer that was just written.

        What the kernel has taken counts as taken, since nobody can tell: with what it holds for the client
        besides, that may be some megabytes.
        """
        if self._stuck is not None:
            self._undo = undo

    def answer_error(self, error: PresqueError) -> bool:
        """Answer with an error, written as the route writes them. Returns False if the client has
        disconnected."""
        if isinstance(error, Refused) and self.door.refused is not None:
            self.door.refused(error, self.address)
        answer = answers.of_error(error, classic=self._served.classic)
        if isinstance(error, OurFault):
            name, served = self._served.request_id, self._served
            if name is None:  # one by which it is found in the log
                name = secrets.token_hex(8)
                answer = msgspec.structs.replace(answer, headers={**answer.headers, "X-Request-Id": name})
            problems.note(error, served.method, served.route, name)
        return self.answer(answer)

    def answer_known_error(self, error: PresqueError) -> bool:
        """The same for one error that is always the same and comes often: written once a second."""
        key = (error, self._served.classic, bool(self.closing))
        message = self.door.known_errors.get(key)
        if message is None:
            answer = answers.of_error(error, classic=self._served.classic)
            head = answers.head(answer, self.door.date, close=bool(self.closing))
            message = self.door.known_errors[key] = head + cast(bytes, answer.body)
        return self.answer_bytes(message[9:12], message)

    def broken(self) -> None:
        """An unexpected error. Call this where the error is caught, for the log.

        Nobody knows how far the request came, so nothing more is served on this connection.
        """
        log.exception("request.broken method=%s request=%s", self._served.method, self._served.request_id)
        self.closing = CLOSE
        self._usual = None
        self._cancel = self._waits = None
        if self.state in OWING:
            self.answer_error(OurFault("internal error; see the server log"))
        elif not self.transport.is_closing():
            self.transport.abort()

    async def stream(self, answer: Answer) -> None:
        """Answer with parts as they come, each sent before the next one is asked for. It ends with the
        iterator, or politely when the server stops."""
        if self.transport.is_closing():
            return
        parts = cast(AsyncIterator[bytes], answer.body)
        chunked = not self._served.version_1_0
        self.closing = self.closing if chunked else CLOSE
        self._usual = None
        self.deadline = 0.0
        self._go(STREAMING)
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        out = Outflow(self.transport, self._sent, chunked=chunked, sparing=answer.sparing)
        head = answers.head(answer, self.door.date, close=bool(self.closing), framing=framing)
        self._served.tally.add(head[9:12], perf_counter() - self._began)
        self.transport.write(answers.with_lines(head, self._served.cors))
        self._waits = always
        try:
            async for part in parts:
                if self.transport.is_closing():
                    return
                await out.send(part)
        except asyncio.CancelledError:
            if not self.closing or self.transport.is_closing():
                raise
        finally:
            if answer.undo is not None and self.transport.is_closing():
                answer.undo()
        if not self.transport.is_closing():
            out.end(kept=not self.closing)
            if answer.undo is not None:
                self.unless_taken(answer.undo)
            self._began = perf_counter()
            self.finish()

    async def _sent(self) -> None:
        """Return when what was written has left for the client."""
        while self._stuck is not None and not self.transport.is_closing():
            await self._stuck.over()

    @abc.abstractmethod
    def finish(self) -> None:
        """The current request is answered; go on with the next."""

    @abc.abstractmethod
    def upgrade(self, headers: Mapping[str, str], protocol: Upgraded) -> None:
        """Switch protocols: the connection is ours no more."""

    def _go(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state!r} -> {state!r}"
        self.state = state


def always() -> bool:
    """What a request says that waits all the time: see `Answering.until_left`."""
    return True


def _tell_slow(verb: str, seconds: float, request: str | None, count: int) -> None:
    log.warning("request.slow verb=%s seconds=%.1f request=%s count=%d", verb, seconds, request, count)
