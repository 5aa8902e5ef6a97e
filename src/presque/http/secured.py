"""TLS between a socket and the protocol that speaks over it.

Above, this is a transport; below, the protocol of a socket. It works on bytes (`ssl.MemoryBIO`), so that one
rule of plain connections holds here, too: the client may close its sending side and still get its answer.
The TLS of asyncio and uvloop cannot do that: for them the end of one side is the end of both.

What the client sends before the handshake is done counts as the head of its first request: it has as long for
both as for a head alone, and the connection above, which holds the deadline, is there from the beginning.

Flow control is that of the socket below: what is written here is encrypted at once and held there. A client
that makes OpenSSL answer again and again (a change of keys) and reads nothing is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
from collections.abc import Callable
from typing import Any, cast

from presque.http.certificates import names_of
from presque.http.problems import Sums

log = logging.getLogger("presque.http")

READ_BYTES = 64 * 1024
UNREAD_MOST = 64 * 1024

_USE_TLS = b'{"error":"this server speaks TLS: use https://"}\n'
NOT_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Presque-Error: bad-request\r\nContent-Length: %d\r\n\r\n%b" % (len(_USE_TLS), _USE_TLS)
)

_sums = Sums()


class Secured(asyncio.Transport, asyncio.Protocol):
    """One connection that speaks TLS. `protocol` is what speaks over it. `hello` is called when the handshake
    is done, before anything is received, with the names in the client's certificate."""

    __slots__ = (
        "_early", "_ended", "_greeted", "_hello", "_in", "_last", "_loop", "_out", "_paused", "_protocol",
        "_raw", "_shut", "_ssl",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: asyncio.Protocol,
        hello: Callable[[tuple[str, ...]], object] = bool,
    ) -> None:
        super().__init__()
        self._hello = hello
        self._protocol = protocol
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._in, self._out, server_side=True)
        self._raw: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._greeted = False  # the handshake is done
        self._early = b""  # written before that
        self._last = False  # nothing comes after that
        self._ended = False  # the client sends nothing more
        self._shut = False  # we send nothing more
        self._paused = False

    # --- for the socket below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        self._protocol.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._shut:
            return  # as after `write_eof`: it is thrown away
        self._in.write(data)
        if self._greeted or self._greet():
            self._read()

    def eof_received(self) -> bool:
        if not self._greeted:
            return False
        self._end()
        return not self._raw.is_closing()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # --- for the protocol above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peercert` is the client's certificate, if it was asked for one; others are those of the socket."""
        if name == "ssl_object":
            return self._ssl
        if name == "peercert":
            return self._ssl.getpeercert() if self._greeted else default
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: Any) -> None:
        if self._shut or not data or self._raw.is_closing():
            return
        if not self._greeted:
            self._early += data
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._ssl.write(rest) :]
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that nothing more comes. What the client still sends is thrown away."""
        if self._shut or self._raw.is_closing():
            return
        if not self._greeted:
            self._last = True
            return
        self._say_goodbye()
        self._raw.write_eof()

    def close(self) -> None:
        """Close once all that was written has been sent."""
        if self._greeted and not self._shut and not self._raw.is_closing():
            self._say_goodbye()
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._read_again)

    def is_reading(self) -> bool:
        return not self._paused and self._raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    # --- between the two

    def _greet(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # OpenSSL tells the client why
            if error.reason == "HTTP_REQUEST":
                self._raw.write(NOT_TLS)
            _sums.tell(str(error.reason), functools.partial(_tell, error))
            self._raw.close()
            return False
        self._greeted = True
        self._hello(tuple(names_of(self._ssl.getpeercert())))
        early, self._early = self._early, b""
        self._flush()
        self.write(early)
        if self._last:
            self.write_eof()
        return True

    def _read(self) -> None:
        """Hand on what the client has said."""
        heard = False
        while not self._paused and not self._shut and not self._raw.is_closing():
            try:
                data = self._ssl.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError:
                self._flush()
                self.abort()
                return
            if not data:
                self._end()
                break
            heard = True
            self._protocol.data_received(data)
        if self._out.pending:
            self._flush()
            if not heard and self._raw.get_write_buffer_size() > UNREAD_MOST:
                self.abort()

    def _read_again(self) -> None:
        if self._paused or self._raw.is_closing():
            return
        self._read()
        if not self._paused and not self._raw.is_closing():
            self._raw.resume_reading()

    def _end(self) -> None:
        """The client sends nothing more, with or without a close notify."""
        if self._ended:
            return
        self._ended = True
        if not self._protocol.eof_received() and not self._raw.is_closing():
            self.close()

    def _say_goodbye(self) -> None:
        self._shut = True
        with contextlib.suppress(ssl.SSLError):  # it would like to read the client's goodbye
            self._ssl.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._out.pending and not self._raw.is_closing():
            self._raw.write(self._out.read())


def _tell(error: ssl.SSLError, count: int) -> None:
    log.info("tls.refused reason=%s count=%d", error.reason or str(error), count)
