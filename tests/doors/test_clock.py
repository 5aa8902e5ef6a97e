"""A server for tests has a clock that can be moved, and all that depends on time follows at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest

from presque import Client
from presque.client import ClientError
from presque.engine import library
from presque.shapes import SHAPES
from tests import rig
from tests.doors.sockets import heard, speaking

HEADER = "presque-test-clock"


@pytest.fixture(scope="module")
def turned() -> Iterator[rig.Server]:
    """A server whose clock the tests of this file move, ever further."""
    with rig.server("--memory", "--test-clock") as found:
        yield found


@pytest.fixture
def client(turned: rig.Server) -> Iterator[Client]:
    with Client(turned.url) as found:
        yield found


def advance(server: rig.Server, by: str) -> dict[str, Any]:
    answer = server.ask("POST", "/clock", json.dumps({"advance": by}))
    assert answer.status == 200, answer
    return dict(answer.json)


def read(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


# --- what time does to jobs


def test_a_delayed_job_is_ready_when_the_clock_was_moved(turned: rig.Server, queue_name: str) -> None:
    turned.ask("POST", f"/q/{queue_name}?delay=1h", "1")
    assert turned.ask("GET", f"/status/{queue_name}").json["size"] == 0
    advance(turned, "59m")
    assert turned.ask("GET", f"/status/{queue_name}").json["size"] == 0
    advance(turned, "1m")
    assert turned.ask("GET", f"/status/{queue_name}").json["size"] == 1


def test_a_job_of_a_named_moment_waits_for_it(turned: rig.Server, queue_name: str) -> None:
    now = read(turned.ask("GET", "/clock").json["now"])
    moment = (now + timedelta(days=3)).isoformat().replace("+00:00", "Z")
    turned.ask("POST", f"/q/{queue_name}?delayed={moment}", "1")
    advance(turned, "71h")
    assert turned.ask("GET", f"/q/{queue_name}").status == 404
    at = turned.ask("POST", "/clock", json.dumps({"at": moment})).json["now"]
    assert read(at) - read(moment) < timedelta(seconds=30)
    assert turned.ask("GET", f"/q/{queue_name}").status == 200


@pytest.mark.parametrize(
    ("moves", "found"),
    [(["1h", "1h", "1h"], [[1], [2], [3]]), (["150m", "30m"], [[1, 2], [3]]), (["3h"], [[1, 2, 3]])],
)
def test_scheduled_jobs_come_when_due_whatever_order_they_were_pushed_in(
    turned: rig.Server, queue_name: str, moves: list[str], found: list[list[int]]
) -> None:
    for hours in 3, 1, 2:
        turned.ask("POST", f"/q/{queue_name}?delay={hours}h", str(hours))
    for by, jobs in zip(moves, found, strict=True):
        advance(turned, by)
        assert turned.ask("GET", f"/qb/{queue_name}").json == [str(job) for job in jobs]


def test_its_answers_have_the_shapes_that_the_document_says(turned: rig.Server) -> None:
    for answer in (turned.ask("GET", "/clock"), turned.ask("POST", "/clock", '{"advance": 1}')):
        jsonschema.validate(answer.json, SHAPES["clock"])


def test_a_lease_ends_a_failed_job_comes_again_and_the_last_attempt_is_the_last(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=2, lease=60, backoff={"jitter": 0, "first": 600})
    id = client.push(queue_name, 1)
    [job] = client.lease(queue_name)
    advance(turned, "61s")
    with pytest.raises(ClientError) as lost:
        client.ack(job)
    assert lost.value.code == "lease-lost"
    [job] = client.lease(queue_name)
    client.fail(job, error="no", retry=None)
    assert client.job(queue_name, id)["state"] == "dead"
    client.retry(queue_name, id)
    [job] = client.lease(queue_name)
    client.fail(job, error="no")
    advance(turned, "9m")
    assert client.job(queue_name, id)["state"] == "scheduled"
    advance(turned, "1m")
    assert client.job(queue_name, id)["state"] == "ready"


def test_a_job_nobody_took_is_gone_and_a_kept_one_stays_for_its_time(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.push(queue_name, 1, ttl="10m")
    kept = client.push(queue_name, 2, keep="1h", priority=9)
    [job] = client.lease(queue_name)
    assert job.id == kept
    client.ack(job, result="fine")
    advance(turned, "10m")
    stats = client.stats(queue_name)
    assert (stats["ready"], stats["expired"], stats["done"]) == (0, 1, 1)
    assert client.job(queue_name, kept)["result"] == "fine"
    advance(turned, "51m")
    assert client.stats(queue_name)["done"] == 0


def test_an_idempotency_key_means_nothing_after_its_day(turned: rig.Server, queue_name: str) -> None:
    def push() -> rig.Answer:
        return turned.ask("POST", f"/q/{queue_name}", "1", Idempotency_Key="once")

    first = push()
    advance(turned, "23h")
    assert push().json == first.json
    advance(turned, "2h")
    assert push().json != first.json


def test_an_unused_queue_is_forgotten_when_its_time_is_up(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.change_policy(queue_name, expires="1h")
    client.push(queue_name, 1)
    client.fetch(queue_name)
    advance(turned, "2h")
    advance(turned, "2h")
    assert queue_name not in client.queues()


def test_a_worker_that_does_not_report_is_silent(client: Client, turned: rig.Server, queue_name: str) -> None:
    client.register(queue_name, "w-silent")
    advance(turned, "30m")
    [worker] = [one for one in client.worker_records() if one["worker_id"] == "w-silent"]
    assert 1800 <= worker["silent_seconds"] < 1900
    client.unregister(queue_name, "w-silent")


# --- recurring jobs


def test_a_recurring_job_is_pushed_at_each_of_its_moments(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.put_cron(queue_name, queue_name, {"kind": "report"}, "0 3 * * *", timezone="Europe/Paris")
    [first, second, *_] = client.cron(queue_name)["next"]
    turned.ask("POST", "/clock", json.dumps({"at": first}))
    assert client.info(queue_name)["job_count"] == 1
    assert client.cron(queue_name)["next"][0] == second
    advance(turned, "7d")
    assert client.info(queue_name)["job_count"] == 8
    client.delete_cron(queue_name)


def test_an_interval_is_pushed_as_often_as_it_fits(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.put_cron(queue_name, queue_name, 1, "@every 5m", missed="skip")
    advance(turned, "1h")
    assert client.info(queue_name)["job_count"] in (12, 13)  # time goes on of itself, too
    client.delete_cron(queue_name)


def test_more_moments_than_one_move_stops_at_are_missed_ones(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.put_cron(queue_name, queue_name, 1, "* * * * * *")
    advance(turned, "1h")
    assert 1001 <= client.info(queue_name)["job_count"] < 1100  # it goes on of itself, too
    client.delete_cron(queue_name)


def test_a_clock_that_goes_back_silences_no_recurring_job(
    client: Client, turned: rig.Server, queue_name: str
) -> None:
    client.put_cron(queue_name, queue_name, 1, "0 * * * *")
    now = read(client.clock()["now"])
    client.move_clock("30d")
    pushed = client.info(queue_name)["job_count"]
    assert 720 <= pushed <= 721
    client.move_clock(at=now)
    assert read(client.cron(queue_name)["next"][0]) - now <= timedelta(hours=1)
    client.delete_cron(queue_name)


# --- those who wait


def test_who_waits_for_a_job_gets_the_one_that_is_due_now(turned: rig.Server, queue_name: str) -> None:
    with ThreadPoolExecutor() as pool:
        for queues in (queue_name, f"{queue_name}*"):
            turned.ask("POST", f"/q/{queue_name}?delay=30s", "7")
            waiting = pool.submit(turned.ask, "GET", f"/q/{queues}?wait=60", timeout=rig.PATIENCE)
            rig.eventually(lambda: explained(turned, queue_name) == "heard")
            advance(turned, "30s")
            assert waiting.result(rig.PATIENCE).json == 7


def explained(server: rig.Server, queue: str) -> str:
    """`heard` once somebody waits for the jobs of a queue."""
    [job] = server.ask("GET", f"/j/{queue}?state=scheduled&limit=1").json["jobs"]
    reasons = server.ask("GET", f"/j/{queue}/{job['id']}/explain").json["reasons"]
    return "alone" if any("nobody waits" in one["text"] for one in reasons) else "heard"


def test_a_wait_that_would_be_over_is_over(turned: rig.Server, queue_name: str) -> None:
    id = turned.ask("POST", f"/q/{queue_name}?delay=1d", "1").json["id"]
    asked = [
        ("GET", f"/q/{queue_name}?wait=60", 404),
        ("POST", f"/q/{queue_name}/lease?wait=60", 204),
        ("GET", f"/j/{queue_name}/{id}?wait=60", 200),
    ]
    begun = threading.Barrier(len(asked) + 1)

    def ask(method: str, path: str) -> rig.Answer:
        sent = turned.send(method, path, timeout=rig.PATIENCE)
        begun.wait()
        return sent.answer()

    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask, method, path) for method, path, _ in asked]
        begun.wait()
        rig.eventually(lambda: explained(turned, queue_name) == "heard")
        done = threading.Event()

        def move() -> bool:  # a request that was on its way waits for the next one
            advance(turned, "61s")
            return all(answer.done() for answer in answers) or done.is_set()

        rig.eventually(move)
        assert [answer.result().status for answer in answers] == [status for _, _, status in asked]


async def test_a_socket_gets_what_is_due_now_and_keeps_its_credits(
    turned: rig.Server, queue_name: str
) -> None:
    async with speaking(turned, f"/ws/{queue_name}") as on:
        await on.send(json.dumps({"cmd": "lease", "count": 2, "ref": 1}))
        await heard(on)
        for delay in ("1h", "2h"):
            turned.ask("POST", f"/q/{queue_name}?delay={delay}", "1")
        for _ in range(2):
            advance(turned, "1h")
            assert (await heard(on))["event"] == "job"


# --- tokens


def test_a_token_expires_by_the_clock() -> None:
    with rig.server("--memory", "--test-clock") as server, Client(server.url) as anybody:
        admin = anybody.new_token("admin", allow=["*:*"])["token"]
        with Client(server.url, token=admin) as client:
            soon = datetime.now(UTC) + timedelta(hours=1)
            short = client.new_token("short", allow=["push:*"], expires=soon)["token"]
            with Client(server.url, token=short) as pusher:
                pusher.push("mail", 1)
                with pytest.raises(ClientError, match="admin"):
                    pusher.move_clock("1h")
                client.move_clock("1h")
                with pytest.raises(ClientError) as refused:
                    pusher.push("mail", 1)
                assert refused.value.code == "token-expired"
        assert server.ask("POST", "/clock", '{"advance": "1h"}').status == 401


# --- what is asked, and of whom


def test_every_answer_says_that_the_clock_is_for_tests(turned: rig.Server, queue_name: str) -> None:
    ahead = turned.ask("GET", "/clock").json["ahead"]
    asked = [
        ("POST", f"/q/{queue_name}", "1"),
        ("GET", f"/q/{queue_name}", None),
        ("GET", f"/q/{queue_name}", None),
        ("POST", f"/q/{queue_name}/lease", None),
        ("GET", "/stats/", None),
        ("GET", "/", None),
        ("GET", "/nowhere", None),
        ("GET", f"/c/{queue_name}?wait=0.1", None),
    ]
    for method, path, body in asked:
        assert float(turned.ask(method, path, body).headers[HEADER]) == ahead, path
    raw = turned.raw(b"GET / HTTP/1.1\r\n\r\n").lower()
    assert HEADER.encode() in raw
    advance(turned, "1h")
    assert float(turned.ask("POST", f"/q/{queue_name}", "1").headers[HEADER]) == ahead + 3600
    assert turned.ask("GET", "/stats/").json["test_clock"] == {"ahead": ahead + 3600}


def test_the_first_screen_says_it() -> None:
    with rig.server("--memory", "--test-clock") as server:
        rig.eventually(lambda: "TEST CLOCK" in server.said())


def test_the_clock_goes_on_from_where_it_was_put(turned: rig.Server) -> None:
    before = turned.ask("POST", "/clock", '{"advance": 0}').json
    after = turned.ask("GET", "/clock").json
    assert before["ahead"] == after["ahead"]
    assert read(before["now"]) <= read(after["now"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "`advance`"),
        ("{}", "`advance`"),
        ('{"advance": "-1s"}', "`advance`"),
        ('{"advance": "soon"}', "`advance`"),
        ('{"advance": "11000d"}', "`advance`"),
        ('{"advance": 1, "at": 1}', "not both"),
        ('{"at": "tomorrow"}', "`at`"),
        ('{"by": 1}', "`by`"),
        ("[", "not JSON"),
    ],
)
def test_what_makes_no_sense_moves_nothing(turned: rig.Server, body: str, said: str) -> None:
    before = turned.ask("GET", "/clock").json["ahead"]
    answer = turned.ask("POST", "/clock", body)
    assert answer.status == 400
    assert said in answer.json["error"]
    assert turned.ask("GET", "/clock").json["ahead"] == before


def test_a_clock_ends_with_the_year_9999(turned: rig.Server) -> None:
    with rig.server("--memory", "--test-clock") as server:
        server.ask("POST", "/clock", '{"at": "9999-12-31T23:59:00Z"}')
        answer = server.ask("POST", "/clock", '{"advance": "2h"}')
        assert answer.status == 400
        assert "9999" in answer.json["error"]


def test_two_who_move_the_clock_at_once_move_it_by_both(turned: rig.Server) -> None:
    before = turned.ask("GET", "/clock").json["ahead"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: advance(turned, "1m"), range(10)))
    assert turned.ask("GET", "/clock").json["ahead"] == before + 600


def test_any_other_server_has_the_stores_time(server: rig.Server) -> None:
    for method in ("GET", "POST"):
        answer = server.ask(method, "/clock", '{"advance": "1h"}' if method == "POST" else None)
        assert answer.status == 404
        assert answer.json["code"] == "no-test-clock"
        assert "--test-clock" in answer.json["error"]
        assert HEADER not in answer.headers
    assert "test_clock" not in server.ask("GET", "/stats/").json


def test_its_functions_are_not_in_the_library_of_any_other_server() -> None:
    assert "move_clock" not in library.source()
    assert library.source(test_clock=True).startswith(library.source())


# --- namespaces


def test_one_clock_is_that_of_all_namespaces(queue_name: str) -> None:
    with rig.server("--memory", "--test-clock") as server, Client(server.url) as anybody:
        admin = anybody.new_token("admin", allow=["*:*"])["token"]
        with Client(server.url, token=admin) as client:
            client.new_namespace("acme")
            token = client.new_token("acme", allow=["*:*"], namespace="acme")["token"]
            with Client(server.url, token=token) as tenant:
                tenant.push("mail", 1, delay="1h")
                tenant.put_cron("hourly", "reports", 1, "0 * * * *")
                client.push("mail", 1, delay="1h")
                with pytest.raises(ClientError, match="all namespaces"):
                    tenant.move_clock("3h")
                client.move_clock("3h")
                for one in (client, tenant):
                    assert one.stats("mail")["ready"] == 1
                assert tenant.stats("reports")["ready"] in (3, 4)  # time goes on of itself, too
