"""Whatever is sent over a WebSocket, the server goes on, makes no mistake and holds nothing for ever."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presque import frames
from presque.verbs import COMMANDS
from tests import rig
from tests.doors.test_commands import _COMMAND, _JSON
from tests.doors.test_live import handshake

OPEN = handshake("/ws/fuzz")
FAULTS = ("internal", "store-error")


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[rig.Server]:
    """A server of its own, whose log is read to the end."""
    with rig.server("--memory") as found:
        found.ask("POST", "/qb/fuzz", json.dumps({"jobs": list(range(1000))}))
        yield found
        rig.eventually(lambda: found.ask("GET", "/stats/fuzz").json["leased"] == 0)
        assert found.stop() == 0
    said = "".join(found.everything)
    assert "Traceback" not in said
    assert " error " not in said


def masked(first: int, payload: bytes, *, mask: bool = True) -> bytes:
    """A frame whose first byte may be any."""
    whole = bytearray(frames.frame(frames.TEXT, payload, b"abcd" if mask else None))
    whole[0] = first
    return bytes(whole)


def in_pieces(message: bytes, cuts: list[int]) -> bytes:
    """A text in several frames, with a ping between them."""
    edges = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    sent, last = b"", len(edges) - 2
    for number in range(last + 1):
        part = message[edges[number] : edges[number + 1]]
        opcode = frames.CONTINUATION if number else frames.TEXT
        sent += masked((0x80 if number == last else 0) | opcode, part)
        sent += masked(0x80 | frames.PING, b"p")
    return sent


_MESSAGE = (
    (_COMMAND | st.lists(_COMMAND, max_size=4) | _JSON).map(lambda one: json.dumps(one).encode())
    | st.binary(max_size=200)
    | st.integers(1, 5000).map(lambda depth: b"[" * depth)
    | st.integers(1, 5000).map(lambda depth: b'{"cmd":"push","job":' + b"[" * depth + b"]" * depth + b"}")
    | st.sampled_from(sorted(COMMANDS)).map(lambda cmd: b'{"cmd":"%b","queue":"\xff"}' % cmd.encode())
    | st.sampled_from([b"", b"[]", b"{}", b"null", b"\xed\xa0\x80", b'{"cmd":"push","cmd":"stop"}'])
)
_SENT = (
    st.builds(in_pieces, _MESSAGE, st.lists(st.integers(0, 10_000), max_size=4))
    | _MESSAGE.map(lambda message: frames.frame(frames.TEXT, message, b"abcd"))
    | st.builds(masked, st.integers(0, 255), st.binary(max_size=150), mask=st.booleans())
    | st.binary(max_size=50)
)


def answers_of(server: rig.Server, sent: bytes) -> list[frames.Message]:
    """What the server says to this, up to its close frame or until the answer to a last command is there."""
    last = frames.frame(frames.TEXT, b'{"cmd":"zz","ref":"the last"}', b"abcd")
    last += frames.frame(frames.CLOSE, b"\x03\xe8", b"abcd")
    reader = frames.Reader(masked=False, most=1 << 24)
    with socket.create_connection(("127.0.0.1", server.port), timeout=rig.PATIENCE) as on:
        on.sendall(OPEN + sent + last)
        on.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := on.recv(1 << 20):
                received += part
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        return reader.feed(rest)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(_SENT, max_size=6).map(b"".join))
def test_whatever_comes_over_a_socket_is_answered_or_closes_it_and_is_no_fault_of_the_server(
    fuzzed: rig.Server, sent: bytes
) -> None:
    for message in answers_of(fuzzed, sent):
        if message.opcode == frames.CLOSE:
            assert frames.close_code(message.payload) != frames.OUR_FAULT
        elif message.opcode == frames.TEXT:
            told: Any = json.loads(message.payload)
            assert told.get("code") not in FAULTS, told
    assert fuzzed.ask("GET", "/status/fuzz").status == 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=_COMMAND | _JSON)
def test_each_message_that_is_json_gets_an_answer(fuzzed: rig.Server, message: Any) -> None:
    silent = isinstance(message, dict) and message.get("cmd") == "lease"  # jobs may come before its answer
    with socket.create_connection(("127.0.0.1", fuzzed.port), timeout=rig.PATIENCE) as on:
        on.sendall(OPEN + frames.frame(frames.TEXT, json.dumps(message).encode(), b"abcd"))
        reader, head = frames.Reader(masked=False, most=1 << 24), b""
        found: list[frames.Message] = []
        while not head.endswith(b"\r\n\r\n"):
            head += on.recv(1)
        while not found and message != [] and not silent:
            part = on.recv(1 << 20)
            assert part, message
            found = reader.feed(part)
