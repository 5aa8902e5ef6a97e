"""What /events tells of single jobs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests import rig
from tests.doors.reading import Events

Told = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def fleet() -> Iterator[tuple[rig.Server, rig.Server, rig.Store]]:
    """Two servers on one store."""
    with (
        rig.store("valkey") as store,
        rig.server("--redis", store.url) as one,
        rig.server("--redis", store.url) as other,
    ):
        yield one, other, store


@contextlib.contextmanager
def reading(server: rig.Server, query: str, **headers: str) -> Iterator[Events]:
    events = Events(server, query, **headers)
    try:
        yield events
    finally:
        events.close()


def push(server: rig.Server, queue: str, body: Any = 1, query: str = "") -> str:
    return str(server.ask("POST", f"/q/{queue}{query}", json.dumps(body)).json["id"])


def lease(server: rig.Server, queue: str, seconds: int = 60) -> Any:
    [job] = server.ask("POST", f"/q/{queue}/lease", json.dumps({"seconds": seconds})).json["jobs"]
    return job


def settle(server: rig.Server, queue: str, verb: str, job: Any, **more: Any) -> None:
    body = json.dumps({"lease": job["lease"], **more})
    assert server.ask("POST", f"/j/{queue}/{job['id']}/{verb}", body).status == 200


def told_of(told: Told) -> Counter[str]:
    """How often each thing is told to have happened, one by one or counted."""
    total: Counter[str] = Counter()
    for kind, data in told:
        total.update({data["what"]: 1} if kind == "job" else data["by"])
    return total


def test_everything_that_happens_to_a_job_is_told_in_its_order(server: rig.Server, queue_name: str) -> None:
    q = queue_name
    with reading(server, f"?jobs=1&queues={q}") as events:
        push(server, q)
        assert server.ask("GET", f"/q/{q}").status == 200
        assert [events.job() for _ in range(2)] == [("1", "pushed"), ("1", "fetched")]

        push(server, q, 2, "?attempts=2")
        settle(server, q, "release", lease(server, q))
        settle(server, q, "fail", lease(server, q), retry_in=0)
        settle(server, q, "fail", lease(server, q))
        server.ask("POST", f"/j/{q}/2/retry")
        settle(server, q, "ack", lease(server, q))
        assert [events.job() for _ in range(9)] == [
            ("2", what)
            for what in (
                "pushed", "leased", "released", "leased", "failed", "leased", "dead", "retried", "leased",
            )
        ]  # fmt: skip
        assert events.job() == ("2", "done")

        push(server, q, 3, "?delay=0.1")
        server.ask("GET", f"/q/{q}?wait=20")
        assert [events.job() for _ in range(3)] == [("3", what) for what in ("pushed", "ready", "fetched")]

        push(server, q, 4)
        server.ask("PATCH", f"/j/{q}/4", '{"priority": 9}')
        server.ask("DELETE", f"/j/{q}/4")
        assert [events.job() for _ in range(3)] == [("4", what) for what in ("pushed", "changed", "deleted")]

        push(server, q, 5, "?ttl=0.001")
        assert [events.job() for _ in range(2)] == [("5", what) for what in ("pushed", "expired")]


def test_a_lease_that_ends_is_told_as_a_failure_and_the_last_one_as_a_death(
    server: rig.Server, queue_name: str
) -> None:
    with reading(server, f"?jobs=1&queues={queue_name}") as events:
        push(server, queue_name, 1, "?attempts=2")
        for _ in range(2):
            rig.eventually(
                lambda: server.ask("POST", f"/q/{queue_name}/lease?seconds=1&wait=20").status == 200
            )
        told = [events.job()[1] for _ in range(5)]
        assert told == ["pushed", "leased", "failed", "leased", "dead"]


def test_what_a_listener_gets_and_what_comes_back_from_one_that_has_left_is_told(
    server: rig.Server, queue_name: str
) -> None:
    push(server, queue_name)
    server.ask("GET", f"/q/{queue_name}")
    server.ask("PATCH", f"/p/{queue_name}", '{"delivery": "broadcast"}')
    with reading(server, f"?jobs=1&queues={queue_name}") as events:
        listener = http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.PATIENCE)
        with contextlib.closing(listener):
            listener.request("GET", f"/c/{queue_name}?wait=60")
            push(server, queue_name)
            assert json.loads(listener.getresponse().readline())["id"] == "2"
        assert [events.job() for _ in range(2)] == [("2", "pushed"), ("2", "fetched")]


def test_jobs_are_told_whichever_server_they_went_through_and_only_of_the_queues_asked_for(
    fleet: tuple[rig.Server, rig.Server, rig.Store], queue_name: str
) -> None:
    one, other, _ = fleet
    with reading(one, f"?jobs=1&queues={queue_name}-*") as events:
        push(other, queue_name, "secret")
        push(other, f"{queue_name}-a", "secret")
        job = events.next()
        assert (job["queue"], job["id"], job["what"]) == (f"{queue_name}-a", "1", "pushed")
        assert set(job) == {"queue", "id", "what", "at"}
        other.ask("GET", f"/q/{queue_name}-a")
        assert events.job() == ("1", "fetched")


def test_the_first_jobs_of_a_queue_that_nobody_knew_are_told(
    fleet: tuple[rig.Server, rig.Server, rig.Store], queue_name: str
) -> None:
    one, other, _ = fleet
    with reading(one, f"?jobs=1&queues={queue_name}*") as events:
        for number in range(20):
            other.ask("POST", f"/qb/{queue_name}-{number}", '{"jobs": [1, 2, 3]}')
        told = events.until(lambda found: len(found) == 60)
    assert {(data["queue"], data["id"], data["what"]) for _, data in told} == {
        (f"{queue_name}-{number}", job, "pushed") for number in range(20) for job in "123"
    }


def test_a_flood_is_counted_to_the_last_job_and_does_not_drown_a_quiet_queue(
    fleet: tuple[rig.Server, rig.Server, rig.Store], queue_name: str
) -> None:
    one, other, _ = fleet
    batch = json.dumps({"jobs": list(range(1000))})
    with reading(one, f"?jobs=1&queues={queue_name}*") as events:
        push(other, f"{queue_name}-quiet")
        for _ in range(20):
            other.ask("POST", f"/qb/{queue_name}", batch)
            assert len(one.ask("GET", f"/qb/{queue_name}?batch_size=1000").json) == 1000
        other.ask("GET", f"/q/{queue_name}-quiet")
        told = events.until(lambda found: told_of(found).total() >= 40_002)
    assert told_of(told) == {"pushed": 20_001, "fetched": 20_001}
    quiet = [data["what"] for _, data in told if data["queue"] == f"{queue_name}-quiet"]
    assert quiet == ["pushed", "fetched"]
    assert len(told) < 8000  # a hundred of each batch at most, and how many more there were


def test_a_purge_counts_the_jobs_that_went(server: rig.Server, queue_name: str) -> None:
    server.ask("POST", f"/qb/{queue_name}", '{"jobs": [1, 2, 3]}')
    with reading(server, f"?jobs=1&queues={queue_name}") as events:
        server.ask("DELETE", f"/q/{queue_name}")
        [(kind, data)] = events.until(bool)
    assert (kind, data) == ("left_out", {"queue": queue_name, "count": 3, "by": {"deleted": 3}})


def test_who_comes_back_gets_what_happened_meanwhile_and_elsewhere_hears_that_some_is_missing(
    fleet: tuple[rig.Server, rig.Server, rig.Store], queue_name: str
) -> None:
    one, other, _ = fleet
    query = f"?jobs=1&queues={queue_name}"
    with reading(one, query) as events:
        push(one, queue_name)
        assert events.job() == ("1", "pushed")
        last = events.last
    one.ask("GET", f"/q/{queue_name}")
    push(other, queue_name)
    with reading(one, query, Last_Event_ID=last) as events:
        assert [events.job() for _ in range(2)] == [("1", "fetched"), ("2", "pushed")]
    with reading(other, query, Last_Event_ID=last) as events:
        [(kind, data)] = events.until(bool)
        assert (kind, data) == ("left_out", {"queue": None, "count": None, "by": None})
        other.ask("GET", f"/q/{queue_name}")
        assert events.job() == ("2", "fetched")


def test_a_reader_that_was_away_for_long_hears_how_much_it_has_missed(
    fleet: tuple[rig.Server, rig.Server, rig.Store], queue_name: str
) -> None:
    one, _, _ = fleet
    query = f"?jobs=1&queues={queue_name}"
    with reading(one, query) as here:
        with reading(one, query) as events:
            push(one, queue_name)
            assert events.job() == ("1", "pushed")
            last = events.last
        for _ in range(15):  # each is a tick's worth of events and more
            one.ask("POST", f"/qb/{queue_name}", json.dumps({"jobs": [1] * 200}))
            here.until(lambda found: told_of(found).total() >= 200)
        with reading(one, query, Last_Event_ID=last) as events:
            kind, missed = events.until(bool)[0]
            told = events.until(lambda found: told_of(found).total() + missed["count"] >= 3000)
    assert (kind, missed["queue"], missed["by"]) == ("left_out", None, None)
    assert missed["count"] + told_of(told).total() == 3000


def test_without_the_parameter_no_job_is_told_and_the_store_publishes_nothing(queue_name: str) -> None:
    with (
        rig.store("valkey") as store,
        rig.server("--redis", store.url) as one,
        reading(one, f"?queues={queue_name}") as events,
        store.client() as client,
    ):
        push(one, queue_name)
        assert events.next()["ready"] == 1
        assert events.kind == "queue"
        assert client.hget(f"presque:{{{queue_name}}}:meta", "watched") is None


def test_a_killed_server_leaves_no_queue_marked_as_watched(queue_name: str) -> None:
    with (
        rig.store("valkey") as store,
        rig.server("--redis", store.url) as one,
        rig.server("--redis", store.url) as other,
        store.client() as client,
    ):
        push(one, queue_name)
        with reading(other, "?jobs=1") as events:
            push(one, queue_name)
            assert events.job() == ("2", "pushed")
            meta = f"presque:{{{queue_name}}}:meta"
            assert client.hget(meta, "watched") == b"1"
            os.killpg(other.process.pid, signal.SIGKILL)
            other.process.wait()
        push(one, queue_name)
        assert client.hget(meta, "watched") is None


def test_after_the_store_was_lost_readers_hear_that_and_then_of_jobs_again(queue_name: str) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as one, store.client() as client:
        push(one, queue_name)
        with reading(one, "?jobs=1") as events:
            push(one, queue_name)
            assert events.job() == ("2", "pushed")
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)
            [(kind, data)] = events.until(bool)
            assert (kind, data["count"]) == ("left_out", None)
            rig.eventually(lambda: one.ask("POST", f"/q/{queue_name}", "3").status == 201)
            assert events.job() == ("3", "pushed")


QUICK = (
    "import presque.commands.job_events as events; events.LINGER_S = 0.2; "
    "import presque.store.channels as channels; channels.LINGER_S = 0.2; "
    "from presque.cli.main import main; main()"
)


def test_some_time_after_its_last_reader_has_left_a_server_hears_no_more_and_says_so(
    queue_name: str,
) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url, program=("-c", QUICK)) as one:
        channel = "presque:{:queues}:events"
        with store.client() as client, reading(one, "?jobs=1") as events:
            push(one, queue_name)
            assert events.job() == ("1", "pushed")
            assert client.execute_command("PUBSUB", "SHARDNUMSUB", channel)[1] == 1
            last = events.last
            events.close()
            rig.eventually(lambda: client.execute_command("PUBSUB", "SHARDNUMSUB", channel)[1] == 0)
            push(one, queue_name)
            assert client.hget(f"presque:{{{queue_name}}}:meta", "watched") is None
        with reading(one, "?jobs=1", Last_Event_ID=last) as events:
            [(kind, data)] = events.until(bool)
            assert (kind, data["count"]) == ("left_out", None)
            push(one, queue_name)
            assert events.job() == ("3", "pushed")
