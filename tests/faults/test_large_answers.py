"""Large answers, many of them at once: nobody is refused, no job is lost, others wait for milliseconds."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import rig
from tests.doors.sockets import heard, speaking

KIB = 1024
MIB = 1024 * KIB
LARGE = 40 * MIB
PATIENT = "import presque.store.wire as wire; wire.PATIENCE = 60.0; from presque.cli.main import main; main()"
"""A server that takes no store for dead that is only slow: what is tested are sizes."""


@pytest.fixture(scope="module", params=["embedded", "valkey", "redis-7.0"])
def server(request: pytest.FixtureRequest) -> Iterator[rig.Server]:
    """A server on a store of each kind, with the limits that the store has by itself."""
    if request.param == "embedded":
        with rig.server("--memory", "--max-body", "64MiB", program=("-c", PATIENT)) as found:
            yield found
        return
    with (
        rig.store(request.param) as store,
        rig.server("--redis", store.url, "--max-body", "64MiB", program=("-c", PATIENT)) as found,
    ):
        yield found


def body_of(size: int) -> bytes:
    """A job of so many bytes."""
    return b'"' + b"x" * (size - 2) + b'"'


def fill(server: rig.Server, queue: str, count: int, size: int) -> None:
    """Push `count` jobs of `size` bytes."""
    with ThreadPoolExecutor(8) as pool:
        pushed = pool.map(lambda _: server.ask("POST", f"/q/{queue}", body_of(size)), range(count))
        refused = [answer.body for answer in pushed if answer.status != 201]
    assert refused == []


def all_at_once(asks: list[Callable[[], rig.Answer]]) -> list[rig.Answer]:
    """The answers to requests that are all sent in the same moment."""
    barrier = threading.Barrier(len(asks))

    def ask(one: Callable[[], rig.Answer]) -> rig.Answer:
        barrier.wait(rig.PATIENCE)
        return one()

    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(ask, asks))


def statuses(answers: list[rig.Answer]) -> dict[int, int]:
    found: dict[int, int] = {}
    for answer in answers:
        found[answer.status] = found.get(answer.status, 0) + 1
    return found


def test_64_clients_that_fetch_ten_jobs_of_100_kib_get_them_all(server: rig.Server, queue_name: str) -> None:
    fill(server, queue_name, 400, 100 * KIB)

    answers = all_at_once([lambda: server.ask("GET", f"/qb/{queue_name}?batch_size=10")] * 64)

    assert set(statuses(answers)) <= {200, 404}
    assert sum(len(answer.json) for answer in answers if answer.status == 200) == 400


def test_12_clients_that_fetch_4_mib_each_get_it(server: rig.Server, queue_name: str) -> None:
    fill(server, queue_name, 48, MIB)

    answers = all_at_once([lambda: server.ask("GET", f"/qb/{queue_name}?batch_size=4")] * 12)

    assert statuses(answers) == {200: 12}
    assert sum(len(answer.json) for answer in answers) == 48


def test_fetches_from_64_queues_of_large_jobs_lose_none(server: rig.Server, queue_name: str) -> None:
    for number in range(64):
        fill(server, f"{queue_name}{number}", 1, MIB)

    def fetch(number: int) -> Callable[[], rig.Answer]:
        return lambda: server.ask("GET", f"/q/{queue_name}{number}")

    answers = all_at_once([fetch(number) for number in range(64)])

    assert statuses(answers) == {200: 64}
    assert {len(answer.body) for answer in answers} == {MIB}


def test_leases_of_many_jobs_at_once_leave_none_leased_by_nobody(server: rig.Server, queue_name: str) -> None:
    fill(server, queue_name, 8, 10 * KIB)
    bodies = json.dumps({"jobs": ["x" * (10 * KIB - 2)] * 99})
    for _ in range(40):
        server.ask("POST", f"/qb/{queue_name}", bodies)

    answers = all_at_once([lambda: server.ask("POST", f"/q/{queue_name}/lease?count=819")] * 4)

    assert statuses(answers) == {200: 4}
    leased = sum(len(answer.json["jobs"]) for answer in answers)
    assert leased == server.ask("GET", f"/stats/{queue_name}").json["leased"]
    assert leased >= 4 * 350


def test_128_clients_that_lease_a_job_of_500_kib_each_get_one(server: rig.Server, queue_name: str) -> None:
    fill(server, queue_name, 128, 500 * KIB)

    answers = all_at_once([lambda: server.ask("POST", f"/q/{queue_name}/lease", b"{}")] * 128)

    assert statuses(answers) == {200: 128}
    assert len({answer.json["jobs"][0]["id"] for answer in answers}) == 128


@pytest.mark.parametrize("path", ["/status/{}?with_desc=1", "/j/{}?state=ready&limit=100"])
def test_12_clients_that_look_at_large_jobs_are_answered(
    server: rig.Server, queue_name: str, path: str
) -> None:
    fill(server, queue_name, 24, MIB)

    answers = all_at_once([lambda: server.ask("GET", path.format(queue_name))] * 12)

    assert statuses(answers) == {200: 12}
    assert all(0 < len(answer.json["jobs"]) <= 9 for answer in answers)
    assert server.ask("GET", f"/stats/{queue_name}").json["ready"] == 24


def test_others_wait_for_milliseconds_while_many_look_at_large_jobs(
    server: rig.Server, queue_name: str
) -> None:
    fill(server, queue_name, 16, MIB)
    over = threading.Event()
    looks: list[tuple[float, int]] = []

    def look() -> None:
        while not over.is_set():
            began = time.monotonic()
            status = server.ask("GET", f"/status/{queue_name}?with_desc=1").status
            looks.append((time.monotonic() - began, status))

    lookers = [threading.Thread(target=look) for _ in range(16)]
    for looker in lookers:
        looker.start()
    try:
        rig.eventually(lambda: len(looks) > 16)
        waits = []
        for _ in range(30):
            began = time.monotonic()
            assert server.ask("POST", f"/q/{queue_name}-other", b"1").status == 201
            waits.append(time.monotonic() - began)
    finally:
        over.set()
        for looker in lookers:
            looker.join()
    assert {status for _, status in looks} == {200}
    # Without the bound what is behind all looks takes as long as they do.
    assert statistics.median(waits) < 0.6 * statistics.median(took for took, _ in looks), (waits, looks)


TAKES = [
    ("GET", "/q/{}", None),
    ("GET", "/q/{},other", None),
    ("GET", "/q/{}?wait=5", None),
    ("GET", "/q/{},other?wait=5", None),
    ("GET", "/qb/{}?batch_size=10", None),
    ("POST", "/q/{}/lease", "{{}}"),
    ("POST", "/q/{}/lease?wait=5", "{{}}"),
    ("POST", "/queue", '{{"cmd": "fetch", "queue": "{}"}}'),
    ("POST", "/queue", '{{"cmd": "lease", "queue": "{}"}}'),
]
LOOKS = [
    ("GET", "/j/{}/1", None),
    ("GET", "/j/{}?state=ready", None),
    ("GET", "/status/{}?with_desc=1", None),
    ("POST", "/queue", '{{"cmd": "peek", "queue": "{}"}}'),
    ("PATCH", "/j/{}/1", '{{"priority": 9}}'),
]


@pytest.mark.parametrize("asks", [*([one] for one in TAKES), LOOKS])
def test_a_job_of_40_mib_passes_through_every_door(
    server: rig.Server, queue_name: str, asks: list[tuple[str, str, str | None]]
) -> None:
    fill(server, queue_name, 1, LARGE)

    for method, path, body in asks:
        answer = server.ask(method, path.format(queue_name), body and body.format(queue_name))
        assert (answer.status, path) == (200, path)
        assert len(answer.body) > LARGE - 100
    server.ask("DELETE", f"/q/{queue_name}")


def test_a_job_of_40_mib_is_leased_again_and_listed_in_every_state(
    server: rig.Server, queue_name: str
) -> None:
    server.ask("PATCH", f"/p/{queue_name}", '{"max_attempts": 2, "keep": 60}')
    fill(server, queue_name, 1, LARGE)

    def listed(state: str) -> bool:
        return len(server.ask("GET", f"/j/{queue_name}?state={state}").body) > LARGE

    for last in (False, True):
        [job] = server.ask("POST", f"/q/{queue_name}/lease", b"{}").json["jobs"]
        assert len(job["body"]) == LARGE - 2
        assert listed("leased")
        settled = server.ask(
            "POST", f"/j/{queue_name}/{job['id']}/fail?lease={job['lease']}", b'{"retry_in": 0}'
        )
        assert settled.json["state"] == ("dead" if last else "ready")
    assert listed("dead")
    server.ask("DELETE", f"/q/{queue_name}")


async def test_a_job_of_40_mib_reaches_a_socket(server: rig.Server, queue_name: str) -> None:
    async with speaking(server, max_size=None) as on:
        fill(server, queue_name, 1, LARGE)
        await on.send(json.dumps({"cmd": "lease", "queue": queue_name, "count": 1}))
        while (message := await heard(on)).get("event") != "job":
            pass
        assert len(message["job"]["body"] if "job" in message else message["body"]) == LARGE - 2
    server.ask("DELETE", f"/q/{queue_name}")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_a_stream_sends_a_job_of_40_mib_as_quickly_as_a_fetch(
    queue_name: str, pem: Path, encrypted: bool
) -> None:
    """The socket of a stream holds little, so that who does not read takes few jobs. A large job must not
    travel in pieces so small."""
    flags = ("--memory", "--max-body", "64MiB")
    with rig.tls_server(pem, *flags) if encrypted else rig.server(*flags) as server:
        fill(server, queue_name, 2, LARGE)
        began = time.monotonic()
        assert len(server.ask("GET", f"/q/{queue_name}").body) == LARGE
        fetched = time.monotonic()
        with contextlib.closing(server.connect()) as connection:
            connection.sendall(f"GET /c/{queue_name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            received = 0
            while received < LARGE:
                received += len(connection.recv(1 << 20))
        assert time.monotonic() - fetched < 10 * (fetched - began)  # 80 times in pieces of two kilobytes
