"""A store over its memory limit refuses pushes and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import redis

from tests import rig

BODY = b'"' + b"x" * 50_000 + b'"'


def fill(server: rig.Server, queue: str) -> tuple[int, rig.Answer]:
    """Push until the store is full. Returns how many jobs it took, and the refusal."""
    for count in range(1000):
        answer = server.ask("POST", f"/q/{queue}", BODY)
        if answer.status != 201:
            return count, answer
    raise AssertionError("the store is never full")


def test_a_full_store_can_be_drained_and_then_takes_jobs_again() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        assert server.ask("POST", "/q/delayed?delay=0.1", "1").status == 201
        assert server.ask("POST", "/w/full", X_presque_workerid="w").status == 201
        count, refusal = fill(server, "full")

        assert count > 20
        assert refusal.status == 507
        assert refusal.json["error"].startswith("the store has no memory left for another job; ")
        assert server.ask("POST", "/qb/full", b'{"jobs": [1, %b]}' % BODY).status == 507
        assert server.ask("PUT", "/q/full", BODY).status == 507
        assert server.ask("POST", "/q/new", BODY).status == 507

        assert server.ask("GET", "/stats/full").json["ready"] == count
        assert server.ask("GET", "/stats/").status == 200
        assert server.ask("GET", "/status/full?with_desc=1").json["size"] == count
        assert server.ask("GET", "/w/").json == ["w"]
        assert server.ask("POST", "/control/full", '{"status": "stop"}').status == 200
        assert server.ask("POST", "/control/full", '{"status": "start"}').status == 200
        assert server.ask("GET", "/q/delayed?wait=30").body == b"1"
        assert server.ask("DELETE", "/w/full", X_presque_workerid="w").status == 204

        for _ in range(count):
            answer = server.ask("GET", "/q/full", X_presque_workerid="stranger")
            assert (answer.status, answer.body) == (200, BODY)
        assert server.ask("GET", "/q/full").status == 404
        assert server.ask("POST", "/q/full", BODY).status == 201


def test_a_bulk_task_that_deletes_frees_a_full_store_and_another_is_refused() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        fill(server, "full")

        def refused() -> bool:
            """What the store itself needs changes a little, so that a small job may fit in again."""
            while server.ask("POST", "/q/full", "1").status == 201:
                pass
            answer = server.ask("POST", "/tasks", '{"act": "retry", "queues": "full", "state": "dead"}')
            return (answer.status, answer.headers.get("presque-error")) == (507, "store-full")

        rig.eventually(refused)

        begun = server.ask("POST", "/tasks", '{"act": "delete", "queues": "full", "state": "ready"}')

        assert begun.status == 201, begun
        path = f"/tasks/{begun.json['id']}"
        rig.eventually(lambda: server.ask("GET", path).json["ended_at"])
        assert server.ask("GET", "/j/full").json["job_count"] == 0
        assert server.ask("POST", "/q/full", BODY).status == 201


def used_memory(server: rig.Server, data: Path) -> int:
    socket = (data / "store.address").read_text().split()[1]
    with redis.Redis(unix_socket_path=socket) as client:
        return int(client.info("memory")["used_memory"])


def test_what_comes_with_the_end_of_a_lease_makes_a_full_store_no_fuller(tmp_path: Path) -> None:
    data, long = tmp_path / "data", "é" * 10_000
    with rig.server("--data", str(data), "--maxmemory", "8MiB") as server:
        server.ask("PATCH", "/p/small", '{"keep": 600, "max_attempts": 100}')
        for number in range(60):
            server.ask("POST", "/q/small", str(number))
        fill(server, "full")
        leased = server.ask("POST", "/q/small/lease?count=60&seconds=600").json["jobs"]
        before = used_memory(server, data)
        for job in leased:
            path, token = f"/j/small/{job['id']}", f"lease={job['lease']}"
            told = json.dumps({"progress": long})
            assert server.ask("POST", f"{path}/extend?{token}", told).status == 200
            if int(job["id"]) % 2:
                assert server.ask("POST", f"{path}/ack?{token}", json.dumps({"result": long})).status == 200
            else:
                told = json.dumps({"error": long, "backtrace": long, "retry_in": 600})
                assert server.ask("POST", f"{path}/fail?{token}", told).status == 200

        assert used_memory(server, data) - before < 1_000_000, "60 times 100 KB were said"
        failed = server.ask("GET", "/j/small/2").json
        [error] = failed["errors"]
        assert error["error"] == "é" * 99 + " … (cut: the store was full)"
        assert server.ask("GET", "/j/small/1").json.get("result") is None

        assert server.ask("DELETE", "/q/full").status == 204
        rig.eventually(lambda: server.ask("POST", "/q/small", "1").status == 201)
        [job] = server.ask("POST", "/q/small/lease").json["jobs"]
        path, token = f"/j/small/{job['id']}", f"lease={job['lease']}"
        assert server.ask("POST", f"{path}/ack?{token}", json.dumps({"result": long})).status == 200
        assert server.ask("GET", path).json["result"] == long


def test_refused_pushes_leave_few_lines_in_the_log() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        fill(server, "full")
        for _ in range(300):
            assert server.ask("POST", "/q/full", BODY).status == 507
        assert server.ask("POST", "/control/full", '{"status": "stop"}').status == 200
        assert server.ask("POST", "/control/full", '{"status": "start"}').status == 200
        assert server.ask("POST", "/j/full/retry").status == 200
        assert server.ask("DELETE", "/q/full").status == 204
        rig.eventually(lambda: any("queue.purged" in line for line in server.everything))
        assert 1 <= sum("request.failed" in line for line in server.everything) < 20
        for event in (
            "queue.stopped queue=full",
            "queue.started queue=full",
            "queue.retried queue=full jobs=0",
        ):
            assert any(event in line for line in server.everything), event


def test_a_full_store_can_be_purged() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        fill(server, "full")

        assert server.ask("DELETE", "/q/full").status == 204

        rig.eventually(lambda: server.ask("POST", "/q/full", BODY).status == 201)


def test_a_full_store_can_be_emptied_in_batches() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        count, _ = fill(server, "full")

        found = 0
        while (answer := server.ask("GET", "/qb/full?batch_size=10")).status == 200:
            found += len(answer.json)

        assert found == count


def test_a_full_store_can_be_drained_by_leases() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        count, _ = fill(server, "full")
        done = 0
        while (answer := server.ask("POST", "/q/full/lease?count=5")).status == 200:
            for job in answer.json["jobs"]:
                path = f"/j/full/{job['id']}"
                assert server.ask("POST", f"{path}/extend?lease={job['lease']}").status == 200
                assert server.ask("GET", path).json["state"] == "leased"
                assert server.ask("POST", f"{path}/ack?lease={job['lease']}").json["state"] == "done"
                done += 1
        assert done == count
        assert server.ask("POST", "/q/full", BODY).status == 201


def test_a_new_body_is_refused_like_a_push() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        fill(server, "full")
        for number in range(1, 20):
            answer = server.ask("PATCH", f"/j/full/{number}", b'{"body": %b}' % BODY)
            assert (answer.status, answer.json["code"]) == (507, "store-full")
        assert server.ask("PATCH", "/j/full/1", '{"delay": 60}').status == 200


def test_everything_but_a_push_can_be_done_in_a_full_store() -> None:
    with rig.server("--memory", "--maxmemory", "8MiB") as server:
        server.ask("POST", "/q/other", "1")
        fill(server, "full")
        assert server.ask("PATCH", "/p/other", '{"lease": 5}').status == 200
        assert server.ask("PATCH", "/j/full/1", '{"priority": 9}').status == 200
        [job] = server.ask("POST", "/q/other/lease").json["jobs"]
        failed = server.ask("POST", f"/j/other/1/fail?lease={job['lease']}", '{"retry": false}')
        assert failed.json["state"] == "dead"
        assert server.ask("POST", "/j/other/1/retry").json["state"] == "ready"
        assert server.ask("DELETE", "/j/full/2").status == 204
        assert server.ask("GET", "/j/full?state=ready&limit=1").status == 200
        assert server.ask("GET", "/j/full/3/explain").status == 200


def test_a_full_store_gets_no_new_queues_by_policies_and_stops(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with rig.server("--data", str(data)) as server:
        assert server.ask("POST", "/q/known", "1").status == 201
        socket = (data / "store.address").read_text().split()[1]
        with redis.Redis(unix_socket_path=socket) as client:
            client.config_set("maxmemory", 1)

        for method, path, body in (
            ("PATCH", "/p/{}", '{"lease": 5}'),
            ("POST", "/control/{}", '{"status": "stop"}'),
            ("POST", "/queue", '{"cmd": "stop", "queue": "{}"}'),
        ):
            asked = [
                server.ask(method, path.format(name), body.replace("{}", name)) for name in ("new", "known")
            ]
            assert [answer.status for answer in asked] == [507, 200], (method, path)
            assert asked[0].headers["presque-error"] == "store-full"
        assert server.ask("GET", "/control/new").json["status"] == 1
