"""doctor connects and looks, says what is wrong in plain sentences, and exits with 1 then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from presque import Client
from tests import rig


def doctor(*arguments: str, **environ: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by name."""
    done = subprocess.run(
        [sys.executable, "-m", "presque", "doctor", "--json", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environ},
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)}


def settings(directory: Path, text: str) -> str:
    path = directory / "settings.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", sorted(rig.STORES))
def test_a_store_that_is_well_is_ok(kind: str, tmp_path: Path) -> None:
    with rig.store(kind, "--appendonly", "yes", "--appendfsync", "always") as store:
        code, found = doctor("--config", settings(tmp_path, f"redis: {store.url}"))
    for check in ("store", "eviction", "persistence", "memory", "clock"):
        assert found[check]["result"] == "ok", found[check]
    assert found["server"]["result"] == "warn", "it was not asked for by name"
    assert code == 0


def test_a_store_that_is_not_there_fails(tmp_path: Path) -> None:
    code, found = doctor("--config", settings(tmp_path, "redis: redis://127.0.0.1:1"))
    assert code == 1
    assert found["store"]["result"] == "fail"
    assert found["store"]["todo"].startswith("no store at redis://127.0.0.1:1/0: ")


@pytest.mark.parametrize("kind", sorted(rig.STORES))
def test_a_wrong_password_fails(kind: str, tmp_path: Path) -> None:
    with rig.store(kind) as store:
        with store.client() as client:
            client.config_set("requirepass", "s3cret")
        for text in (f"redis: {{unix: {store.socket}, password: wrong}}", f"redis: {store.url}"):
            code, found = doctor("--config", settings(tmp_path, text))
            assert code == 1
            assert found["store"]["todo"].endswith("check user and password")
        good = f"redis: {{unix: {store.socket}, password: s3cret}}"
        assert doctor("--config", settings(tmp_path, good))[0] == 0


def test_what_a_store_is_set_up_wrong_with_is_said(tmp_path: Path) -> None:
    with rig.store("valkey", "--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru") as store:
        with store.client() as client:
            client.config_set("maxmemory", int(client.info()["used_memory"] * 1.1))
        code, found = doctor("--config", settings(tmp_path, f"redis: {store.url}"))
    assert code == 1
    assert (found["eviction"]["result"], found["eviction"]["seen"]) == ("fail", "allkeys-lru")
    assert found["persistence"]["result"] == "warn"
    assert found["memory"]["result"] in ("warn", "fail")


