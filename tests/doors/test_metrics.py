"""GET /metrics: what a monitoring system reads, right with one process, several, and none of the store."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from presque.commands import exposition
from presque.commands.exposition import Figures, OfQueue, OfStore
from presque.engine.history import Happened
from presque.server.board import PLACE_BYTES, Board
from tests import rig
from tests.doors.tokens import Guarded, first_token

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str, *, openmetrics: bool = False) -> Samples:
    """Each figure by its name and labels."""
    read = read_openmetrics if openmetrics else read_prometheus
    return {
        (one.name, frozenset(one.labels.items())): float(one.value)
        for family in read(text)
        for one in family.samples
    }


def scraped(server: rig.Server) -> Samples:
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200, answer
    return samples(answer.body.decode())


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def summed(found: Samples, name: str, **labels: str) -> float:
    """The sum over all labels that are not named."""
    return sum(
        count for (one, has), count in found.items() if one == name and labels.items() <= dict(has).items()
    )


def processes(found: Samples) -> set[str]:
    return {dict(has)["process"] for name, has in found if name == "process_cpu_seconds_total"}


def test_what_was_pushed_and_taken_is_found(server: rig.Server, queue_name: str) -> None:
    before = scraped(server)
    for number in range(5):
        server.ask("POST", f"/q/{queue_name}", str(number))
    server.ask("GET", f"/q/{queue_name}")
    lease = server.ask("POST", f"/q/{queue_name}/lease").json["jobs"][0]
    server.ask("POST", f"/j/{queue_name}/{lease['id']}/ack?lease={lease['lease']}")
    server.ask("POST", f"/q/{queue_name}/lease")
    server.ask("POST", f"/q/{queue_name}", "no JSON")

    found = scraped(server)

    assert value(found, "presque_queue_pushed_total", queue=queue_name) == 5
    assert value(found, "presque_queue_fetched_total", queue=queue_name) == 1
    assert value(found, "presque_queue_done_total", queue=queue_name) == 1
    assert value(found, "presque_jobs", queue=queue_name, state="ready") == 2
    assert value(found, "presque_jobs", queue=queue_name, state="leased") == 1
    assert value(found, "presque_queue_wait_seconds_count", queue=queue_name) == 3
    assert value(found, "presque_queue_run_seconds_count", queue=queue_name) == 1
    assert (value(found, "presque_oldest_ready_seconds", queue=queue_name) or 0) > 0
    grown = {
        status: summed(found, "presque_requests_total", verb="push", status=status)
        - summed(before, "presque_requests_total", verb="push", status=status)
        for status in ("201", "400")
    }
    assert grown == {"201": 5, "400": 1}
    assert summed(found, "presque_request_seconds_count", verb="push") == summed(
        found, "presque_requests_total", verb="push"
    )
    assert summed(found, "presque_verbs_total", verb="ack") >= 1
    assert value(found, "presque_store_connected", process="0") == 1
    assert (value(found, "presque_disk_fsync_seconds") or 0) > 0
    assert (value(found, "presque_disk_free_bytes") or 0) > 0
    assert (value(found, "presque_store_memory_bytes") or 0) > 0
    assert (value(found, "process_resident_memory_bytes", process="0") or 0) > 0


def test_the_format_is_the_one_that_is_asked_for(server: rig.Server) -> None:
    server.ask("GET", "/metrics")  # so that a request was counted
    classic = server.ask("GET", "/metrics")
    modern = server.ask("GET", "/metrics", Accept=OPENMETRICS)

    assert classic.headers["content-type"].startswith("text/plain; version=")
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert modern.body.endswith(b"# EOF\n")
    kinds = {name for name, _ in samples(modern.body.decode(), openmetrics=True)}
    assert kinds == {name for name, _ in samples(classic.body.decode())}
    assert server.ask("HEAD", "/metrics").status == 200


def test_what_was_refused_and_what_could_not_be_read_is_counted(server: rig.Server) -> None:
    before = scraped(server)
    server.ask("GET", "/no/such/route")
    server.ask("POST", "/q/x", "1" * 10, Content_Length="99999999999")

    found = scraped(server)

    assert summed(found, "presque_requests_total", verb="refused", status="404") == 1 + summed(
        before, "presque_requests_total", verb="refused", status="404"
    )
    assert summed(found, "presque_requests_total", verb="unread") == 1 + summed(
        before, "presque_requests_total", verb="unread"
    )


def test_several_processes_are_told_by_whichever_is_asked_and_never_go_back() -> None:
    with rig.server("--memory", "--workers", "3") as server:
        rig.eventually(lambda: processes(scraped(server)) == {"0", "1", "2"})
        for number in range(30):
            server.ask("POST", "/q/mail", str(number))
        pushed = rig.eventually(
            lambda: (
                (found := scraped(server))
                and summed(found, "presque_requests_total", verb="push", status="201") == 30
                and found
            )
        )
        assert value(pushed, "presque_queue_pushed_total", queue="mail") == 30
        assert value(pushed, "presque_pushed_total") == 30

        last: Samples = {}
        for _ in range(20):
            found = scraped(server)
            for key, count in last.items():
                if key[0].endswith("_total"):
                    assert found[key] >= count, key
            last = found


def test_without_a_store_it_tells_what_it_knows(tmp_path: Any) -> None:
    with rig.store("valkey") as store, rig.server(PRESQUE_REDIS__UNIX=store.socket) as server:
        assert value(scraped(server), "presque_queues") == 0
        store.process.send_signal(signal.SIGKILL)

        found = rig.eventually(
            lambda: (
                (one := scraped(server)) and value(one, "presque_store_connected", process="0") == 0 and one
            )
        )

        assert value(found, "presque_queues") is None
        assert summed(found, "presque_requests_total", verb="metrics") >= 1


def test_a_token_must_allow_to_read_everything(tmp_path: Any) -> None:
    flags = "--data", str(tmp_path / "data")
    admin = first_token(*flags)
    with rig.server(*flags) as server:
        wanting = Guarded(server, admin)
        assert wanting.ask(None, "GET", "/metrics").status == 401
        assert wanting.ask(wanting.make("read:some*"), "GET", "/metrics").status == 403
        assert wanting.ask(wanting.make("read:*"), "GET", "/metrics").status == 200
        assert wanting.ask(admin, "POST", "/namespaces", {"namespace": "tenant"}).status == 201
        inside = wanting.make("read:*", namespace="tenant")
        assert wanting.ask(inside, "GET", "/metrics").status == 403
        assert wanting.ask(inside, "GET", "/history").json["total"]["pushed"] == 0


# --- many queues, as values


def happened(pushed: int, ready: int) -> Happened:
    return Happened([ready, 0, 0, 0], [pushed, 0, 0, 0, 0, 0, 0, 0], {})


def told(figures: Figures) -> Samples:
    text, _ = exposition.text(figures, "")
    return samples(text.decode())


def test_queues_without_figures_of_their_own_are_summed_under_no_name() -> None:
    figures = Figures(
        "1", {}, store=OfStore(0.001, 1, 0, 0, False), now=100_000, queues=3, total=happened(60, 12),
        by_queue={"a": OfQueue(happened(30, 5), 90_000)}, oldest_of_others=40_000,
    )  # fmt: skip

    found = told(figures)

    assert value(found, "presque_jobs", queue="a", state="ready") == 5
    assert value(found, "presque_jobs", queue="", state="ready") == 7
    assert value(found, "presque_oldest_ready_seconds", queue="a") == 10
    assert value(found, "presque_oldest_ready_seconds", queue="") == 60
    assert value(found, "presque_pushed_total") == 60
    assert value(found, "presque_queue_pushed_total", queue="") is None


@pytest.mark.parametrize("name", ['"', "\\", "ä", "a.b:c@d"])
def test_any_name_is_written_so_that_it_is_read_again(name: str) -> None:
    figures = Figures(
        "1", {}, store=OfStore(0.001, 1, 0, 0, False), queues=1, by_queue={name: OfQueue(happened(1, 1), 0)}
    )

    assert value(told(figures), "presque_jobs", queue=name, state="ready") == 1


def test_every_time_is_below_a_bound_and_counted_once() -> None:
    times = {f"w{n}": 1 for n in range(32)}
    of = Happened([0] * 4, [0, 0, 0, 0, 0, 0, 5_000, 0], times)
    found = told(Figures("1", {}, store=OfStore(0.001, 1, 0, 0, False), total=of))

    buckets = [count for (name, _), count in found.items() if name == "presque_wait_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 32 == value(found, "presque_wait_seconds_count")
    assert value(found, "presque_wait_seconds_bucket", le="0.001") == 1  # less than a millisecond
    assert value(found, "presque_wait_seconds_bucket", le="0.004") == 3
    assert value(found, "presque_wait_seconds_sum") == 5


# --- what processes share


def test_each_process_of_a_board_reads_what_the_others_told() -> None:
    board = Board(3)
    other = Board(3, board.fd)

    board.put(0, b"zero")
    other.put(2, b"two" * 1000)

    assert board.all() == other.all() == {0: b"zero", 2: b"two" * 1000}
    other.put(0, b"")
    board.put(2, b"x" * PLACE_BYTES)  # does not fit
    assert board.all() == {}
    other.close()
    board.close()


def test_what_is_half_written_is_not_read() -> None:
    board = Board(1)
    board.put(0, b"whole")
    board._map[8:9] = b"W"

    assert board.all() == {}
    board.close()
