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

KILLS = int(os.environ.get("TEST_WORKER_KILLS", "32"))


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_outlives_its_server_and_loses_nothing(tmp_path: Path, mode: str) -> None:
    port = rig.free_port()
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
            rig.eventually(lambda: settled(client, "q"))
            assert counts(client, "q")["processed"] == 41
            assert counts(client, "q")["failed"] == 0
            ids = [int(one["id"]) for one in worker.notes("ended")]
            assert sorted(set(ids)) == list(range(1, 42))
            assert len(ids) == 41, "nothing was done twice: what was done was told when the server was back"


def test_what_was_done_while_the_server_was_away_is_not_done_again_when_its_lease_has_ended(
    tmp_path: Path,
) -> None:
    flags = ("--data", str(tmp_path / "data"), "--port", str(rig.free_port()))
    with starting(tmp_path) as start:
        with rig.server(*flags) as server, Client(server.url) as client:
            client.change_policy("q", lease=4)
            worker = start("worker", "tests.worker.jobs:Plain", "--queues", "q", url=server.url)
            client.push("q", {"until": str(tmp_path / "away")})
            worker.noted("began")
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        (tmp_path / "away").touch()
        worker.noted("ended")
        time.sleep(4.5)  # the lease ends
        with rig.server(*flags) as server, Client(server.url) as client:
            rig.eventually(lambda: settled(client, "q"))
            assert counts(client, "q")["processed"] == 1
        assert "job.done_before" in worker.said()
        assert len(worker.notes("began")) == 1


def asleep_past_its_lease(work: Work, client: Client, queue: str, job: dict[str, Any]) -> Process:
    """A worker that was stopped while it did this job, until the lease had ended."""
    client.change_policy(queue, lease=1)
    client.push(queue, job)
    worker = work("Plain")
    worker.noted("began")
    worker.signal(signal.SIGSTOP)
    rig.eventually(lambda: counts(client, queue)["leased"] == 0)
    return worker


def test_a_job_that_was_told_to_stop_and_returned_is_done_again(
    work: Work, client: Client, queue_name: str
) -> None:
    """Its lease was lost and it heard so: that it returned does not mean that it was done."""
    worker = asleep_past_its_lease(work, client, queue_name, {"until_cancelled": 1})
    worker.signal(signal.SIGCONT)
    assert worker.noted("ended")[0]["cancelled"] is True
    assert worker.noted("began", 2)[1]["attempt"] == 2


def test_a_worker_that_slept_past_its_lease_does_not_ack_what_another_did(
    work: Work, client: Client, queue_name: str, tmp_path: Path
) -> None:
    slow = asleep_past_its_lease(work, client, queue_name, {"until": str(tmp_path / "over")})
    (tmp_path / "over").touch()
    quick = work("Plain")
    rig.eventually(lambda: settled(client, queue_name))
    slow.signal(signal.SIGCONT)
    rig.eventually(lambda: any(word in slow.said() for word in ("job.not_settled", "lease.lost")))
    assert [one["pid"] for one in slow.notes("ended")].count(quick.pid) == 1
    assert counts(client, queue_name)["processed"] == 1


def test_a_job_whose_result_the_server_refuses_is_done_all_the_same(tmp_path: Path) -> None:
    with (
        rig.server("--memory", "--max-body", "2KiB") as server,
        Client(server.url) as client,
        starting(tmp_path) as start,
    ):
        client.change_policy("q", max_attempts=1, keep=60)
        for job in ({"return": 1}, {"words": 4000}, {"raise_words": 4000}, {"return": 2}):
            client.push("q", job)
        worker = start("worker", "tests.worker.jobs:Plain", "--queues", "q", "--burst", url=server.url)
        assert worker.wait() == 0
        jobs = [client.job("q", str(number)) for number in range(1, 5)]
        assert [job["state"] for job in jobs] == ["done", "done", "dead", "done"]
        assert [job["result"] for job in jobs] == [1, None, None, 2]
        assert jobs[2]["errors"][0]["error"] == "its error could not be told"
        assert worker.said().count("job.told_in_part") == 2


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
        worker.noted("ended", 2)
        assert time.monotonic() - began < rig.PATIENCE
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
            # A job that comes again must not have to wait behind others because the machine is slow.
            rig.eventually(lambda: counts(client, "q")["ready"] < live)
            victim = workers.pop(0)
            victim.signal(signal.SIGKILL)
            victim.wait()
            killed[victim.pid] = time.time()
            workers.append(begin())
        rig.eventually(lambda: settled(client, "q"))
        diary = workers[0]
        assert counts(client, "q")["processed"] == pushed
        assert counts(client, "q")["dead"] == 0
        assert {int(one["id"]) for one in diary.notes("ended")} == set(range(1, pushed + 1))
        late = lateness(diary, killed)
        assert late or kills < 50, "some kill has cut a job off"
        assert max(late, default=0) < rig.PATIENCE, "half of a lease, were it not for the policy"


def lateness(diary: Process, killed: dict[int, float]) -> list[float]:
    """For each run that a kill cut off: how long until the job began anew."""
    began = diary.notes("began")
    ended = {(one["id"], one["pid"]) for one in diary.notes("ended")}
    done = {id for id, _ in ended}
    found = []
    for one in began:
        worker = one["pid"] if one["pid"] in killed else one["parent"]  # a forked job's
        if worker in killed and (one["id"], one["pid"]) not in ended:
            again = [other["at"] for other in began if other["id"] == one["id"] and other["at"] > one["at"]]
            if again:
                found.append(min(again) - killed[worker])
            else:  # its lease had ended before, and another had done it
                assert one["id"] in done, f"job {one['id']} never came again"
    return found
