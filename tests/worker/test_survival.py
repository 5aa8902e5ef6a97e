"""Servers that go away, connections that die in silence, workers that are killed: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.worker.conftest import MODES, Process, Work, counts, settled, starting

KILLS = int(os.environ.get("TEST_KILLS", "32"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_outlives_its_server_and_loses_nothing(tmp_path: Path, mode: str) -> None:
    port = free_port()
    flags = ("--data", str(tmp_path / "data"), "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    with starting(tmp_path) as start:
        kind, *more = MODES[mode]
        worker = start("worker", f"tests.worker.jobs:{kind}", "--queues", "q", *more, url=url)
        worker.says("worker.waits_for_server")  # it was started before there is one
        with rig.server(*flags) as server, Client(url) as client:
            client.push_many("q", [{"sleep": 0.05}] * 40 + [{"sleep": 1.5}])
            worker.noted("ended", 5)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        time.sleep(1)
        with rig.server(*flags), Client(url) as client:
            rig.eventually(lambda: settled(client, "q"), within=20)
            assert counts(client, "q")["processed"] == 41
            assert counts(client, "q")["failed"] == 0
            ids = [int(one["id"]) for one in worker.notes("ended")]
            assert sorted(set(ids)) == list(range(1, 42))
            assert len(ids) == 41, "nothing was done twice: what was done was told when the server was back"


class Silent:
    """Stands between a worker and its server, and falls silent when told: no byte, and no end."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[tuple[socket.socket, threading.Event]] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def silence(self) -> None:
        """From now on the connections that exist carry nothing; new ones do."""
        for _, silent in self._connections:
            silent.set()

    def close(self) -> None:
        """End everything."""
        for found in (self._listener, *(connection for connection, _ in self._connections)):
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)
        for connection, _ in self._connections:
            connection.close()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            outer = socket.create_connection(("127.0.0.1", self._behind))
            silent = threading.Event()
            self._connections += [(inner, silent), (outer, silent)]
            for source, target in ((inner, outer), (outer, inner)):
                self._start(self._carry, source, target, silent)

    def _carry(self, source: socket.socket, target: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not silent.is_set():
                    target.sendall(data)
            if not silent.is_set():
                target.shutdown(socket.SHUT_WR)


def test_a_connection_that_died_in_silence_is_noticed_within_twice_the_wait(
    work: Work, client: Client, queue_name: str, server: rig.Server
) -> None:
    between = Silent(server.port)
    try:
        worker = work("Plain", "--interval", "2", url=between.url)
        client.push(queue_name, {})
        worker.noted("ended")
        time.sleep(0.3)  # it waits for the next one now
        between.silence()
        began = time.monotonic()
        client.push(queue_name, {})
        worker.noted("ended", 2, within=10)
        assert time.monotonic() - began < 4 + 1
    finally:
        between.close()


@pytest.mark.parametrize("mode", MODES)
def test_workers_that_are_killed_lose_no_job_and_each_comes_again_within_its_lease(
    tmp_path: Path, mode: str
) -> None:
    kills = KILLS // 4
    lease, live, seed = 1.0, 3, 7
    dice = random.Random(seed)
    with rig.server("--memory") as server, Client(server.url) as client, starting(tmp_path) as start:
        client.change_policy("q", lease=lease, max_attempts=1000)
        kind, *flags = MODES[mode]

        def begin() -> Process:
            return start(
                "worker", f"tests.worker.jobs:{kind}", "--queues", "q", *flags, "--concurrency",
                "1" if mode == "inline" else "3", "--log-level", "error", url=server.url,
            )  # fmt: skip

        workers = [begin() for _ in range(live)]
        killed: dict[int, float] = {}
        pushed = 0
        for _ in range(kills):
            client.push_many("q", [{"sleep": dice.uniform(0.02, 0.15)} for _ in range(8)])
            pushed += 8
            time.sleep(dice.uniform(0.05, 0.4))
            victim = workers.pop(0)
            victim.signal(signal.SIGKILL)
            victim.wait()
            killed[victim.pid] = time.time()
            workers.append(begin())
        rig.eventually(lambda: settled(client, "q"), within=30)
        diary = workers[0]
        assert counts(client, "q")["processed"] == pushed
        assert counts(client, "q")["dead"] == 0
        assert {int(one["id"]) for one in diary.notes("ended")} == set(range(1, pushed + 1))
        late = lateness(diary, killed)
        assert max(late, default=0) <= lease + 1


def lateness(diary: Process, killed: dict[int, float]) -> list[float]:
    """For each run that a kill cut off: how long until the job began anew."""
    began = diary.notes("began")
    ended = {(one["id"], one["pid"]) for one in diary.notes("ended")}
    found = []
    for one in began:
        if one["pid"] in killed and (one["id"], one["pid"]) not in ended:
            again = [other["at"] for other in began if other["id"] == one["id"] and other["at"] > one["at"]]
            assert again, f"job {one['id']} never came again"
            found.append(min(again) - killed[one["pid"]])
    return found
