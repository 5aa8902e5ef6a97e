"""Many queues: what concerns all of them is done in bounded pieces, by a count of work and never of time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
import redis

from tests import rig

PAGE = 1000
BUSY = "presque:{:queues}:busy"


@pytest.fixture(scope="module")
def one() -> Iterator[tuple[rig.Server, redis.Redis]]:
    """A server on a store with 2345 queues that were used once, and what looks into that store."""
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server, store.client() as client:
        use_once(server, [f"used-{number:04}" for number in range(2345)])
        rig.eventually(lambda: client.zcard(BUSY) == 0, within=120)
        yield server, client


def commands(server: rig.Server, *asked: Mapping[str, object]) -> None:
    for first in range(0, len(asked), PAGE):
        answer = server.ask("POST", "/queue", json.dumps(asked[first : first + PAGE]), timeout=120)
        assert answer.status == 200
        assert [said for said in answer.json if "error" in said] == []


def use_once(server: rig.Server, names: list[str]) -> None:
    commands(server, *({"cmd": "push", "queue": name, "job": 1} for name in names))
    commands(server, *({"cmd": "fetch", "queue": name} for name in names))


Names = list[list[str]]


def pages(server: rig.Server, path: str, between: Callable[[int], object] = lambda _: None) -> Names:
    """The names on each page, from the first to the last."""
    found: list[list[str]] = []
    cursor = ""
    while True:
        answer = server.ask("GET", f"{path}{'&' if '?' in path else '?'}cursor={cursor}").json
        found.append(answer["queues"])
        between(len(found))
        if "cursor" not in answer:
            return found
        cursor = answer["cursor"]


def shard_channels(client: redis.Redis) -> list[bytes]:
    ask: Any = client.execute_command
    return list(ask("PUBSUB", "SHARDCHANNELS"))


def looked_at(client: redis.Redis, do: Callable[[], object]) -> int:
    """How many queues the functions of the store opened meanwhile, but for two turns of the sweep."""
    client.config_resetstat()
    do()
    found = client.info("commandstats").get("cmdstat_hmget", {"calls": 0})
    return int(found["calls"])


# --- lists --------------------------------------------------------------------------------------


def test_a_list_of_few_queues_has_the_classic_fields_and_no_other() -> None:
    with rig.server("--memory") as server:
        use_once(server, ["b", "a"])
        assert server.ask("GET", "/status/").json == {"queues": ["a", "b"], "size": 2}
        assert "cursor" not in server.ask("GET", "/stats/").json


@pytest.mark.parametrize("path", ["/status/", "/stats/"])
def test_a_list_of_many_queues_is_a_page_with_a_cursor(
    one: tuple[rig.Server, redis.Redis], path: str
) -> None:
    server, client = one
    answer = server.ask("GET", path).json
    assert (len(answer["queues"]), answer["size"]) == (PAGE, 2345)
    assert answer["cursor"] == answer["queues"][-1]
    assert [len(page) for page in pages(server, path)] == [PAGE, PAGE, 345]
    if path == "/stats/":
        assert list(answer["by_queue"]) == answer["queues"]
        assert looked_at(client, lambda: server.ask("GET", "/stats/?limit=5")) < 300


def test_pages_repeat_and_leave_out_nothing_while_queues_come_and_go(
    one: tuple[rig.Server, redis.Redis],
) -> None:
    server, client = one
    everything = [name for page in pages(server, "/status/") for name in page]
    gone: list[str] = []

    def between(page: int) -> None:
        at = min(page * 300, 2300)
        last = everything[at - 1]  # the cursor itself, one before it and one behind
        for name in (last, everything[at - 3], everything[at + 2]):
            server.ask("DELETE", f"/q/{name}?forget=true")
            gone.append(name)
        use_once(server, [f"{last}a", f"a-new-{page}"])

    found = [name for page in pages(server, "/status/?limit=300", between) for name in page]

    assert found == sorted(set(found))
    assert set(everything) - set(gone) <= set(found)
    left = {name for page in pages(server, "/status/") for name in page}
    for name in left - set(everything):
        server.ask("DELETE", f"/q/{name}?forget=true")
    use_once(server, gone)
    rig.eventually(lambda: client.zcard(BUSY) == 0, within=120)


@pytest.mark.parametrize("path", ["/status/", "/stats/"])
def test_a_list_can_be_asked_for_by_patterns(one: tuple[rig.Server, redis.Redis], path: str) -> None:
    server, _ = one
    wanted = f"{path}?queues=used-00*,!*7&limit=40"
    expected = [f"used-00{number:02}" for number in range(100) if number % 10 != 7]
    assert [name for page in pages(server, wanted) for name in page] == expected
    assert server.ask("GET", f"{path}?queues=used-2344,none").json["queues"] == ["used-2344"]
    assert server.ask("GET", f"{path}?queues=used-2344,none").json["size"] == 2345


def test_a_list_of_busy_queues_has_those_that_hold_jobs(one: tuple[rig.Server, redis.Redis]) -> None:
    server, _ = one
    commands(server, {"cmd": "push", "queue": "used-1234", "job": 1})
    assert server.ask("GET", "/status/?busy=1").json == {"queues": ["used-1234"], "size": 2345}
    assert list(server.ask("GET", "/stats/?busy=1").json["by_queue"]) == ["used-1234"]
    assert server.ask("GET", "/q/used-1234").status == 200
    rig.eventually(lambda: server.ask("GET", "/status/?busy=1").json["queues"] == [])


# --- patterns -----------------------------------------------------------------------------------


def test_patterns_look_at_busy_queues_alone(one: tuple[rig.Server, redis.Redis]) -> None:
    server, client = one
    assert looked_at(client, lambda: server.ask("GET", "/q/*")) < 1000
    assert looked_at(client, lambda: server.ask("POST", "/q/used-*/lease")) < 1000
    commands(server, {"cmd": "push", "queue": "used-2000", "job": 7})
    assert server.ask("GET", "/q/*").json == 7


def test_a_waiter_hears_no_more_channels_with_many_queues(one: tuple[rig.Server, redis.Redis]) -> None:
    server, client = one
    waiting = [server.send("GET", f"/q/*,own{number}?wait=30") for number in range(30)]
    heard = rig.eventually(
        lambda: (
            (found := shard_channels(client))
            and len([name for name in found if b"{own" in name]) == 30
            and found
        )
    )
    assert len([name for name in heard if b"{used" in name]) <= 1
    assert b"presque:{:queues}:wake" in heard
    for number in range(30):
        commands(server, {"cmd": "push", "queue": f"used-{number:04}", "job": number})
    assert sorted(sent.answer().json for sent in waiting) == list(range(30))


def arrive(server: rig.Server, queue: str, how: str) -> Callable[[], object]:
    """Bring a queue into a state; what it returns then makes a job ready."""
    if how == "a new queue":
        return lambda: commands(server, {"cmd": "push", "queue": queue, "job": 1})
    if how == "a queue that rests":
        use_once(server, [queue])
        rig.eventually(lambda: queue not in server.ask("GET", "/status/?busy=1").json["queues"])
        return lambda: commands(server, {"cmd": "push", "queue": queue, "job": 1})
    if how == "a job that is due":
        return lambda: commands(server, {"cmd": "push", "queue": queue, "job": 1, "delay": 0.5})
    if how == "a stopped queue is started":
        commands(server, {"cmd": "push", "queue": queue, "job": 1}, {"cmd": "stop", "queue": queue})
        return lambda: commands(server, {"cmd": "start", "queue": queue})
    commands(server, {"cmd": "push", "queue": queue, "job": 1})
    seconds = 1 if how == "a lease that ends" else 600
    lease = server.ask("POST", f"/q/{queue}/lease?seconds={seconds}").json["jobs"][0]["lease"]
    if how == "a lease that ends":
        return lambda: None
    if how == "a job that is given back":
        return lambda: server.ask("POST", f"/j/{queue}/1/release?lease={lease}")
    assert server.ask("POST", f"/j/{queue}/1/fail?lease={lease}", '{"retry":false}').status == 200
    rig.eventually(lambda: queue not in server.ask("GET", "/status/?busy=1").json["queues"])
    return lambda: server.ask("POST", f"/j/{queue}/1/retry")  # "a dead job is tried again"


@pytest.mark.parametrize(
    "how",
    [
        *("a new queue", "a queue that rests", "a job that is due", "a stopped queue is started"),
        *("a lease that ends", "a job that is given back", "a dead job is tried again"),
    ],
)
@pytest.mark.parametrize("verb", ["fetch", "lease"])
def test_who_waits_for_a_pattern_gets_whatever_becomes_ready(
    server: rig.Server, queue_name: str, how: str, verb: str
) -> None:
    make_ready = arrive(server, queue_name, how)
    wanted = f"{queue_name[:-1]}*,!none"
    sent = (
        server.send("GET", f"/q/{wanted}?wait=30")
        if verb == "fetch"
        else server.send("POST", f"/q/{wanted}/lease?wait=30")
    )
    make_ready()
    answer = sent.answer()
    assert answer.status == 200
    assert (answer.json if verb == "fetch" else answer.json["jobs"][0]["body"]) == 1


def test_an_index_that_is_lost_is_made_again(queue_name: str) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server, store.client() as client:
        commands(server, {"cmd": "push", "queue": queue_name, "job": 1})
        client.delete(BUSY)
        rig.eventually(lambda: server.ask("GET", "/q/*").status == 200)


def test_an_index_that_is_spoilt_costs_no_job_and_is_named_in_the_log(queue_name: str) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server, store.client() as client:
        client.set(BUSY, "spoilt")
        commands(server, {"cmd": "push", "queue": queue_name, "job": 1})
        for _ in range(2):
            assert server.ask("POST", "/q/*/lease", '{"count":1}').status in (200, 204)
        assert server.ask("GET", f"/stats/{queue_name}").json["leased"] == 1
        rig.eventually(lambda: "store.key_spoilt" in server.said())
        assert server.said().count("store.key_spoilt") == 1


# --- what is spoilt -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["meta", "jobs", "ready", "due"])
def test_a_spoilt_queue_is_named_in_the_log_and_passed_over_by_all(queue_name: str, key: str) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server, store.client() as client:
        names = [f"{queue_name}-{letter}" for letter in "abc"]
        commands(server, *({"cmd": "push", "queue": name, "job": name, "delay": 60} for name in names))
        commands(server, *({"cmd": "push", "queue": name, "job": name} for name in names))
        spoilt = f"presque:{{{names[1]}}}:{key}"
        client.delete(spoilt)
        client.set(spoilt, "spoilt")

        assert [server.ask("GET", f"/q/{queue_name}*").json for _ in range(2)] == [names[0], names[2]]
        commands(server, {"cmd": "push", "queue": names[2], "job": 2})
        [taken] = server.ask("POST", f"/q/{queue_name}*/lease?count=10").json["jobs"]
        assert taken["queue"] == names[2]
        assert list(server.ask("GET", "/stats/").json["by_queue"]) == [names[0], names[2]]
        assert server.ask("GET", "/status/").json["queues"] == names
        waiting = server.send("GET", f"/q/{queue_name}*?wait=20")
        commands(server, {"cmd": "push", "queue": names[2], "job": 3})
        assert waiting.answer().status == 200
        rig.eventually(lambda: f"queue.spoilt queue={names[1]}" in server.said())
        assert server.said().count("queue.spoilt") == 1
        assert "Traceback" not in server.said()


# --- events -------------------------------------------------------------------------------------


def events_of(server: rig.Server, query: str, enough: Callable[[bytes], bool]) -> bytes:
    """What `GET /events` sends until it is enough."""
    with closing(server.connect()) as connection:
        connection.sendall(b"GET /events%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % query.encode())
        found = b""
        while not enough(found):
            part = connection.recv(1 << 20)
            assert part, found[-200:]
            found += part
    return found


def test_the_first_events_tell_of_a_bounded_number_of_queues(one: tuple[rig.Server, redis.Redis]) -> None:
    server, client = one

    def first() -> None:
        found = events_of(server, "", lambda found: b"\nid: " in found)
        assert 0 < found.count(b"event: queue\n") <= PAGE

    assert looked_at(client, first) < PAGE + 1000


def test_what_changes_in_a_queue_that_rested_is_told(one: tuple[rig.Server, redis.Redis]) -> None:
    server, _ = one

    def pushed_and_told(found: bytes) -> bool:
        if b"\nid: " in found and b'"used-2222","ready":0' not in found and not told:
            commands(server, {"cmd": "push", "queue": "used-2222", "job": 1})
            told.append(True)
        return b'"queue":"used-2222","ready":1' in found

    told: list[bool] = []
    events_of(server, "", pushed_and_told)
    assert server.ask("GET", "/q/used-2222").status == 200


def test_jobs_of_a_queue_that_rested_are_told(one: tuple[rig.Server, redis.Redis]) -> None:
    server, client = one
    told: list[bool] = []

    def pushed_and_told(found: bytes) -> bool:
        if b"\nid: " in found and not told:
            commands(server, {"cmd": "push", "queue": "used-2223", "job": 1})
            told.append(True)
        return b'{"queue":"used-2223","id":"2","what":"pushed"' in found

    events_of(server, "?jobs=1&queues=used*", pushed_and_told)
    heard = shard_channels(client)
    assert not [name for name in heard if name.startswith(b"presque:{used") and name.endswith(b"events")]
    assert server.ask("GET", "/q/used-2223").status == 200


# --- workers ------------------------------------------------------------------------------------


def test_a_worker_registers_for_a_bounded_number_of_queues_and_again_is_no_write(queue_name: str) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server, store.client() as client:
        names = [f"{queue_name}-{number}" for number in range(256)]

        def register(name: str) -> rig.Answer:
            return server.ask("POST", f"/w/{name}", X_presque_workerid="w")

        assert {register(name).status for name in names} == {201}
        refused = register("one-more")
        assert refused.status == 400
        assert "256" in refused.json["error"]
        assert register(names[7]).status == 201
        report = server.ask("PUT", "/w/", json.dumps({"queues": ["other"]}), X_presque_workerid="w")
        assert report.status == 400

        def changes() -> int:
            return int(client.info("persistence")["rdb_changes_since_last_save"])

        before = changes()
        for _ in range(10):
            body = json.dumps({"queues": names})
            assert server.ask("PUT", "/w/", body, X_presque_workerid="w").status == 200
        assert changes() - before <= 3 * 10  # when it was heard of, and what it says
        assert server.ask("DELETE", f"/w/{names[0]}", X_presque_workerid="w").status == 204
        assert register("one-more").status == 201
        assert server.ask("GET", "/w/?queue_name=one-more").json["workers_list"] == ["w"]
        assert server.ask("GET", f"/w/?queue_name={names[0]}").json["workers_list"] == []
        assert server.ask("DELETE", "/w/", X_presque_workerid="w").status == 204
        assert [key for key in client.keys("presque:{:workers}:*") if client.exists(key)] == []
