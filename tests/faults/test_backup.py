"""Backups of a running server, and their way back, killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from presque import exits
from presque.store.backup import running_at
from tests import rig
from tests.doors.tokens import Guarded, guarded
from tests.screens import screen

# A command of presque that gets a signal at its nth act that changes a disk.
KILLED = """
import os, pathlib, shutil, signal, sys

left, number = int(sys.argv.pop(1)), getattr(signal, sys.argv.pop(1))

def counted(act):
    def count(*args, **options):
        global left
        left -= 1
        if left == -1:
            os.kill(os.getpid(), number)
        return act(*args, **options)
    return count

os.fsync = counted(os.fsync)
pathlib.Path.rename = counted(pathlib.Path.rename)
pathlib.Path.replace = counted(pathlib.Path.replace)
pathlib.Path.mkdir = counted(pathlib.Path.mkdir)
shutil.rmtree = counted(shutil.rmtree)
from presque.cli.main import main
main()
"""

Result = subprocess.CompletedProcess[str]


def presque(*arguments: str | Path, killed_at: int | None = None, signal_name: str = "SIGKILL") -> Result:
    program = ["-m", "presque"] if killed_at is None else ["-c", KILLED, str(killed_at), signal_name]
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip


def refused_start(data: Path) -> str:
    done = presque("serve", "--port", "0", "--data", data)
    assert done.returncode == 1, done
    return done.stderr


def test_a_backup_of_a_running_server_comes_back_with_every_job_answered_before(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)) as server:
        for number in range(50):
            assert server.ask("POST", f"/q/q{number % 2}", str(number)).status == 201
        stop = threading.Event()

        def push() -> None:
            while not stop.is_set():
                server.ask("POST", "/q/busy", "1")

        pusher = threading.Thread(target=push)
        pusher.start()
        try:
            done = presque("backup", backup, "--data", data)
        finally:
            stop.set()
            pusher.join(rig.PATIENCE)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{backup} holds ")
        assert server.ask("POST", "/q/q0", '"after"').status == 201
        assert "another presque" in presque("restore", backup, "--data", data, "--replace").stderr

    assert [path for path in backup.rglob("*") if path.stat().st_mode & 0o077] == []
    done = presque("restore", backup, "--data", data)
    assert done.returncode == exits.CONFLICT
    assert "holds data already; pass --replace" in done.stderr
    done = presque("restore", backup, "--data", data, "--replace")
    assert done.returncode == 0, done.stderr
    [aside] = data.glob("replaced-*")
    assert f"what was there before is in {aside}" in done.stdout
    for directory in (data, tmp_path / "elsewhere"):
        if not directory.exists():
            assert presque("restore", backup, "--data", directory).returncode == 0
        with rig.server("--data", str(directory)) as server:
            found = [int(server.ask("GET", f"/q/q{number % 2}").body) for number in range(50)]
            assert found == list(range(50))
            assert server.ask("GET", "/q/q0").status == 404
            assert json.loads(server.ask("POST", "/q/q0", "1").body)["id"] == "26", "ids go on"


def test_a_server_that_does_not_run_can_be_backed_up(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with rig.server("--data", str(data)) as server:
        server.ask("POST", "/q/a", "1")
    done = presque("backup", tmp_path / "backup", "--data", data)
    assert (done.returncode, done.stdout) == (
        0, f"{tmp_path / 'backup'} holds 1 job in 1 queue (0 MiB), checked\n"
    )  # fmt: skip
    assert not list(data.glob("store.address"))


def test_namespaces_come_back_with_their_tokens_and_quotas(tmp_path: Path) -> None:
    with guarded(tmp_path) as before:
        before.ask(before.admin, "POST", "/q/mail", 1)
        quotas = {"jobs": 3, "queues": 2}
        for name in "acme", "idle":
            before.ask(before.admin, "POST", "/namespaces", {"namespace": name, "quotas": quotas})
        tenant = before.make("*:*", namespace="acme")
        for queue in "mail", "news":
            assert before.ask(tenant, "POST", f"/q/{queue}", 2).status == 201
        backup = tmp_path / "backup"
        done = presque("backup", backup, "--data", tmp_path / "presque")
        assert done.stdout == f"{backup} holds 3 jobs in 3 queues (0 MiB), checked\n"
    data = tmp_path / "restored"
    assert presque("restore", backup, "--data", data).stdout.startswith(f"{data} holds 3 jobs in 3 queues,")
    with rig.server("--data", str(data)) as server:
        after = Guarded(server, before.admin)
        assert after.ask(tenant, "GET", "/status/").json["queues"] == ["mail", "news"]
        assert after.ask(after.admin, "GET", "/status/").json["queues"] == ["mail"]
        assert after.ask(tenant, "POST", "/q/other", 3).headers["presque-error"] == "quota-queues"
        assert after.ask(tenant, "POST", "/q/mail", 3).status == 201
        assert after.ask(tenant, "POST", "/q/mail", 4).headers["presque-error"] == "quota-jobs"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--data", "nowhere"], exits.NOT_FOUND, "there is no data in"),
        (["--config", "redis.yaml"], exits.USAGE, "is your own: back it up with its own tools"),
        (["--config", "memory.yaml"], exits.USAGE, "a store in memory keeps no data"),
    ],
)
def test_what_cannot_be_backed_up_is_said(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "redis.yaml").write_text("redis: redis://127.0.0.1:1\n")
    (tmp_path / "memory.yaml").write_text("memory: true\n")
    named = [str(tmp_path / one) if not one.startswith("--") else one for one in arguments]
    done = presque("backup", tmp_path / "backup", *named)
    assert done.returncode == code
    assert sentence in done.stderr
    assert not (tmp_path / "backup").exists()


def test_a_backup_goes_nowhere_where_something_is(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)):
        target.mkdir()
        (target / "mine").write_text("mine")
        assert "is not empty" in presque("backup", target, "--data", data).stderr
        (target / "mine").unlink()
        assert presque("backup", target, "--data", data).returncode == 0
        assert "is not empty" in presque("backup", target, "--data", data).stderr


def test_of_several_backups_into_one_directory_one_is_whole_and_the_others_are_refused(
    tmp_path: Path,
) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    (tmp_path / ".backup.partial" / "appendonlydir").mkdir(parents=True)  # as a killed one leaves it
    with rig.server("--data", str(data)) as server:
        for number in range(20):
            server.ask("POST", f"/q/q{number}", b'"' + os.urandom(250_000).hex().encode() + b'"')
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: presque("backup", target, "--data", data), range(4)))
    assert sorted(one.returncode for one in done) == [0, *[exits.CONFLICT] * 3], done
    assert presque("restore", target, "--data", tmp_path / "fresh").returncode == 0
    assert not (tmp_path / ".backup.partial").exists()


@pytest.mark.parametrize("harm", ["altered", "cut", "page", "no page", "later"])
def test_a_damaged_backup_is_not_restored(tmp_path: Path, harm: str) -> None:
    data, backup, fresh = tmp_path / "data", tmp_path / "backup", tmp_path / "fresh"
    with rig.server("--data", str(data)) as server:
        server.ask("POST", "/q/a", "1")
        assert presque("backup", backup, "--data", data).returncode == 0
    base, page = backup / "appendonlydir" / "appendonly.aof.1.base.rdb", backup / "backup.json"
    content = base.read_bytes()
    if harm == "altered":
        base.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif harm == "cut":
        os.truncate(base, len(content) - 1)
    elif harm == "page":
        page.write_text("{}")
    elif harm == "no page":
        page.unlink()
    else:
        page.write_text(json.dumps({**json.loads(page.read_text()), "layout": 99}))

    done = presque("restore", backup, "--data", fresh)

    assert done.returncode == 1
    assert {"no page": "is not a backup", "later": "a later presque"}.get(harm, "is damaged") in done.stderr
    assert not fresh.exists() or not (fresh / "appendonlydir").exists()


@pytest.mark.parametrize("harm", ["altered", "cut", "gone"])
@pytest.mark.parametrize("name", ["appendonlydir/appendonly.aof.manifest", "presque.json"])
def test_what_has_no_checksum_in_a_backup_is_not_needed(tmp_path: Path, name: str, harm: str) -> None:
    data, backup, fresh = tmp_path / "data", tmp_path / "backup", tmp_path / "fresh"
    with rig.server("--data", str(data)) as server:
        server.ask("POST", "/q/a", "1")
        assert presque("backup", backup, "--data", data).returncode == 0
    file = backup / name
    if harm == "altered":
        file.write_bytes(file.read_bytes().replace(b"base", b"X"))
    elif harm == "cut":
        os.truncate(file, 10)
    else:
        file.unlink()

    assert presque("restore", backup, "--data", fresh).returncode == 0

    with rig.server("--data", str(fresh)) as server:
        assert server.ask("GET", "/q/a").body == b"1"


def killed_until_done(command: Callable[[int], Result], look: Callable[[], None]) -> int:
    """Run a command again and again, killed one act later each time, until it is not killed any more."""
    for at in range(100):
        done = command(at)
        if done.returncode != -signal.SIGKILL:
            if "holds data already" in done.stderr:  # the kill before came after the last act that matters
                return at
            assert done.returncode == 0, done.stderr
            return at
        look()
    raise AssertionError("it never ends")


def test_a_backup_that_is_killed_leaves_no_half_of_one(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)) as server:
        server.ask("POST", "/q/a", "1")

        def look() -> None:
            if backup.exists():  # all but the last fsync was done
                fresh = tmp_path / "fresh"
                assert presque("restore", backup, "--data", fresh, "--replace").returncode == 0
                backup.rename(tmp_path / f"whole{len(list(tmp_path.iterdir()))}")

        acts = killed_until_done(lambda at: presque("backup", backup, "--data", data, killed_at=at), look)
        assert acts > 8
        assert presque("restore", backup, "--data", tmp_path / "last").returncode == 0


def test_ctrl_c_ends_a_backup_at_once_however_slow_the_store_is(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)) as server:
        server.ask("POST", "/q/a", "1")
        socket = running_at(data)
        assert socket is not None
        with redis.Redis(unix_socket_path=str(socket)) as client:
            client.config_set("rdb-key-save-delay", 2_000_000)  # microseconds for each key
            with screen("backup", str(backup), "--data", str(data), columns=200) as shown:
                rig.eventually((tmp_path / ".backup.partial" / "appendonlydir").exists)
                began = time.monotonic()
                shown.type("\x03")
                assert shown.ends() == exits.INTERRUPTED
                took, whole = time.monotonic() - began, 2.0 * client.dbsize()
                assert "no backup was made; run it again" in " ".join(shown.text.split())
            client.config_set("rdb-key-save-delay", 0)

    assert took < whole
    assert not backup.exists()
    assert not (tmp_path / ".backup.partial").exists()


@pytest.mark.parametrize("replace", [False, True])
def test_a_restore_that_is_killed_is_refused_until_it_was_done_again(tmp_path: Path, replace: bool) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)) as server:
        for number in range(10):
            server.ask("POST", "/q/a", str(number))
        assert presque("backup", backup, "--data", data).returncode == 0
    target = tmp_path / "target"
    if replace:
        with rig.server("--data", str(target)) as server:
            server.ask("POST", "/q/old", "1")
    flags = ["--replace"] if replace else []
    outcomes: list[str] = []

    def look() -> None:
        interrupted = (target / "restoring").exists()
        if interrupted:
            assert "run `presque restore` again" in refused_start(target)
        outcomes.append("refused" if interrupted else "untouched or done")

    killed_until_done(lambda at: presque("restore", backup, "--data", target, *flags, killed_at=at), look)

    assert outcomes.count("refused") > 5
    with rig.server("--data", str(target)) as server:
        assert [server.ask("GET", "/q/a").body for _ in range(10)] == [b"%d" % number for number in range(10)]
        assert server.ask("GET", "/q/old").status == 404
    if replace:
        olds = [path for path in target.glob("replaced-*") if b"old" in _content(path)]
        assert olds, "the data of before is kept"


@pytest.mark.parametrize("replace", [False, True])
def test_a_restore_that_finds_no_room_leaves_everything_as_it_was(tmp_path: Path, replace: bool) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)) as server:
        for _ in range(40):
            server.ask("POST", "/q/a", b'"' + os.urandom(250_000).hex().encode() + b'"')
        assert presque("backup", backup, "--data", data).returncode == 0
    with rig.small_disk("12m") as disk:
        target = disk / "target"
        if replace:
            with rig.server("--data", str(target), "--min-free-disk", "1MiB") as server:
                assert server.ask("POST", "/q/old", "1").status == 201
        free = os.statvfs(disk).f_bavail

        done = presque("restore", backup, "--data", target, *(["--replace"] if replace else []))

        assert done.returncode == 1
        assert f"cannot restore into {target}: no space left on device; nothing was changed" in done.stderr
        assert os.statvfs(disk).f_bavail >= free - 2, "what was copied takes no room"
        with rig.server("--data", str(target), "--min-free-disk", "1MiB") as server:
            assert server.ask("GET", "/q/old").status == (200 if replace else 404)


def test_ctrl_c_ends_a_restore_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    data, backup, target = tmp_path / "data", tmp_path / "backup", tmp_path / "target"
    with rig.server("--data", str(data)) as server:
        server.ask("POST", "/q/a", "1")
        assert presque("backup", backup, "--data", data).returncode == 0
    with rig.server("--data", str(target)) as server:
        server.ask("POST", "/q/old", "1")
    before = _content(target / "appendonlydir")
    unchanged = unfinished = 0
    restore = ["restore", str(backup), "--data", str(target), "--replace"]

    for at in range(100):
        done = presque(*restore, killed_at=at, signal_name="SIGINT")
        if done.returncode == 0:
            break
        assert done.returncode == exits.INTERRUPTED, done.stderr
        assert "Traceback" not in done.stderr
        if "nothing was changed" in done.stderr:
            assert _content(target / "appendonlydir") == before
            unchanged += 1
        elif "holds the backup" in done.stderr:
            assert presque("restore", backup, "--data", target).returncode == exits.CONFLICT
            before = _content(target / "appendonlydir")
        else:
            assert "run it again before you start presque" in done.stderr
            assert "run `presque restore` again" in refused_start(target)
            unfinished += 1
            assert presque(*restore).returncode == 0
            before = _content(target / "appendonlydir")
    assert unchanged > 3
    assert unfinished > 3
    with rig.server("--data", str(target)) as server:
        assert server.ask("GET", "/q/a").body == b"1"


def _content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_store_that_dies_in_the_midst_of_a_backup_leaves_none(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with rig.server("--data", str(data)) as server:
        for _ in range(20):
            server.ask("POST", "/q/a", b'"' + os.urandom(250_000).hex().encode() + b'"')
        pid = int((data / "store.address").read_text().split()[0])
        process = subprocess.Popen(
            [sys.executable, "-m", "presque", "backup", str(backup), "--data", str(data)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        rig.eventually(lambda: _content(tmp_path / ".backup.partial") or process.poll() is not None, 20)
        os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        if process.returncode == 0:  # the store was quicker than the kill
            assert presque("restore", backup, "--data", tmp_path / "fresh").returncode == 0
        else:
            assert "Traceback" not in said
            assert not backup.exists()
        rig.eventually(lambda: server.ask("GET", "/q/a").status == 200)


def test_a_backup_is_the_data_of_a_store_of_ones_own(tmp_path: Path) -> None:
    """The guide to move to a store of your own, step by step."""
    data, backup, own = tmp_path / "data", tmp_path / "backup", tmp_path / "own"
    with rig.server("--data", str(data)) as server:
        for number in range(20):
            server.ask("POST", "/q/a", str(number))
        assert presque("backup", backup, "--data", data).returncode == 0
    own.mkdir()
    subprocess.run(["cp", "-r", str(backup / "appendonlydir"), str(own)], check=True)
    socket = tmp_path / "s"
    store = subprocess.Popen(
        [rig.STORES["valkey"](), "--port", "0", "--unixsocket", str(socket), "--dir", str(own),
         "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            rig.eventually(lambda: rig._answers(client))
        with rig.server("--redis", f"unix://{socket}") as server:
            assert server.ask("GET", "/stats/").json["found_at_start"] == {"jobs": 20, "queues": 1}
            assert [server.ask("GET", "/q/a").body for _ in range(20)] == [b"%d" % n for n in range(20)]
    finally:
        store.kill()
        store.wait()
