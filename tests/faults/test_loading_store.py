"""A store that is still reading its data: presque waits for it instead of giving up."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from tests import rig

KEYS = 10_000  # a store that reads looks at its clients after each thousand or so
LOADS_FOR_S = 600  # unless it is told to hurry


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


def hurry(store: rig.Store) -> None:
    """Let the store finish to read its data."""
    with store.client() as client:
        client.config_set("key-load-delay", 0)


@contextlib.contextmanager
def serving(store: rig.Store, *flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "presque", "serve", "--port", "0", "--redis", store.url, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(rig.PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read what a server says up to a line with this word. The time limit of the test bounds the wait."""
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"it ended without saying {word!r}")


@pytest.mark.parametrize(("kind", "workers"), [("valkey", "1"), ("valkey", "2"), ("redis-7.0", "1")])
def test_a_store_that_reads_its_data_is_waited_for(kind: str, workers: str) -> None:
    with loading(kind, LOADS_FOR_S) as store, serving(store, "--workers", workers) as server:
        read_until(server, "still reading its data")
        hurry(store)
        port = re.search(r":(\d+)", read_until(server, "answers at"))
        assert port is not None
        door = rig.Door()
        door.port = int(port[1])
        assert door.ask("POST", "/q/mail", b"1").status == 201


@pytest.mark.parametrize("workers", ["1", "2"])
def test_whoever_waits_for_a_store_can_be_stopped(workers: str) -> None:
    with loading("valkey", LOADS_FOR_S) as store, serving(store, "--workers", workers) as waiting:
        read_until(waiting, "still reading its data")

        waiting.send_signal(signal.SIGTERM)

        assert waiting.wait(rig.PATIENCE) == 0
        assert waiting.stdout is not None
        assert "answers at" not in waiting.stdout.read()
