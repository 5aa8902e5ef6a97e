"""A store that is still reading its data: presque waits for it instead of giving up."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from tests import rig

KEYS = 3_000
VALUE = b"x" * 1_500  # so large that the store looks at its clients after each key
DELAY_US = 100_000  # five minutes for all keys; no test waits for that


@contextlib.contextmanager
def loading(kind: str) -> Iterator[rig.Store]:
    """A store that has begun to read its data, and is not done before `finish`."""
    with rig.store(kind, "--rdbcompression", "no") as store:
        with store.client() as client:
            pipeline = client.pipeline(transaction=False)
            for number in range(KEYS):
                pipeline.set(f"other:{number}", VALUE)
            pipeline.execute()
            client.save()
            client.shutdown(nosave=True)
        store.process.wait(rig.PATIENCE)
        store.process = subprocess.Popen(
            [store.binary, "--port", "0", "--unixsocket", store.socket, "--dir", str(store.directory),
             "--save", "", "--loglevel", "warning", "--loading-process-events-interval-bytes", "1024",
             "--key-load-delay", str(DELAY_US)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        rig.eventually(lambda: is_loading(store))
        yield store


def finish(store: rig.Store) -> None:
    """Let the store read the rest at once. It must have been reading until now."""
    assert is_loading(store)
    with store.client() as client:
        client.config_set("key-load-delay", 0)


def is_loading(store: rig.Store) -> bool:
    with store.client() as client:
        try:
            return bool(client.info("persistence")["loading"])
        except redis.ConnectionError:
            return False


@contextlib.contextmanager
def waiting_for(store: rig.Store, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A `presque serve` that has said that it waits for the store. It has ended afterwards."""
    command = [sys.executable, "-m", "presque", "serve", "--port", "0", "--redis", store.url, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "still reading its data" in process.stderr.readline()
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(rig.PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.mark.parametrize(("kind", "workers"), [("valkey", "1"), ("valkey", "2"), ("redis-7.0", "1")])
def test_a_store_that_reads_its_data_is_waited_for(kind: str, workers: str) -> None:
    with loading(kind) as store, waiting_for(store, "--workers", workers) as waiting:
        finish(store)

        assert waiting.stderr is not None
        started = next(line for line in waiting.stderr if '"event":"server.started"' in line)
        door = rig.Door()
        door.port = int(json.loads(started)["url"].rpartition(":")[2])
        assert door.ask("POST", "/q/mail", b"1").status == 201


@pytest.mark.parametrize("workers", ["1", "2"])
def test_whoever_waits_for_a_store_can_be_stopped(workers: str) -> None:
    with loading("valkey") as store, waiting_for(store, "--workers", workers) as waiting:
        waiting.send_signal(signal.SIGTERM)

        assert waiting.wait(rig.PATIENCE) == 0
        assert is_loading(store)
        assert waiting.stdout is not None
        assert waiting.stdout.read() == ""