def test_a_store_whose_clock_is_wrong_is_noticed(tmp_path: Path) -> None:
    faketime = rig.require("faketime")
    socket = tmp_path / "s"
    process = subprocess.Popen(
        [faketime, "-f", "+90s", rig.STORES["valkey"](), "--port", "0", "--unixsocket", str(socket),
         "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            rig.eventually(lambda: rig._answers(client))
        _, found = doctor("--config", settings(tmp_path, f"redis: unix://{socket}"))
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # `faketime` runs the store as a child of its own
        process.wait(rig.PATIENCE)
    assert found["clock"]["result"] == "warn"
    assert "ahead of this machine" in found["clock"]["seen"]


def test_a_server_that_runs_is_looked_into(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with rig.server("--data", data) as server:
        code, found = doctor("--url", server.url, PRESQUE_DATA=data)
    assert code == 0
    for check in ("data", "disk", "store", "persistence", "server"):
        assert found[check]["result"] == "ok", found[check]
    assert "free where the data is, min_free_disk is 256 MiB" in found["disk"]["seen"]


def test_the_server_is_looked_for_where_the_settings_have_it(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with rig.server("--data", data) as server:
        _, found = doctor("--config", settings(tmp_path, f"port: {server.port}\ndata: {data}"))
        assert found["server"]["result"] == "ok"
        _, found = doctor("--config", settings(tmp_path, f"port: 1\ndata: {data}"))
        assert found["server"]["result"] == "warn"
        assert "127.0.0.1:1" in found["server"]["seen"]


def test_incomplete_data_and_a_full_disk_fail(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with rig.server("--data", str(data)):
        pass
    (data / "appendonlydir" / "appendonly.aof.manifest").unlink()
    code, found = doctor(PRESQUE_DATA=str(data), PRESQUE_MIN_FREE_DISK="900TiB")
    assert code == 1
    assert "is incomplete" in found["data"]["todo"]
    assert found["disk"]["result"] == "fail"


def test_a_server_that_refuses_pushes_fails(tmp_path: Path) -> None:
    with rig.server("--data", str(tmp_path / "data"), "--min-free-disk", "900TiB") as server:
        code, found = doctor("--url", server.url, PRESQUE_MEMORY="yes")
    assert code == 1
    assert "its disk is nearly full" in found["server"]["todo"]


def test_a_certificate_is_looked_at(tmp_path: Path) -> None:
    good = rig.certificate(tmp_path, "good", "DNS:localhost")
    stale = rig.certificate(tmp_path, "stale", "DNS:localhost", expired=True)
    other = rig.certificate(tmp_path, "other", "DNS:queue.example")

    def found(text: str) -> tuple[str, str, str]:
        _, all_of_them = doctor("--config", settings(tmp_path, f"memory: true\ntls: {{{text}}}"))
        row = all_of_them["certificate"]
        return row["result"], row["seen"], row["todo"]

    result, seen, todo = found(f"cert: {good}")  # for two days
    assert (result, seen.startswith("for localhost, until 20")) == ("warn", True)
    assert todo == "renew it; presque reads the new one by itself"
    assert found(f"cert: {stale}")[0::2] == ("fail", "renew it")
    assert found(f"cert: {good}.cert, key: {other}.key")[0] == "fail"
    assert (
        found(f"cert: {other}")[2]
        == "presque does not answer to the host queue.example: add it with --allow-host"
    )
    good.chmod(0o644)
    assert found(f"cert: {good}")[2] == f"every user here may read the key: chmod o-r {good}"


def test_queues_workers_and_recurring_jobs_in_trouble_are_named(tmp_path: Path) -> None:
    with rig.server("--memory", "--test-clock") as server, Client(server.url) as client:
        client.push("late", 1)
        client.push("held", 1)
        client.stop("held")
        report = json.dumps({"queues": ["late"], "state": "idle"})
        server.ask("PUT", "/w/", report, X_presque_workerid="w1")
        server.ask("POST", "/clock", json.dumps({"advance": 60}))
        code, found = doctor("--url", server.url, PRESQUE_MEMORY="yes")
        done = subprocess.run(
            [sys.executable, "-m", "presque", "doctor", "--url", server.url],
            capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PRESQUE_MEMORY": "yes"},
        )  # fmt: skip
    assert code == 0  # nothing of the installation must be mended
    assert "late: no worker, 1 ready, the oldest for 1m" in done.stdout
    assert "start a worker, or see why none asks for it: presque workers" in done.stdout
    assert "held: stopped, 1 ready" in done.stdout
    assert "`presque start held`, unless somebody stopped it on purpose" in done.stdout
    assert found["workers"]["seen"] == "not heard from for 20 s or more: w1"
    assert found["durability"]["result"] == "warn"
    assert found["recurring"]["result"] == "ok"
    assert found["tokens"]["seen"] == "none; it is reached from this machine"


def test_the_last_of_many_queues_is_looked_at() -> None:
    with rig.server("--memory") as server, Client(server.url) as client:
        for first in range(0, 1100, 100):
            names = [f"q{number:04}" for number in range(first, first + 100)]
            pushes = [{"cmd": "push", "queue": name, "job": 1, "delay": 600} for name in names]
            assert server.ask("POST", "/queue", json.dumps(pushes)).status == 200
        client.push("zoo", 1)
        client.stop("zoo")
        _, found = doctor("--url", server.url, PRESQUE_MEMORY="yes")

    assert found["queue"]["seen"].startswith("zoo: stopped, 1 ready")


def test_a_server_that_is_well_is_ok(tmp_path: Path) -> None:
    with rig.server("--data", str(tmp_path / "data")) as server:
        code, found = doctor("--url", server.url, PRESQUE_DATA=str(tmp_path / "data"))
    assert code == 0
    for check in ("server", "durability", "tokens", "queues", "workers", "recurring", "data"):
        assert found[check]["result"] == "ok", found[check]


def test_a_data_directory_that_others_may_write_to_fails(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    code, found = doctor(PRESQUE_DATA=str(data))
    assert code == 1
    assert found["data"]["todo"].startswith(f"others may write to {data}: `chmod go-w` it")
