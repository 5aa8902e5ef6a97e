"""The XMPP door, through a real server: chat, programs, discovery, presence; and who may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from tests import rig
from tests.asking import soon
from tests.chatting import DOMAIN, OURS, Friend, answer_of, at, condition_of, friend, payload, text_of
from tests.doors.conftest import Chatting

INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"


@pytest.fixture
async def ana(xmpp: Chatting) -> AsyncIterator[Friend]:
    """Somebody who may do everything."""
    async with friend(xmpp.prosody) as found:
        yield found


def counts(xmpp: Chatting, queue: str) -> dict[str, Any]:
    found: dict[str, Any] = xmpp.server.ask("GET", f"/stats/{queue}").json
    return found


def ready(xmpp: Chatting, queue: str) -> int:
    return int(counts(xmpp, queue)["ready"])


def push(xmpp: Chatting, queue: str, body: Any = 1, **query: Any) -> str:
    said = "&".join(f"{name}={value}" for name, value in query.items())
    return str(xmpp.server.ask("POST", f"/q/{queue}?{said}", json.dumps(body)).json["id"])


# --- people


async def test_json_that_is_sent_to_a_queue_is_pushed_as_it_is(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    for number, text in enumerate(
        ('{"to":  "ana", "n": 12345678901234567890}', '[1, "é <&> 🙂"]', "42", "true"), 1
    ):
        assert await ana.chat(at(queue_name), text) == str(number)
        assert xmpp.server.ask("GET", f"/q/{queue_name}").body == text.encode()


@pytest.mark.parametrize("name", ["Mail:a@B", "UPPER", "a~b+c-d_e.f"])
async def test_a_queue_with_any_name_has_an_address(
    xmpp: Chatting, ana: Friend, queue_name: str, name: str
) -> None:
    queue = f"{name}{queue_name}"
    escaped = "".join(f"\\{ord(c):02x}" if c in "@:" or c.isupper() else c for c in queue)
    assert await ana.chat(f"{escaped}@{DOMAIN}", "1") == "1"
    assert ready(xmpp, queue) == 1
    items = await ana.ask(DOMAIN, f"<query xmlns='{ITEMS}'/>")
    assert (f"{escaped}@{DOMAIN}", queue) in [
        (one.get("jid"), one.get("name")) for one in items.iter(f"{{{ITEMS}}}item")
    ]


async def test_what_cannot_be_pushed_is_told_in_words(ana: Friend, queue_name: str) -> None:
    for text, says in (
        ('{"a":', "not done: the body is not JSON: it ends in the middle"),
        ("push priority=10 1", "not done: `priority` should be a whole number from 1 to 9, not `10`"),
        ("psuh 1", "not done: there is no command `psuh`: did you mean `push`?"),
        ("push", "not done: job is missing"),
    ):
        assert (await ana.chat(at(queue_name), text)).startswith(says)


async def test_people_steer_a_queue_in_words(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    mail = at(queue_name)
    assert await ana.chat(mail, 'push priority=9 delay=0 {"a": 1}') == "1"
    assert await ana.chat(mail, "stop") == f"{queue_name} is stopped"
    assert "1 ready, 0 scheduled, 0 leased, 0 dead, stopped" in await ana.chat(mail, "stats")
    assert "the queue has been stopped since" in await ana.chat(mail, "explain 1")
    assert await ana.chat(mail, "Start") == f"{queue_name} is started"
    assert await ana.chat(mail, "peek") == '1 ready\n{"a": 1}'
    assert 'rate: {"count":5,"seconds":60}' in await ana.chat(mail, "policy rate.count=5 rate.seconds=1m")
    assert await ana.chat(mail, "jobs dead") == "no jobs"
    [job] = xmpp.server.ask("POST", f"/q/{queue_name}/lease").json["jobs"]
    xmpp.server.ask("POST", f"/j/{queue_name}/1/fail", json.dumps({"lease": job["lease"], "retry": False}))
    assert "id 1, state dead" in await ana.chat(mail, "jobs dead")
    assert "state: ready" in await ana.chat(mail, "retry 1")
    assert await ana.chat(mail, "fetch") == '{"a": 1}'
    assert await ana.chat(mail, "fetch") == "not done: no job"
    assert (await ana.chat(DOMAIN, f"stats {queue_name}")).startswith(f"{queue_name}: 0 ready")
    assert "queue" in await ana.chat(DOMAIN, "stats")


async def test_help_lists_what_the_asker_may_do(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    every = await ana.chat(at(queue_name), "help")
    assert "push: put a job on a queue" in every
    assert "say jobs STATE [limit=…]" in await ana.chat(at(queue_name), "help jobs")
    async with friend(xmpp.prosody, "reader") as reader:
        some = await reader.chat(at(queue_name), "hello")
    assert "stats: " in some
    assert "push: " not in some


async def test_a_message_is_received_once_its_job_is_stored(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    request = "<request xmlns='urn:xmpp:receipts'/>"
    ana.say(at(queue_name), "{}", inside=request)
    assert await ana.words() == "1"
    receipt = (await ana.heard()).find("{urn:xmpp:receipts}received")
    assert receipt is not None
    assert receipt.get("id") == "m1"
    ana.say(at(queue_name), "{", inside=request)
    assert "not JSON" in await ana.words()
    assert await ana.silent()


async def test_a_message_that_is_sent_again_with_its_origin_id_is_pushed_once(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    for _ in range(2):
        assert (
            await ana.chat(at(queue_name), "1", inside="<origin-id xmlns='urn:xmpp:sid:0' id='abc'/>") == "1"
        )
    assert ready(xmpp, queue_name) == 1


async def test_a_thread_goes_on(ana: Friend, queue_name: str) -> None:
    ana.say(at(queue_name), "1", inside="<thread>t1</thread>")
    assert text_of(await ana.heard(), "thread") == "t1"


async def test_a_correction_and_an_encrypted_message_do_nothing(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    corrects = "<replace xmlns='urn:xmpp:message-correct:0' id='m1'/>"
    assert "nothing was done" in await ana.chat(at(queue_name), "1", inside=corrects)
    secret = "<encrypted xmlns='eu.siacs.conversations.axolotl'/>"
    assert "turn encryption (OMEMO) off" in await ana.chat(at(queue_name), "I sent you 1", inside=secret)
    assert ready(xmpp, queue_name) == 0


async def test_signs_of_typing_and_empty_messages_are_not_answered(ana: Friend, queue_name: str) -> None:
    ana.xml(
        f"<message to='{at(queue_name)}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
    ana.say(at(queue_name), "  ")
    ana.xml(f"<message to='{at(queue_name)}'><subject>stop</subject></message>")
    assert await ana.chat(at(queue_name), "1") == "1"


# --- programs


async def test_a_program_sends_commands_in_messages(ana: Friend, queue_name: str) -> None:
    ana.command(at(queue_name), cmd="push", job={"a": [1]}, ref=1)
    assert await ana.told() == {"ref": 1, "id": "1", "queue": queue_name}
    several = [{"cmd": "stop", "queue": queue_name, "ref": 1}, {"cmd": "nope", "ref": 2}]
    ana.xml(f"<message to='{DOMAIN}'>{payload(several)}</message>")
    answers = {told.pop("ref"): told for told in (await ana.told(), await ana.told())}
    assert answers[1] == {"queue": queue_name, "status": 0}
    assert answers[2]["code"] == "invalid-request"


async def test_an_iq_that_cannot_be_carried_out_is_an_error_of_its_kind(ana: Friend, queue_name: str) -> None:
    for command, kind, condition, code in (
        ({"cmd": "fetch"}, "cancel", "item-not-found", "no-job"),
        ({"cmd": "push"}, "modify", "bad-request", "job-missing"),
        ({"cmd": "ack", "id": "1", "lease": "x"}, "cancel", "item-not-found", "not-found"),
        ("{", "modify", "bad-request", "not-json"),
    ):
        answer = await ana.ask(at(queue_name), payload(command), "set")
        said = answer_of(answer)
        assert condition_of(answer) == (kind, condition, said["error"])
        assert said["code"] == code


async def test_what_is_not_supported_is_refused_and_a_wrong_iq_too(ana: Friend, queue_name: str) -> None:
    unknown = await ana.ask(at(queue_name), "<query xmlns='jabber:iq:roster'/>")
    assert condition_of(unknown)[:2] == ("cancel", "service-unavailable")
    nested = await ana.ask(at(queue_name), f"<json xmlns='{OURS}'><json>{{}}</json></json>", "set")
    assert condition_of(nested)[:2] == ("modify", "bad-request")
    wrong = await ana.ask(f"-@{DOMAIN}", f"<query xmlns='{INFO}'/>")
    assert condition_of(wrong)[:2] == ("modify", "bad-request")


async def test_a_bulk_task_goes_on_for_an_account_which_has_no_token(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    for number in range(3):
        push(xmpp, queue_name, number)
    jobs = xmpp.server.ask("POST", f"/q/{queue_name}/lease", '{"count": 3}').json["jobs"]
    failed = [{"queue": queue_name, "id": one["id"], "lease": one["lease"], "retry": False} for one in jobs]
    xmpp.server.ask("POST", "/settle", json.dumps({"fail": failed}))
    task = await ana.do(DOMAIN, {"cmd": "new_task", "act": "retry", "queue": queue_name})
    assert task["by"] == "ana@localhost"
    await soon(lambda: xmpp.server.ask("GET", f"/tasks/{task['id']}").json["status"] == "done")
    assert ready(xmpp, queue_name) == 3


# --- discovery


def form(stanza: Element) -> dict[str, list[str | None]]:
    return {
        str(one.get("var")): [value.text for value in one.iter("{jabber:x:data}value")]
        for one in stanza.iter("{jabber:x:data}field")
    }


async def test_queues_are_found_with_what_one_may_do(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "reader") as reader:
        push(xmpp, f"hidden-{queue_name}")
        items = await reader.ask(DOMAIN, f"<query xmlns='{ITEMS}'/>")
        found = [one.get("name") for one in items.iter(f"{{{ITEMS}}}item")]
        assert queue_name in found
        assert f"hidden-{queue_name}" not in found
        told = form(await reader.ask(at(queue_name), f"<query xmlns='{INFO}'/>"))
        assert (told["may"], told["ready"], told["FORM_TYPE"]) == (["read"], ["1"], ["urn:presque:0#queue"])
        hidden = await reader.ask(at(f"hidden-{queue_name}"), f"<query xmlns='{INFO}'/>")
        assert condition_of(hidden)[:2] == ("auth", "forbidden")
    features = await ana.ask(DOMAIN, f"<query xmlns='{INFO}'/>")
    assert {"urn:xmpp:ping", OURS, ITEMS} <= {one.get("var") for one in features.iter(f"{{{INFO}}}feature")}


async def test_ping_version_last_activity_and_names_are_answered(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    for to in (DOMAIN, at(queue_name)):
        assert (await ana.ask(to, "<ping xmlns='urn:xmpp:ping'/>")).get("type") == "result"
        version = await ana.ask(to, "<query xmlns='jabber:iq:version'/>")
        assert version.findtext("{jabber:iq:version}query/{jabber:iq:version}name") == "presque"
        last = (await ana.ask(to, "<query xmlns='jabber:iq:last'/>"))[0]
        assert int(last.get("seconds", "")) >= 0
        card = await ana.ask(to, "<vCard xmlns='vcard-temp'/>")
        assert card.findtext("{vcard-temp}vCard/{vcard-temp}FN") == (
            "presque" if to == DOMAIN else queue_name
        )


async def test_a_queue_among_the_contacts_shows_what_it_holds(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    push(xmpp, queue_name)
    await ana.appear()
    ana.xml(f"<presence to='{at(queue_name)}' type='subscribe'/>")
    said = {}
    for _ in range(2):
        one = await ana.seen()
        said[one.get("type")] = text_of(one, "status")
    assert said == {"subscribed": None, None: "1 ready, 0 leased, 0 dead"}
    assert counts(xmpp, queue_name)["leased"] == 0  # a contact is no consumer


# --- who may not


async def test_a_stranger_may_nothing_and_is_told_so(xmpp: Chatting, queue_name: str) -> None:
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "eve") as eve:
        for text in ("stats", "help", "1", "ack"):
            eve.say(at(queue_name), text)
            kind, condition, words = condition_of(await eve.heard())
            assert (kind, condition) == ("auth", "forbidden")
            assert "eve@localhost may not use this presque" in words
        for inside in (
            payload({"cmd": "push", "job": 1}),
            f"<query xmlns='{ITEMS}'/>",
            "<query xmlns='jabber:iq:version'/>",
            "<vCard xmlns='vcard-temp'/>",
            "<query xmlns='jabber:iq:last'/>",
        ):
            assert condition_of(await eve.ask(DOMAIN, inside))[:2] == ("auth", "forbidden")
        about = await eve.ask(DOMAIN, f"<query xmlns='{INFO}'/>")
        assert {one.get("var") for one in about.iter(f"{{{INFO}}}feature")} == {INFO, "urn:xmpp:ping"}
        await eve.appear()
        eve.xml(f"<presence to='{at(queue_name)}'/>")
        eve.xml(f"<presence to='{at(queue_name)}' type='subscribe'/>")
        assert (await eve.seen()).get("type") == "unsubscribed"
        assert await eve.silent()
    assert (ready(xmpp, queue_name), counts(xmpp, queue_name)["leased"]) == (1, 0)


async def test_whoever_may_something_may_nothing_else(xmpp: Chatting, queue_name: str) -> None:
    async with friend(xmpp.prosody, "reader") as reader:
        assert await reader.chat(at(queue_name), "stop") == (
            f"not done: reader@localhost is not allowed to `control:{queue_name}`"
        )
        assert "is not allowed to `push:" in await reader.chat(at(queue_name), "1")
        assert "is not allowed to `push:" in await reader.chat(
            DOMAIN, f'{{"cmd":"push","queue":"{queue_name}","job":1}}'
        )
        told = await reader.do(at(queue_name), {"cmd": "purge"})
        assert told["code"] == "not-allowed"
        reader.xml(f"<presence to='{at(queue_name)}'><consume xmlns='{OURS}' count='5'/></presence>")
        assert condition_of(await reader.seen())[:2] == ("auth", "forbidden")
    log = "".join(xmpp.server.everything)
    assert "audit.refused" in log
    assert "from=reader@localhost/" in log


def spoofs(queue: str) -> dict[str, str]:
    """What eve sends in the hope that it is taken for ana's word."""
    to = at(queue)
    stop = f"<message xmlns='jabber:client' from='ana@localhost/x' to='{to}'><body>stop</body></message>"
    forwarded = f"<forwarded xmlns='urn:xmpp:forward:0'>{stop}</forwarded>"
    command = f"<json xmlns='{OURS}' from='ana@localhost' worker='ana@localhost'>{{\"cmd\":\"stop\"}}</json>"
    address = "<address type='ofrom' jid='ana@localhost'/>"
    said = {
        "forwarded": forwarded,
        "forwarded with a body": f"<body>stop</body>{forwarded}",
        "carbon": f"<sent xmlns='urn:xmpp:carbons:2'>{forwarded}</sent>",
        "carbon received": f"<received xmlns='urn:xmpp:carbons:2'>{forwarded}</received>",
        "archive": f"<result xmlns='urn:xmpp:mam:2' id='1'>{forwarded}</result>",
        "delayed": "<body>stop</body><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>",
        "delayed, as once": "<body>stop</body><x xmlns='jabber:x:delay' from='ana@localhost'/>",
        "addresses": f"<body>stop</body><addresses xmlns='http://jabber.org/protocol/address'>{address}</addresses>",
        "nick": "<body>stop</body><nick xmlns='http://jabber.org/protocol/nick'>ana@localhost</nick>",
        "worker": command,
        "inner message": stop,
        "inner command": f"<x xmlns='jabber:client'>{command}</x>",
    }
    found = {name: f"<message to='{to}' type='chat'>{inside}</message>" for name, inside in said.items()}
    for kind in ("groupchat", "headline", "error"):
        found[kind] = f"<message to='{to}' type='{kind}'><body>stop</body>{command}</message>"
    for kind in ("set", "result", "error"):
        found[f"iq {kind}"] = f"<iq to='{to}' type='{kind}' id='s1'>{command}</iq>"
    return found


