"""The private store: it starts, comes back, goes when it should, and refuses what could lose jobs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from presque.errors import SetupError
from presque.store.embedded import EmbeddedSettings, EmbeddedStore
from tests import rig
from tests.asking import soon

NOBODY = 65534

# A parent that starts a store, says where it is, and does nothing more.
PARENT = """
import asyncio, pathlib, sys
from presque.store.embedded import EmbeddedSettings, EmbeddedStore

async def run():
    store = EmbeddedStore(EmbeddedSettings(directory=pathlib.Path(sys.argv[1])))
    await store.start()
    print(store.pid, store.socket, flush=True)
    await asyncio.sleep(60)

asyncio.run(run())
"""


# What is said of a directory to somebody who is not root, since root may write anywhere.
PREPARE = f"""
import os, pathlib, sys
from presque.store import directory

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
try:
    directory.prepare(pathlib.Path(sys.argv[1]))
except directory.SetupError as error:
    print(error)
"""


@contextlib.asynccontextmanager
async def running(directory: Path | None, **settings: Any) -> AsyncIterator[EmbeddedStore]:
    """A started store, stopped at the end."""
    store = EmbeddedStore(EmbeddedSettings(directory=directory, **settings))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def client(store: EmbeddedStore) -> redis.Redis:
    """An independent client. It repeats nothing: a write that failed must not be done by the next store."""
    return redis.Redis(unix_socket_path=str(store.socket), retry=Retry(NoBackoff(), 0))


async def refusal(directory: Path) -> str:
    """The sentence with which a store on this directory is refused."""
    store = EmbeddedStore(EmbeddedSettings(directory=directory))
    try:
        with pytest.raises(SetupError) as refused:
            await store.start()
    finally:
        await store.stop()
    return str(refused.value)


async def filled(directory: Path, count: int = 100) -> Path:
    """Let a store write `count` keys, stop it, and return the file that holds them."""
    async with running(directory) as store:
        with client(store) as redis_client:
            for number in range(count):
                redis_client.set(f"key{number}", "v" * 50)
    [file] = (directory / "appendonlydir").glob("*.incr.aof")
    return file


def contents(directory: Path) -> dict[str, bytes]:
    """The store's own files and what they hold."""
    return {file.name: file.read_bytes() for file in (directory / "appendonlydir").iterdir()}


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links = [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    return {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- starting and stopping ----------------------------------------------------------------------


async def test_it_answers_about_as_soon_as_a_store_that_is_started_by_hand(tmp_path: Path) -> None:
    """200 ms more at most, in the best of up to twenty starts of each: a busy machine delays some of them."""
    best, best_by_hand = math.inf, 0.0
    for attempt in range(20):
        began = time.monotonic()
        async with running(tmp_path / str(attempt)) as store:
            best = min(best, time.monotonic() - began)
            with client(store) as redis_client:
                assert redis_client.ping()
        began = time.monotonic()
        with rig.store("valkey"):
            best_by_hand = max(best_by_hand, time.monotonic() - began)
        if best < 2 * best_by_hand + 0.2:
            return
    pytest.fail(f"{best} s, and {best_by_hand} s by hand")


async def test_it_keeps_its_data_from_one_start_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        with client(store) as redis_client:
            redis_client.set("kept", "yes")

    async with running(tmp_path / "data") as store:
        with client(store) as redis_client:
            assert redis_client.get("kept") == b"yes"


async def test_each_write_is_on_disk_before_it_is_answered_unless_told_otherwise(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        with client(store) as redis_client:
            assert redis_client.config_get("append*")["appendfsync"] == "always"
            assert redis_client.config_get("append*")["appendonly"] == "yes"

    async with running(tmp_path / "data", fsync="everysec", maxmemory=10_000_000) as store:
        with client(store) as redis_client:
            assert redis_client.config_get("appendfsync") == {"appendfsync": "everysec"}
            assert redis_client.config_get("maxmemory*")["maxmemory"] == "10000000"
            assert redis_client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize("kind", sorted(rig.STORES))
async def test_it_cuts_nobody_who_has_much_to_read(kind: str) -> None:
    async with running(None, binary=Path(rig.STORES[kind]())) as store:
        with client(store) as redis_client:
            limits = redis_client.config_get("client-output-buffer-limit")["client-output-buffer-limit"]
    assert limits.startswith("normal 0 0 0 ")
    assert limits.endswith(" pubsub 1073741824 268435456 60")


@pytest.mark.parametrize("kind", sorted(rig.STORES))
async def test_it_searches_no_hash_of_hundreds_from_its_beginning(kind: str) -> None:
    async with running(None, binary=Path(rig.STORES[kind]())) as store:
        with client(store) as redis_client:
            redis_client.hset("leases", mapping={str(number): "a lease" for number in range(100)})
            assert redis_client.object("encoding", "leases") == b"hashtable"


async def test_in_memory_it_leaves_nothing_behind() -> None:
    async with running(None) as store:
        private = store.socket.parent
        with client(store) as redis_client:
            redis_client.set("key", "value")
            assert redis_client.config_get("appendonly") == {"appendonly": "no"}
        assert private.is_dir()

    assert not private.exists()


async def test_nothing_of_it_can_be_reached_by_other_users(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        assert store.socket.parent.stat().st_mode & 0o777 == 0o700
        assert store.socket.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def test_it_listens_on_no_tcp_port(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        assert store.pid is not None
        inodes = sockets_of(store.pid)
        tables = [Path(f"/proc/{store.pid}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
        used = {line.split()[9] for table in tables for line in table.read_text().splitlines()[1:]}

        assert inodes, "the unix socket is one of them"
        assert not inodes & used


async def test_stopping_twice_does_no_harm(tmp_path: Path) -> None:
    store = EmbeddedStore(EmbeddedSettings(directory=tmp_path / "data"))
    await store.start()
    pid = store.pid

    await store.stop()
    await store.stop()

    assert store.pid is None
    assert pid is not None
    assert not alive(pid)


async def test_stopping_while_it_is_being_started_again_leaves_no_store(tmp_path: Path) -> None:
    for moment in (0, 0.02, 0.055, 0.07):  # before, around and after the new one is launched
        store = EmbeddedStore(EmbeddedSettings(directory=tmp_path / "data"))
        await store.start()
        pid = store.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(moment)

        await store.stop()

        assert store.pid is None
        assert not store.socket.parent.exists()
    async with running(tmp_path / "data"):
        pass  # the directory is free again


async def test_a_path_of_150_characters_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 150) / ("e" * 150)

    async with running(directory) as store:
        with client(store) as redis_client:
            redis_client.set("key", "value")

    assert list((directory / "appendonlydir").glob("*.aof"))


async def test_a_path_with_quotes_and_spaces_works(tmp_path: Path) -> None:
    directory = tmp_path / "a \"strange\" 'path' \\ with ümlauts"

    await filled(directory, 1)

    assert contents(directory)


async def test_the_redis_7_of_debian_can_be_the_store(tmp_path: Path) -> None:
    binary = Path(rig.require("redis-server"))

    async with running(tmp_path / "data", binary=binary) as store:
        with client(store) as redis_client:
            assert redis_client.info()["redis_version"].startswith("7.")
            redis_client.set("kept", "yes")

    async with running(tmp_path / "data", binary=binary) as store:
        with client(store) as redis_client:
            assert redis_client.get("kept") == b"yes"


async def test_a_program_that_is_no_store_is_refused(tmp_path: Path) -> None:
    store = EmbeddedStore(EmbeddedSettings(directory=tmp_path / "data", binary=tmp_path / "missing"))

    with pytest.raises(SetupError, match="missing is not an executable file"):
        await store.start()


# --- deaths -------------------------------------------------------------------------------------


async def test_killed_it_comes_back_on_the_same_socket_with_every_acknowledged_write(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        acknowledged = 0

        def write_until_it_dies() -> None:
            nonlocal acknowledged
            with client(store) as redis_client, contextlib.suppress(redis.RedisError):
                while True:
                    redis_client.rpush("list", acknowledged)
                    acknowledged += 1

        def acknowledged_beyond(count: int) -> bool:
            return acknowledged > count

        def runs_anew(pid: int) -> bool:
            return store.pid not in (None, pid)

        for _ in range(3):
            before, pid, socket = acknowledged, store.pid, store.socket
            assert pid is not None
            writer = asyncio.create_task(asyncio.to_thread(write_until_it_dies))
            await soon(functools.partial(acknowledged_beyond, before + 50))
            os.kill(pid, signal.SIGKILL)
            await writer

            await soon(functools.partial(runs_anew, pid))
            with client(store) as redis_client:
                await soon(functools.partial(_pings, redis_client))
                found = [int(number) for number in redis_client.lrange("list", 0, -1)]
                assert store.socket == socket
                # The write that the kill cut off may be there, too; nobody was told.
                assert found[:acknowledged] == list(range(acknowledged))
                assert len(found) <= acknowledged + 1
                acknowledged = len(found)


def _pings(redis_client: redis.Redis) -> bool:
    try:
        return bool(redis_client.ping())
    except redis.RedisError:
        return False


async def test_it_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 (a few ms)
        [sys.executable, "-c", PARENT, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int((await asyncio.to_thread(parent.stdout.readline)).split()[0])
    parent.stdout.close()

    parent.kill()
    await asyncio.to_thread(parent.wait)

    await soon(lambda: not alive(pid))
    async with running(tmp_path / "data"):
        pass  # and nothing is in the way of the next one


def test_when_a_server_of_two_processes_is_killed_all_processes_go(new_data: Callable[[], str]) -> None:
    with rig.server("--data", new_data(), "--workers", "2") as server:
        children = rig.eventually(lambda: len(found := _children(server.process.pid)) == 3 and found)

        server.process.kill()
        server.process.wait()

        rig.eventually(lambda: not any(alive(pid) for pid in children))


def _children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]


@pytest.mark.parametrize("stopped", [False, True])
async def test_an_orphan_on_the_directory_is_stopped_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stopped: bool
) -> None:
    monkeypatch.setattr("presque.store.ending.WAKE_S", 0.5)
    directory, socket = tmp_path / "data", tmp_path / "s"
    directory.mkdir(mode=0o700)
    orphan = subprocess.Popen(  # noqa: ASYNC220 (a few ms)
        [rig.STORES["valkey"](), "--port", "0", "--unixsocket", str(socket), "--dir", str(directory),
         "--appendonly", "yes", "--save", ""],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with redis.Redis(unix_socket_path=str(socket)) as redis_client:
            await soon(lambda: _pings(redis_client))
            redis_client.set("written by", "the orphan")
        (directory / "store.address").write_text(f"{orphan.pid} {socket}\n")
        if stopped:
            orphan.send_signal(signal.SIGSTOP)

        async with running(directory) as store:
            assert orphan.poll() is not None
            with client(store) as redis_client:
                assert redis_client.get("written by") == b"the orphan"
    finally:
        orphan.kill()
        orphan.wait()


async def test_an_address_left_behind_by_a_store_long_gone_stops_nobody(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
    try:
        (directory / "store.address").write_text(f"{bystander.pid} {tmp_path / 'gone'}\n")

        async with running(directory):
            assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")


# --- refusals -----------------------------------------------------------------------------------


async def test_a_second_one_on_the_same_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        sentence = await asyncio.wait_for(refusal(tmp_path / "data"), rig.PATIENCE)

        assert f"another presque (pid {os.getpid()}) uses the data in {tmp_path / 'data'}" in sentence
        with client(store) as redis_client:
            assert redis_client.ping(), "the first one goes on"


def test_a_second_server_on_the_same_directory_ends_with_a_sentence(new_data: Callable[[], str]) -> None:
    data = new_data()
    with rig.server("--data", data) as server:
        second = subprocess.run(
            [sys.executable, "-m", "presque", "serve", "--port", "0", "--data", data],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert second.returncode == 1
    assert f"another presque (pid {server.process.pid}) uses the data" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
async def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)

    assert await refusal(directory) == (
        f"others may write to {directory}: `chmod go-w` it, or choose another with --data"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    os.chown(directory, NOBODY, NOBODY)

    assert await refusal(directory) == (
        f"{directory} belongs to another user; choose a directory of your own with --data"
    )


async def test_a_file_where_the_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")

    for path in (tmp_path / "data", tmp_path / "data" / "below"):
        sentence = await refusal(path)
        assert sentence.startswith(f"cannot keep data in {path}: ")
        assert sentence.endswith("; choose with --data")
    assert (tmp_path / "data").read_text() == "mine"


async def test_a_directory_that_cannot_be_made_is_refused() -> None:
    assert (await refusal(Path("/proc/presque"))).startswith("cannot keep data in /proc/presque: ")


def test_a_directory_that_cannot_be_written_to_is_refused() -> None:
    with tempfile.TemporaryDirectory() as above:  # pytest's own are closed to others
        directory = Path(above, "data")
        directory.mkdir(mode=0o500)
        if os.geteuid() == 0:
            Path(above).chmod(0o755)
            os.chown(directory, NOBODY, NOBODY)
        said = subprocess.run(
            [sys.executable, "-c", PREPARE, str(directory)], capture_output=True, text=True, check=True
        )

    assert said.stdout == f"cannot write to {directory}; choose another directory with --data\n"


async def test_a_refused_start_leaves_neither_files_nor_a_lock_behind(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o777)
    await refusal(directory)
    assert list(directory.iterdir()) == []

    directory.chmod(0o700)
    async with running(directory):
        assert json.loads((directory / "presque.lock").read_text()) == os.getpid()
