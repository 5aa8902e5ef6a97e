"""The store stalls, goes and comes back, or forgets presque's functions."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import rig
from tests.faults.load import QUEUE, Load, store_of

REQUESTS = [
    ("POST", "/q/away", "1"),
    ("GET", "/q/away", None),
    ("GET", "/q/away?wait=20", None),
    ("GET", "/q/away,other", None),
    ("POST", "/qb/away", '{"jobs": [1]}'),
    ("GET", "/qb/away", None),
    ("GET", "/stats/", None),
    ("GET", "/status/away", None),
    ("DELETE", "/q/away", None),
]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does nothing inside."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_while_the_store_stalls_every_request_gets_503_within_5_s_and_then_service_resumes() -> None:
    with rig.server("--memory") as server, ThreadPoolExecutor(len(REQUESTS)) as pool:
        assert server.ask("POST", "/q/away", "0").status == 201
        assert server.ask("GET", "/q/away").status == 200

        def ask(request: tuple[str, str, str | None]) -> tuple[rig.Answer, float]:
            began = time.monotonic()
            return server.ask(*request), time.monotonic() - began

        with stopped(store_of(server)):
            for round_of_requests in ("when it had been asked", "when it is known to be away"):
                for answer, seconds in pool.map(ask, REQUESTS):
                    assert answer.status == 503, round_of_requests
                    assert answer.headers["retry-after"] == "1"
                    assert answer.json["error"]
                    assert seconds < rig.PATIENCE
        rig.eventually(lambda: server.ask("POST", "/q/back", "1").status == 201)
        assert server.ask("GET", "/q/back").body == b"1"


def test_who_waits_through_a_stall_is_served_afterwards() -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server:
        waiting = server.send("GET", "/q/later?wait=50")
        rig.eventually(lambda: _somebody_listens(store, "later"))
        server.ask("GET", "/q/later")  # by now the first look of the one who waits is over
        with stopped(store.process.pid):
            assert server.ask("GET", "/stats/").status == 503

        rig.eventually(lambda: server.ask("POST", "/q/later", "1").status == 201)

        assert waiting.answer().body == b"1", server.said()


@pytest.mark.parametrize(
    "door", ["GET /q/{}?wait=0.1", "POST /q/{}/lease?wait=0.1", "POST /q/{},{}-b/lease?wait=0.1"]
)
def test_a_short_wait_finds_what_was_there_however_slow_the_store_is(door: str) -> None:
    method, path = door.replace("{}", "q").split()
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server:
        assert server.ask("POST", "/q/q", "1").status == 201
        with stopped(store.process.pid):
            asked = server.send(method, path)
            time.sleep(0.5)  # longer than it wants to wait, shorter than a store may be silent
        assert asked.answer().status == 200


def test_presque_finds_its_store_again_after_that_was_killed_and_started_anew() -> None:
    with (
        rig.store("valkey", "--appendonly", "yes", "--appendfsync", "always") as store,
        rig.server("--redis", store.url) as server,
    ):
        assert server.ask("POST", "/q/q", "1").status == 201
        waiting = server.send("GET", "/q/other?wait=60")
        rig.eventually(lambda: _somebody_listens(store, "other"))
        server.ask("GET", "/q/other")  # by now the first look of the one who waits is over
        store.process.kill()
        store.process.wait()

        answer = server.ask("POST", "/q/q", "2")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "is away" in answer.json["error"]

        store.process = subprocess.Popen(store.process.args, stdout=subprocess.DEVNULL)
        rig.eventually(lambda: server.ask("GET", "/stats/").status == 200)
        assert server.ask("POST", "/q/other", "3").status == 201
        assert waiting.answer().body == b"3"
        assert [server.ask("GET", "/q/q").status for _ in range(2)] == [200, 404]
        assert "store.lost" in server.said()


def _somebody_listens(store: rig.Store, queue: str) -> bool:
    with store.client() as client:
        return bool(client.execute_command("PUBSUB", "SHARDNUMSUB", f"presque:{{{queue}}}:wake")[1])


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nowhere/socket"])
def test_where_no_store_is_presque_ends_with_a_sentence(url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "presque", "serve", "--port", "0", "--redis", url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 1
    assert "no store at " in ended.stderr
    assert "start it, or correct --redis" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_functions_that_were_flushed_under_load_are_loaded_again_and_no_job_is_lost(
    store: rig.Store,
) -> None:
    with rig.server("--redis", store.url, "--namespace", "flushed") as server, store.client() as client:
        with Load(server, writers=4, fetchers=2) as load:
            for _ in range(5):
                load.more_acknowledged(200)
                client.function_flush()
            load.more_acknowledged(200)
        load.check()

        assert set(load.statuses) <= {200, 201, 404}
        assert load.unclear == 0
        assert "store.functions_loaded_again" in server.said()
        client.delete(*client.keys(f"flushed:{{{QUEUE}}}:*"), "flushed:{:queues}")
