"""A small request cannot make the server hold a large answer: bounds in bytes, measured at the process."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rig
from tests.doors.test_live import handshake, rss, text

MIB = 1024 * 1024
ANSWERS_MOST = 16 * MIB  # 8, and the last answer, which may have as much
GROWTH_MOST = 128 * MIB  # the answer in pieces, joined, and in the buffer of the socket


def peak(server: rig.Server) -> int:
    """The most memory that the process has held at any time."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture
def roomy() -> Iterator[rig.Server]:
    """A server with nine jobs of a megabyte on the queue `big`."""
    with rig.server("--memory") as found:
        for _ in range(9):
            assert found.ask("POST", "/q/big", json.dumps("x" * 1_000_000)).status == 201
        yield found


def test_an_array_of_looks_at_large_jobs_is_answered_within_its_bound(roomy: rig.Server) -> None:
    before = rss(roomy)
    looks = [{"cmd": "peek", "queue": "big", "count": 100, "ref": number} for number in range(100)]
    answer = roomy.ask("POST", "/queue", json.dumps(looks))
    assert len(answer.body) < ANSWERS_MOST + MIB
    assert [one["ref"] for one in answer.json] == list(range(100))
    assert {one.get("code") for one in answer.json[2:]} == {"answer-too-large"}
    grown = peak(roomy) - before
    assert grown < GROWTH_MOST, grown


@pytest.mark.parametrize("array", [True, False], ids=["in an array", "each a message"])
def test_looks_over_a_socket_that_nobody_reads_are_bounded(roomy: rig.Server, array: bool) -> None:
    before = rss(roomy)
    look = '{"cmd":"peek","queue":"big","count":100}'
    texts = [f"[{','.join([look] * 1000)}]"] if array else [look] * 1000
    sent = b"".join(text(one) for one in texts)
    with socket.create_connection(("127.0.0.1", roomy.port)) as connection:
        connection.sendall(handshake("/ws"))
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError):  # it may read no more, which is what is wanted
            connection.sendall(sent)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert roomy.ask("GET", "/control/other").status == 200  # others are served meanwhile
        grown = peak(roomy) - before
    assert grown < GROWTH_MOST, grown
