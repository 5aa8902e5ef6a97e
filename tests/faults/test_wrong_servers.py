"""Both clients against servers that answer wrongly, endlessly, drop by drop or not at all.

The servers are a few lines of socket code, each connection in a thread of its own. Whatever they do, a call
ends within its `timeout`, keeps no more than `max_answer` bytes, and raises a `ClientError` of one line.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from presque.client import Client, ClientError, NotFound, ServerNotReached, transport
from tests import rig
from tests.clients import Connect

Behaviour = Callable[[socket.socket], object]
Serve = Callable[[Behaviour], str]

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STATUS = b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{"queues":[],"size":0}\r\n'


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that does one thing with every connection, after it has read some of the request."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    listeners: list[socket.socket] = []

    def handle(connection: socket.socket, behaviour: Behaviour) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.recv(65536)
            behaviour(connection)

    def accept(listener: socket.socket, behaviour: Behaviour) -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=handle, args=(connection, behaviour), daemon=True)
            thread.start()
            threads.append(thread)

    def start(behaviour: Behaviour) -> str:
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        listeners.append(listener)
        thread = threading.Thread(target=accept, args=(listener, behaviour), daemon=True)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    stop.set()
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def answers(data: bytes) -> Behaviour:
    """Send this and close, having read what the client sent: otherwise TCP resets the connection, and the
    answer may be lost."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.2)
        while connection.recv(65536):
            pass

    return behave


def begins(data: bytes) -> Behaviour:
    """Send this, and nothing more."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.recv(1)

    return behave


def drips(head: bytes, drops: bytes, every_s: float = 0.02) -> Behaviour:
    """Send the head, then for ever one byte of `drops` after the other."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        for byte in itertools.cycle(drops):
            connection.sendall(bytes((byte,)))
            time.sleep(every_s)

    return behave


def floods(head: bytes, piece: bytes) -> Behaviour:
    """Send the head, then for ever the same piece, as quickly as it goes."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return behave


def is_clean(error: ClientError) -> bool:
    return str(error).isprintable() and 0 < len(str(error)) < 1200 and str(error) == error.text


def is_given_up(call: Callable[[], object]) -> None:
    with pytest.raises(ServerNotReached):
        call()


SLOW: dict[str, Behaviour] = {
    "a head byte by byte": drips(b"", HEAD + b"X-A: b\r\n" * 10_000),
    "a body byte by byte": drips(HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
    "a body without length byte by byte": drips(HEAD + b"\r\n", b"x"),
    "chunks byte by byte": drips(CHUNKED, b"1\r\nx\r\n"),
    "trailers byte by byte": drips(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "one 100 Continue after the other": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    "nothing at all": lambda connection: connection.recv(1),
    "nothing after the head": begins(HEAD + b"Content-Length: 5\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW)
def test_a_timeout_holds_for_a_request_as_a_whole(
    connect: Connect, serve: Serve, behaviour: Behaviour
) -> None:
    client = connect(serve(behaviour), timeout=0.5)
    began = time.monotonic()
    caught = is_late(client.queues)  # without the bound it waits for ever
    assert time.monotonic() - began > 0.4
    assert str(caught).endswith("did not answer within 0.5 s")


def is_late(ask: Callable[[], object]) -> ServerNotReached:
    """How a request failed that was sent. On a machine that stands still its time may be over before that."""
    for _ in range(10):
        with pytest.raises(ServerNotReached) as caught:
            ask()
        if caught.value.sent:
            break
    assert caught.value.sent
    return caught.value


def test_a_server_that_does_not_read_is_given_up(connect: Connect, serve: Serve) -> None:
    over = threading.Event()
    client = connect(serve(lambda _: over.wait(rig.PATIENCE)), timeout=0.3)
    caught = is_late(lambda: client.push("q", "x" * 30_000_000))
    over.set()
    assert "did not answer within 0.3 s; the request may have" in str(caught)


PAGES = {
    "queues": b'{"queues":["a"],"size":1,"cursor":"a"}',
    "crons": b'{"crons":[{"name":"a"}],"cursor":"a"}',
    "tokens": b'{"tokens":[{"id":"a"}],"cursor":"a"}',
    "namespaces": b'{"namespaces":[{"namespace":"a"}],"cursor":"a"}',
    "tokens without ids": b'{"tokens":[{"name":"a"}],"cursor":"a"}',
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_comes_again_and_again_is_refused(connect: Connect, serve: Serve, page: str) -> None:
    answer = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(PAGES[page]), PAGES[page])
    client = connect(serve(lambda connection: connection.sendall(answer)), timeout=120)
    with pytest.raises(ClientError, match="do not follow each other") as caught:
        getattr(client, page.split()[0])()
    assert caught.value.code == "unreadable-answer"


ENDLESS: dict[str, Behaviour] = {
    "a body without length": floods(HEAD + b"\r\n", b"x" * 65536),
    "large chunks": floods(CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    "tiny chunks": floods(CHUNKED, b"1\r\nx\r\n" * 10_000),
    "a chunk size that does not end": floods(CHUNKED, b"0" * 65536),
    "a chunk extension that does not end": floods(CHUNKED + b"1;", b"x" * 65536),
    "trailers": floods(CHUNKED + b"0\r\n", b"X-A: b\r\n" * 1000),
    "a header": floods(HEAD + b"X-A: ", b"x" * 65536),
    "headers": floods(HEAD, b"X-A: b\r\n" * 1000),
    "100 Continue": floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a huge Content-Length": floods(HEAD + b"Content-Length: 100000000000\r\n\r\n", b"x" * 65536),
    "a huge chunk": floods(CHUNKED + b"ffffffffff\r\n", b"x" * 65536),
}


@pytest.mark.parametrize("behaviour", ENDLESS.values(), ids=ENDLESS)
def test_what_has_no_end_is_refused(connect: Connect, serve: Serve, behaviour: Behaviour) -> None:
    client = connect(serve(behaviour), timeout=120, max_answer=1 << 17)
    with pytest.raises(
        ServerNotReached, match=r"gave an answer that cannot be read: .* (than|too) "
    ) as caught:
        client.queues()
    assert is_clean(caught.value)


MEMORY = """
import asyncio, resource, sys
from presque import AsyncClient, Client, ClientError

