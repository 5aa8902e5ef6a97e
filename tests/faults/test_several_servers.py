"""Several servers on one store: each tells what all did and steers what any began, also after kill -9."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from presque import Client
from tests import rig
from tests.doors.test_metrics import scraped, summed, value

JOBS = 1200
RATE = 300


@pytest.fixture(scope="module")
def store() -> Iterator[rig.Store]:
    with rig.store("valkey") as found:
        yield found


def kill(server: rig.Server) -> None:
    """End it as kill -9 does."""
    server.process.kill()
    server.process.wait()


def test_history_and_metrics_tell_what_all_servers_did_whichever_is_asked(
    store: rig.Store, queue_name: str
) -> None:
    flags = ("--redis", store.url, "--namespace", queue_name)
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(rig.server(*flags)) for _ in range(2))
        for number in range(20):
            server = (first, second)[number % 2]
            assert server.ask("POST", f"/q/mail{number % 3}", "1").status == 201
        for number in range(8):
            assert (second, first)[number % 2].ask("GET", "/q/mail*").status == 200
        kill(first)
        third = stack.enter_context(rig.server(*flags))
        assert third.ask("POST", "/q/mail0", "1").status == 201

        for server in (second, third):
            with Client(server.url) as client:
                total = client.history(over="5m")["total"]
                assert (total["pushed"], total["fetched"], total["depth"]["ready"]) == (21, 8, 13)
                assert sum(client.history(f"mail{n}")["total"]["pushed"] for n in range(3)) == 21
            found = scraped(server)
            assert (value(found, "presque_pushed_total"), value(found, "presque_fetched_total")) == (21, 8)
            assert summed(found, "presque_queue_pushed_total") == 21
        # What a server was asked is its own.
        assert summed(scraped(second), "presque_requests_total", verb="push", status="201") == 10


@pytest.mark.parametrize("resumes", [True, False])
def test_a_task_is_steered_from_any_server_and_keeps_its_rate(
    store: rig.Store, queue_name: str, resumes: bool
) -> None:
    flags = ("--redis", store.url, "--namespace", queue_name)
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(rig.server(*flags)) for _ in range(2))
        one, other = (stack.enter_context(Client(server.url)) for server in (first, second))
        one.push_many("here", list(range(1000)))
        one.push_many("here", list(range(1000, JOBS)))
        began = time.monotonic()
        id = one.new_task("move", "here", state="ready", to="there", rate=RATE)["id"]

        rig.eventually(lambda: other.task(id)["done"] > 50)
        other.pause_task(id)
        paused = rig.eventually(lambda: (found := one.task(id))["status"] == "paused" and found)
        kill(first)
        assert other.task(id)["status"] == "paused"
        assert paused["done"] <= other.size("there") <= paused["done"] + RATE

        third = stack.enter_context(Client(stack.enter_context(rig.server(*flags)).url))
        far = other.task(id)["done"]
        if resumes:
            third.resume_task(id)
            rig.eventually(lambda: other.task(id)["done"] > far)
            far = other.task(id)["done"]
            assert far <= RATE * (time.monotonic() - began + 1)
        other.cancel_task(id)
        ended = rig.eventually(lambda: (found := third.task(id))["ended_at"] and found)

        assert ended["status"] == "cancelled"
        assert far <= ended["done"] == third.size("there")
        assert third.size("here") + third.size("there") == JOBS
