"""What holds for every view: nobody is shut out, nothing is cut off, and hostile texts stay texts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from presque import Client
from tests import rig
from tests.dashboard.conftest import Npm, Open
from tests.dashboard.world import fill

AXE = "4.14.1"
VIEWS = {
    "queues": "#/",
    "charts": "#/?charts=1",
    "a queue": "#/queues/video?state=dead",
    "an empty state": "#/queues/video?state=done",
    "a queue over time": "#/queues/video?state=history",
    "a job": "#/jobs/video/1",
    "failures": "#/failures",
    "workers": "#/workers",
    "recurring": "#/recurring",
    "tail": "#/tail",
    "search": "#/search?find=mkv&state=any",
    "server": "#/server",
    "settings": "#/server?tab=settings",
    "the audit": "#/server?tab=audit",
    "tokens": "#/server?tab=tokens",
    "nowhere": "#/nowhere",
}
HOSTILE = "<img src=x onerror=alert(1)>‮'\"`${7*7}{{7*7}}</script><script>alert(2)</script>"
LONG = "Q" * 128


@pytest.fixture(scope="module")
def world() -> Iterator[rig.Server]:
    """A server with something in every view, hostile and long texts among it."""
    with rig.server("--memory") as found:
        with Client(found.url, worker="<b>w</b>") as client:
            fill(client)
            client.push(LONG, {"text": HOSTILE * 40})
            [job] = client.lease("video", seconds=3600)
            client.fail(job, HOSTILE, retry=False, backtrace=f"line 1\n{HOSTILE}\n{'x' * 5000}")
            [held] = client.lease(LONG, seconds=3600)
            client.extend(held, progress={"text": HOSTILE, "percent": 200})
        report = {
            "queues": [LONG],
            "state": HOSTILE,
            "host": HOSTILE,
            "mode": 7,
            "jobs": [{"queue": LONG, "id": "1"}, {"queue": HOSTILE, "id": [7], "seconds": 9}, None, 7],
        }
        found.ask("PUT", "/w/", json.dumps(report), X_presque_workerid="<script>alert(3)</script>")
        yield found


def loaded(page: Page) -> None:
    """Wait until the view shows what it asked for."""
    expect(page.locator(".loading")).to_have_count(0)
    expect(page.locator("main")).not_to_be_empty()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]
)
def test_every_view_is_for_everybody(
    window: Open, world: rig.Server, npm: Npm, scheme: str, width: int
) -> None:
    """As axe checks WCAG 2.2 AA; and at 360 pixels nothing is wider than the page."""
    axe = (npm("axe-core", AXE) / "axe-core" / "axe.min.js").read_text()
    page = window(world.url, scheme=scheme, width=width, height=800)
    loaded(page)
    # The page allows no script from a text; a debugger may bring one along.
    page.evaluate(axe)
    wrong = {}
    for name, at in VIEWS.items():
        page.evaluate("at => { location.hash = at; }", at)
        loaded(page)
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = page.evaluate("tags => axe.run({runOnly: tags})", tags)["violations"]
        if found:
            wrong[name] = [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wrong[f"{name} is too wide"] = []
    assert wrong == {}


def test_dialogs_and_menus_are_for_everybody(window: Open, world: rig.Server, npm: Npm) -> None:
    page = window(world.url, "#/queues/video")
    loaded(page)
    page.evaluate((npm("axe-core", AXE) / "axe-core" / "axe.min.js").read_text())
    for name in ("Push a job…", "Policy…"):
        page.locator("main").get_by_role("button", name=name).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate("axe.run('dialog').then(found => found.violations.map(one => one.id))") == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="More for video").click()
    assert page.evaluate("axe.run('.menu').then(found => found.violations.map(one => one.id))") == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Purge…")).to_have_count(0)
    expect(page.get_by_role("button", name="More for video")).to_be_focused()


IN_SIGHT = """(button) => {
  const { x, y, width, height } = button.getBoundingClientRect();
  const there = document.elementFromPoint(x + width / 2, y + height / 2);
  return button === there || button.contains(there);
}"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("at", ["#/", "#/queues/reports", "#/jobs/reports/1", "#/recurring", "#/workers"])
def test_a_menu_is_whole_in_sight_wherever_it_opens(
    window: Open, world: rig.Server, at: str, width: int
) -> None:
    page = window(world.url, at, width=width)
    loaded(page)
    for one in ("first", "last"):
        opener = getattr(page.locator("main .menu > button"), one)
        opener.click()
        buttons = page.locator(".menu-list .button")
        expect(buttons.last).to_be_visible()
        assert [button.inner_text() for button in buttons.all() if not button.evaluate(IN_SIGHT)] == []
        page.keyboard.press("Escape")


def test_at_200_percent_nothing_is_cut_off(window: Open, world: rig.Server) -> None:
    """A window of 1280 pixels has room for 640 then."""
    page = window(world.url, width=640, height=400)
    for at in VIEWS.values():
        page.evaluate("at => { location.hash = at; }", at)
        loaded(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 640, at


def test_hostile_texts_stay_texts(window: Open, world: rig.Server) -> None:
    """`window` fails for a script that ran, a request elsewhere, or a policy that was broken."""
    page = window(world.url, f"#/jobs/{LONG}/1", bears=("status of 400",))
    expect(page.locator("pre.body")).to_contain_text("<img src=x onerror=alert(1)>")
    for at in ("#/jobs/video/1", f"#/queues/{LONG}?state=leased", "#/workers", "#/failures"):
        page.goto(f"{world.url}/{at}")
        loaded(page)
        assert page.locator("main script, main img").count() == 0
    expect(page.locator(".failures")).to_contain_text("<img src=x onerror=alert(1)>")
    page.goto(f"{world.url}/#/jobs/%3Cimg%20src=x%3E/%2e%2e%2f")
    loaded(page)


def test_somebody_who_only_has_a_keyboard_gets_a_failed_job_going_again(
    window: Open, world: rig.Server
) -> None:
    with Client(world.url) as client:
        client.push("typed", {"n": 1})
        [job] = client.lease("typed")
        client.fail(job, "by hand", retry=False)
    page = window(world.url)
    loaded(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("go to failures")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("q")
    page.keyboard.press("/")
    page.keyboard.type("typed")
    expect(page.locator(".queues tbody tr")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="typed")).to_be_visible()
    expect(page.locator(".jobs tbody tr")).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Job 1")).to_be_visible()
    page.keyboard.press("r")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Retry").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".head .state")).to_have_text("ready")


def test_the_theme_follows_the_system_until_somebody_chooses(window: Open, world: rig.Server) -> None:
    page = window(world.url, scheme="dark")
    body = page.locator("body")
    expect(body).to_have_css("background-color", "rgb(18, 21, 23)")
    page.keyboard.press("t")
    expect(body).to_have_css("background-color", "rgb(247, 247, 244)")
    page.reload()
    expect(body).to_have_css("background-color", "rgb(247, 247, 244)")
    page.keyboard.press("t")
    page.keyboard.press("t")
    expect(body).to_have_css("background-color", "rgb(18, 21, 23)")
    assert page.evaluate("localStorage.length") == 0
