"""The HTTP connections of an `AsyncClient`: HTTP/1.1 on asyncio, with keep-alive and nothing else.

The rules are those of `transport`: one request at a time on a connection, nothing repeated but what only
reads. A connection that the server closed while it was idle is noticed at once and never used again. A
request that is cancelled closes its connection, so that a server which still waits for a job notices.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TypeVar, cast

from presque.client.calls import Answer, Call
from presque.client.errors import ServerNotReached
from presque.client.transport import lost, own_headers, parts, readable

T = TypeVar("T")

IDLE_MOST = 16
HEAD_MOST = 64 * 1024
_NO_BODY = (204, 304)


class AsyncTransport:
    """Sends requests to one server. `timeout` is seconds for connecting, and for answering."""

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 30) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        tls, self._host, port, self._prefix = parts(self.base_url)
        self._port = port or (443 if tls else 80)
        self._context = ssl.create_default_context() if tls else None
        host = f"[{self._host}]" if ":" in self._host else self._host
        headers = {"Host": host if port is None else f"{host}:{port}", **own_headers(token)}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def perform(self, call: Call[T]) -> T:
        """Send the request of a call and return what its answer means. Raises a `ClientError`."""
        connection = self._idle_connection()
        if connection is not None:
            try:
                return call.read(await self._exchange(connection, call))
            except ServerNotReached as error:
                if not call.reads or not isinstance(error.__cause__, ConnectionError):
                    raise
        return call.read(await self._exchange(await self._connect(), call))

    def close(self) -> None:
        """Close the connections that are idle. A later request opens a new one."""
        while self._idle:
            self._idle.pop().close()
        self._open.clear()

    def sockets(self) -> list[int]:
        """The descriptors of all connections, for a forked child to close."""
        return [number for connection in self._open if (number := connection.fileno()) >= 0]

    def _idle_connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and not readable(connection.fileno()):
                return connection
            connection.close()
            self._open.discard(connection)
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._context
                )
        except OSError as error:  # TimeoutError, too
            raise ServerNotReached(
                lost(self.base_url, error, self.timeout, 0, sent=False), sent=False
            ) from error
        self._open.add(connection)
        return connection

    async def _exchange(self, connection: _Connection, call: Call[T]) -> Answer:
        reusable = False
        try:
            async with asyncio.timeout(self.timeout + call.wait):
                answer = await connection.ask(self._request(call))
            reusable = connection.is_open and len(self._idle) < IDLE_MOST
        except (OSError, _Broken) as error:
            if isinstance(error, TimeoutError):
                self.close()  # a connection that dies in silence seldom dies alone
            raise ServerNotReached(
                lost(self.base_url, error, self.timeout, call.wait, sent=True), sent=True
            ) from error
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                connection.close()
                self._open.discard(connection)
        return answer

    def _request(self, call: Call[T]) -> bytes:
        more = "".join(f"{name}: {value}\r\n" for name, value in (call.headers or {}).items())
        if "\r" in more.replace("\r\n", "") or "\n" in more.replace("\r\n", ""):
            raise ValueError("a header holds no line end")
        body = call.body
        if body is None and call.method in ("POST", "PUT", "PATCH"):
            body = b""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{call.method} {self._prefix}{call.path} HTTP/1.1\r\n{self._head}{more}{length}\r\n"
        return head.encode("latin-1") + (body or b"")


class _Broken(Exception):
    """What came is no HTTP answer."""


class _Connection(asyncio.Protocol):
    """One connection; at most one request is on its way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._head: tuple[int, dict[str, str]] | None = None
        self._length: int | None = 0
        self._chunked = False
        self._ended = False
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """The descriptor of the socket, -1 when it is closed."""
        found = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if found is None else int(found.fileno())

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer. Raises `OSError`, or `_Broken`."""
        if self._transport is None or not self.is_open:
            raise ConnectionResetError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # bytes that nobody asked for
            return
        self._received += data
        try:
            self._read()
        except (_Broken, ValueError) as error:
            self._fail(_Broken(f"no HTTP: {error}"))

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._answer is None or self._answer.done():
            return
        whole = self._head is not None and self._length is None and not self._chunked
        if whole and error is None:
            self._finish(bytes(self._received))  # an answer that ends with its connection
        else:
            self._fail(
                error if isinstance(error, OSError) else ConnectionResetError("closed before the answer")
            )

    def _read(self) -> None:
        if self._head is None and not self._read_head():
            return
        assert self._head is not None
        if self._chunked:
            body = _unchunked(self._received)
            if body is not None:
                self._finish(body)
        elif self._length is not None and len(self._received) >= self._length:
            if len(self._received) > self._length:
                raise _Broken("more came than was announced")
            self._finish(bytes(self._received))

    def _read_head(self) -> bool:
        """Read the head once it is complete, leaving out those of interim answers (RFC 9110, 15.2)."""
        while True:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                if len(self._received) > HEAD_MOST:
                    raise _Broken("the head of the answer is too long")
                return False
            start, *lines = self._received[:end].decode("latin-1").split("\r\n")
            del self._received[: end + 4]
            version, _, rest = start.partition(" ")
            if not version.startswith("HTTP/1."):
                raise _Broken("the answer does not begin like one")
            status = int(rest[:3])
            if status >= 200:
                break
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._head = (status, headers)
        length = headers.get("content-length")
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._length = 0 if status in _NO_BODY else None if length is None else int(length)
        if version == "HTTP/1.0" or headers.get("connection", "").lower() == "close":
            self.is_open = False
        return True

    def _finish(self, body: bytes) -> None:
        assert self._head is not None
        assert self._answer is not None
        status, headers = self._head
        self._head, self._received = None, bytearray()
        if self._length is None and not self._chunked:
            self.is_open = False
        if not self._answer.done():
            self._answer.set_result(Answer(status, headers, body))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _unchunked(data: bytearray) -> bytes | None:
    """The body whose chunks are `data`, or None as long as some are missing (RFC 9112, 7.1)."""
    at = 0
    body: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end].split(b";")[0], 16)
        at = end + 2
        if size == 0:
            return b"".join(body) if data.find(b"\r\n", at) >= 0 else None
        if len(data) < at + size + 2:
            return None
        if data[at + size : at + size + 2] != b"\r\n":
            raise _Broken("a chunk is longer than it says")
        body.append(bytes(data[at : at + size]))
        at += size + 2
