"""Who is logged in, and what the page lets them do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import Open
from tests.doors.tokens import Guarded, guarded

REFUSED = ("status of 401", "status of 403")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that wants access tokens, with a job in two queues."""
    with guarded(tmp_path_factory.mktemp("closed")) as found:
        for queue in ("shown", "hidden"):
            found.ask(found.admin, "POST", f"/q/{queue}", 1)
        yield found


def login(page: Page, token: str) -> None:
    page.get_by_label("Access token").fill(token)
    page.get_by_role("button", name="Log in").click()


def without_token(closed: Guarded) -> int:
    """How many refusals of requests without a token the audit has."""
    lines = closed.ask(closed.admin, "GET", "/audit?limit=500").json["audit"]
    return [one.get("outcome") for one in lines].count("token-missing")


def test_a_token_is_wanted_kept_nowhere_and_ends_with_its_revocation(window: Open, closed: Guarded) -> None:
    token = closed.make("read:shown")
    before = without_token(closed)
    page = window(closed.server.url, bears=REFUSED)
    expect(page.get_by_label("Access token")).to_be_visible()
    assert without_token(closed) == before, "who only opens the page is refused nothing"
    login(page, "letmein")
    expect(page.locator("#refused")).to_have_text("this access token is not valid")
    login(page, token)
    expect(page.locator(".queues tbody th")).to_have_text(["shown"])
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert token not in cookie["value"]
    kept = page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])")
    assert kept == '["",{},{}]'
    expect(page.locator(".connection.live")).to_be_visible()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    assert page.context.cookies() == []
    login(page, token)
    expect(page.locator(".queues tbody th")).to_have_text(["shown"])
    closed.revoke(token)
    expect(page.get_by_label("Access token")).to_be_visible()


def test_what_a_token_may_not_do_is_greyed_and_says_why(window: Open, closed: Guarded) -> None:
    page = window(closed.server.url, "#/queues/shown", bears=REFUSED)
    login(page, closed.make("read:*", "push:shown"))
    stop = page.locator("main").get_by_role("button", name="Stop")
    expect(stop).to_have_attribute("aria-disabled", "true")
    stop.click(force=True)
    expect(page.locator(".note.bad")).to_contain_text("This access token does not allow control:shown.")
    push = page.get_by_role("button", name="Push a job…")
    expect(push).not_to_have_attribute("aria-disabled", "true")
    page.goto(f"{closed.server.url}/#/server?tab=audit")
    expect(page.get_by_role("heading", name="Not for this access token")).to_be_visible()
    page.goto(f"{closed.server.url}/#/queues/hidden")
    expect(page.get_by_role("button", name="Push a job…")).to_have_attribute("aria-disabled", "true")


def test_the_page_of_the_server_is_there_for_who_may_not_see_all(window: Open, closed: Guarded) -> None:
    assert closed.ask(closed.admin, "POST", "/namespaces", {"namespace": "acme"}).status == 201
    for token, says in (closed.make("read:shown"), "Queues1"), (closed.make("*:*", namespace="acme"), "acme"):
        page = window(closed.server.url, "#/server", bears=REFUSED)
        login(page, token)
        expect(page.locator(".facts")).to_contain_text(says)
        expect(page.locator(".facts")).not_to_contain_text("Found when it started")


def test_a_token_that_may_control_does_and_is_in_the_audit(window: Open, closed: Guarded) -> None:
    page = window(closed.server.url, "#/queues/shown", bears=REFUSED)
    login(page, closed.admin)
    page.locator("main").get_by_role("button", name="Stop").click()
    expect(page.locator(".headline")).to_contain_text("is stopped")
    page.goto(f"{closed.server.url}/#/server?tab=audit")
    expect(page.locator("tbody tr", has_text="control").first).to_contain_text("shown")
    page.goto(f"{closed.server.url}/#/server?tab=tokens")
    expect(page.locator("tbody th", has_text="admin")).to_be_visible()
    page.goto(f"{closed.server.url}/#/queues/shown")
    page.get_by_role("button", name="Start the queue").click()
    expect(page.locator(".head .state")).to_have_text("started")


def test_a_token_that_may_read_nothing_is_told_so(window: Open, closed: Guarded) -> None:
    page = window(closed.server.url, bears=REFUSED)
    login(page, closed.make("push:shown"))
    expect(page.get_by_role("heading", name="Nothing to show")).to_be_visible()
    page.get_by_role("button", name="Log in with another token").click()
    expect(page.get_by_label("Access token")).to_be_visible()


def test_read_only_mode_changes_nothing_until_it_is_switched_off(window: Open, closed: Guarded) -> None:
    page = window(closed.server.url, "#/queues/shown", bears=REFUSED)
    login(page, closed.admin)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Read-only mode: off").click()
    page.reload()
    stop = page.locator("main").get_by_role("button", name="Stop")
    expect(stop).to_have_attribute("aria-disabled", "true")
    stop.click(force=True)
    expect(page.locator(".note.bad")).to_contain_text("Read-only mode is on")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Read-only mode: on").click()
    expect(stop).not_to_have_attribute("aria-disabled", "true")
    assert page.evaluate("JSON.stringify({...localStorage})") == "{}"
