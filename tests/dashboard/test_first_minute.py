"""Somebody who has never seen presque, with a telephone in the hand, at night."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from presque import Client
from tests import rig
from tests.dashboard.conftest import Open

LONG = "invoices-of-customers-who-pay-late-in-europe"


@pytest.fixture
def night() -> Iterator[rig.Server]:
    """A server on which jobs have failed, a queue is stopped, and nobody works on another."""
    with rig.server("--memory") as found:
        with Client(found.url) as client:
            client.push_many("video", [{"n": n} for n in range(3)])
            for job in client.lease("video", 3):
                client.fail(job, f"no such codec: 0x{job.id}", backtrace="line 7", retry=False)
            client.push("reports", {"for": "november"})
            client.stop("reports")
            client.push(LONG, {"n": 1})
        yield found


def read(page: Page, at: str) -> str:
    return page.locator(at).inner_text()


def test_what_is_wrong_is_said_first_and_each_part_leads_to_the_way_out(
    window: Open, night: rig.Server
) -> None:
    page = window(night.url, width=360, height=740)
    strip = page.locator(".triage")
    expect(strip).to_contain_text("video: 3 dead, the last")
    expect(strip).to_contain_text("(“no such codec: 0x")
    expect(strip).to_contain_text("reports: stopped, 1 job waits")
    for link in strip.locator("a").all():
        box = link.bounding_box()
        assert box is not None
        assert (box["x"] >= 0, box["x"] + box["width"] <= 360, box["height"] >= 24) == (True, True, True)

    strip.get_by_role("link", name="video").click()  # failing jobs: why, and again
    page.locator(".jobs tbody a").first.click()
    expect(page.locator(".headline.bad")).to_contain_text("no such codec")
    page.get_by_role("button", name="Retry…", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Try").click()
    expect(page.locator(".head .state")).to_have_text("ready")
    expect(page.locator(".headline")).to_contain_text("presque work video")  # it waits for a worker now

    page.get_by_role("link", name="Failures").click()  # all others at once
    page.get_by_role("button", name="Retry…", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("2 jobs match")
    page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(page.get_by_role("heading", name="No job is dead")).to_be_visible()

    strip.get_by_role("link", name="reports").click()  # stopped: by one press, and back
    page.locator(".jobs tbody a").first.click()
    expect(page.locator(".headline.warn")).to_contain_text("stopped")
    page.get_by_role("button", name="Start the queue").click()
    expect(page.locator(".headline")).not_to_contain_text("stopped")
    with Client(night.url) as client:
        assert client.started("reports")
        page.locator(".notes").get_by_role("button", name="Undo").click()
        rig.eventually(lambda: not client.started("reports"))


def test_of_a_name_that_is_too_long_the_end_is_shown(window: Open, night: rig.Server) -> None:
    page = window(night.url, width=360)
    name = page.get_by_role("link", name=LONG, exact=True)
    expect(name).to_be_visible()
    end = name.locator("span").last
    expect(end).to_have_text(LONG[-8:])
    box, whole = end.bounding_box(), name.bounding_box()
    assert box is not None
    assert whole is not None
    assert box["x"] + box["width"] <= whole["x"] + whole["width"] + 1 <= 360


def test_the_view_that_is_open_is_in_sight_among_the_tabs(window: Open, night: rig.Server) -> None:
    page = window(night.url, "#/server", width=360)
    expect(page.get_by_role("heading", name="Server")).to_be_visible()
    expect(page.locator(".tabs a[aria-current]")).to_be_in_viewport(ratio=0.9)
