"""The HTTP connections of a client, and what an answer means.

Connections are kept alive and used by one request at a time; a thread that finds none idle opens
another, so a `Transport` may be shared by any number of threads, and survives a fork.

No hidden retries: most requests change something, and a lost answer does not tell whether they did.
A server may close an idle connection at any time, so one is looked at before it is used again, and a
closed one is replaced unused. Only a request that merely reads is sent a second time, once, when the
kept connection turns out dead before the first byte of the answer.
"""

from __future__ import annotations

import json
import os
import select
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection
from urllib.parse import urlsplit

from presque import __version__
from presque.errors import shown

IDLE_MOST = 16


class ClientError(Exception):
    """The server refused, or was not reached. `str(error)` is a sentence for people.

    `status` is the HTTP status, or None when there was no answer; `code` a stable word for programs;
    `text` what the server said.
    """

    def __init__(self, text: str, *, status: int | None = None, code: str = "error") -> None:
        super().__init__(text)
        self.text, self.status, self.code = text, status, code


class ServerNotReached(ClientError):
    """No answer came. `sent` tells whether the request may have been carried out nevertheless."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text, code="server-not-reached")
        self.sent = sent


class NotAllowed(ClientError):
    """401 or 403: no token, a wrong one, or one that does not allow this."""


class NotFound(ClientError):
    """404: there is no such thing."""


class QueueClosed(NotFound):
    """404: the one queue that was asked for is stopped."""


class Conflict(ClientError):
    """409, or a job whose unique key is taken: the state is not what the caller thought."""


class Unavailable(ClientError):
    """503: the server has no store right now. The outcome of a request that changes something is unknown."""


_BY_STATUS: dict[int, tuple[type[ClientError], str]] = {
    400: (ClientError, "invalid-request"),
    401: (NotAllowed, "not-allowed"),
    403: (NotAllowed, "not-allowed"),
    404: (NotFound, "not-found"),
    409: (Conflict, "conflict"),
    503: (Unavailable, "store-unavailable"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. Header names are looked up in any case."""

    status: int
    headers: HTTPMessage
    body: bytes


class Transport:
    """Sends requests to one server. `timeout` is seconds for each step: connect, send, answer."""

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 30) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._tls, self._host, self._port, self._prefix = _parts(self.base_url)
        self._context = ssl.create_default_context() if self._tls else None
        self._headers = {"User-Agent": f"presque-client/{__version__}", "Accept": "application/json"}
        if token is not None:
            if not token.isascii() or not token.isprintable() or " " in token or not token:
                raise ValueError("a token is visible ASCII characters without a space")
            self._headers["Authorization"] = f"Bearer {token}"
        self._idle: list[HTTPConnection] = []
        self._pid = os.getpid()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        reads: bool = False,
        wait: float = 0,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        `reads` says that the request changes nothing and may be repeated; `wait` is how many seconds
        the server may take on purpose. Raises `ServerNotReached`.
        """
        all_headers = {**self._headers, **(headers or {})}
        connection = self._idle_connection()
        if connection is not None:
            try:
                return self._exchange(connection, method, path, body, all_headers, wait)
            except ServerNotReached as error:
                if not reads or not isinstance(error.__cause__, ConnectionError):
                    raise
        return self._exchange(self._new_connection(), method, path, body, all_headers, wait)

    def close(self) -> None:
        """Close the connections that are idle. A later request opens a new one."""
        while self._idle:
            self._idle.pop().close()

    def _idle_connection(self) -> HTTPConnection | None:
        if self._pid != os.getpid():  # A forked child must not talk on its parent's sockets.
            self._idle, self._pid = [], os.getpid()
        while self._idle:
            connection = self._idle.pop()
            if not _is_stale(connection):
                return connection
            connection.close()
        return None

    def _new_connection(self) -> HTTPConnection:
        if self._context is not None:
            return HTTPSConnection(self._host, self._port, timeout=self.timeout, context=self._context)
        return HTTPConnection(self._host, self._port, timeout=self.timeout)

    def _exchange(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        wait: float,
    ) -> Answer:
        sent = False
        try:
            if connection.sock is None:
                connection.connect()
            sent = True
            connection.sock.settimeout(self.timeout + wait)
            try:
                connection.request(method, self._prefix + path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a large body answers early and closes. Its answer may be here.
                if body is None:
                    raise
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except (OSError, HTTPException) as error:
            connection.close()
            raise ServerNotReached(self._lost(error, sent, wait), sent=sent) from error
        except BaseException:  # An interrupt leaves half an answer behind: nobody may read the rest.
            connection.close()
            raise
        if response.will_close or len(self._idle) >= IDLE_MOST:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def _lost(self, error: Exception, sent: bool, wait: float) -> str:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if not sent:
            if isinstance(error, TimeoutError):
                reason = f"no connection within {self.timeout:g} s"
            return f"no server at {self.base_url}: {shown(reason)}"
        if isinstance(error, TimeoutError):
            return f"{self.base_url} did not answer within {self.timeout + wait:g} s; it may have acted"
        return f"{self.base_url} went away before it answered; it may have acted ({shown(reason)})"


def refusal(answer: Answer) -> ClientError:
    """The error that an answer with a status of 300 and more stands for."""
    kind, code = _BY_STATUS.get(answer.status, (ClientError, "error"))
    text = f"the server answered {answer.status}"
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        text = said["error"] if isinstance(said.get("error"), str) else text
        code = said["code"] if isinstance(said.get("code"), str) else code
    if kind is NotFound and text == "queue is closed":
        kind, code = QueueClosed, "queue-closed"
    if text == "job already exists":  # The classic routes say 400 for what is a conflict.
        kind, code = Conflict, "job-exists"
    return kind(text, status=answer.status, code=code)


def _parts(base_url: str) -> tuple[bool, str, int | None, str]:
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


def _is_stale(connection: HTTPConnection) -> bool:
    """Whether an idle connection has something to read: its end, or bytes that nobody asked for."""
    if connection.sock is None:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection.sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
