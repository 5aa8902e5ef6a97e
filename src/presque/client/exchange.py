"""One request and its answer in HTTP/1.1, as bytes and within bounds. No I/O.

Both transports stand on this, so that they send the same, believe the same, and complain in the same words.
A server may be broken or hostile. Whatever it sends, no more is kept of an answer than was allowed, its bytes
are not looked at again and again, and what is not plain HTTP (RFC 9112) is refused rather than guessed at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from presque.client.address import Address, own_headers
from presque.client.call import Answer, Call
from presque.client.errors import ServerNotReached, one_line
from presque.traces import tracing

ANSWER_MOST = 64 * 1024 * 1024
"""Bytes of one answer that a client keeps by default."""
HEAD_MOST = 1024 * 1024
"""Bytes of a head, those of interim answers included. A list of many stopped queues is a long header."""
LINE_MOST = 16 * 1024
"""Bytes of a line between chunks."""

_NO_BODY = (204, 304)
_status_line = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?\Z", re.ASCII).match
_length = re.compile(r"[0-9]{1,18}\Z").match
_size_line = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n").match
_end_of_line = re.compile(rb"\r?\n").match
_line = re.compile(rb"([^\r\n]*)\r?\n").match
_blank_line = re.compile(rb"\n\r?\n").search


class Broken(Exception):
    """The answer is not HTTP, or longer than allowed. `str(error)` is a phrase."""


class Closed(Broken):
    """The connection was closed before a byte of the answer came."""


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()
    SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    UNTIL_CLOSED = auto()
    DONE = auto()


class AnswerReader:
    """Reads the answer to one request from whatever pieces it arrives in.

    `began` says whether a byte of it has come; `keeps`, once it is whole, whether the connection can be kept.
    """

    def __init__(self, most: int = ANSWER_MOST) -> None:
        self.began = False
        self.keeps = True
        self._most = most
        self._state = _State.HEAD
        self._rest = bytearray()  # what has come and is not understood yet
        self._body = bytearray()
        self._left = 0  # bytes that are still to come: of a body of known length, or of a chunk
        self._heads = 0  # bytes of heads and trailers so far
        self._looked = 0  # up to here the end of the head was looked for
        self._status = 0
        self._headers: dict[str, str] = {}

    def feed(self, data: bytes) -> Answer | None:
        """Take the next bytes in. Returns the answer once it is whole. Raises `Broken`."""
        self.began = self.began or bool(data)
        self._rest += data
        while self._rest and self._state is not _State.DONE and self._step():
            pass
        if self._state is not _State.DONE:
            return None
        if self._rest:
            raise Broken("more came than was announced")
        return self._answer()

    def end(self) -> Answer:
        """The connection was closed: the answer, if it ends so. Raises `Broken` if it was cut off."""
        if self._state is not _State.UNTIL_CLOSED:
            raise Broken("it was cut off") if self.began else Closed("the connection was closed")
        self._state = _State.DONE
        return self._answer()

    def _answer(self) -> Answer:
        return Answer(self._status, self._headers, bytes(self._body))

    def _step(self) -> bool:
        """Understand some more. False: that takes bytes which have not come yet."""
        if self._state is _State.HEAD:
            return self._read_head()
        if self._state is _State.LENGTH:
            self._take(min(self._left, len(self._rest)))
            if self._left == 0:
                self._state = _State.DONE
            return True
        if self._state is _State.UNTIL_CLOSED:
            if len(self._body) + len(self._rest) > self._most:
                raise self._too_large()
            self._left = len(self._rest)
            self._take(self._left)
            return True
        return self._read_chunks()

    def _take(self, count: int) -> None:
        self._body += memoryview(self._rest)[:count] if count < len(self._rest) else self._rest
        del self._rest[:count]
        self._left -= count

    def _read_head(self) -> bool:
        """Read a head once it is whole. Those of interim answers are left out (RFC 9110, 15.2), but count."""
        end, body = self._end_of_head()
        if self._heads + (body or len(self._rest)) > HEAD_MOST:
            raise Broken(f"the head of the answer is longer than {HEAD_MOST} bytes")
        if not body:
            if not b"HTTP/1.".startswith(bytes(self._rest[:7])):
                raise Broken("it does not begin as HTTP does")
            return False
        start, *lines = self._rest[:end].decode("latin-1").split("\n")
        del self._rest[:body]
        self._heads += body
        self._looked = 0
        matched = _status_line(start.rstrip("\r"))
        if matched is None:
            raise Broken("it does not begin as HTTP does")
        self._status = int(matched[2])
        if self._status == 101:
            raise Broken("it changes the protocol, which was not asked for")
        if self._status < 200:
            return True
        self._headers = _headers(lines)
        self.keeps = matched[1] == "1" and "close" not in self._headers.get("connection", "").lower()
        self._state = self._framing()
        return True

    def _end_of_head(self) -> tuple[int, int]:
        """Where the lines of the head end and where what follows begins; 0 if that has not come yet."""
        found = _blank_line(self._rest, max(0, self._looked - 3))
        self._looked = len(self._rest)
        return found.span() if found else (0, 0)

    def _framing(self) -> _State:
        """How the body ends (RFC 9112, 6.3)."""
        coding, length = self._headers.get("transfer-encoding"), self._headers.get("content-length")
        if self._status in _NO_BODY:
            return _State.DONE
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise Broken("the length of its body is not clear")
            return _State.SIZE
        if length is None:
            self.keeps = False
            return _State.UNTIL_CLOSED
        if not _length(length):
            raise Broken("its Content-Length is not a number")
        self._left = int(length)
        if self._left > self._most:
            raise self._too_large()
        return _State.LENGTH if self._left else _State.DONE

    def _read_chunks(self) -> bool:
        """Read what there is of a body in chunks (RFC 9112, 7.1). One loop, since a chunk may be one byte."""
        rest, at, end = self._rest, 0, len(self._rest)
        state, chunk, chunk_end, size = self._state, _State.CHUNK, _State.CHUNK_END, _State.SIZE
        while state is not _State.DONE:
            if state is chunk:
                stop = min(at + self._left, end)
                self._body += rest[at:stop]
                self._left -= stop - at
                at = stop
                if self._left:
                    break
                state = chunk_end
            if state is chunk_end:
                found = _end_of_line(rest, at)
                if found is None:
                    if bytes(rest[at : at + 2]) not in (b"", b"\r"):
                        raise Broken("a chunk is longer than it says")
                    break
                at, state = found.end(), size
            found = (_size_line if state is size else _line)(rest, at)
            if found is None:
                if rest.find(b"\n", at, at + LINE_MOST) >= 0:
                    raise Broken("the size of a chunk is not a number")
                if end - at > LINE_MOST:
                    raise Broken("a line between its chunks is too long")
                break
            at = found.end()
            if state is size:
                self._left = int(found[1], 16)
                if len(self._body) + self._left > self._most:
                    raise self._too_large()
                state = chunk if self._left else _State.TRAILER
            elif not found[1]:
                state = _State.DONE
            else:  # a trailer, which nobody reads
                self._heads += len(found[0])
                if self._heads > HEAD_MOST:
                    raise Broken(f"its trailers are longer than {HEAD_MOST} bytes")
        del rest[:at]
        self._state = state
        return state is _State.DONE

    def _too_large(self) -> Broken:
        return Broken(f"it is larger than {self._most} bytes; allow more with `max_answer`")


def _headers(lines: list[str]) -> dict[str, str]:
    """Names in lower case. One that is given twice is a list, but for those that say how long the body is."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Broken("a header is not one")
        name, value = name.lower(), value.strip(" \t\r")
        if name not in found:
            found[name] = value
        elif name in ("content-length", "transfer-encoding"):
            if found[name] != value:
                raise Broken("the length of its body is not clear")
        else:
            found[name] += f", {value}"
    return found


