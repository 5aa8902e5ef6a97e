"""Looking at queues and jobs, in a real browser on a real server."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from presque import Client
from tests import rig
from tests.dashboard.conftest import Open
from tests.dashboard.world import fill


@pytest.fixture(scope="module")
def busy() -> Iterator[rig.Server]:
    """A server with something to look at."""
    with rig.server("--memory") as found:
        with Client(found.url) as client:
            fill(client)
        yield found


@pytest.fixture
def fresh() -> Iterator[rig.Server]:
    """A server without any queue."""
    with rig.server("--memory") as found:
        yield found


def line(page: Page, name: str) -> object:
    return page.locator("tbody tr", has=page.get_by_role("link", name=name, exact=True))


def test_an_empty_server_shows_how_to_push_and_the_first_job_shows_without_a_reload(
    window: Open, fresh: rig.Server
) -> None:
    page = window(fresh.url)
    expect(page.locator("#try")).to_contain_text(f"curl {fresh.url}/q/hello")
    expect(page.get_by_text("All is well")).to_be_visible()
    fresh.ask("POST", "/q/mail", b"1")
    row = page.locator("tbody tr", has_text="mail")
    expect(row.locator("td").first).to_have_text("1")
    fresh.ask("POST", "/control/mail", b'{"status":"stop"}')
    expect(row).to_contain_text("stopped")
    expect(page.locator(".triage")).to_contain_text("mail: stopped, 1 job waits")


def test_queues_in_trouble_come_first_and_names_with_a_common_beginning_are_folded(
    window: Open, busy: rig.Server
) -> None:
    page = window(busy.url)
    lines = page.locator(".queues tbody th")
    expect(lines.first).to_contain_text("reports")
    fold = page.get_by_role("button", name="tenant-…")
    expect(fold).to_contain_text("60 queues")
    expect(page.get_by_role("link", name="tenant-0000")).to_have_count(0)
    fold.click()
    expect(page.get_by_role("link", name="tenant-0000")).to_be_visible()
    page.reload()
    expect(page.get_by_role("link", name="tenant-0000")).to_be_visible()
    page.get_by_label("Filter queues").fill("T-005")
    expect(lines).to_have_count(10)
    page.get_by_label("Filter queues").fill("no such queue")
    expect(page.get_by_text("No queue is called so")).to_be_visible()
    page.get_by_label("Filter queues").fill("in")
    page.get_by_role("button", name="Ready", exact=True).click()
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Ready")
    expect(lines).to_have_text(["invoices", "reminders"])
    page.get_by_role("button", name="Ready").click()
    expect(lines).to_have_text(["reminders", "invoices"])


def test_a_queue_that_is_pinned_stays_on_top(window: Open, busy: rig.Server) -> None:
    page = window(busy.url)
    page.get_by_role("button", name="More for imports").click()
    page.get_by_role("button", name="Keep on top").click()
    expect(page.locator(".queues tbody th").first).to_contain_text("imports")
    page.reload()
    expect(page.locator(".queues tbody th").first).to_contain_text("imports")


def test_a_queue_says_why_it_does_not_move(window: Open, busy: rig.Server) -> None:
    page = window(busy.url, "#/queues/reports")
    expect(page.locator(".headline")).to_contain_text("This queue is stopped")
    page.get_by_role("link", name="scheduled").click()
    expect(page.get_by_text("Nothing is scheduled")).to_be_visible()
    page.goto(f"{busy.url}/#/queues/invoices")
    expect(page.locator(".headline")).to_contain_text("nobody waits for a job of this queue")


def test_jobs_come_in_pages_that_the_address_remembers(window: Open, busy: rig.Server) -> None:
    page = window(busy.url, "#/queues/imports")
    expect(page.locator(".jobs tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Next page").click()
    expect(page.locator(".jobs tbody th").first).to_have_text("51")
    page.reload()
    expect(page.locator(".jobs tbody th").first).to_have_text("51")
    page.go_back()
    expect(page.locator(".jobs tbody th").first).to_have_text("1")


def test_a_body_is_shown_as_it_came(window: Open, busy: rig.Server) -> None:
    body = (
        '{"id": 18446744073709551617, "price": 1.50, "twice": 1, "twice": 2, '
        '"html": "<img src=x onerror=alert(1)>"}'
    )
    made = busy.ask("POST", "/q/exact", body.encode()).json
    page = window(busy.url, f"#/jobs/exact/{made['id']}")
    shown = page.locator("pre.body")
    expect(shown).to_contain_text('"id": 18446744073709551617')
    expect(shown).to_contain_text('"price": 1.50')
    expect(shown).to_contain_text('"html": "<img src=x onerror=alert(1)>"')
    page.get_by_role("button", name="As it came").click()
    expect(shown).to_have_text(body)
    expect(page.locator("main img")).to_have_count(0)


def test_a_job_shows_what_happened_to_it_and_follows_it(window: Open, busy: rig.Server) -> None:
    with Client(busy.url, worker="<b>w1</b>") as client:
        client.change_policy("life", max_attempts=1)
        id = client.push("life", {"n": 1}, group="acme")
        page = window(busy.url, f"#/jobs/life/{id}", bears=("404",))
        expect(page.locator(".headline")).to_contain_text("obody waits")
        [job] = client.lease("life")
        expect(page.locator(".head .state")).to_have_text("leased")
        expect(page.locator(".timeline")).to_contain_text("leased by <b>w1</b>")
        client.extend(job, progress={"percent": 40})
        expect(page.get_by_role("progressbar")).to_have_attribute("value", "40")
        client.fail(job, "<script>alert(1)</script>\nmore", backtrace="File x, line 1")
        expect(page.locator(".head .state")).to_have_text("dead")
        expect(page.locator(".timeline")).to_contain_text("<script>alert(1)</script>")
        expect(page.get_by_text("File x, line 1")).to_be_visible()
        client.retry("life", id)
        client.delete("life", id)
        expect(page.locator(".headline")).to_contain_text("finished or deleted")


def test_what_is_not_there_says_so(window: Open, busy: rig.Server) -> None:
    page = window(busy.url, "#/jobs/mail/9999", bears=("404",))
    expect(page.get_by_role("heading", name="It is not there")).to_be_visible()
    page.goto(f"{busy.url}/#/nowhere")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


def test_a_server_that_goes_away_is_said_and_comes_back_by_itself(window: Open) -> None:
    flags = ("--memory", "--port", str(rig.free_port()))
    with rig.server(*flags) as server:
        server.ask("POST", "/q/before", b"1")
        page = window(server.url)
        expect(page.get_by_role("link", name="before")).to_be_visible()
        server.stop(signal.SIGTERM)
    expect(page.locator("#away")).to_contain_text("No answer from the server since")
    expect(page.get_by_role("link", name="before")).to_be_visible()
    with rig.server(*flags) as again:
        again.ask("POST", "/q/after", b"1")
        expect(page.get_by_role("link", name="after")).to_be_visible()
        expect(page.locator("#away")).to_be_hidden()
        expect(page.get_by_role("link", name="before")).to_be_hidden()


def test_nothing_moves_while_it_is_paused(window: Open, busy: rig.Server) -> None:
    page = window(busy.url)
    expect(page.get_by_role("button", name="live")).to_be_visible()
    page.keyboard.press("p")
    expect(page.get_by_text("nothing here moves")).to_be_visible()
    busy.ask("POST", "/q/unseen", b"1")
    page.keyboard.press("p")
    expect(page.get_by_role("link", name="unseen")).to_be_visible()


def test_of_many_queues_only_those_in_sight_are_in_the_document(window: Open, fresh: rig.Server) -> None:
    for first in range(0, 1500, 500):
        jobs = [{"cmd": "push", "queue": f"q{number:04}", "job": 1} for number in range(first, first + 500)]
        assert fresh.ask("POST", "/queue", json.dumps(jobs), timeout=60).status == 200
    page = window(fresh.url)
    expect(page.get_by_role("heading", name="Queues")).to_contain_text("1,500")
    expect(page.get_by_role("link", name="q0000")).to_be_visible()
    expect(page.get_by_text("reading")).to_have_count(0)
    assert page.locator(".queues tbody tr").count() < 100
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_role("link", name="q1499")).to_be_visible()
    page.get_by_label("Filter queues").fill("149")
    expect(page.locator(".queues tbody th")).to_have_count(12)
