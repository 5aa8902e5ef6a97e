"""Everything that can be done from the page, and its undoing, in a real browser on a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from presque import Client
from tests import rig
from tests.dashboard.conftest import Open


@pytest.fixture(scope="module")
def acted() -> Iterator[rig.Server]:
    """A server on which a lot is done. Each test has queues of its own."""
    with rig.server("--memory") as found:
        yield found


@pytest.fixture
def client(acted: rig.Server) -> Iterator[Client]:
    with Client(acted.url) as found:
        yield found


def press(page: Page, name: str, *, menu: str = "") -> None:
    """Press a button of the page, or one in a menu of it."""
    if menu:
        page.get_by_role("button", name=menu).click()
    page.locator("main").get_by_role("button", name=name, exact=True).click()


def confirm(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=name).click()


def undo(page: Page) -> None:
    page.locator(".notes").get_by_role("button", name="Undo").last.click()
    expect(page.locator(".notes")).to_contain_text("Undone.")


def dead(client: Client, queue: str, count: int = 1, error: str = "no such codec") -> list[str]:
    """Jobs that failed for good."""
    client.push_many(queue, [{"n": n, "big": 2**63 + n} for n in range(count)])
    for job in client.lease(queue, count=count):
        client.fail(job, error, retry=False)
    return [job["id"] for job in client.jobs(queue, "dead")["jobs"]]


def test_a_queue_is_stopped_started_and_that_is_undone(
    window: Open, acted: rig.Server, client: Client
) -> None:
    client.push("stops", 1)
    page = window(acted.url, "#/queues/stops")
    press(page, "Stop")
    expect(page.locator(".headline")).to_contain_text("is stopped")
    assert not client.started("stops")
    undo(page)
    assert client.started("stops")
    expect(page.locator(".head .state")).to_have_text("started")


def test_a_purge_wants_the_name_typed(window: Open, acted: rig.Server, client: Client) -> None:
    client.push_many("purged", [1, 2, 3])
    page = window(acted.url, "#/queues/purged")
    expect(page.locator(".jobs tbody tr")).to_have_count(3)
    press(page, "Purge…", menu="More for purged")
    button = page.get_by_role("dialog").get_by_role("button", name="Purge")
    expect(page.get_by_role("dialog")).to_contain_text("3 jobs of every state")
    expect(button).to_be_disabled()
    page.get_by_label("Type purged to go on").fill("purge")
    expect(button).to_be_disabled()
    page.get_by_label("Type purged to go on").fill("purged")
    button.click()
    expect(page.get_by_text("Nothing waits")).to_be_visible()
    assert client.size("purged") == 0
    press(page, "Forget…", menu="More for purged")
    page.get_by_label("Type purged to go on").fill("purged")
    confirm(page, "Forget")
    expect(page.locator("#queues-title")).to_be_visible()
    assert "purged" not in client.queues()


def test_a_job_is_pushed_by_hand_with_options(window: Open, acted: rig.Server, client: Client) -> None:
    client.push("hand", 0)
    page = window(acted.url, "#/queues/hand")
    press(page, "Push a job…")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Body, JSON").fill('{"id": 12345678901234567890')
    confirm(page, "Push")
    expect(page.locator(".note.bad")).to_contain_text("the body is not JSON")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Body, JSON").fill('{"id": 12345678901234567890}')
    dialog.get_by_text("Options").click()
    dialog.get_by_label("Priority").fill("9")
    dialog.get_by_label("Group").fill("acme")
    confirm(page, "Push")
    expect(page.locator(".notes")).to_contain_text("Pushed as job 2 of hand")
    job = client.job("hand", "2")
    assert (job["priority"], job["group"], job["body"]) == (9, "acme", {"id": 12345678901234567890})


def test_a_policy_is_changed_and_that_is_undone(window: Open, acted: rig.Server, client: Client) -> None:
    client.push("ruled", 1)
    page = window(acted.url, "#/queues/ruled")
    press(page, "Policy…")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Attempts")).to_have_value("5")
    dialog.get_by_label("Attempts").fill("3")
    dialog.get_by_label("Backoff: first").fill("30")
    dialog.get_by_label("Kept when done").fill("60")
    confirm(page, "Save")
    expect(page.locator(".notes")).to_contain_text("The policy of ruled is changed")
    policy = client.policy("ruled")
    assert (policy["max_attempts"], policy["backoff"]["first"], policy["keep"]) == (3, 30, 60)
    undo(page)
    policy = client.policy("ruled")
    assert (policy["max_attempts"], policy["backoff"]["first"], policy["keep"]) == (5, 15, 0)


def test_a_dead_job_is_retried(window: Open, acted: rig.Server, client: Client) -> None:
    [id] = dead(client, "again")
    page = window(acted.url, f"#/jobs/again/{id}")
    expect(page.locator(".headline")).to_have_class(re.compile("bad"))
    page.keyboard.press("r")
    expect(page.get_by_role("dialog")).to_contain_text("attempts count from 0 again")
    confirm(page, "Retry")
    expect(page.locator(".head .state")).to_have_text("ready")


def test_a_dead_job_is_retried_with_another_body(window: Open, acted: rig.Server, client: Client) -> None:
    [id] = dead(client, "edited")
    page = window(acted.url, f"#/jobs/edited/{id}", bears=("404",))
    press(page, "Edit and retry…")
    body = page.get_by_role("dialog").get_by_label("Body, JSON")
    assert '"big": 9223372036854775808' in body.input_value()
    body.fill('{"n": 18446744073709551617}')
    confirm(page, "Push and delete this one")
    expect(page.get_by_role("heading", name="Job 2")).to_be_visible()
    expect(page.locator("pre.body")).to_contain_text("18446744073709551617")
    assert client.job("edited", "2")["body"] == {"n": 18446744073709551617}
    assert client.stats("edited")["dead"] == 0


def test_a_job_that_waits_is_changed_moved_and_deleted(
    window: Open, acted: rig.Server, client: Client
) -> None:
    id = client.push("waits", {"n": 1}, delay=3600)
    page = window(acted.url, f"#/jobs/waits/{id}", bears=("404",))
    page.get_by_label("Priority").select_option("9")
    expect(page.locator(".notes")).to_contain_text("has priority 9")
    assert client.job("waits", id)["priority"] == 9
    undo(page)
    assert client.job("waits", id)["priority"] == 5
    press(page, "Run now")
    expect(page.locator(".head .state")).to_have_text("ready")
    undo(page)
    expect(page.locator(".head .state")).to_have_text("scheduled")
    press(page, "Move to another queue…", menu="What can be done to job")
    page.get_by_label("To the queue").fill("elsewhere")
    confirm(page, "Move")
    expect(page.get_by_role("link", name="elsewhere").first).to_be_visible()
    assert (client.stats("waits")["scheduled"], client.stats("elsewhere")["scheduled"]) == (0, 1)
    press(page, "Delete…", menu="What can be done to job")
    confirm(page, "Delete")
    expect(page.locator(".headline")).to_contain_text("finished or deleted")
    assert client.stats("elsewhere")["scheduled"] == 0
    undo(page)
    assert client.stats("elsewhere")["scheduled"] == 1


def test_selected_jobs_are_retried_or_deleted_together(
    window: Open, acted: rig.Server, client: Client
) -> None:
    dead(client, "some", 5)
    page = window(acted.url, "#/queues/some?state=dead")
    boxes = page.get_by_role("checkbox", name=re.compile("Select job"))
    expect(boxes).to_have_count(5)
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator(".selected")).to_contain_text("2 jobs selected")
    page.locator(".selected").get_by_role("button", name="Retry").click()
    confirm(page, "Retry")
    expect(page.locator(".notes")).to_contain_text("2 jobs are ready again")
    expect(boxes).to_have_count(3)
    page.get_by_label("Select all on this page").click()
    page.locator(".selected").get_by_role("button", name="Delete").click()
    confirm(page, "Delete")
    expect(page.get_by_text("Nothing is dead")).to_be_visible()
    stats = client.stats("some")
    assert (stats["ready"], stats["dead"]) == (2, 0)


def test_failures_of_all_queues_are_one_line_a_kind_and_retried_after_a_dry_run(
    window: Open, acted: rig.Server, client: Client
) -> None:
    for queue in ("fail-a", "fail-b"):
        for n in range(3):
            dead(client, queue, 2, f"timeout after {n} s <b>")
    page = window(acted.url, "#/failures?queues=fail-*")
    line = page.locator(".failures > li")
    expect(line).to_have_count(1)
    expect(line).to_contain_text("12")
    expect(line).to_contain_text("s <b>")
    line.get_by_role("button", name="Retry…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("12 jobs match")
    expect(dialog).to_contain_text("fail-a/")
    dialog.get_by_label("At most so many in all").fill("5")
    confirm(page, "Retry")
    expect(page.locator(".task")).to_contain_text("5 done")
    expect(line.locator(".many")).to_contain_text("7")
    line.get_by_role("button", name="Delete all").click()
    confirm(page, "Delete")
    expect(page.get_by_role("heading", name="No job is dead")).to_be_visible()
    assert sum(client.stats(queue)["ready"] for queue in ("fail-a", "fail-b")) == 5


def test_a_task_is_paused_goes_on_and_is_cancelled(window: Open, acted: rig.Server, client: Client) -> None:
    dead(client, "slow", 100)
    page = window(acted.url, "#/failures?queues=slow")
    page.locator(".failures").get_by_role("button", name="Retry…").click()
    page.get_by_role("dialog").get_by_label("At most so many a second").fill("1")
    confirm(page, "Retry")
    task = page.locator(".task").first
    task.get_by_role("button", name="Pause").click()
    expect(task.get_by_role("button", name="Go on")).to_be_visible()
    task.get_by_role("button", name="Go on").click()
    expect(task.get_by_role("button", name="Pause")).to_be_visible()
    task.get_by_role("button", name="Cancel").click()
    expect(task).to_contain_text("cancelled")
    assert client.stats("slow")["dead"] > 0


def test_search_finds_ids_names_and_texts_and_says_how_far_it_looked(
    window: Open, acted: rig.Server, client: Client
) -> None:
    client.push_many("haystack", [{"n": n, "text": f"straw {n}"} for n in range(150)])
    id = client.push("haystack", {"text": "the needle"})
    page = window(acted.url)
    page.keyboard.press("g")
    page.keyboard.press("f")
    page.get_by_role("searchbox", name="Search for a queue").fill("needle queue:hay*")
    page.keyboard.press("Enter")
    expect(page.locator(".found tbody tr")).to_have_count(1)
    expect(page.locator(".pager")).to_contain_text("151 looked at, which is all")
    page.reload()
    expect(page.locator(".found tbody tr")).to_have_count(1)
    page.get_by_label("In the body or an error").fill("straw")
    page.keyboard.press("Enter")
    expect(page.locator(".found tbody tr")).to_have_count(100)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".found tbody tr")).to_have_count(150)
    page.goto(f"{acted.url}/#/search?q=haystack/{id}")
    expect(page.get_by_role("link", name=f"Job haystack/{id}")).to_be_visible()
    page.goto(f"{acted.url}/#/search?q=haysta")
    expect(page.get_by_role("link", name="haystack").first).to_be_visible()


def test_a_recurring_job_is_made_edited_run_paused_and_deleted(
    window: Open, acted: rig.Server, client: Client
) -> None:
    page = window(acted.url, "#/recurring", bears=("400",))
    page.get_by_role("button", name="New…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("nightly")
    dialog.get_by_label("Queue").fill("reports")
    dialog.get_by_label("Schedule").fill("30 25 * * *")
    confirm(page, "Save")
    expect(page.locator(".note.bad")).to_contain_text("bad hour")
    dialog.get_by_label("Schedule").fill("30 2 * * *")
    dialog.get_by_label("Time zone").fill("Europe/Paris")
    dialog.get_by_label("Body, JSON").fill('{"n": 18446744073709551617}')
    confirm(page, "Save")
    line = page.locator(".cron")
    expect(line).to_contain_text("At 02:30 every day")
    line.get_by_role("button", name="the next 5 moments").click()
    expect(line.locator("tbody tr")).to_have_count(5)
    press(page, "Run now", menu="More for nightly")
    expect(page.locator(".notes")).to_contain_text("Pushed as job 1 of reports")
    [job] = client.lease("reports")
    client.fail(job, "no paper", retry=False)
    expect(line).to_contain_text("last job dead")
    expect(line).to_contain_text("no paper")
    expect(line.get_by_role("link", name="reports/1")).to_be_visible()
    press(page, "Edit…", menu="More for nightly")
    dialog.get_by_label("Schedule").fill("@hourly")
    confirm(page, "Save")
    expect(line).to_contain_text("@hourly")
    assert client.cron("nightly")["body"] == {"n": 18446744073709551617}
    undo(page)
    expect(line).to_contain_text("At 02:30 every day")
    line.get_by_role("button", name="Pause").click()
    expect(line).to_contain_text("paused")
    undo(page)
    expect(line.get_by_role("button", name="Pause")).to_be_visible()
    press(page, "Delete…", menu="More for nightly")
    confirm(page, "Delete")
    expect(page.get_by_role("heading", name="Nothing recurs")).to_be_visible()
    undo(page)
    expect(line).to_contain_text("nightly")


def test_a_worker_shows_what_it_does_and_is_told_to_be_quiet(
    window: Open, acted: rig.Server, client: Client
) -> None:
    client.push("worked", {"n": 1})
    with Client(acted.url, worker="w<1>") as worker:
        [job] = worker.lease("worked", seconds=600)
        worker.extend(job, progress={"percent": 25})
    body = {
        "queues": ["worked"], "state": "working", "mode": "threads", "concurrency": 4, "host": "<i>vm</i>",
        "pid": 7, "running": 1, "jobs": [{"queue": "worked", "id": job.id, "seconds": 3.5}],
        "memory": 96 * 2**20, "version": "1.2.3",
    }  # fmt: skip
    acted.ask("PUT", "/w/", json.dumps(body), X_presque_workerid="w<1>")
    page = window(acted.url, "#/workers")
    line = page.locator(".worker", has_text="w<1>")
    expect(line).to_contain_text("<i>vm</i>")
    expect(line).to_contain_text("96 MiB")
    expect(line).to_contain_text("presque 1.2.3")
    expect(line).to_contain_text(f"worked/{job.id}")
    expect(line).to_contain_text("lease ends in")
    expect(line).to_contain_text('{"percent":25}')
    press(page, "Quiet: take no further job", menu="More for w<1>")
    expect(line).to_contain_text("asked to be quiet")
    undo(page)
    expect(line).not_to_contain_text("asked to be quiet")
    client.ack(job)
    expect(line).to_contain_text("ended since its last report")
    body["jobs"] = [{"queue": "worked", "id": "99"}]  # no worker of ours: it does not say for how long
    acted.ask("PUT", "/w/", json.dumps(body), X_presque_workerid="w<1>")
    expect(line).to_contain_text("worked/99")
    expect(line).not_to_contain_text("NaN")


def test_the_tail_shows_what_happens_and_can_be_held(window: Open, acted: rig.Server, client: Client) -> None:
    page = window(acted.url, "#/tail?queues=tailed*")
    expect(page.get_by_text("Nothing has happened yet")).to_be_visible()
    expect(page.locator(".connection.live")).to_be_visible()

    def seen() -> bool:
        client.push("untold", 1)
        client.push("tailed", 1)
        return page.locator(".tail li.pushed").count() > 0

    rig.eventually(seen)
    assert page.locator(".tail").get_by_text("untold").count() == 0
    page.get_by_role("button", name="Hold").click()
    before = page.locator(".tail li").count()
    client.push("tailed", 2)
    expect(page.get_by_role("button", name=re.compile(r"Go on, \d+ came"))).to_be_visible()
    assert page.locator(".tail li").count() == before
    page.get_by_role("button", name=re.compile("Go on")).click()
    expect(page.locator(".tail li")).not_to_have_count(before)


def test_all_that_a_search_finds_is_moved_to_another_queue(
    window: Open, acted: rig.Server, client: Client
) -> None:
    client.push_many("wrong", [{"n": n, "to": "ana" if n % 2 else "bob"} for n in range(6)])
    page = window(acted.url, "#/search?queues=wrong&state=ready&find=ana")
    expect(page.locator(".found tbody tr")).to_have_count(3)
    page.get_by_role("button", name="Move all…").click()
    expect(page.get_by_role("dialog")).to_contain_text("3 jobs match")
    page.get_by_label("To the queue").fill("right")
    confirm(page, "Move")
    expect(page.locator(".task")).to_contain_text("3 done")
    assert (client.size("wrong"), client.size("right")) == (3, 3)
