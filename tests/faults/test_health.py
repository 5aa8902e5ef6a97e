"""What looks after servers hears how they are: while they start, work, lack something, and stop."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from presque.store.embedded import find_binary
from tests import rig
from tests.faults.load import store_of

READY = {"status": "ready"}


@pytest.fixture(scope="module", params=["1", "2"])
def server(request: pytest.FixtureRequest) -> Iterator[rig.Server]:
    with rig.server("--memory", "--workers", request.param) as found:
        yield found


def test_health_is_told_to_anybody_by_any_name(server: rig.Server) -> None:
    asked_oddly: tuple[dict[str, Any], ...] = (
        {"Host": "10.2.3.4:5000"},
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    )
    for headers in asked_oddly:
        assert server.ask("GET", "/livez", **headers).json == {"status": "ok"}
        assert server.ask("GET", "/readyz", **headers).json == READY
        assert server.ask("GET", "/stats/", **headers).status in (403, 421)
    assert server.ask("HEAD", "/readyz").status == 200
    assert server.ask("POST", "/readyz", b"1").status == 405
    assert server.ask("GET", "/readyz?exclude=draining").status == 400


def test_a_store_that_dies_makes_the_server_unready_and_no_less_alive() -> None:
    with rig.server("--memory") as server:
        store = store_of(server)
        os.kill(store, signal.SIGSTOP)
        try:
            told = rig.eventually(lambda: unready(server))
            assert server.ask("GET", "/livez").status == 200
        finally:
            os.kill(store, signal.SIGCONT)
        assert told.headers["presque-error"] == "not-ready"
        assert told.json == {"error": "not ready: store-away"}
        rig.eventually(lambda: server.ask("GET", "/readyz").json == READY)


def unready(server: rig.Server) -> rig.Answer | None:
    answer = server.ask("GET", "/readyz")
    return answer if answer.status == 503 else None


def test_a_full_disk_is_not_ready_unless_that_is_left_out() -> None:
    with (
        rig.small_disk() as disk,
        rig.server("--data", str(disk / "data"), PRESQUE_MIN_FREE_DISK="1GiB") as server,
    ):
        told = rig.eventually(lambda: unready(server))
        assert told.json == {"error": "not ready: disk-full"}
        assert server.ask("GET", "/readyz?exclude=disk-full").json == READY


class Stops(rig.Door):
    """A server that has not said yet where it is."""

    def __init__(self, port: int) -> None:
        self.port = port


@contextmanager
def starting(tmp_path: Path, *flags: str, **environment: str) -> Iterator[tuple[Stops, Path]]:
    """A server whose store does not start before the path that is given exists."""
    go = tmp_path / "go"
    slow = tmp_path / "slow-store"
    slow.write_text(f'#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexec {find_binary(None)} "$@"\n')
    slow.chmod(0o755)
    port = rig.free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "presque", "serve", "--port", str(port), "--memory", *flags],
        env={**os.environ, "PRESQUE_VALKEY_BIN": str(slow), **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Stops(port), go
    finally:
        go.touch()
        process.terminate()
        process.wait(rig.PATIENCE)


def tried(door: rig.Door, method: str, path: str) -> rig.Answer | None:
    try:
        return door.ask(method, path)
    except OSError:
        return None


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_long_start_is_told_to_those_who_ask(tmp_path: Path, workers: str) -> None:
    with starting(tmp_path, "--workers", workers) as (server, go):
        lives = rig.eventually(lambda: tried(server, "GET", "/livez"))
        assert (lives.status, lives.json) == (200, {"status": "ok"})
        answer = server.ask("GET", "/readyz")
        assert (answer.status, answer.json) == (503, {"error": "not ready: loading"})
        for body in (b"1", b"1" * 300_000):
            refused = server.ask("POST", "/q/mail", body)
            assert (refused.status, refused.headers["presque-error"]) == (503, "starting")
        assert refused.headers["retry-after"] == "1"
        with socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE) as idle:
            go.touch()
            assert idle.recv(1) == b"", "a connection of the start stays open, and never reaches the server"
        rig.eventually(lambda: server.ask("GET", "/readyz").json == READY)
        assert server.ask("POST", "/q/mail", b"1").status == 201


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_hears_of_the_start_the_life_and_the_end(workers: str) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears,
    ):
        hears.bind(f"{directory}/notify")
        hears.settimeout(rig.PATIENCE)
        heard: queue.SimpleQueue[str] = queue.SimpleQueue()

        def listen() -> None:
            while (said := hears.recv(100).decode()) != "STOPPING=1":
                heard.put(said)
            heard.put(said)

        ear = threading.Thread(target=listen, daemon=True)
        ear.start()
        notified = {"NOTIFY_SOCKET": f"{directory}/notify", "WATCHDOG_USEC": "200000"}
        with rig.server("--memory", "--workers", workers, **notified) as server:
            assert heard.get(timeout=rig.PATIENCE) == "READY=1"
            for _ in range(3):
                assert heard.get(timeout=rig.PATIENCE) == "WATCHDOG=1"
            server.stop()
            ear.join(rig.PATIENCE)
        rest = [heard.get() for _ in range(heard.qsize())]
        assert rest[-1] == "STOPPING=1"
        assert set(rest[:-1]) <= {"WATCHDOG=1"}


def test_a_supervisor_that_is_not_there_stops_nobody() -> None:
    with rig.server("--memory", NOTIFY_SOCKET="/nowhere/at/all") as server:
        assert server.ask("GET", "/livez").status == 200
        assert "supervisor.not_told" in "".join(server.everything)
