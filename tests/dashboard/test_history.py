"""What happened over time, as charts and as tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from presque import Client
from tests import rig
from tests.dashboard.conftest import Open


@pytest.fixture(scope="module")
def past() -> Iterator[rig.Server]:
    """A server on which something has happened."""
    with rig.server("--memory") as found:
        with Client(found.url) as client:
            client.push_many("past", list(range(40)))
            for job in client.lease("past", count=30):
                client.ack(job)
        yield found


def test_what_happened_to_a_queue_is_drawn_and_told_in_a_table(window: Open, past: rig.Server) -> None:
    page = window(past.url, "#/queues/past?state=history&over=5m")
    expect(page.locator(".chart canvas")).to_have_count(4)
    expect(page.get_by_text("40 jobs in, 30 done")).to_be_visible()
    page.get_by_text("As a table").first.click()
    expect(page.locator(".twin tbody tr")).not_to_have_count(0)
    expect(page.locator(".twin thead").first).to_contain_text("failed")
    page.get_by_role("button", name="week").click()
    expect(page.get_by_text("40 jobs in, 30 done")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="week")).to_have_attribute("aria-pressed", "true")


def test_all_queues_together_have_charts_when_they_are_asked_for(window: Open, past: rig.Server) -> None:
    page = window(past.url)
    expect(page.locator(".totals .spark")).not_to_have_count(0)
    expect(page.locator(".chart")).to_have_count(0)
    page.get_by_role("button", name="over time").click()
    expect(page.locator(".chart canvas")).to_have_count(4)
    page.keyboard.press("t")
    expect(page.locator(".chart canvas")).to_have_count(4)
