"""A disk with little room left: nothing grows, everything that frees room still works, and the store stays
up."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from presque.server import about
from presque.store.backup import running_at
from tests import rig

BODY = b'"' + b"x" * 50_000 + b'"'
GROWING = [
    ("POST", "/q/new", BODY),
    ("PUT", "/q/full", b"1"),
    ("POST", "/qb/full", b'{"jobs": [1, 2]}'),
    ("POST", "/queue", b'{"cmd": "push", "queue": "full", "job": 1}'),
    ("PATCH", "/j/full/1", b'{"body": 1}'),
    ("PUT", "/cron/every", b'{"queue": "full", "schedule": "@daily", "body": 1}'),
]


@pytest.fixture
def disk() -> Iterator[Path]:
    with rig.small_disk("32m") as directory:
        yield directory


def ballast(disk: Path, leave: int) -> Path:
    """Fill the disk with a file, but for so many bytes."""
    path = disk / "ballast"
    facts = os.statvfs(disk)
    with path.open("ab") as file:
        file.write(bytes(max(0, facts.f_bavail * facts.f_frsize - leave)))
    return path


def fill(server: rig.Server, queue: str) -> tuple[int, rig.Answer]:
    """Push until the disk is too full. Returns how many jobs were taken, and the refusal."""
    for count in range(1, 2000):
        answer = server.ask("POST", f"/q/{queue}", BODY)
        if answer.status != 201:
            return count - 1, answer
    raise AssertionError("the disk is never full")


def is_refused(server: rig.Server, method: str, path: str, body: bytes) -> bool:
    answer = server.ask(method, path, body)
    return answer.status == 507 and answer.headers.get("presque-error") == "disk-full"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_takes_no_jobs_and_everything_else_goes_on(disk: Path, workers: str) -> None:
    with rig.server("--data", str(disk / "data"), "--min-free-disk", "8MiB", "--workers", workers) as server:
        count, refusal = fill(server, "full")

        assert count > 200
        assert refusal.status == 507
        assert refusal.headers["presque-error"] == "disk-full"
        assert refusal.json["error"].startswith("the disk is nearly full (")
        assert "`min_free_disk` is 8 MiB" in refusal.json["error"]
        facts = os.statvfs(disk)
        assert facts.f_bavail * facts.f_frsize > 6 * 2**20, "the limit was not overrun by much"
        for method, path, body in GROWING:  # each server process looks once a second
            rig.eventually(functools.partial(is_refused, server, method, path, body))

        rig.eventually(lambda: server.ask("GET", "/stats/").json["disk"]["full"])
        assert server.ask("PATCH", "/j/full/1", '{"priority": 9}').status == 200
        [job] = server.ask("POST", "/q/full/lease").json["jobs"]
        assert server.ask("POST", f"/j/full/{job['id']}/extend?lease={job['lease']}").status == 200
        failed = server.ask("POST", f"/j/full/{job['id']}/fail?lease={job['lease']}", '{"retry": false}')
        assert failed.json["state"] == "dead"
        assert server.ask("DELETE", f"/j/full/{job['id']}").status == 204
        assert server.ask("POST", "/control/full", '{"status": "stop"}').status == 200
        assert server.ask("POST", "/control/full", '{"status": "start"}').status == 200
        drained = 0
        while server.ask("GET", "/q/full").status == 200:
            drained += 1
        assert drained >= count - 1
        assert "store.died" not in server.said()


def test_room_that_is_made_is_noticed_and_told_once_each_way(disk: Path) -> None:
    with rig.server("--data", str(disk / "data"), "--min-free-disk", "8MiB") as server:
        assert server.ask("POST", "/q/a", "1").status == 201
        path = ballast(disk, leave=4 * 2**20)
        rig.eventually(lambda: server.ask("POST", "/q/a", "1").status == 507)

        os.truncate(path, path.stat().st_size - 4 * 2**20 - 2**19)
        rig.eventually(lambda: server.ask("GET", "/stats/").json["disk"]["free"] > 8 * 2**20)
        assert server.ask("POST", "/q/a", "1").status == 507, "just above the limit is not enough"

        path.unlink()
        rig.eventually(lambda: server.ask("POST", "/q/a", "1").status == 201)
        rig.eventually(lambda: any("disk.enough" in line for line in server.everything))
        assert sum("disk.low" in line for line in server.everything) == 1
        assert sum("disk.enough" in line for line in server.everything) == 1


def test_a_log_of_jobs_that_are_gone_is_written_anew_when_room_is_short(disk: Path) -> None:
    with rig.server("--data", str(disk / "data"), "--min-free-disk", "8MiB") as server:
        fill(server, "full")
        assert server.ask("DELETE", "/q/full").status == 204

        rig.eventually(lambda: server.ask("POST", "/q/full", BODY).status == 201)
        assert "store.died" not in server.said()


def test_a_disk_that_takes_no_more_files_is_told_and_the_store_does_not_try_again_and_again() -> None:
    with (
        rig.small_disk("400m", files=40) as disk,
        rig.server("--data", str(disk / "data"), "--log-level", "info") as server,
    ):
        assert server.ask("POST", "/q/a", "1").status == 201
        fillers: list[Path] = []
        with contextlib.suppress(OSError):
            while True:
                fillers.append(disk / f"filler{len(fillers)}")
                fillers[-1].touch()
        rig.eventually(lambda: any("disk.no_files" in line for line in server.everything))

        jobs = json.dumps({"jobs": ["x" * 900] * 1000})
        for _ in range(90):  # more than the 64 MB after which the store would write its log anew
            assert server.ask("POST", "/qb/big", jobs).status == 201
            assert server.ask("DELETE", "/q/big").status in (200, 204)
        assert server.ask("POST", "/q/a", "2").status == 201
        store_log = (disk / "data" / "store.log").read_text()
        assert "rewriting" not in store_log

        for path in fillers:
            path.unlink(missing_ok=True)
        rig.eventually(lambda: any("disk.files_again" in line for line in server.everything))
        rig.eventually(lambda: "rewriting" in (disk / "data" / "store.log").read_text())
        assert server.ask("GET", "/status/a").json["size"] == 2


def test_a_start_on_a_full_disk_says_so(disk: Path) -> None:
    ballast(disk, leave=4 * 2**20)
    with rig.server("--data", str(disk / "data"), "--min-free-disk", "8MiB") as server:
        assert server.ask("POST", "/q/a", "1").status == 507
        said = "".join(server.everything)
        assert "PUSHES ARE REFUSED" in said


def test_without_a_limit_pushes_go_on(disk: Path) -> None:
    ballast(disk, leave=4 * 2**20)
    with rig.server("--data", str(disk / "data"), "--min-free-disk", "0") as server:
        assert server.ask("POST", "/q/a", "1").status == 201
        assert server.ask("GET", "/stats/").json["disk"]["full"] is False


def test_a_store_that_dies_of_a_full_disk_says_why_and_comes_back(disk: Path) -> None:
    with rig.server("--data", str(disk / "data"), "--min-free-disk", "0") as server:
        for number in range(20):
            assert server.ask("POST", "/q/kept", str(number)).status == 201
        path = ballast(disk, leave=0)
        rig.eventually(lambda: server.ask("POST", "/q/a", BODY).status == 503)
        rig.eventually(lambda: any("store.died" in line for line in server.everything))
        died = next(line for line in server.everything if "store.died" in line)
        assert "is full" in died or "No space left on device" in died, died

        path.unlink()

        rig.eventually(lambda: server.ask("POST", "/q/a", "1").status == 201)
        found = [server.ask("GET", "/q/kept").body for _ in range(20)]
        assert found == [b"%d" % number for number in range(20)]


def test_a_store_that_dies_while_it_rewrites_its_log_leaves_none_of_it_on_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with rig.server("--data", str(data)) as server:
        for number in range(30):
            assert server.ask("POST", f"/q/q{number}", BODY).status == 201
        socket = running_at(data)
        assert socket is not None
        with redis.Redis(unix_socket_path=str(socket)) as client:
            client.config_set("rdb-key-save-delay", 200_000)  # microseconds for each key
            client.bgrewriteaof()
        rig.eventually(lambda: list(data.glob("temp-rewriteaof-*")))
        os.kill(int((data / "store.address").read_text().split()[0]), signal.SIGKILL)
        rig.eventually(lambda: any("store.died" in line for line in server.everything))

        rig.eventually(lambda: not list(data.glob("temp-*")))
        rig.eventually(lambda: server.ask("POST", "/q/q0", "1").status == 201)
        assert server.ask("GET", "/q/q29").body == BODY
        assert not list(data.glob("appendonlydir/temp-*"))


def test_data_that_is_removed_while_presque_runs_is_never_taken_for_an_empty_store(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with rig.server("--data", str(data)) as server:
        assert server.ask("POST", "/q/a", "1").status == 201
        store = int((data / "store.address").read_text().split()[0])
        shutil.rmtree(data / "appendonlydir")
        (data / "presque.json").unlink(missing_ok=True)
        rig.eventually(lambda: any("store.data_removed" in line for line in server.everything))
        assert server.ask("GET", "/status/a").json["size"] == 1, "it can still be saved"

        os.kill(store, signal.SIGKILL)

        rig.eventually(lambda: any("somebody has removed it" in line for line in server.everything))
        assert server.ask("POST", "/q/a", "2").status == 503


def test_two_never_share_the_data_even_if_the_lock_file_is_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with rig.server("--data", str(data)) as server:
        assert server.ask("POST", "/q/a", "1").status == 201
        (data / "presque.lock").unlink()
        done = subprocess.run(
            [sys.executable, "-m", "presque", "serve", "--port", "0", "--data", str(data)],
            capture_output=True, text=True, timeout=rig.PATIENCE, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode == 1
        assert "another presque" in done.stderr
        assert server.ask("GET", "/q/a").body == b"1"
        assert "store.died" not in server.said()


def test_a_store_that_may_write_no_larger_file_says_why_it_died(tmp_path: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1)); "
    program = ("-c", limited + "from presque.cli.main import main; main()")
    with rig.server("--data", str(tmp_path / "data"), program=program) as server:
        assert server.ask("POST", "/q/kept", "1").status == 201
        rig.eventually(lambda: server.ask("POST", "/q/a", BODY).status == 503)
        rig.eventually(lambda: any("store.died" in line for line in server.everything))
        died = next(line for line in server.everything if "store.died" in line)
        assert "a limit on the size of files was reached" in died
    with rig.server("--data", str(tmp_path / "data")) as server:
        assert server.ask("GET", "/q/kept").body == b"1"


@pytest.mark.parametrize("where", [">/dev/full 2>&1", ">&- 2>&-", "2>&1 | true"])
@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_log_that_nobody_can_write_keeps_no_server_from_its_work(where: str, log_format: str) -> None:
    door = rig.Door()
    door.port = rig.free_port()
    command = f"exec {sys.executable} -m presque serve --memory --port {door.port} --log-format {log_format}"
    shell = f"{command} {where}" if "|" not in where else f"({command} {where.replace('|', ') |')}"
    process = subprocess.Popen(["sh", "-c", shell], start_new_session=True)
    try:
        rig.eventually(lambda: answers(door, "/livez"))
        assert door.ask("POST", "/q/a", "1").status == 201
        assert door.ask("GET", "/no/such/route").status == 404  # which is logged
        assert door.ask("GET", "/q/a").body == b"1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(rig.PATIENCE)
    if "|" not in where:
        assert process.returncode == 0


def answers(door: rig.Door, path: str) -> bool:
    try:
        return door.ask("GET", path).status == 200
    except OSError:
        return False


def test_the_jobs_that_a_start_found_are_told(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with rig.server("--data", data) as server:
        assert server.ask("GET", "/stats/").json["found_at_start"] == {"jobs": 0, "queues": 0}
        for number in range(12):
            server.ask("POST", f"/q/queue{number % 3}", "1")
    with rig.server("--data", data) as server:
        assert server.ask("GET", "/stats/").json["found_at_start"] == {"jobs": 12, "queues": 3}
        said = "".join(server.everything)
        assert "Found: 12 jobs in 3 queues. Free disk: " in said
        assert "Settings: no file was read" in said


def test_the_lines_to_try_of_the_first_screen_work(tmp_path: Path) -> None:
    with rig.server("--data", str(tmp_path / "data")) as server:
        rig.eventually(lambda: any("/stats/" in line for line in server.everything))
        lines = [line.strip() for line in server.everything if line.startswith("  ")]
        assert len(lines) == 4
        done = subprocess.run(lines[0], shell=True, capture_output=True, text=True, check=False, cwd="/")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
        if shutil.which("curl"):
            for line, status in zip(lines[1:], (201, 200, 200), strict=True):
                command = f"{line} -s -o /dev/null -w '%{{http_code}}'"
                done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
                assert done.stdout == str(status), line


@pytest.mark.parametrize(
    ("called", "found", "expected"),
    [
        ("/opt/presque/bin/presque", "/opt/presque/bin/presque", "presque"),
        (".venv/bin/presque", None, ".venv/bin/presque"),
        ("a b/bin/presque", "/usr/bin/presque", "'a b/bin/presque'"),
        ("/x/presque/__main__.py", None, f"{sys.executable} -m presque"),
    ],
)
def test_the_command_to_copy_is_the_one_that_was_called(
    monkeypatch: pytest.MonkeyPatch, called: str, found: str | None, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "serve"])
    monkeypatch.setattr(shutil, "which", lambda _name: found)
    assert about.command() == expected


def test_a_json_log_is_json_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("port: 0\nlog_format: json\n")
    with rig.json_server("--data", str(tmp_path / "data"), "--config", str(path)) as server:
        assert server.ask("POST", "/q/a", "1").status == 201
        server.stop()
    lines = [json.loads(line) for line in server.everything]
    [started] = [line for line in lines if line["event"] == "server.started"]
    assert started["url"].startswith("http://127.0.0.1:")
    assert (started["jobs"], started["queues"]) == (0, 0)
    assert started["disk_free"] > 0
    assert started["settings"] == str(path)
    assert lines[-1]["event"] == "server.stopped"
