"""What is no proper HTTP, what is too large and what is too slow, on bare sockets."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import rig
from tests.rig import Server, eventually

MIB = 1024 * 1024
HOST = b"Host: localhost\r\n"


class Reply(NamedTuple):
    """One answer, as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A bare connection that reads answers one by one."""

    def __init__(self, server: Server) -> None:
        self.socket = server.connect()
        self._received = b""

    def send(self, *parts: bytes) -> Wire:
        for part in parts:
            self.socket.sendall(part)
        return self

    def end(self) -> Wire:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reply(self, to: str = "GET") -> Reply:
        """The next answer; one to a HEAD has no body whatever its headers say."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if to == "HEAD" or status == "100" else int(headers.get("content-length", 0))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Reply(int(status), headers, body)

    def frame(self) -> bytes:
        """The next frame of a WebSocket, of less than 64 KiB, as it came."""
        while len(self._received) < 4:
            self._receive()
        length = self._received[1]
        end = 2 + length if length < 126 else 4 + int.from_bytes(self._received[2:4], "big")
        while len(self._received) < end:
            self._receive()
        found, self._received = self._received[:end], self._received[end:]
        return found

    def closed(self) -> bool:
        """Whether the server closes now, without another byte."""
        try:
            return bool(self._received == self.socket.recv(65536) == b"")
        except ConnectionResetError:
            return self._received == b""

    def left_without_answer(self) -> bool:
        """Whether the server closes now instead of answering."""
        return not self.socket.recv(1, socket.MSG_PEEK)

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> None:
        part = self.socket.recv(65536)
        assert part, f"closed after {self._received!r}"
        self._received += part


@contextlib.contextmanager
def wire(server: Server) -> Iterator[Wire]:
    found = Wire(server)
    try:
        yield found
    finally:
        found.close()


def post(queue: str, body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST /q/%b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        queue.encode(), HOST, lines, len(body), body
    )  # fmt: skip


def get(path: str, method: str = "GET") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), path.encode(), HOST)


def chunked(queue: str, framed: bytes) -> bytes:
    return b"POST /q/%b HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (queue.encode(), HOST, framed)


def known(server: Server, queue: str) -> bool:
    return queue in server.ask("GET", "/status/").json["queues"]


def size(server: Server, queue: str) -> int:
    return int(server.ask("GET", f"/status/{queue}").json["size"])


# --- malformed --------------------------------------------------------------------------------------

