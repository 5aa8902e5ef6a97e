"""The HTTP connections of a client, and what an answer means.

Connections are kept alive and used by one request at a time; a thread that finds none idle opens
another, so a `Transport` may be shared by any number of threads, and survives a fork.

No hidden retries: most requests change something, and a lost answer does not tell whether they did.
A server may close an idle connection at any time, so one is looked at before it is used again, and a
closed one is replaced unused. Only a request that merely reads is sent a second time, once, when the
kept connection turns out dead before the first byte of the answer.
"""

from __future__ import annotations

import os
import select
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TypeVar
from urllib.parse import urlsplit

from presque import __version__
from presque.client.calls import Answer, Call
from presque.client.errors import ServerNotReached
from presque.errors import shown

T = TypeVar("T")

IDLE_MOST = 16


class Transport:
    """Sends requests to one server. `timeout` is seconds for each step: connect, send, answer."""

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 30) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._tls, self._host, self._port, self._prefix = parts(self.base_url)
        self._context = ssl.create_default_context() if self._tls else None
        self._headers = own_headers(token)
        self._idle: list[HTTPConnection] = []
        self._pid = os.getpid()

    def perform(self, call: Call[T]) -> T:
        """Send the request of a call and return what its answer means. Raises a `ClientError`."""
        headers = {**self._headers, **(call.headers or {})}
        connection = self._idle_connection()
        if connection is not None:
            try:
                return call.read(self._exchange(connection, call, headers))
            except ServerNotReached as error:
                if not call.reads or not isinstance(error.__cause__, ConnectionError):
                    raise
        return call.read(self._exchange(self._new_connection(), call, headers))

    def close(self) -> None:
        """Close the connections that are idle. A later request opens a new one."""
        while self._idle:
            self._idle.pop().close()

    def _idle_connection(self) -> HTTPConnection | None:
        if self._pid != os.getpid():  # A forked child must not talk on its parent's sockets.
            self._idle, self._pid = [], os.getpid()
        while self._idle:
            connection = self._idle.pop()
            if connection.sock is not None and not readable(connection.sock.fileno()):
                return connection
            connection.close()
        return None

    def _new_connection(self) -> HTTPConnection:
        if self._context is not None:
            return HTTPSConnection(self._host, self._port, timeout=self.timeout, context=self._context)
        return HTTPConnection(self._host, self._port, timeout=self.timeout)

    def _exchange(self, connection: HTTPConnection, call: Call[T], headers: dict[str, str]) -> Answer:
        sent = False
        try:
            if connection.sock is None:
                connection.connect()
            sent = True
            connection.sock.settimeout(self.timeout + call.wait)
            try:
                connection.request(call.method, self._prefix + call.path, call.body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a large body answers early and closes. Its answer may be here.
                if call.body is None:
                    raise
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(response.status, names, response.read())
        except (OSError, HTTPException) as error:
            connection.close()
            raise ServerNotReached(
                lost(self.base_url, error, self.timeout, call.wait, sent=sent), sent=sent
            ) from error
        except BaseException:  # An interrupt leaves half an answer behind: nobody may read the rest.
            connection.close()
            raise
        if response.will_close or len(self._idle) >= IDLE_MOST:
            connection.close()
        else:
            self._idle.append(connection)
        return answer


def lost(base_url: str, error: Exception, timeout: float, wait: float, *, sent: bool) -> str:
    """The sentence for an answer that did not come."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ConnectionError) and error.errno:
        reason = os.strerror(error.errno)  # asyncio puts addresses there
    if not sent:
        if isinstance(error, TimeoutError):
            reason = f"no connection within {timeout:g} s"
        return f"no server at {base_url}: {shown(reason)}"
    if isinstance(error, TimeoutError):
        return f"{base_url} did not answer within {timeout + wait:g} s; it may have acted"
    return f"{base_url} went away before it answered; it may have acted ({shown(reason)})"


def own_headers(token: str | None) -> dict[str, str]:
    """The headers of every request."""
    headers = {"User-Agent": f"presque-client/{__version__}", "Accept": "application/json"}
    if token is not None:
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ValueError("a token is visible ASCII characters without a space")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def parts(base_url: str) -> tuple[bool, str, int | None, str]:
    """Whether it is https, the host, the port if one is given, and the path in front of every route."""
    try:
        url = urlsplit(base_url)
        port = url.port
    except ValueError:
        raise ValueError(f"`{shown(base_url)}` is no server URL: use http://host:port") from None
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError(f"`{shown(base_url)}` is no server URL: use http://host:port")
    if url.username is not None or url.password is not None:
        raise ValueError("a server URL holds no user and no password: use a token")
    return url.scheme == "https", url.hostname, port, url.path


def readable(descriptor: int) -> bool:
    """Whether an idle connection has something to read: its end, or bytes that nobody asked for."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
