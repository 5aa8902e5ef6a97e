"""What was answered with 201 is found again, whatever is killed, stopped or started anew."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests import rig
from tests.doors.tokens import first_token
from tests.faults.load import Load, store_of
from tests.faults.proxy import proxy

KILLS = int(os.environ.get("TEST_KILLS", "3"))
"""More of them make the same tests long."""


@pytest.mark.parametrize("fetchers", [0, 4])
def test_killing_the_store_under_load_loses_no_acknowledged_job_and_doubles_none(
    new_data: Callable[[], str], fetchers: int
) -> None:
    with rig.server("--data", new_data(), "--fsync", "always") as server:
        with Load(server, writers=8, fetchers=fetchers) as load:
            for _ in range(KILLS):
                load.more_acknowledged(300)
                os.kill(store_of(server), signal.SIGKILL)
            load.more_acknowledged(300)
        load.check()
        assert set(load.statuses) <= {200, 201, 404, 503}


def test_killing_the_server_under_load_loses_no_acknowledged_job(new_data: Callable[[], str]) -> None:
    data = new_data()
    with rig.server("--data", data) as server, Load(server) as load:
        load.more_acknowledged(500)
        store = store_of(server)
        server.process.kill()
        server.process.wait()
        load._over.set()
    rig.eventually(lambda: not Path(f"/proc/{store}").exists())

    with rig.server("--data", data) as server:
        load.server = server
        load.check()


def test_killing_one_process_of_a_fleet_loses_no_acknowledged_job(new_data: Callable[[], str]) -> None:
    with rig.server("--data", new_data(), "--workers", "2") as server:
        with Load(server) as load:
            load.more_acknowledged(300)
            for pid in _servers_of(server):
                os.kill(pid, signal.SIGKILL)
                load.more_acknowledged(300)
            rig.eventually(lambda: len(_servers_of(server)) == 2)
        load.check()


def _servers_of(server: rig.Server) -> list[int]:
    """The processes of a fleet, without the store."""
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if "presque.server" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_restart_keeps_everything(new_data: Callable[[], str]) -> None:
    data = new_data()
    due = int(time.time()) + 3600
    with rig.server("--data", data) as server:
        for priority in (1, 5, 9):
            server.ask("POST", f"/q/q?priority={priority}", f'"{priority}"')
        server.ask("POST", "/q/q?priority=1&uniq=key", '"uniq"')
        scheduled = server.ask("POST", f"/q/q?delayed={due}", '"scheduled"').json["id"]
        server.ask("POST", "/q/short?ttl=0.5", '"short"')
        server.ask("POST", "/q/q", '"first"')
        assert server.ask("GET", "/q/q").body == b'"9"'
        server.ask("PUT", "/q/q?priority=9", '"again"')
        server.ask("POST", "/control/stopped", '{"status": "stop"}')
        server.ask("POST", "/q/stopped", '"stopped"')
        server.ask("POST", "/w/q", X_presque_workerid="w1")
        stats = server.ask("GET", "/stats/q").json
        assert server.stop() == 0

    with rig.server("--data", data) as server:
        after = server.ask("GET", "/stats/q").json
        assert {**after, "oldest_seconds": 0} == {**stats, "oldest_seconds": 0}
        assert server.ask("GET", "/status/").json["queues"] == ["q", "short", "stopped"]
        assert server.ask("GET", "/w/").json == ["w1"]
        assert server.ask("POST", "/q/q?uniq=key", "1").json == {"error": "job already exists"}
        assert server.ask("GET", "/q/stopped").json == {"error": "queue is closed"}
        assert server.ask("POST", "/q/q", '"last"').json["id"] == "8"
        rig.eventually(lambda: server.ask("GET", "/stats/short").json["expired"] == 1)
        found = [server.ask("GET", "/q/q").body for _ in range(6)]
        assert [json.loads(body) for body in found] == ["again", "5", "first", "last", "1", "uniq"]
        run_at = server.ask("GET", f"/j/q/{scheduled}").json["run_at"]
        assert datetime.fromisoformat(run_at).timestamp() == due
        assert server.ask("PATCH", f"/j/q/{scheduled}", '{"delay":0}').status == 200
        assert server.ask("GET", "/q/q?wait=30").body == b'"scheduled"'


def test_nobody_hears_of_an_act_before_it_is_in_the_audit(store: rig.Store, queue_name: str) -> None:
    space = f"acts-{queue_name}"
    admin = first_token("--redis", store.url, "--store-namespace", space)
    with (
        proxy(store.socket) as between,
        rig.server("--redis", f"redis://127.0.0.1:{between.port}", "--namespace", space) as server,
    ):
        between.catch(b"_access_note", "hold")
        asked = server.send("DELETE", f"/q/{queue_name}", None, Authorization=f"Bearer {admin}")
        rig.eventually(lambda: between.caught)
        server.process.kill()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            asked.answer()