async def test_whoever_pretends_to_be_somebody_else_does_nothing(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "eve", resource="ana@localhost") as eve:
        for stanza in spoofs(queue_name).values():
            eve.xml(stanza)
        await eve.ask(DOMAIN, "<ping xmlns='urn:xmpp:ping'/>")  # what was sent before has been read
    assert await ana.chat(at(queue_name), "1") == "2"
    assert counts(xmpp, queue_name)["status"] == 1


async def test_what_was_said_elsewhere_or_before_does_nothing_even_if_ana_said_it(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    push(xmpp, queue_name)
    for how, stanza in spoofs(queue_name).items():
        if how not in ("nick", "worker", "iq set"):  # there she says it herself
            ana.xml(stanza)
    assert await ana.chat(at(queue_name), "1") == "2"
    assert counts(xmpp, queue_name)["status"] == 1


async def test_the_address_on_a_stanza_is_the_servers_word_and_not_the_senders(
    xmpp: Chatting, queue_name: str
) -> None:
    async with friend(xmpp.prosody, "eve") as eve:
        eve.xml(f"<message from='ana@localhost' to='{at(queue_name)}' type='chat'><body>1</body></message>")
        await eve.ask(DOMAIN, "<ping xmlns='urn:xmpp:ping'/>")
    assert ready(xmpp, queue_name) == 0


async def test_a_room_is_not_its_members(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    """A private message in a room comes from the room, whoever wrote it."""
    async with friend(xmpp.prosody, "eve") as eve:
        eve.xml(
            "<presence to='den@rooms.test/ana@localhost'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        await eve.seen()
        invite = f"<invite to='{at(queue_name)}'/>"
        eve.xml(
            f"<message to='den@rooms.test'><x xmlns='http://jabber.org/protocol/muc#user'>{invite}</x></message>"
        )
    assert await ana.chat(at(queue_name), "1") == "1"


# --- sizes and floods


async def test_an_answer_that_is_too_long_is_cut_for_people_and_refused_for_programs(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    for _ in range(4):
        push(xmpp, queue_name, "x" * 100_000)
    assert "(the rest is too long: ask for less)" in await ana.chat(at(queue_name), "peek 10")
    answer = await ana.ask(at(queue_name), payload({"cmd": "peek", "count": 10}), "set")
    assert "too large for XMPP" in condition_of(answer)[2]
    ana.command(at(queue_name), cmd="peek", count=10)
    assert (await ana.told())["code"] == "answer-too-large"


async def test_a_job_that_is_too_large_to_be_told_is_not_taken(
    xmpp: Chatting, ana: Friend, queue_name: str
) -> None:
    push(xmpp, queue_name, "x" * 300_000)
    fetch, lease = {"cmd": "fetch", "queue": queue_name}, {"cmd": "lease", "queue": queue_name}

    async def there_again() -> None:
        await soon(lambda: counts(xmpp, queue_name)["ready"] == 1)
        assert counts(xmpp, queue_name)["processed"] == 0

    for one in (fetch, {**fetch, "cmd": "take"}, {**fetch, "cmd": "fetch_many"}):
        ana.command(DOMAIN, **one)
        assert (await ana.told())["code"] == "answer-too-large"
        await there_again()
    for some in (fetch, lease, [{"cmd": "stats"}, fetch], [lease, lease]):
        answer = await ana.ask(DOMAIN, payload(some), "set")
        assert "too large for XMPP" in condition_of(answer)[2]
        await there_again()
    filled_in = "<x xmlns='jabber:x:data' type='submit'><field var='wait'><value>0</value></field></x>"
    form = f"<command xmlns='http://jabber.org/protocol/commands' node='fetch'>{filled_in}</command>"
    assert "too large for XMPP" in condition_of(await ana.ask(at(queue_name), form, "set"))[2]
    await there_again()
    for to, said in ((at(queue_name), "fetch"), (DOMAIN, json.dumps(fetch)), (DOMAIN, json.dumps([fetch]))):
        assert "too large for XMPP" in await ana.chat(to, said)
        await there_again()


async def test_a_flood_is_bounded_and_others_are_served(xmpp: Chatting, ana: Friend, queue_name: str) -> None:
    push(xmpp, queue_name)
    wait = payload({"cmd": "job", "id": "1", "wait": 30})
    async with friend(xmpp.prosody, "reader") as reader:
        reader.xml("<presence/>")
        reader.xml(f"<presence to='{at(queue_name)}'/>")
        asked = [asyncio.create_task(reader.ask(at(queue_name), wait, "set")) for _ in range(300)]
        done, _ = await asyncio.wait(asked, timeout=rig.PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        kind, condition, words = condition_of(done.pop().result())
        assert (kind, condition) == ("wait", "resource-constraint")
        assert "are under way: wait for their answers" in words
        assert await ana.chat(at(queue_name), "1") == "2"
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