# Each is a whole request for the queue QUEUE but for what is wrong with it; the number is the status.
MALFORMED: dict[str, tuple[bytes, int]] = {
    "length and chunked": (b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n1", 400),
    "chunked and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n1", 400),
    "two idempotency keys": (b"Idempotency-Key: a\r\nIdempotency-Key: a\r\nContent-Length: 1\r\n\r\n1", 400),
    "two lease tokens": (b"Presque-Lease: a\r\nPresque-Lease: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "two workers": (b"X-Presque-WorkerID: a\r\nX-presque-workerid: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "two access tokens": (
        b"Authorization: Bearer a\r\nAuthorization: Bearer a\r\nContent-Length: 1\r\n\r\n1",
        400,
    ),
    "two equal lengths": (b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1", 400),
    "two lengths": (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n11", 400),
    "a list of lengths": (b"Content-Length: 1, 1\r\n\r\n1", 400),
    "length +1": (b"Content-Length: +1\r\n\r\n1", 400),
    "length -1": (b"Content-Length: -1\r\n\r\n1", 400),
    "length 0x1": (b"Content-Length: 0x1\r\n\r\n1", 400),
    "length 1_0": (b"Content-Length: 1_0\r\n\r\n1", 400),
    "length 1 0": (b"Content-Length: 1 0\r\n\r\n1", 400),
    "length 1.0": (b"Content-Length: 1.0\r\n\r\n1", 400),
    "no length": (b"Content-Length:\r\n\r\n1", 400),
    "length of wide digits": (b"Content-Length: \xef\xbc\x91\r\n\r\n1", 400),
    "length over 64 bits": (b"Content-Length: 18446744073709551617\r\n\r\n1", 400),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked, gzip": (b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "identity": (b"Transfer-Encoding: identity\r\n\r\n", 400),
    "xchunked": (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in quotes": (b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    "chunked after a vertical tab": (b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "empty transfer encoding": (b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    "space before the colon": (b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "tab before the colon": (b"Content-Length\t: 1\r\n\r\n1", 400),
    "two hosts": (b"Host: localhost\r\nContent-Length: 1\r\n\r\n1", 400),
    "a folded line": (b"X-A: b\r\n c\r\nContent-Length: 1\r\n\r\n1", 400),
    "a folded line with a tab": (b"X-A: b\r\n\tContent-Length: 9\r\nContent-Length: 1\r\n\r\n1", 400),
    "a line that ends with LF": (b"X-A: b\nContent-Length: 1\r\n\r\n1", 400),
    "an empty line that is LF": (b"Content-Length: 1\r\n\n1", 400),
    "a line that ends with CR": (b"X-A: b\rContent-Length: 1\r\n\r\n1", 400),
    "NUL in a value": (b"X-A: b\x00c\r\nContent-Length: 1\r\n\r\n1", 400),
    "NUL in a name": (b"X-\x00A: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "DEL in a value": (b"X-A: b\x7fc\r\nContent-Length: 1\r\n\r\n1", 400),
    "vertical tab in a value": (b"X-A: b\x0bc\r\nContent-Length: 1\r\n\r\n1", 400),
    "a name with a space": (b"X A: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "no name": (b": b\r\nContent-Length: 1\r\n\r\n1", 400),
    "no colon": (b"X-A\r\nContent-Length: 1\r\n\r\n1", 400),
    "a name in brackets": (b"X[A]: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "a name beyond ASCII": (b"X-\xe9: b\r\nContent-Length: 1\r\n\r\n1", 400),
    "chunk size 0x1": (b"Transfer-Encoding: chunked\r\n\r\n0x1\r\n1\r\n0\r\n\r\n", 400),
    "chunk size +1": (b"Transfer-Encoding: chunked\r\n\r\n+1\r\n1\r\n0\r\n\r\n", 400),
    "chunk size -1": (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n1\r\n0\r\n\r\n", 400),
    "chunk size with a space in front": (b"Transfer-Encoding: chunked\r\n\r\n 1\r\n1\r\n0\r\n\r\n", 400),
    "chunk size with a space behind": (b"Transfer-Encoding: chunked\r\n\r\n1 \r\n1\r\n0\r\n\r\n", 400),
    "chunk size g": (b"Transfer-Encoding: chunked\r\n\r\ng\r\n1\r\n0\r\n\r\n", 400),
    "chunk size 1_0": (b"Transfer-Encoding: chunked\r\n\r\n1_0\r\n1\r\n0\r\n\r\n", 400),
    "no chunk size": (b"Transfer-Encoding: chunked\r\n\r\n\r\n1\r\n0\r\n\r\n", 400),
    "chunk size over 64 bits": (
        b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\n1\r\n0\r\n\r\n",
        400,
    ),
    "chunk size that ends with LF": (b"Transfer-Encoding: chunked\r\n\r\n1\n1\r\n0\r\n\r\n", 400),
    "LF in a chunk extension": (b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\n1\r\n0\r\n\r\n", 400),
    "NUL in a chunk extension": (b"Transfer-Encoding: chunked\r\n\r\n1;a\x00\r\n1\r\n0\r\n\r\n", 400),
    "a chunk longer than its size": (b"Transfer-Encoding: chunked\r\n\r\n1\r\n11\r\n0\r\n\r\n", 400),
    "a chunk that ends with LF": (b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\n0\r\n\r\n", 400),
    "an endless chunk extension": (b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 5000, 400),
    "too many trailers": (b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n" + b"A: b\r\n" * 20, 400),
    "a trailer that is too long": (b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"b" * 5000, 400),
    "a trailer, not a header": (b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nA\x00\r\n\r\n", 400),
}

# Whole requests.
MALFORMED_WHOLE: dict[str, tuple[bytes, int]] = {
    "no host": (b"GET /q/QUEUE HTTP/1.1\r\n\r\n", 400),
    "no host in HTTP/1.0": (b"GET /q/QUEUE HTTP/1.0\r\n\r\n", 400),
    "HTTP/1.0 and chunked": (
        b"POST /q/QUEUE HTTP/1.0\r\n%bTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n" % HOST, 400
    ),
    "all lines end with LF": (b"GET /q/QUEUE HTTP/1.1\nHost: localhost\n\n", 400),
    "the first line ends with LF": (b"GET /q/QUEUE HTTP/1.1\nHost: localhost\r\n\r\n", 400),
    "lines end with CR": (b"GET /q/QUEUE HTTP/1.1\rHost: localhost\r\r\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /q/QUEUE\r\n\r\n", 505),
    "HTTP/2.0": (b"GET /q/QUEUE HTTP/2.0\r\n%b\r\n" % HOST, 505),
    "HTTP/1.2": (b"GET /q/QUEUE HTTP/1.2\r\n%b\r\n" % HOST, 505),
    "HTTP/3.7": (b"GET /q/QUEUE HTTP/3.7\r\n%b\r\n" % HOST, 505),
    "HTTP/1.1.1": (b"GET /q/QUEUE HTTP/1.1.1\r\n%b\r\n" % HOST, 400),
    "http/1.1": (b"GET /q/QUEUE http/1.1\r\n%b\r\n" % HOST, 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600) + b"\r\n\r\n", 400),
    "a space in front of the first header": (b"GET /q/QUEUE HTTP/1.1\r\n %b\r\n" % HOST, 400),
    "a method in lower case": (b"get /q/QUEUE HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "a method nobody knows": (b"BREW /q/QUEUE HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "a method with NUL": (b"G\x00T /q/QUEUE HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "NUL in the path": (b"GET /q/QUEUE\x00 HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "a space in the path": (b"GET /q/QUEUE x HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "no path": (b"GET HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "a path without its slash": (b"GET q/QUEUE HTTP/1.1\r\n%b\r\n" % HOST, 400),
    "a tunnel": (b"CONNECT localhost:22 HTTP/1.1\r\n%b\r\n" % HOST, 501),
    "a head that is too large": (
        b"GET /q/QUEUE HTTP/1.1\r\n%bX-A: %b\r\n\r\n" % (HOST, b"a" * 16384), 431
    ),
    "many headers that are too large": (
        b"GET /q/QUEUE HTTP/1.1\r\n%b%b\r\n" % (HOST, (b"X-A: " + b"a" * 900 + b"\r\n") * 20), 431
    ),
    "a path that is too large": (b"GET /q/QUEUE?%b HTTP/1.1\r\n%b\r\n" % (b"a" * 65536, HOST), 431),
    "65 headers": (b"GET /q/QUEUE HTTP/1.1\r\n%b%b\r\n" % (HOST, b"A: b\r\n" * 64), 431),
    "a body that is too large": (b"POST /q/QUEUE HTTP/1.1\r\n%bContent-Length: 1048577\r\n\r\n" % HOST, 413),
    "a body that is far too large": (
        b"PUT /q/QUEUE HTTP/1.1\r\n%bContent-Length: 9999999999\r\n\r\n" % HOST, 413
    ),
    "a chunk that is too large": (
        b"POST /q/QUEUE HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n100001\r\n" % HOST, 413
    ),
    "chunks that end with LF alone": (
        b"POST /q/QUEUE HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n1\n1\n0\n\n" % HOST, 400
    ),
    "lines in chunks that end with LF alone": (
        b"POST /qb/QUEUE HTTP/1.1\r\n%bContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n2\n1\n\n0\n\n" % HOST,
        400,
    ),
    "chunks that are too large": (
        b"POST /q/QUEUE HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n80000\r\n%b\r\n80001\r\n"
        % (HOST, b"1" * 0x80000),
        413,
    ),
    "a large body for another route": (
        b"POST /qb/QUEUE HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" % HOST, 413
    ),
}  # fmt: skip

ALL_MALFORMED = {
    name: (b"POST /q/QUEUE HTTP/1.1\r\n" + HOST + rest, status) for name, (rest, status) in MALFORMED.items()
} | MALFORMED_WHOLE


@pytest.mark.parametrize("name", ALL_MALFORMED)
@pytest.mark.parametrize("sent", ["at once", "in two pieces"])
def test_what_cannot_be_read_is_refused_and_what_follows_is_never_a_request(
    server: Server, queue_name: str, name: str, sent: str
) -> None:
    request, status = ALL_MALFORMED[name]
    request = request.replace(b"QUEUE", queue_name.encode())
    smuggled = f"{queue_name}-smuggled"
    follows = post(smuggled, b"1") * 2

    with wire(server) as connection:
        if sent == "at once":
            connection.send(request + follows)
        else:
            middle = len(request) // 2
            connection.send(request[:middle], request[middle:] + follows)
        reply = connection.reply()
        assert reply.status == status, reply
        assert list(reply.json) == ["error"]
        assert reply.headers["presque-error"] == ("body-too-large" if status == 413 else "bad-request")
        assert reply.headers["connection"] == "close"
        assert reply.headers["content-type"] == "application/json"
        # More of it, while the server still listens to what it throws away.
        with contextlib.suppress(ConnectionError):
            connection.send(follows)
        assert connection.closed()

    assert not known(server, queue_name)
    assert not known(server, smuggled)


@pytest.mark.parametrize(
    "rest",
    [
        b"/status/\xff HTTP/1.1\r\nHost: localhost",
        b"/status/x HTTP/9.9\r\nHost: localhost",
        b"/status/x HTTP/1.1\r\nHost : localhost",
        b"/status/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999",
        b"/status/x HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000,
    ],
)
@pytest.mark.parametrize("before", [b"", b"\r\n", b"GET /status/x HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_request_that_is_refused_gets_no_content(server: Server, rest: bytes, before: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(before + b"HEAD " + rest + b"\r\n\r\n")
        client.settimeout(10)
        said = b""
        while part := client.recv(65536):
            said += part
    head, content = said[said.rindex(b"HTTP/1.1 ") :].split(b"\r\n\r\n", 1)
    assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert b"\r\ncontent-length: 0" not in head.lower()
    assert content == b""


def test_a_request_before_the_malformed_one_is_answered(server: Server, queue_name: str) -> None:
    with wire(server) as connection:
        connection.send(post(queue_name, b"1") + b"GET / HTTP/1.1\r\n\r\n" + post(queue_name, b"2"))
        assert connection.reply().status == 201
        assert connection.reply().status == 400
        assert connection.closed()
    assert size(server, queue_name) == 1


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "write http:// in front of the address"),
        (b"*1\r\n$4\r\nPING\r\n", "it should begin with a method"),
        (b"get /q/a HTTP/1.1\r\n", "it should begin with a method"),
        (b"{", "it should begin with a method"),
        (b"\r\n\x00", "it should begin with a method"),
    ],
)
@pytest.mark.parametrize("before", [b"", get("/status/")], ids=["alone", "after a request"])
def test_who_speaks_something_else_is_told_at_once(
    server: Server, sent: bytes, said: str, before: bytes
) -> None:
    """Not after the 10 s in which a head may arrive."""
    with wire(server) as connection:
        began = time.monotonic()
        connection.send(before + sent)
        if before:
            assert connection.reply().status == 200
        reply = connection.reply()
        assert reply.status == 400
        assert said in reply.json["error"]
        assert connection.closed()
        assert time.monotonic() - began < 8


# --- at the limits ----------------------------------------------------------------------------------


def test_64_headers_are_taken(server: Server, queue_name: str) -> None:
    with wire(server) as connection:
        connection.send(post(queue_name, b"1", *[b"A: b"] * 62))
        assert connection.reply().status == 201


def test_a_head_of_16_kib_is_taken(server: Server, queue_name: str) -> None:
    room = 16384 - len(post(queue_name, b"", b"X-A: "))
    with wire(server) as connection:
        connection.send(post(queue_name, b"1", b"X-A: " + b"a" * room))
        assert connection.reply().status == 201
        connection.send(post(queue_name, b"1", b"X-A: " + b"a" * (room + 1)))
        assert connection.reply().status == 431


@pytest.mark.parametrize("how", ["with a length", "chunked", "put back"])
def test_a_body_of_one_mebibyte_is_taken(server: Server, queue_name: str, how: str) -> None:
    body = b'"%b"' % (b"x" * (MIB - 2))
    with wire(server) as connection:
        if how == "chunked":
            connection.send(chunked(queue_name, b"100000\r\n%b\r\n0\r\n\r\n" % body))
        else:
            request = post(queue_name, body)
            connection.send(request if how == "with a length" else request.replace(b"POST", b"PUT", 1))
        assert connection.reply().status == 201
    assert server.ask("GET", f"/q/{queue_name}").body == body


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_of_one_byte_chunks_is_taken(server: Server, queue_name: str, method: str) -> None:
    body = b'"%b"' % (b"x" * 200_000)
    framed = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    began = time.monotonic()
    with wire(server) as connection:
        connection.send(chunked(queue_name, framed + b"0\r\n\r\n").replace(b"POST", method.encode(), 1))
        assert connection.reply().status == 201
    assert time.monotonic() - began < rig.PATIENCE, "with work for each byte that is there it takes hours"
    assert server.ask("GET", f"/q/{queue_name}").body == body


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_chunked_request_may_come_byte_by_byte(server: Server, queue_name: str, method: str) -> None:
    request = chunked(queue_name, b'3;ext="a"\r\n[1,\r\n0002\r\n2]\r\n000\r\nX-Trailer: a\r\n\r\n')
    request = request.replace(b"POST", method.encode(), 1)
    with wire(server) as connection:
        connection.send(*(bytes([byte]) for byte in request + request))
        assert [connection.reply().status, connection.reply().status] == [201, 201]
    assert server.ask("GET", f"/qb/{queue_name}").json == ["[1,2]", "[1,2]"]


def test_empty_lines_before_a_request_are_passed_over(server: Server, queue_name: str) -> None:
    with wire(server) as connection:
        connection.send(b"\r\n\r\n" + post(queue_name, b"1") + b"\r\n" + post(queue_name, b"2"), b"\r\n")
        assert [connection.reply().status, connection.reply().status] == [201, 201]
        connection.send(get(f"/q/{queue_name}"))
        assert connection.reply().body == b"1"


def test_nothing_but_empty_lines_ends_too(server: Server) -> None:
    with wire(server) as connection, contextlib.suppress(ConnectionError):
        connection.send(*[b"\r\n" * 1000] * 200)
        connection.send(get("/status/"))
        assert connection.reply().status == 200


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate", b"GZIP", b"identity, gzip", b"x"])
@pytest.mark.parametrize("method", [b"POST", b"PUT"])
def test_a_compressed_body_is_refused_and_the_connection_goes_on(
    server: Server, queue_name: str, encoding: bytes, method: bytes
) -> None:
    with wire(server) as connection:
        request = post(queue_name, b"1", b"Content-Encoding: " + encoding).replace(b"POST", method, 1)
        connection.send(request + post(queue_name, b"2"))
        assert connection.reply().status == 415
        assert connection.reply().status == 201
    assert server.ask("GET", f"/qb/{queue_name}").json == ["2"]


# --- Expect, HTTP/1.0, half-closed ------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_who_expects_100_continue_gets_it(
    server: Server, queue_name: str, method: bytes, framing: str
) -> None:
    if framing == "length":
        head, body = post(queue_name, b"[1]", b"Expect: 100-continue")[:-3], b"[1]"
    else:
        request = chunked(queue_name, b"").replace(HOST, HOST + b"Expect: 100-Continue\r\n")
        head, body = request, b"3\r\n[1]\r\n0\r\n\r\n"
    with wire(server) as connection:
        connection.send(head.replace(b"POST", method, 1))
        assert connection.reply() == Reply(100, {}, b"")
        connection.send(body)
        assert connection.reply().status == 201
        connection.send(get(f"/q/{queue_name}"))
        assert connection.reply().body == b"[1]"


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
def test_who_expects_100_continue_and_does_not_wait_gets_one_answer(
    server: Server, queue_name: str, method: bytes
) -> None:
    with wire(server) as connection:
        connection.send(post(queue_name, b"[1]", b"Expect: 100-continue").replace(b"POST", method, 1))
        connection.send(get(f"/q/{queue_name}"))
        assert [connection.reply().status, connection.reply().body] == [201, b"[1]"]


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server: Server, queue_name: str) -> None:
    with wire(server) as connection:
        head = b"POST /q/%b HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
        connection.send(head % (queue_name.encode(), HOST))
        assert connection.reply().status == 413


@pytest.mark.parametrize("path", ["/q/{}", "/status/{}"])
@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_is_answered_and_closed(server: Server, queue_name: str, path: str, keep: bytes) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    with wire(server) as connection:
        target = path.format(queue_name).encode()
        connection.send(b"GET %b HTTP/1.0\r\n%b%b\r\n" % (target, HOST, keep))
        reply = connection.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert connection.closed()


@pytest.mark.parametrize("path", ["/q/{}", "/status/{}"])
def test_connection_close_is_answered_and_closed(server: Server, queue_name: str, path: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    with wire(server) as connection:
        request = get(path.format(queue_name)).replace(HOST, HOST + b"Connection: close\r\n")
        connection.send(request + post(queue_name, b"2"))
        reply = connection.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert connection.closed()
    assert size(server, queue_name) <= 1


def test_a_client_that_has_sent_all_gets_all_its_answers(server: Server, queue_name: str) -> None:
    requests = [post(queue_name, b"%d" % n) for n in range(5)]
    requests += [get(f"/q/{queue_name}"), get(f"/status/{queue_name}"), get(f"/q/{queue_name}")]
    with wire(server) as connection:
        connection.send(b"".join(requests)).end()
        replies = [connection.reply() for _ in requests]
        assert [reply.status for reply in replies] == [201] * 5 + [200] * 3
        assert [replies[5].body, replies[6].json["size"], replies[7].body] == [b"0", 4, b"1"]
        assert connection.closed()


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
def test_a_client_that_closes_in_the_middle_stores_nothing(
    server: Server, queue_name: str, method: bytes
) -> None:
    whole = post(queue_name, b"[1,2]").replace(b"POST", method, 1)
    framed = chunked(queue_name, b"5\r\n[1,2]\r\n").replace(b"POST", method, 1)
    for part in whole[:-1], whole[:-5], whole[:30], framed:
        with wire(server) as connection:
            connection.send(part).end()
            assert connection.closed()
    assert not known(server, queue_name)


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("request_line", [b"POST /q/%b", b"PUT /q/%b", b"GET /status/%b"])
def test_an_upgrade_that_is_not_offered_is_passed_over(
    server: Server, queue_name: str, upgrade: bytes, request_line: bytes
) -> None:
    body = b"" if request_line.startswith(b"GET") else b"[1]"
    with wire(server) as connection:
        connection.send(
            request_line % queue_name.encode()
            + b" HTTP/1.1\r\n%bConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n" % (HOST, upgrade)
            + b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        assert connection.reply().status == (201 if body else 200)
    assert size(server, queue_name) == (1 if body else 0)


def test_a_waiter_that_half_closes_at_any_moment_loses_no_job(server: Server, queue_name: str) -> None:
    """It either has its job by then or is taken to have gone: each job was received or is still there."""
    chance = random.Random(7)
    rounds, longest = 300, 0.004
    received: list[bytes] = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(rounds):
            with wire(server) as connection:
                connection.send(get(f"/q/{queue_name}?wait=20"))
                pushing = pool.submit(server.ask, "POST", f"/q/{queue_name}", str(number))
                until = time.perf_counter() + chance.random() * longest
                while time.perf_counter() < until:
                    pass
                connection.end()
                if connection.left_without_answer():
                    longest *= 1.1  # so that there are moments on both sides, however quick the machine is
                else:
                    longest /= 1.1
                    received.append(connection.reply().body)
                assert pushing.result().status == 201
    left = server.ask("GET", f"/qb/{queue_name}?batch_size=1000")
    assert 0 < len(received) < rounds, "the moments were all on one side"
    rest = [text.encode() for text in left.json] if left.status == 200 else []
    assert sorted(received + rest, key=int) == [b"%d" % n for n in range(rounds)]


def test_a_waiter_that_is_gone_before_the_push_takes_no_job(server: Server, queue_name: str) -> None:
    with wire(server) as pusher:
        for number in range(300):
            queue = f"{queue_name}-{number}"
            with wire(server) as connection:
                connection.send(get(f"/q/{queue}?wait=20"))
                leave(connection)
            pusher.send(post(queue, b"%d" % number))
            assert pusher.reply().status == 201
    left = [server.ask("GET", f"/q/{queue_name}-{number}").body for number in range(300)]
    assert left == [b"%d" % number for number in range(300)]


def leave(connection: Wire) -> None:
    """Say that nothing more comes, and wait until the kernel on the other side has heard it."""
    connection.socket.shutdown(socket.SHUT_WR)
    on_the_way = (1, 4)  # ESTABLISHED and FIN_WAIT1 of Linux
    rig.eventually(
        lambda: connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in on_the_way
    )


def test_a_job_given_back_is_for_the_next_who_waits(server: Server, queue_name: str) -> None:
    for number in range(50):
        queue = f"{queue_name}-{number}"
        with wire(server) as stays:
            for _ in range(20):
                with wire(server) as leaves:
                    leaves.send(get(f"/q/{queue}?wait=20"))
            stays.send(get(f"/q/{queue}?wait=20"))
            server.ask("POST", f"/q/{queue}", "1")
            assert stays.reply().body == b"1"


# --- pipelining -------------------------------------------------------------------------------------


def test_pipelined_requests_of_both_lanes_are_answered_in_order(server: Server, queue_name: str) -> None:
    turn: list[tuple[str, bytes, int]] = [
        ("POST", post(queue_name, b'"job"'), 201),
        ("GET", get(f"/status/{queue_name}"), 200),
        ("GET", get(f"/q/{queue_name}"), 200),
        ("GET", get(f"/q/{queue_name}"), 404),
        ("HEAD", get(f"/stats/{queue_name}", "HEAD"), 200),
        ("POST", post(queue_name, b"nope"), 400),
        ("POST", chunked(queue_name, b"1\r\n7\r\n0\r\n\r\n"), 201),
        ("DELETE", get(f"/q/{queue_name}", "DELETE"), 204),
        ("HEAD", get(f"/q/{queue_name}", "HEAD"), 405),
        ("GET", get("/nope"), 404),
        ("GET", get("/q/%7B%7D"), 400),
        ("POST", post("%ff", b"1"), 400),
        ("POST", post(queue_name, b"1", b"Content-Encoding: gzip"), 415),
        ("GET", get(f"/q/{queue_name}?wait=0.01"), 404),
        ("GET", get(f"/stats/{queue_name}"), 200),
    ]
    with wire(server) as connection:
        connection.send(b"".join(request for _, request, _ in turn) * 10)
        for _ in range(10):
            for method, request, status in turn:
                assert connection.reply(method).status == status, request


def test_a_thousand_pipelined_pushes_and_fetches(server: Server, queue_name: str) -> None:
    count = 1000
    with wire(server) as connection:
        pushing = threading.Thread(
            target=connection.send, args=[b"".join(post(queue_name, b"%d" % n) for n in range(count))]
        )
        pushing.start()
        assert [connection.reply().json["id"] for _ in range(count)] == [str(n + 1) for n in range(count)]
        pushing.join()
        connection.send(get(f"/q/{queue_name}") * count)
        assert [int(connection.reply().body) for _ in range(count)] == list(range(count))


def test_what_is_pipelined_behind_a_waiting_fetch_waits_too(server: Server, queue_name: str) -> None:
    with wire(server) as connection:
        connection.send(get(f"/q/{queue_name}?wait=20") + get(f"/status/{queue_name}"))
        server.ask("POST", f"/q/{queue_name}", "1")
        server.ask("POST", f"/q/{queue_name}", "2")
        assert connection.reply().body == b"1"
        assert connection.reply().json["size"] <= 1


def test_what_is_pipelined_behind_the_last_request_is_not_served(server: Server, queue_name: str) -> None:
    last = get("/q/%ff").replace(HOST, HOST + b"Connection: close\r\n")
    with wire(server) as connection:
        connection.send(get(f"/q/{queue_name}?wait=0.1") + last + post(queue_name, b"1") * 4000)
        assert [connection.reply().status, connection.reply().status] == [404, 400]
        assert connection.closed()
    assert not known(server, queue_name)


@pytest.mark.parametrize("path", ["/q/{}", "/status/{}"])
def test_the_absolute_form_of_a_request_is_taken(server: Server, queue_name: str, path: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    with wire(server) as connection:
        connection.send(get(f"http://localhost{path.format(queue_name)}"))
        assert connection.reply().status == 200


def test_requests_cut_anywhere_are_the_same_requests(server: Server, queue_name: str) -> None:
    requests = (
        post(queue_name, b"[1]") + chunked(queue_name, b"3\r\n[2]\r\n0\r\n\r\n") + get(f"/q/{queue_name}")
    )
    for cut in range(1, len(requests), 3):
        with wire(server) as connection:
            connection.send(requests[:cut], requests[cut:])
            statuses = [connection.reply().status for _ in range(3)]
            assert statuses == [201, 201, 200], cut


# --- memory -----------------------------------------------------------------------------------------


def memory(server: Server) -> int:
    """Resident bytes of the server process."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.fixture
def own_server() -> Iterator[Server]:
    with rig.server("--memory") as found:
        yield found


def flood(server: Server, first: bytes, repeated: bytes, most: int) -> None:
    """Send and never read, until the server closes or `most` bytes went out."""
    piece = repeated * (65536 // len(repeated))
    with wire(server) as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.socket.settimeout(2)
        connection.send(first)
        for _ in range(most // len(piece)):
            connection.send(piece)


@pytest.mark.parametrize(
    ("first", "repeated"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: ", b"a"),
        (b"GET / HTTP/1.1\r\n" + HOST, b"X-A: b\r\n"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
        (b"", b"\x00"),
        (b"", random.Random(7).randbytes(65536)),
        (chunked("flood", b""), b"1\r\n1\r\n"),
        (chunked("flood", b"1;"), b"a"),
        (chunked("flood", b"0\r\n"), b"A: b\r\n"),
        (chunked("flood", b""), b"1000\r\n" + b"1" * 4096 + b"\r\n"),
        (b"POST /q/flood HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000000\r\n\r\n", b"1"),
        (b"POST /q/flood HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n", b"1"),
        (b"", get("/q/empty")),
        (b"", get("/status/")),
        (get("/q/empty?wait=20"), get("/q/empty")),
    ],
    ids=[
        "a header", "headers", "a path", "empty lines", "NULs", "random bytes", "one-byte chunks",
        "a chunk extension", "trailers", "chunks", "a large body", "behind a body", "fetches",
        "slow requests", "behind one who waits",
    ],
)  # fmt: skip
def test_memory_stays_flat_whatever_is_sent_without_end(
    own_server: Server, first: bytes, repeated: bytes
) -> None:
    own_server.ask("GET", "/status/")
    before = memory(own_server)
    flood(own_server, first, repeated, 64 * MIB)
    assert memory(own_server) - before < 20 * MIB
    assert own_server.ask("GET", "/status/").status == 200


def test_a_client_that_does_not_read_is_not_given_every_job(own_server: Server) -> None:
    body = b'"%b"' % (b"x" * (MIB - 2))
    for _ in range(50):
        assert own_server.ask("POST", "/q/large", body).status == 201
    before = memory(own_server)
    with wire(own_server) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.send(get("/q/large") * 50)
        eventually(lambda: own_server.ask("GET", "/j/large").json["job_processed"] > 0)
        for _ in range(20):
            own_server.ask("GET", "/status/")
        assert own_server.ask("GET", "/j/large").json["job_processed"] < 25
        assert memory(own_server) - before < 20 * MIB
        for _ in range(50):
            assert connection.reply().body == body


# --- slow clients -----------------------------------------------------------------------------------

IMPATIENT = """
from presque.http import connection
connection.LINGER_S = 0.5
from presque.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server whose deadlines are short: head 3 s, body 4 s, idle 4 s. It looks at them once a second."""
    times = {"PRESQUE_LIMITS__HEAD": "3s", "PRESQUE_LIMITS__BODY": "4s", "PRESQUE_LIMITS__IDLE": "4s"}
    with rig.server("--memory", program=("-c", IMPATIENT), **times) as found:
        yield found


def trickle(connection: Wire, data: bytes, every: float = 0.1) -> float:
    """Send one byte at a time until the server closes. Returns how many seconds that took."""
    began = time.monotonic()
    connection.socket.settimeout(every)
    for byte in data:
        try:
            connection.send(bytes([byte]))
            part = connection.socket.recv(65536, socket.MSG_PEEK)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if part:
            break
    connection.socket.settimeout(rig.PATIENCE)
    return time.monotonic() - began


@pytest.mark.parametrize("after", [0, 1])
def test_a_head_that_trickles_in_is_cut_off(impatient: Server, queue_name: str, after: int) -> None:
    with wire(impatient) as connection:
        for _ in range(after):
            connection.send(post(queue_name, b"1"))
            assert connection.reply().status == 201
        took = trickle(connection, b"GET /q/x HTTP/1.1\r\n" + b"X-A: b\r\n" * 100)
        reply = connection.reply()
        assert reply.status == 408
        assert reply.json == {"error": "the head of the request did not arrive in time"}
        assert reply.headers["connection"] == "close"
        assert connection.closed()
    assert 2.5 < took < rig.PATIENCE  # to send all of it takes longer


@pytest.mark.parametrize(
    "head",
    [
        b"POST /q/slow HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n",
        b"PUT /q/slow HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n",
        chunked("slow", b"3e8\r\n"),
    ],
)
def test_a_body_that_trickles_in_is_cut_off(impatient: Server, head: bytes) -> None:
    began = time.monotonic()
    with wire(impatient) as connection:
        connection.send(head)
        trickle(connection, b"1" * 900)
        took = time.monotonic() - began
        reply = connection.reply()
        assert reply.status == 408
        assert reply.json == {"error": "the body of the request did not arrive in time"}
        assert connection.closed()
    assert 3.5 < took < rig.PATIENCE
    assert not known(impatient, "slow")


@pytest.mark.parametrize("after", [0, 1])
def test_a_silent_connection_is_closed(impatient: Server, queue_name: str, after: int) -> None:
    began = time.monotonic()
    with wire(impatient) as connection:
        for _ in range(after):
            connection.send(get(f"/q/{queue_name}"))
            assert connection.reply().status == 404
        assert connection.closed()
    assert 2.5 < time.monotonic() - began < rig.PATIENCE


def test_a_waiting_fetch_is_not_taken_for_a_silent_client(impatient: Server, queue_name: str) -> None:
    began = time.monotonic()
    answer = impatient.ask("GET", f"/q/{queue_name}?wait=7")
    assert answer.status == 404
    assert time.monotonic() - began >= 7


def test_who_goes_on_sending_after_a_refusal_is_cut_off(impatient: Server) -> None:
    with wire(impatient) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.reply().status == 400
        took = trickle(connection, b"G" * 900)
    assert took < rig.PATIENCE


SLOW = (
    b"GET /q/x HTTP/1.1\r\nX-A:",
    b"POST /q/x HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n1",
    b"POST /q/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n1",
    b"",
)


def test_five_hundred_slow_clients_are_cut_off_and_a_quick_one_is_served(
    impatient: Server, queue_name: str
) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(wire(impatient)) for _ in range(500)]
        for number, one in enumerate(slow):
            with contextlib.suppress(ConnectionError):  # it may have been cut off already
                one.send(SLOW[number % len(SLOW)])
        for number in range(200):
            assert impatient.ask("POST", f"/q/{queue_name}", str(number)).status == 201
            assert impatient.ask("GET", f"/q/{queue_name}").body == b"%d" % number
        for one in slow:
            received = b""
            with contextlib.suppress(ConnectionError):
                while part := one.socket.recv(65536):
                    received += part
            assert received == b"" or received.startswith(b"HTTP/1.1 408 ")
    open_files = Path(f"/proc/{impatient.process.pid}/fd")
    eventually(lambda: len(list(open_files.iterdir())) < 100)
    assert not known(impatient, "x")
