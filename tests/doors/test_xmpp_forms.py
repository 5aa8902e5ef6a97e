"""Ad-hoc commands with forms over XMPP, through a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from xml.etree.ElementTree import Element

import pytest

from presque.xmpp import words
from tests.chatting import DOMAIN, Friend, answer_of, at, condition_of, friend
from tests.doors.conftest import Chatting
from tests.doors.test_xmpp import ITEMS, counts, push, ready

COMMANDS = "http://jabber.org/protocol/commands"
FORMS = "jabber:x:data"


@pytest.fixture
async def ana(xmpp: Chatting) -> AsyncIterator[Friend]:
    async with friend(xmpp.prosody) as found:
        yield found


async def run(one: Friend, to: str, node: str, action: str = "execute", **fields: str) -> Element:
    """Carry out a command, with a form if there are fields."""
    said = "".join(
        f"<field var='{name.replace('__', '.')}'><value>{value}</value></field>"
        for name, value in fields.items()
    )
    form = f"<x xmlns='{FORMS}' type='submit'>{said}</x>" if fields else ""
    return await one.ask(
        to, f"<command xmlns='{COMMANDS}' node='{node}' action='{action}'>{form}</command>", "set"
    )


def command_of(answer: Element) -> Element:
    found = answer.find(f"{{{COMMANDS}}}command")
    assert found is not None, condition_of(answer)
    return found


def note_of(answer: Element) -> tuple[str | None, str | None]:
    found = command_of(answer).find(f"{{{COMMANDS}}}note")
    return (None, None) if found is None else (found.get("type"), found.text)


def fields_of(answer: Element) -> dict[str, Element]:
    return {one.get("var", ""): one for one in answer.iter(f"{{{FORMS}}}field")}


def value_of(field: Element) -> str | None:
    return field.findtext(f"{{{FORMS}}}value")


async def listed(one: Friend, to: str) -> set[str | None]:
    found = await one.ask(to, f"<query xmlns='{ITEMS}' node='{COMMANDS}'/>")
    return {item.get("node") for item in found.iter(f"{{{ITEMS}}}item")}


async def test_the_commands_are_listed_that_the_asker_may_carry_out(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    assert await listed(ana, at(queue_name)) == set(words.IN_WORDS)
    assert await listed(ana, DOMAIN) == set(words.IN_WORDS)
    async with friend(xmpp.prosody, "reader") as reader:
        some = await listed(reader, at(queue_name))
        assert {"stats", "peek", "jobs", "policy"} <= some
        assert not some & {"push", "stop", "fetch", "lease", "change_policy"}
        assert condition_of(await run(reader, at(queue_name), "stop"))[:2] == ("auth", "forbidden")
        assert condition_of(await run(reader, at(queue_name), "purge"))[:2] == ("auth", "forbidden")


async def test_what_needs_nothing_is_carried_out_at_once(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    push(xmpp, queue_name)
    answer = await run(ana, at(queue_name), "stop")
    assert command_of(answer).get("status") == "completed"
    assert note_of(answer) == ("info", f"{queue_name} is stopped")
    stats = await run(ana, at(queue_name), "stats")
    fields = fields_of(stats)
    assert (value_of(fields["ready"]), value_of(fields["status"])) == ("1", "0")
    assert value_of(fields["last_minute.pushed"]) == "1"
    assert answer_of(command_of(stats))["ready"] == 1


async def test_a_form_is_shown_filled_in_and_carried_out(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    shown = await run(ana, at(queue_name), "push")
    assert command_of(shown).get("status") == "executing"
    fields = fields_of(shown)
    assert "queue" not in fields
    assert (fields["job"].get("type"), fields["uniq_until"].get("type")) == ("text-multi", "list-single")
    assert fields["job"].find(f"{{{FORMS}}}required") is not None
    assert "9 comes first. (5 by default)" in (fields["priority"].findtext(f"{{{FORMS}}}desc") or "")
    wrong = await run(ana, at(queue_name), "push", job="{", priority="9")
    assert command_of(wrong).get("status") == "executing"
    assert note_of(wrong)[0] == "error"
    assert "not JSON" in (note_of(wrong)[1] or "")
    assert value_of(fields_of(wrong)["priority"]) == "9"
    done = await run(ana, at(queue_name), "push", "complete", job='{"a": 1}', priority="9", delay="", uniq="")
    assert (command_of(done).get("status"), note_of(done)) == ("completed", ("info", "1"))
    assert xmpp.server.ask("GET", f"/q/{queue_name}").json == {"a": 1}


async def test_at_the_address_of_presque_the_queue_is_a_field(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    assert "queue" in fields_of(await run(ana, DOMAIN, "push"))
    await run(ana, DOMAIN, "push", queue=queue_name, job="1")
    assert ready(xmpp, queue_name) == 1


async def test_a_policy_is_shown_as_it_is_and_changed(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    xmpp.server.ask("PATCH", f"/p/{queue_name}", '{"rate": {"count": 5, "seconds": 60}}')
    fields = fields_of(await run(ana, at(queue_name), "change_policy"))
    assert (value_of(fields["rate.count"]), value_of(fields["lease"])) == ("5", "60")
    await run(ana, at(queue_name), "change_policy", rate__count="7", rate__seconds="60", lease="1m30s")
    policy = xmpp.server.ask("GET", f"/p/{queue_name}").json
    assert (policy["rate"], policy["lease"]) == ({"count": 7, "seconds": 60}, 90)


async def test_many_things_come_as_a_table(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    for number in range(3):
        push(xmpp, queue_name, {"n": number})
    answer = await run(ana, at(queue_name), "jobs", state="ready")
    items = list(answer.iter(f"{{{FORMS}}}item"))
    assert len(items) == 3
    assert {one.get("var") for one in items[0]} >= {"id", "body", "state"}
    page = await run(ana, DOMAIN, "all_stats", queues=queue_name)
    assert queue_name in [one.text for one in page.iter(f"{{{FORMS}}}value")]


async def test_a_command_is_canceled_and_unknown_ones_are_refused(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    push(xmpp, queue_name)
    assert command_of(await run(ana, at(queue_name), "purge", "cancel")).get("status") == "canceled"
    assert condition_of(await run(ana, at(queue_name), "settle"))[:2] == ("cancel", "item-not-found")
    assert condition_of(await run(ana, at(queue_name), "purge", "prev"))[:2] == ("modify", "bad-request")
    assert condition_of(await run(ana, at(queue_name), "retry", id="7"))[:2] == ("cancel", "item-not-found")
    assert ready(xmpp, queue_name) == 1
    shown = await run(ana, at(queue_name), "purge")
    assert value_of(fields_of(shown)["forget"]) == "0"
    await run(ana, at(queue_name), "purge", "complete", forget="0")
    assert ready(xmpp, queue_name) == 0


async def test_a_consumer_subscribes_and_settles_by_forms(xmpp: Chatting, queue_name: str) -> None:
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "worker") as worker:
        refused = await run(worker, DOMAIN, "lease", queue=queue_name)
        assert "available presence" in (note_of(refused)[1] or "")
        worker.xml(f"<presence to='{DOMAIN}'/>")
        await run(worker, DOMAIN, "lease", queue=queue_name, count="1")
        job = await worker.told()
        assert job["id"] == "1"
        done = await run(worker, at(queue_name), "fail", error="no such user", retry="0")
        assert json.loads(json.dumps(answer_of(command_of(done))))["state"] == "dead"
    assert counts(xmpp, queue_name)["dead"] == 1
