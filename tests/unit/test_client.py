"""Both clients against a scripted peer: what they send, how they treat connections, how they read answers.

The peer is a few lines of socket code, so that a test decides when a connection closes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from presque.client import (
    Client,
    ClientError,
    Conflict,
    NotAllowed,
    NotFound,
    QueueClosed,
    ServerNotReached,
    Unavailable,
)
from tests import rig
from tests.clients import Connect


def answer(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


ROOT = Path(__file__).parents[2]

CLOSE = b""
"""In a script: read the request, then close without an answer."""


@dataclass
class Peer:
    """Plays one script a connection: an answer for each request. After the last one it closes."""

    scripts: list[list[bytes]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: threading.Event = field(default_factory=threading.Event)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        for script in self.scripts:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                for reply in script:
                    request = read_request(connection)
                    if not request:
                        break
                    self.requests.append(request)
                    connection.sendall(reply)
            self.closed.set()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


Play = Callable[..., Peer]


@pytest.fixture
def play() -> Iterator[Play]:
    peers: list[tuple[Peer, threading.Thread]] = []

    def start(*scripts: list[bytes]) -> Peer:
        peer = Peer(list(scripts))
        thread = threading.Thread(target=peer.run, daemon=True)
        thread.start()
        peers.append((peer, thread))
        return peer

    yield start
    for peer, thread in peers:
        with suppress(OSError):
            peer.listener.shutdown(socket.SHUT_RDWR)
        peer.listener.close()
        thread.join(rig.PATIENCE)
        assert not thread.is_alive()


PUSHED = answer(201, b'{"id":"42","queue":"foo"}')


def test_a_push_sends_the_job_and_returns_its_id(connect: Connect, play: Play) -> None:
    peer = play([PUSHED])
    with connect(peer.url, token="tok") as client:
        assert client.push("foo", {"to": "Zoë"}, delay=1.5, priority=9, uniq="a b") == "42"
    [request] = peer.requests
    assert request.startswith(b"POST /q/foo?delay=1.5&priority=9&uniq=a+b HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer tok\r\n" in request
    assert request.endswith('{"to":"Zoë"}'.encode())


def test_a_text_goes_out_byte_for_byte(connect: Connect, play: Play) -> None:
    peer = play([PUSHED])
    with connect(peer.url) as client:
        client.push_text("foo", b'{ "n": 1.00 }')
    assert peer.requests[0].endswith(b'\r\n\r\n{ "n": 1.00 }')


def test_many_are_pushed_in_one_request_as_they_are(connect: Connect, play: Play) -> None:
    peer = play([answer(201, b'{"ids":["1","2"],"queue":"foo"}')])
    with connect(peer.url) as client:
        assert client.push_texts("foo", ["1.0", '{"a": 1}'], delayed=datetime(2026, 1, 1, tzinfo=UTC)) == [
            "1",
            "2",
        ]
    assert peer.requests[0].startswith(b"POST /qb/foo?delayed=2026-01-01T00%3A00%3A00%2B00%3A00 ")
    assert peer.requests[0].endswith(b'{"jobs":[1.0,{"a": 1}]}')


@pytest.mark.parametrize("text", ["", "1,2", "{", "NaN", "[" * 100_000])
def test_a_text_that_is_not_one_document_is_refused_before_anything_is_sent(
    connect: Connect, text: str
) -> None:
    with pytest.raises(ValueError):
        connect("http://127.0.0.1:1").push_texts("foo", ["1", text])


def test_a_value_that_json_cannot_say_is_refused_before_anything_is_sent(connect: Connect) -> None:
    with pytest.raises(ValueError):
        connect("http://127.0.0.1:1").push("foo", float("nan"))
    with pytest.raises(ValueError, match="`delayed` should have a time zone"):
        connect("http://127.0.0.1:1").push("foo", 1, delayed=datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_fetch_returns_the_job_or_none(connect: Connect, play: Play) -> None:
    job = answer(200, '{"n":"ü"}'.encode(), "Presque-Queue: foo", "Presque-Job-Id: 7")
    peer = play([job, answer(404, b'{"error":"no job"}'), answer(404, b'{"error":"queue is closed"}')])
    with connect(peer.url) as client:
        fetched = client.fetch("foo,*,!b?r", wait=2)
        assert fetched is not None
        assert (fetched.queue, fetched.id, fetched.body, fetched.value) == (
            "foo",
            "7",
            '{"n":"ü"}',
            {"n": "ü"},
        )
        assert client.fetch("foo") is None
        with pytest.raises(QueueClosed):
            client.fetch("foo")
    assert peer.requests[0].startswith(b"GET /q/foo,*,!b%3Fr?wait=2 HTTP/1.1\r\n")
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("reply", "kind", "code", "text"),
    [
        (answer(400, b'{"error":"job is missing"}'), ClientError, "invalid-request", "job is missing"),
        (answer(400, b'{"error":"job already exists"}'), Conflict, "job-exists", "job already exists"),
        (
            answer(401, b'{"error":"no token","code":"token-missing"}'),
            NotAllowed,
            "token-missing",
            "no token",
        ),
        (answer(403, b'{"error":"no"}'), NotAllowed, "not-allowed", "no"),
        (answer(404, b'{"error":"gone"}'), NotFound, "not-found", "gone"),
        (answer(409, b'{"error":"e","code":"lease-lost"}'), Conflict, "lease-lost", "e"),
        (answer(503, b'{"error":"no store"}'), Unavailable, "store-unavailable", "no store"),
        (answer(502, b"<html>"), ClientError, "error", "the server answered 502"),
        (answer(301, b"", "Location: /x"), ClientError, "error", "the server answered 301"),
    ],
)
def test_a_refusal_is_a_typed_error(
    connect: Connect, play: Play, reply: bytes, kind: type[ClientError], code: str, text: str
) -> None:
    with connect(play([reply]).url) as client, pytest.raises(ClientError) as caught:
        client.push("foo", 1)
    assert (type(caught.value), caught.value.code, caught.value.text) == (kind, code, text)
    assert caught.value.status == int(reply[9:12])


def test_no_server_is_not_reached_and_nothing_was_sent(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerNotReached, match=f"^no server at {url}: Connection refused$") as caught:
        connect(url).push("foo", 1)
    assert not caught.value.sent


def test_an_idle_connection_that_was_closed_is_replaced_before_a_push(connect: Connect, play: Play) -> None:
    peer = play([PUSHED], [PUSHED])
    with connect(peer.url) as client:
        client.push("foo", 1)
        assert peer.closed.wait(rig.PATIENCE)
        client.push("foo", 2)
    assert peer.connections == 2


def test_a_push_that_lost_its_answer_is_never_repeated(connect: Connect, play: Play) -> None:
    peer = play([PUSHED, CLOSE], [PUSHED])
    with connect(peer.url) as client:
        client.push("foo", 1)
        with pytest.raises(
            ServerNotReached,
            match="closed the connection before answering; the request may",
        ) as caught:
            client.push("foo", 2)
        assert caught.value.sent
    assert len(peer.requests) == 2


def test_a_fetch_that_lost_its_answer_is_never_repeated(connect: Connect, play: Play) -> None:
    peer = play([PUSHED, CLOSE], [PUSHED])
    with connect(peer.url) as client:
        client.push("foo", 1)
        with pytest.raises(ServerNotReached):
            client.fetch("foo")
    assert len(peer.requests) == 2


def test_a_request_that_only_reads_is_repeated_once_on_a_new_connection(connect: Connect, play: Play) -> None:
    peer = play([PUSHED, CLOSE], [answer(200, b'{"queues":[],"size":0}')])
    with connect(peer.url) as client:
        client.push("foo", 1)
        assert client.queues() == []
    assert peer.connections == 2


def test_a_request_that_only_reads_is_not_repeated_when_a_new_connection_fails(
    connect: Connect, play: Play
) -> None:
    peer = play([CLOSE], [answer(200)])
    with connect(peer.url) as client, pytest.raises(ServerNotReached):
        client.queues()
    assert peer.connections == 1


def test_a_silent_server_is_given_up(connect: Connect, play: Play) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerNotReached, match=r"did not answer within 1 s; the request may have been"):
            connect(url, timeout=1).push("foo", 1)


def test_an_early_answer_to_a_large_body_is_heard(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_at_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer(413, b'{"error":"too large"}', "Connection: close"))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse_at_once)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ClientError, match=r"^too large$"):
            connect(url).push("foo", "x" * 8_000_000)
        thread.join(rig.PATIENCE)


def test_a_forked_child_does_not_use_the_connection_of_its_parent(play: Play) -> None:
    peer = play([PUSHED, PUSHED], [PUSHED])
    with Client(peer.url) as client:
        client.push("foo", 1)
        child = os.fork()
        if child == 0:
            # The peer serves one connection after the other: a new one is not answered before this one ends.
            try:
                client.transport.timeout = 0.2
                client.push("foo", 2)
            except ServerNotReached:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.push("foo", 3) == "42"
    assert peer.requests[1].endswith(b"\r\n\r\n3")


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:5000", "ftp://h", "http://", "http://h:x", "http://u:p@h", "http://h?x=1"]
)
def test_a_url_that_names_no_server_is_refused(connect: Connect, url: str) -> None:
    with pytest.raises(ValueError):
        connect(url)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "ü"])
def test_a_token_that_fits_no_header_is_refused(connect: Connect, token: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        connect("http://h", token=token)
    assert token == "" or token not in str(caught.value)


def test_the_client_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, presque.client; "
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    said = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
    )
    assert set(said.stdout.split()) <= {"presque", "__main__"}, said.stderr


def test_an_answer_in_chunks_is_put_together(connect: Connect, play: Play) -> None:
    chunks = b'9\r\n{"id":"42\r\n8;x=y\r\n","queue\r\n8\r\n":"foo"}\r\n0\r\n\r\n'
    reply = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    peer = play([reply, PUSHED])
    with connect(peer.url) as client:
        assert [client.push("foo", 1), client.push("foo", 2)] == ["42", "42"]
    assert peer.connections == 1


@pytest.mark.parametrize(
    "reply",
    [
        b'HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id":"42\r\n',
        b'HTTP/1.1 201 X\r\nContent-Length: 99\r\n\r\n{"id":"42",',
        b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_off_or_is_none_is_no_answer(
    connect: Connect, play: Play, reply: bytes
) -> None:
    with connect(play([reply]).url) as client, pytest.raises(ServerNotReached) as caught:
        client.push("foo", 1)
    assert caught.value.sent


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"ids":["1"]}'])
def test_an_answer_that_no_presque_gives_is_an_error_of_the_client(
    connect: Connect, play: Play, body: bytes
) -> None:
    with connect(play([answer(201, body)]).url) as client, pytest.raises(ClientError) as caught:
        client.push("foo", 1)
    assert caught.value.text == "the answer (201) cannot be read: is there a presque at this address?"
    assert caught.value.code == "unreadable-answer"


def test_an_answer_that_ends_with_its_connection_is_whole(connect: Connect, play: Play) -> None:
    peer = play([b'HTTP/1.0 201 X\r\n\r\n{"id":"42","queue":"foo"}'], [PUSHED])
    with connect(peer.url) as client:
        assert [client.push("foo", 1), client.push("foo", 2)] == ["42", "42"]
    assert peer.connections == 2


def test_the_environment_says_where_the_server_is_and_who_asks(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, other = play([PUSHED]), play([PUSHED])
    monkeypatch.setenv("PRESQUE_URL", f"{peer.url}/")
    monkeypatch.setenv("PRESQUE_TOKEN", "of-the-environment")
    connect().push("foo", 1)
    assert b"\r\nAuthorization: Bearer of-the-environment\r\n" in peer.requests[0]
    connect(other.url, "given").push("foo", 1)  # what is given is stronger
    assert b"\r\nAuthorization: Bearer given\r\n" in other.requests[0]


def test_an_empty_variable_is_as_none(connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESQUE_URL", "")
    monkeypatch.setenv("PRESQUE_TOKEN", "")
    assert connect().transport.base_url == "http://127.0.0.1:5000"
    peer = play([PUSHED])
    connect(peer.url).push("foo", 1)
    assert b"Authorization" not in peer.requests[0]


def test_a_wrong_variable_is_named(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESQUE_URL", "localhost:5000")
    with pytest.raises(ValueError, match=r"^PRESQUE_URL: `localhost:5000` is not a server URL: use http:"):
        connect()
    monkeypatch.setenv("PRESQUE_TOKEN", "a b")
    with pytest.raises(ValueError, match=r"^PRESQUE_TOKEN: a token is visible ASCII"):
        connect("http://h")


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"timeout": 1e12},
                {"max_answer": 0}, {"connections": 0}],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(connect: Connect, options: dict[str, float]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=f"`{name}` should be"):
        connect("http://h", **options)


def test_the_word_in_the_header_names_the_error(connect: Connect, play: Play) -> None:
    """The text may change, and does not decide where the header is there."""
    peer = play(
        [
            answer(400, b'{"error":"there is one like it"}', "Presque-Error: job-exists"),
            answer(404, b'{"error":"nothing here"}', "Presque-Error: no-job"),
            answer(404, b'{"error":"it is shut"}', "Presque-Error: queue-closed"),
            answer(404, b'{"error":"no job"}', "Presque-Error: not-found"),
            answer(400, b'{"error":"odd"}', "Presque-Error: \x1b[31m No Word"),
        ]
    )
    client = connect(peer.url)
    with pytest.raises(Conflict, match="there is one like it") as exists:
        client.push("foo", 1)
    assert exists.value.code == "job-exists"
    assert client.fetch("foo") is None
    with pytest.raises(QueueClosed):
        client.fetch("foo")
    with pytest.raises(NotFound):
        client.fetch("foo")
    with pytest.raises(ClientError) as odd:
        client.fetch("foo")
    assert odd.value.code == "invalid-request"


def test_the_synchronous_client_is_what_the_asynchronous_one_makes_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "tools/unasync.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