async def ask(url):
    await AsyncClient(url, timeout=60).queues()

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    if sys.argv[1] == "AsyncClient":
        asyncio.run(ask(sys.argv[2]))
    Client(sys.argv[2], timeout=60).queues()
except ClientError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@pytest.mark.parametrize("what", ["a body without length", "large chunks"])
def test_memory_is_bounded_unless_more_is_allowed(serve: Serve, kind: str, what: str) -> None:
    command = [sys.executable, "-c", MEMORY, kind, serve(ENDLESS[what])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said, megabytes = done.stdout.splitlines()
    assert "larger than 67108864 bytes; allow more with `max_answer`" in said
    assert int(megabytes) < 200


DEEP = {"lists": b"[" * (24 << 20), "objects": b'{"a":' * (5 << 20)}


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@pytest.mark.parametrize("what", DEEP)
def test_what_is_nested_without_end_is_refused_before_it_takes_all_memory(
    serve: Serve, kind: str, what: str
) -> None:
    """A list takes a byte in the answer, and a hundred in memory."""
    answer = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(DEEP[what]), DEEP[what])
    command = [sys.executable, "-c", MEMORY, kind, serve(answers(answer))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said, megabytes = done.stdout.splitlines()
    assert said == "the answer (200) cannot be read: is there a presque at this address?"
    assert int(megabytes) < 400


WRONG = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of other digits": "HTTP/1.1 ٢٠٠ OK\r\n\r\n".encode(),
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\nhellohello",
    "a length in words": HEAD + b"Content-Length: five\r\n\r\nhello",
    "an empty length": HEAD + b"Content-Length:\r\n\r\nhello",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two lengths in one": HEAD + b"Content-Length: 5, 6\r\n\r\nhello!",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk with a prefix": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk that is too long": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunks that end early": CHUNKED + b"5\r\nhel",
    "a body that ends early": HEAD + b"Content-Length: 5\r\n\r\nhel",
    "a body that is too long": HEAD + b"Content-Length: 2\r\n\r\n{}{}",
    "a head that ends early": HEAD + b"Content-Le",
    "a header without a colon": HEAD + b"Content-Length 5\r\n\r\nhello",
    "a header on two lines": HEAD + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a name": HEAD + b": b\r\nContent-Length: 2\r\n\r\n{}",
    "an empty line": b"\r\n\r\n\r\n\r\n",
    "nothing": b"",
    "zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_no_answer_is_an_error_of_the_client_in_one_line(
    connect: Connect, serve: Serve, data: bytes
) -> None:
    client = connect(serve(answers(data)), timeout=10)
    with pytest.raises(ServerNotReached) as caught:
        client.push("q", 1)
    assert is_clean(caught.value)
    assert caught.value.sent
    assert str(caught.value).endswith("; the request may have been carried out")


