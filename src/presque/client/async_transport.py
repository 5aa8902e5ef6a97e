"""The HTTP connections of an `AsyncClient`: HTTP/1.1 on asyncio, with keep-alive and nothing else.

The rules are those of `transport`: one request at a time on a connection, nothing repeated but what was not
sent or only reads. A connection that the server closed while it was idle is noticed at once and never used
again. A request that is cancelled closes its connection, so that a server that still waits for a job knows.

A connection belongs to the event loop that made it, so each loop has a pool of its own. Loops may come one
after the other, as with `asyncio.run` for each call, or run at once in several threads. What a loop leaves
idle is closed when the loop shuts down its asynchronous generators, as `asyncio.run` and every runner does:
that is the one sign of its end that a loop gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast

from presque.client import exchange
from presque.client.address import Address, server, token_of
from presque.client.call import Answer, Call
from presque.client.exchange import ANSWER_MOST, AnswerReader, Broken, Closed, Request
from presque.client.options import Duration
from presque.client.transport import CONNECTIONS_MOST, IDLE_MOST, checked, readable
from presque.client.trust import context_for

T = TypeVar("T")


class AsyncTransport:
    """Sends requests to one server, from any event loop. Settings as for `Transport`.

    `connections` is the bound for each loop that uses this transport.
    """

    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        timeout: Duration = 30,
        *,
        max_answer: int | str = ANSWER_MOST,
        connections: int = CONNECTIONS_MOST,
    ) -> None:
        self.address = server(base_url)
        self.timeout, self.max_answer, self.connections = checked(timeout, max_answer, connections)
        self._context = context_for(self.address)
        self.token = token_of(token)
        self._request = Request(self.address, self.token)
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._pid = os.getpid()
        self._of_parents: list[object] = []

    @property
    def base_url(self) -> str:
        """The URL of the server, without a slash at its end."""
        return self.address.url

    async def perform(self, call: Call[T]) -> T:
        """Send the request of a call and return what its answer means. Raises a `ClientError`."""
        request = self._request.of(call)
        return call.read(await self._answer(await self._pool(), call, request))

    def close(self) -> None:
        """Close the idle connections of the loop that runs, and of those that have ended.

        A later request opens a new one. Those of another loop that still runs are closed at its end.
        """
        self._look_at_process()
        self._forget_ended_loops()
        with contextlib.suppress(RuntimeError):  # no loop runs here
            pool = self._pools.get(asyncio.get_running_loop())
            if pool is not None:
                pool.close_idle()

    def sockets(self) -> list[int]:
        """The descriptors of all connections, for a forked child to close."""
        pools = list(self._pools.values())
        return [number for pool in pools for one in list(pool.open) if (number := one.fileno()) >= 0]

    async def _pool(self) -> _Pool:
        """The pool of the running loop."""
        self._look_at_process()
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._forget_ended_loops()
            pool = self._pools[loop] = _Pool(self.connections)
            await pool.watch_loop()
        return pool

    def _look_at_process(self) -> None:
        """A forked child must not talk on its parent's sockets.

        They are put aside, not closed: to close one would take it out of the parent's selector.
        """
        if self._pid != os.getpid():
            self._of_parents.append(self._pools)
            self._pools, self._pid = {}, os.getpid()

    def _forget_ended_loops(self) -> None:
        for loop in [loop for loop in list(self._pools) if loop.is_closed()]:
            pool = self._pools.pop(loop, None)
            if pool is not None:
                pool.abandon()

    async def _answer(self, pool: _Pool, call: Call[Any], request: bytes) -> Answer:
        seconds = self.timeout + call.wait
        deadline = asyncio.get_running_loop().time() + seconds
        connection: _Connection | None = None
        waiting = True
        try:
            async with asyncio.timeout(seconds), pool.free:
                waiting = False
                connection = pool.take()
                if connection is not None:
                    try:
                        return await self._exchange(pool, connection, request)
                    except (OSError, Broken) as error:
                        again = not connection.sent or (call.reads and not connection.began)
                        if isinstance(error, TimeoutError) or not again:
                            raise
                connection = None
                connection = await connect(self.address, self._context, deadline)
                pool.open.add(connection)
                return await self._exchange(pool, connection, request)
        except (OSError, Broken) as error:
            if waiting and isinstance(error, TimeoutError):
                raise exchange.busy(seconds, self.connections) from error
            if connection is None:
                raise exchange.not_connected(self.base_url, error, seconds) from error
            if isinstance(error, TimeoutError):
                pool.close_idle()  # a connection that dies in silence seldom dies alone
            raise exchange.lost(self.base_url, error, seconds, call, sent=connection.sent) from error

    async def _exchange(self, pool: _Pool, connection: _Connection, request: bytes) -> Answer:
        reusable = False
        try:
            answer = await connection.ask(request, self.max_answer)
            reusable = connection.is_open
        finally:
            if not reusable or not pool.keep(connection):
                pool.open.discard(connection)
                connection.close()
        return answer


class _Pool:
    """The connections of one event loop."""

    def __init__(self, connections: int) -> None:
        self.free = asyncio.Semaphore(connections)
        self.open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._ending = False
        self._watch: AsyncGenerator[None, None] | None = None

    async def watch_loop(self) -> None:
        """Have the loop close the idle connections at its end."""

        async def until_the_loop_ends() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                self._ending = True
                self.close_idle()

        self._watch = until_the_loop_ends()
        await anext(self._watch)

    def take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and not readable(connection.fileno()):
                return connection
            self.open.discard(connection)
            connection.close()
        return None

    def keep(self, connection: _Connection) -> bool:
        if self._ending or len(self._idle) >= IDLE_MOST:
            return False
        self._idle.append(connection)
        return True

    def close_idle(self) -> None:
        while self._idle:
            connection = self._idle.pop()
            self.open.discard(connection)
            connection.close()

    def abandon(self) -> None:
        """The loop is closed: no transport of it can do anything any more."""
        for connection in self.open:
            connection.abandon()
        self.open.clear()
        self._idle.clear()


async def connect(address: Address, context: ssl.SSLContext | None, deadline: float) -> _Connection:
    """A new connection, to the first of the host's addresses that takes one. Raises `OSError`.

    The addresses share the time that is left until `deadline`, on the clock of the loop.
    """
    loop = asyncio.get_running_loop()
    found = await _addresses(loop, address)
    for number, (family, kind, protocol, _, where) in enumerate(found, 1):
        one = socket.socket(family, kind, protocol)
        try:
            one.setblocking(False)
            async with asyncio.timeout((deadline - loop.time()) / (len(found) - number + 1)):
                await loop.sock_connect(one, where)
                _, connection = await loop.create_connection(
                    functools.partial(_Connection, one),
                    sock=one,
                    ssl=context,
                    server_hostname=None if context is None else address.host,
                )
        except OSError:
            one.close()
            if number == len(found):
                raise
        except BaseException:
            one.close()
            raise
        else:
            return connection
    raise OSError("the host has no address")


async def _addresses(loop: asyncio.AbstractEventLoop, address: Address) -> list[Any]:
    """Where the host may be reached. A name is looked up in a thread; an address needs none."""
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )


class _Connection(asyncio.Protocol):
    """One connection; at most one request is on its way. `sent` and `began` are about the last one."""

    def __init__(self, found: socket.socket) -> None:
        self._socket = found
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self.sent = False
        self.is_open = False

    @property
    def began(self) -> bool:
        """Whether a byte of the answer has come."""
        return self._reader is not None and self._reader.began

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def fileno(self) -> int:
        """The descriptor of the socket, -1 when it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        self.is_open = False
        # A forked child may hold the socket, too. The server shall notice nevertheless.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """Close the socket without the loop, which is closed."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._socket.close()

    async def ask(self, request: bytes, most: int) -> Answer:
        """Send a request and wait for its answer. Raises `OSError`, or `Broken`."""
        self.sent = False
        self._reader = AnswerReader(most)
        if self._transport is None or not self.is_open:
            raise Closed("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self.sent = True
        self._transport.write(request)
        answer = await self._answer
        if not self._reader.keeps or self._transport.get_write_buffer_size():
            self.is_open = False  # it is closed by the other side, or would send the rest of this request
        return answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done() or self._reader is None:
            self.close()  # bytes that nobody asked for
            return
        try:
            answer = self._reader.feed(data)
        except Broken as error:
            self._fail(error)
            return
        if answer is not None:
            self._answer.set_result(answer)

    def eof_received(self) -> None:
        self.connection_lost(None)  # no byte comes after this

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._answer is None or self._answer.done() or self._reader is None:
            return
        if error is not None:
            self._fail(error if isinstance(error, OSError) else Broken(type(error).__name__))
            return
        try:
            self._answer.set_result(self._reader.end())
        except Broken as broken:
            self._fail(broken)

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