class Request:
    """Writes requests to one server."""

    def __init__(self, address: Address, token: str | None) -> None:
        self._prefix = address.prefix
        headers = {"Host": address.authority, **own_headers(token)}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def of(self, call: Call[Any]) -> bytes:
        """The bytes of a request. Raises `ValueError` for a header that cannot be sent."""
        body = call.body
        if body is None and call.method in ("POST", "PUT", "PATCH"):
            body = b""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        headers = call.headers or {}
        if (traced := tracing()) is not None and "traceparent" not in headers:
            # a job keeps its context in any case; of other requests only those that somebody will see tell it
            headers = {**headers, **traced.current(sampled=call.pushes is None)}
        more = _lines(headers)
        head = f"{call.method} {self._prefix}{call.path} HTTP/1.1\r\n{self._head}{more}{length}\r\n"
        return head.encode("latin-1") + (body or b"")


def _lines(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"`{name}` is sent as a header, which holds visible ASCII characters and spaces")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


# --- the messages when no answer came


def not_connected(url: str, error: Exception, seconds: float) -> ServerNotReached:
    """No connection could be made: nothing was sent."""
    reason = f"no connection within {seconds:g} s" if isinstance(error, TimeoutError) else reason_of(error)
    return ServerNotReached(f"no server at {url}: {reason}", sent=False)


def busy(seconds: float, connections: int) -> ServerNotReached:
    """All connections were in use the whole time: nothing was sent."""
    return ServerNotReached(
        f"all {connections} connections of this client were busy for {seconds:g} s; "
        "allow more with `connections`",
        sent=False,
    )


def lost(
    url: str, error: Exception, seconds: float, call: Call[Any], *, sent: bool = True
) -> ServerNotReached:
    """The answer did not come, or was none."""
    if isinstance(error, TimeoutError):
        text = f"{url} did not answer within {seconds:g} s"
    elif isinstance(error, Broken) and not isinstance(error, Closed):
        text = f"{url} gave an answer that cannot be read: {error}"
    else:
        text = f"{url} closed the connection before answering"
        text += "" if isinstance(error, Closed) else f" ({reason_of(error)})"
    if sent and not call.reads:
        text += "; the request may have been carried out"
    return ServerNotReached(text, sent=sent)


def reason_of(error: Exception) -> str:
    """Why something went wrong below, in one line for people."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ConnectionError) and error.errno:
        reason = os.strerror(error.errno)  # asyncio puts addresses there
    return one_line(str(reason), 200)
