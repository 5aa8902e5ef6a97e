"""The HTTP connections of a `Client`, on sockets.

Connections are kept alive and used by one request at a time; a thread that finds none idle opens another, up
to a bound, so a `Transport` may be shared by any number of threads, and survives a fork.

No hidden retries: most requests change something, and a lost answer does not tell whether they did. A server
may close an idle connection at any time, so one is looked at before it is used again, and a closed one is
replaced unused. If it turns out dead after that, a request is sent again, once, on a new connection: when
nothing of it had been sent, or when it merely reads and no byte of its answer had come.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import time
from typing import TYPE_CHECKING, Any, TypeVar

from presque import quantities
from presque.client import exchange
from presque.client.address import Address, server, token_of
from presque.client.call import Answer, Call, seconds_of
from presque.client.exchange import ANSWER_MOST, AnswerReader, Broken, Request
from presque.client.options import Duration
from presque.client.trust import context_for

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

IDLE_MOST = 16
CONNECTIONS_MOST = 100
PIECE = 256 * 1024


class Transport:
    """Sends requests to one server. `timeout` is seconds for a request as a whole, a wait not counted."""

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
        self._own = _Own(connections)

    @property
    def base_url(self) -> str:
        """The URL of the server, without a slash at its end."""
        return self.address.url

    def perform(self, call: Call[T]) -> T:
        """Send the request of a call and return what its answer means. Raises a `ClientError`."""
        request = self._request.of(call)
        seconds = self.timeout + call.wait
        deadline = time.monotonic() + seconds
        own = self._of_this_process()
        if not own.free.acquire(seconds):
            raise exchange.busy(seconds, self.connections)
        try:
            answer = self._answer(own, call, request, deadline)
        finally:
            own.free.release()
        return call.read(answer)

    def close(self) -> None:
        """Close the connections that are idle. A later request opens a new one."""
        own = self._of_this_process()
        while (connection := own.take()) is not None:
            connection.close()

    def _of_this_process(self) -> _Own:
        """What belongs to this process: a forked child must not talk on its parent's sockets."""
        own = self._own
        if own.pid != os.getpid():
            own = self._own = _Own(self.connections)
        return own

    def _answer(self, own: _Own, call: Call[Any], request: bytes, deadline: float) -> Answer:
        seconds = self.timeout + call.wait
        kept = self._idle_connection(own)
        if kept is not None:
            try:
                return self._exchange(own, kept, request, deadline)
            except (OSError, Broken) as error:
                again = kept.sent == 0 or (call.reads and not kept.began)
                if isinstance(error, TimeoutError) or not again:
                    raise exchange.lost(self.base_url, error, seconds, call, sent=kept.sent > 0) from error
        try:
            connection = connect(self.address, self._context, deadline)
        except OSError as error:
            raise exchange.not_connected(self.base_url, error, seconds) from error
        try:
            return self._exchange(own, connection, request, deadline)
        except (OSError, Broken) as error:
            raise exchange.lost(self.base_url, error, seconds, call, sent=connection.sent > 0) from error

    def _idle_connection(self, own: _Own) -> _Connection | None:
        while (connection := own.take()) is not None:
            if not readable(connection.socket.fileno()):
                return connection
            connection.close()
        return None

    def _exchange(self, own: _Own, connection: _Connection, request: bytes, deadline: float) -> Answer:
        reusable = False
        try:
            answer = connection.ask(request, self.max_answer, deadline)
            reusable = connection.keeps and own is self._own
        finally:  # an interrupt leaves half an answer behind, too: nobody may read the rest
            if not reusable or not own.keep(connection):
                connection.close()
        return answer


class _Own:
    """The idle connections of one process, and how many more it may open. Safe to use from many threads."""

    def __init__(self, connections: int) -> None:
        self.pid = os.getpid()
        self.free = _Slots(connections)
        self._idle: list[_Connection] = []

    def take(self) -> _Connection | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread may have taken the last one since anybody looked
            return None

    def keep(self, connection: _Connection) -> bool:
        if len(self._idle) >= IDLE_MOST:
            return False
        self._idle.append(connection)
        return True


class _Slots:
    """How many requests may be on their way. A handler of a signal may ask for one, too.

    It interrupts the main thread anywhere, also where that asks for a slot itself. A lock that Python code
    holds in between, as that of `threading.Semaphore` does, would never be given back.
    """

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()  # in C, and made for this
        for _ in range(count):
            self._free.put(None)

    def acquire(self, within: float) -> bool:
        try:
            self._free.get(timeout=within)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        self._free.put(None)


class _Connection:
    """One connection. What it says of itself is about the last request on it."""

    def __init__(self, found: socket.socket) -> None:
        self.socket = found
        self.sent = 0  # bytes
        self.began = False
        self.keeps = True

    def ask(self, request: bytes, most: int, deadline: float) -> Answer:
        """Send a request and read its answer. Raises `OSError`, `TimeoutError` among them, or `Broken`."""
        self.sent, self.began, self.keeps = 0, False, True
        reader = AnswerReader(most)
        self._send(memoryview(request), deadline)
        while True:
            self.socket.settimeout(_left(deadline))
            try:
                data = self.socket.recv(PIECE)
                answer = reader.feed(data) if data else reader.end()
            finally:
                self.began = reader.began
            if answer is not None:
                self.keeps = self.keeps and reader.keeps
                return answer

    def _send(self, rest: memoryview, deadline: float) -> None:
        try:
            while rest:
                self.socket.settimeout(_left(deadline))
                count = self.socket.send(rest[:PIECE])
                self.sent += count
                rest = rest[count:]
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a large body answers early and closes. Its answer may be here.
            if self.sent == 0:
                raise
            self.keeps = False

    def close(self) -> None:
        # A forked child may hold the socket, too. The server shall notice nevertheless.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def connect(address: Address, context: ssl.SSLContext | None, deadline: float) -> _Connection:
    """A new connection, to the first of the host's addresses that takes one. Raises `OSError`.

    The addresses share the time that is left. The system looks the name up, within a time limit of its own.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, where) in enumerate(found, 1):
        one = socket.socket(family, kind, protocol)
        try:
            one.settimeout(_left(deadline) / (len(found) - number + 1))
            one.connect(where)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                one.settimeout(_left(deadline))
                one = context.wrap_socket(one, server_hostname=address.host)
            return _Connection(one)
        except OSError:
            one.close()
            if number == len(found):
                raise
        except BaseException:
            one.close()
            raise
    raise OSError("the host has no address")


def _left(deadline: float) -> float:
    """The seconds until then. Raises `TimeoutError` when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


TIMEOUT_MOST = 365 * 86_400


def checked(timeout: Duration, max_answer: int | str, connections: int) -> tuple[float, int, int]:
    """The settings of a transport, if they are within bounds. Raises `ValueError`."""
    seconds = seconds_of("timeout", timeout)
    if seconds is None or not 0 < seconds <= TIMEOUT_MOST:
        raise ValueError(f"`timeout` should be more than 0 and at most {TIMEOUT_MOST} seconds, not {timeout}")
    try:
        most = quantities.size(max_answer)
    except ValueError as error:
        raise ValueError(f"`max_answer` {error}") from None
    if most < 1:
        raise ValueError(f"`max_answer` should be a number of bytes, not {max_answer}")
    if connections < 1:
        raise ValueError(f"`connections` should be 1 or more, not {connections}")
    return seconds, most, connections


def readable(descriptor: int) -> bool:
    """Whether an idle connection has something to read: its end, or bytes that nobody asked for."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
