"""Queues that are forgotten: nothing of them stays in the store, or in any server."""

from __future__ import annotations

import json
from typing import Any

from tests import rig


def push(server: rig.Server, queue: str, query: str = "") -> None:
    assert server.ask("POST", f"/q/{queue}{query}", '{"n":1}').status == 201


def filled(server: rig.Server, queue: str) -> None:
    """Use everything that a queue can have."""
    policy = {"keep": 600, "max_attempts": 1, "rate": {"count": 100, "seconds": 60}, "max_leased": 50}
    assert server.ask("PATCH", f"/p/{queue}", json.dumps(policy)).status == 200
    waiting = ("", "?priority=9", "?priority=1&group=acme", "?group=blue")
    for query in *waiting, "?ttl=60", "?delay=60", "?uniq=k&uniq_until=done":
        push(server, queue, query)
    assert server.ask("POST", f"/q/{queue}", "1", Idempotency_Key="once").status == 201
    jobs = server.ask("POST", f"/q/{queue}/lease?count=4&attempt_id=a").json["jobs"]
    for job, verb in zip(jobs, ("ack", "fail", "release"), strict=False):
        answer = server.ask("POST", f"/j/{queue}/{job['id']}/{verb}?lease={job['lease']}")
        assert answer.status == 200, answer
    assert server.ask("GET", f"/q/{queue}").status == 200


def keys_of(client: Any, queue: str) -> list[str]:
    return sorted(key.decode() for key in client.keys(f"presque:{{{queue}}}*"))


def test_nothing_of_a_forgotten_queue_stays_in_the_store_or_in_any_server(queue_name: str) -> None:
    with (
        rig.store("valkey") as store,
        rig.server("--redis", store.url) as one,
        rig.server("--redis", store.url) as other,
        store.client() as client,
    ):
        filled(one, queue_name)
        rig.eventually(lambda: other.ask("GET", "/q/*,!none?wait=0").status)
        assert other.ask("GET", f"/stats/{queue_name}").json["scheduled"] == 1
        assert one.ask("DELETE", f"/q/{queue_name}?forget=true").status == 204
        rig.eventually(lambda: keys_of(client, queue_name) == [])
        for server in one, other:
            assert server.ask("GET", "/status/").json == {"queues": [], "size": 0}
            assert server.ask("GET", "/stats/").json["by_queue"] == {}
        assert one.ask("GET", f"/p/{queue_name}").json["max_attempts"] == 5

        waiting = other.send("GET", f"/q/{queue_name[:4]}*?wait=20")
        push(one, queue_name)
        assert waiting.answer().json == {"n": 1}
        assert other.ask("POST", f"/q/{queue_name}", "2").json["id"] == "2"
        assert one.ask("GET", "/status/").json["queues"] == [queue_name]


def test_a_waiting_fetch_that_names_a_forgotten_queue_goes_on_waiting(
    server: rig.Server, queue_name: str
) -> None:
    push(server, queue_name)
    assert server.ask("GET", f"/q/{queue_name}").status == 200
    waiting = server.send("GET", f"/q/{queue_name}?wait=20")
    assert server.ask("DELETE", f"/q/{queue_name}?forget=1").status == 204
    push(server, queue_name)
    assert waiting.answer().json == {"n": 1}


def test_forgetting_a_queue_that_never_was_is_no_mistake(server: rig.Server, queue_name: str) -> None:
    assert server.ask("DELETE", f"/q/{queue_name}?forget=true").status == 204
    answer = server.ask("POST", "/queue", json.dumps({"cmd": "purge", "queue": queue_name, "forget": True}))
    assert answer.json == {"queue": queue_name, "purged": 0, "forgotten": True}


def test_a_queue_that_is_empty_and_unused_is_forgotten_as_its_policy_says(queue_name: str) -> None:
    with rig.server("--memory") as server:
        for name in queue_name, f"{queue_name}-full", f"{queue_name}-stopped":
            push(server, name)
            assert server.ask("PATCH", f"/p/{name}", '{"expires":1}').json["expires"] == 1
        assert server.ask("GET", f"/q/{queue_name}").status == 200
        assert server.ask("GET", f"/q/{queue_name}-stopped").status == 200
        assert server.ask("POST", f"/control/{queue_name}-stopped", '{"status":"stop"}').status == 200
        left = [f"{queue_name}-full", f"{queue_name}-stopped"]
        rig.eventually(lambda: server.ask("GET", "/status/").json["queues"] == left, within=60)
        assert server.ask("GET", f"/p/{queue_name}").json["expires"] is None


def test_one_spoilt_queue_does_not_keep_the_others_from_the_sweep(queue_name: str) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server, store.client() as client:
        push(server, f"{queue_name}-a", "?delay=1")
        client.set(f"presque:{{{queue_name}-a}}:due", "spoilt")
        push(server, f"{queue_name}-b", "?delay=1")
        rig.eventually(lambda: client.llen(f"presque:{{{queue_name}-b}}:ready") == 1, within=30)
        rig.eventually(lambda: "sweep.failed" in server.said())
        assert server.said().count("sweep.failed") == 1
        client.delete(f"presque:{{{queue_name}-a}}:due")