@pytest.mark.parametrize("bytes_of_header", [82_000, 1_000_000])
def test_a_long_header_is_taken(connect: Connect, serve: Serve, bytes_of_header: int) -> None:
    """Seven hundred stopped queues make a head of 82 KB."""
    names = ",".join(f"queue-{n:06}" for n in range(bytes_of_header // 13))
    client = connect(
        serve(
            answers(b"HTTP/1.1 204 X\r\nConnection: close\r\nPresque-Paused: " + names.encode() + b"\r\n\r\n")
        )
    )
    assert client.lease("*") == []
    assert len(client.settle_and_lease({}, "*").paused) == bytes_of_header // 13


def test_lines_may_end_as_in_the_oldest_of_servers(connect: Connect, serve: Serve) -> None:
    client = connect(serve(answers(b'HTTP/1.0 200 OK\nContent-Type: x\n\n{"queues":[],"size":0}')))
    assert client.queues() == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_answer_may_come_in_pieces_of_any_size(connect: Connect, serve: Serve, size: int) -> None:
    def in_pieces(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = (
            b"HTTP/1.1 100 X\r\n\r\n"
            + CHUNKED
            + b'4;a=b\r\n{"qu\r\n12\r\neues":[],"size":0}\r\n0\r\nT: x\r\n\r\n'
        )
        for at in range(0, len(data), size):
            connection.sendall(data[at : at + size])

    assert connect(serve(in_pieces)).queues() == []


def test_the_texts_of_a_server_are_shown_without_what_could_steer_a_terminal(
    connect: Connect, serve: Serve
) -> None:
    text = "\\u001b]0;pwned\\u0007 a\\r\\nb\\u2028c\\u202ed\\u009b31m é"
    body = f'{{"error":"{text}","code":"\\u001b[2J"}}'.encode()
    client = connect(serve(answers(b"HTTP/1.1 404 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))))
    with pytest.raises(NotFound) as caught:
        client.job("q", "1")
    assert str(caught.value) == "?]0;pwned? a  b c?d?31m é"
    assert caught.value.code == "not-found"


def test_a_long_text_is_cut(connect: Connect, serve: Serve) -> None:
    body = b'{"error":"' + b"x" * 1_000_000 + b'"}'
    client = connect(serve(answers(b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))))
    with pytest.raises(ClientError) as caught:
        client.queues()
    assert str(caught.value) == "x" * 1000 + "…"


# --- connections


def test_threads_share_a_client_whose_connections_are_closed_all_the_time(serve: Serve) -> None:
    """With a switch interval of 10 µs each check of the idle connections is followed by another thread."""
    client = Client(serve(answers(STATUS)), timeout=30)  # it closes after each answer, without saying so
    errors: list[Exception] = []

    def ask() -> None:
        try:
            for number in range(60):
                client.queues()
                if number % 10 == 0:
                    client.close()
        except Exception as error:  # noqa: BLE001  (whatever it is, the test fails)
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * rig.PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    client.close()
    assert errors == []


def test_a_client_has_no_more_connections_than_it_may(serve: Serve) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def count(connection: socket.socket) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        connection.sendall(STATUS)

    client = Client(serve(count), connections=3)
    threads = [threading.Thread(target=client.queues) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(rig.PATIENCE)
    client.close()
    assert 1 <= most <= 3


def test_one_that_finds_no_connection_free_in_time_says_so(connect: Connect, serve: Serve) -> None:
    asked = threading.Event()

    def hang(connection: socket.socket) -> None:
        asked.set()
        connection.recv(1)

    client = connect(serve(hang), timeout=0.5, connections=1)
    first = threading.Thread(target=is_given_up, args=(lambda: client.fetch("q", wait=5),))
    first.start()
    assert asked.wait(rig.PATIENCE)
    with pytest.raises(ServerNotReached, match=r"all 1 connections .* busy for 0\.5 s; allow more") as caught:
        client.push("q", 1)
    assert not caught.value.sent
    first.join(rig.PATIENCE)


def test_a_push_on_a_connection_that_died_in_between_is_sent_again_when_nothing_was_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at an idle connection and the first byte on it are two moments: here it ends between them."""
    from presque import Client

    pushed = b'HTTP/1.1 201 X\r\nContent-Length: 10\r\n\r\n{"id":"1"}'
    client = Client(serve(answers(pushed)))
    client.push("q", 1)
    [kept] = client.transport._own._idle
    kept.socket.settimeout(rig.PATIENCE)
    while kept.socket.recv(1):  # its end has come
        pass
    kept.socket.shutdown(socket.SHUT_WR)  # so that sending fails at the first byte
    monkeypatch.setattr(transport, "readable", lambda _: False)
    assert client.push("q", 2) == "1"
    client.close()


def test_a_child_does_not_hold_the_connections_of_its_parent_open(serve: Serve) -> None:
    """A parent that gives up waiting must be noticed, though a child has a copy of its socket."""
    noticed, asked = threading.Event(), threading.Event()

    def wait(connection: socket.socket) -> None:
        asked.set()
        if connection.recv(1) == b"":
            noticed.set()

    client = Client(serve(wait), timeout=3)
    thread = threading.Thread(target=is_given_up, args=(client.queues,))
    thread.start()
    assert asked.wait(rig.PATIENCE)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent is through
        os._exit(0)
    try:
        thread.join(rig.PATIENCE)
        assert noticed.wait(rig.PATIENCE)
    finally:
        os.close(read)
        os.close(write)
        os.waitpid(child, 0)
