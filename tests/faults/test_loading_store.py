"""A store that is still reading its data: presque waits for it instead of giving up."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from tests import rig

KEYS = 10_000  # a store that reads looks at its clients after each thousand or so
LOADS_FOR_S = 4


@contextlib.contextmanager
def loading(kind: str, seconds: float) -> Iterator[rig.Store]:
    """A store that takes so long to read its data, and has just begun."""
    delay_us = str(int(seconds * 1_000_000 / KEYS))
    log = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]
    with rig.store(kind, *log) as store:
        with store.client() as client:
            pipeline = client.pipeline(transaction=False)
            for number in range(KEYS):
                pipeline.set(f"other:{number}", number)
            pipeline.execute()
            client.shutdown(save=False)
        store.process.wait()
        store.process = subprocess.Popen(
            [store.binary, "--port", "0", "--unixsocket", store.socket, "--dir", str(store.directory),
             "--save", "", "--loglevel", "warning", *log, "--key-load-delay", delay_us],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        rig.eventually(lambda: is_loading(store))
        yield store


def is_loading(store: rig.Store) -> bool:
    with store.client() as client:
        try:
            return bool(client.info("persistence")["loading"])
        except redis.ConnectionError:
            return False


def serve(store: rig.Store, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "presque", "serve", "--port", "0", "--redis", store.url, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("kind", "workers"), [("valkey", "1"), ("valkey", "2"), ("redis-7.0", "1")])
def test_a_store_that_reads_its_data_is_waited_for(kind: str, workers: str) -> None:
    with (
        loading(kind, LOADS_FOR_S) as store,
        rig.server("--redis", store.url, "--workers", workers) as server,
    ):
        assert server.ask("POST", "/q/mail", b"1").status == 201

        assert "the store is still reading its data" in server.said()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_whoever_waits_for_a_store_can_be_stopped(workers: str) -> None:
    with loading("valkey", LOADS_FOR_S) as store, serve(store, "--workers", workers) as waiting:
        assert waiting.stderr is not None
        assert "still reading its data" in waiting.stderr.readline()

        waiting.send_signal(signal.SIGTERM)

        assert waiting.wait(rig.PATIENCE) == 0
        assert waiting.stdout is not None
        assert waiting.stdout.read() == ""
