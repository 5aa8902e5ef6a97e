"""Consumers over XMPP, through a real server: presence, credits, settling, and giving back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests import rig
from tests.asking import soon
from tests.chatting import DOMAIN, OURS, Friend, answer_of, at, condition_of, friend, payload, text_of
from tests.doors.conftest import Chatting
from tests.doors.test_xmpp import counts, push, ready


def come(one: Friend, to: str, count: int = 1, seconds: int = 30) -> None:
    """Be present, and ask for jobs."""
    consume = f"<consume xmlns='{OURS}' count='{count}' seconds='{seconds}'/>"
    one.xml(f"<presence to='{to}'>{consume}</presence>")


async def jobs(one: Friend, count: int) -> list[dict[str, Any]]:
    found = [await one.told() for _ in range(count)]
    assert all(job["event"] == "job" for job in found)
    return found


async def held(xmpp: Chatting, queue: str, count: int) -> None:
    """Wait until so many jobs are leased."""
    await soon(lambda: counts(xmpp, queue)["leased"] == count)


async def test_whoever_is_present_gets_jobs_and_never_more_than_the_credits(
    xmpp: Chatting, queue_name: str
) -> None:
    async with friend(xmpp.prosody, "worker") as worker:
        come(worker, at(queue_name), 2)
        for number in range(4):
            push(xmpp, queue_name, {"n": number})
        first = await worker.heard()
        assert first.get("from") == at(queue_name)
        assert json.loads(text_of(first, "body") or "") == {"n": 0}
        told = answer_of(first)
        assert (told["event"], told["queue"], told["id"], told["attempt"]) == ("job", queue_name, "1", 1)
        [second] = await jobs(worker, 1)
        assert await worker.silent()
        assert counts(xmpp, queue_name)["leased"] == 2
        worker.command(at(queue_name), cmd="ack", id=second["id"], lease=second["lease"])
        assert (await jobs(worker, 1))[0]["id"] == "3"
        assert counts(xmpp, queue_name)["processed"] == 1


async def test_a_person_settles_in_words(xmpp: Chatting, queue_name: str) -> None:
    mail = at(queue_name)
    for number in range(1, 5):
        push(xmpp, queue_name, number)
    async with friend(xmpp.prosody, "worker") as worker:
        worker.xml(f"<presence to='{mail}'/>")
        assert (await jobs(worker, 1))[0]["id"] == "1"
        assert await worker.chat(mail, "extend seconds=600") == "1: extended"
        worker.say(mail, 'ack {"sent": true}')
        assert {await worker.words(), await worker.words()} == {"1: done", "2"}
        worker.say(mail, "fail the disk is full")
        assert {await worker.words(), await worker.words()} == {"2: scheduled", "3"}
        worker.say(mail, "fail 3 retry=false no such user")
        assert {await worker.words(), await worker.words()} == {"3: dead", "4"}
        worker.say(mail, "release delay=1h")
        assert await worker.words() == "4: scheduled"
        assert await worker.chat(mail, "ack") == "not done: you hold no job here"
        assert "you do not hold job 77" in await worker.chat(mail, "ack 77")
    errors = xmpp.server.ask("GET", f"/j/{queue_name}/3").json["errors"]
    assert errors[0]["error"] == "no such user"
    assert errors[0]["worker"].startswith("worker@localhost/")


async def test_of_several_jobs_a_person_says_which_one_or_replies_to_it(
    xmpp: Chatting, queue_name: str
) -> None:
    mail = at(queue_name)
    for number in range(3):
        push(xmpp, queue_name, number)
    async with friend(xmpp.prosody, "worker") as worker:
        come(worker, mail, 3)
        messages = [await worker.heard() for _ in range(3)]
        assert "you hold 3 jobs: say which one, as in `ack 1`" in await worker.chat(mail, "ack")
        assert await worker.chat(mail, "ack 2") == "2: done"
        quoted = "<body start='0' end='4'/>"
        reply = (
            f"<reply xmlns='urn:xmpp:reply:0' to='{mail}' id='{messages[2].get('id')}'/>"
            f"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'>{quoted}</fallback>"
        )
        assert await worker.chat(mail, "> 2\nack", inside=reply) == "3: done"
        assert await worker.chat(mail, "ack") == "1: done"


ENDINGS = {
    "goodbye": "<presence to='{0}' type='unavailable'><consume xmlns='urn:presque:0'/></presence>",
    "a message that comes back": "<message to='{0}' type='error'><body>1</body></message>",
    "unavailable to the queue": "<presence to='{0}' type='unavailable'/>",
    "unavailable to all": "<presence type='unavailable'/>",
    "the end of its stream": "</stream:stream>",
    "a break": "",
}


@pytest.mark.parametrize("how", ENDINGS)
async def test_whatever_ends_a_consumer_gives_back_what_it_holds(
    xmpp: Chatting, queue_name: str, how: str
) -> None:
    """It counts as an attempt where the client may have died."""
    xmpp.server.ask("PATCH", f"/p/{queue_name}", '{"backoff": {"first": 0, "jitter": 0}}')
    for number in range(3):
        push(xmpp, queue_name, number)
    async with friend(xmpp.prosody, "worker") as worker:
        await worker.appear()
        come(worker, at(queue_name), 2)
        await jobs(worker, 2)
        worker.xml(ENDINGS[how].format(at(queue_name)) or " ")
        if how == "a break":
            assert worker.transport is not None
            worker.transport.abort()
        await held(xmpp, queue_name, 0)
        assert await worker.silent()
    polite = how in ("goodbye", "a message that comes back")
    assert counts(xmpp, queue_name)["failed"] == (0 if polite else 2)
    assert [xmpp.server.ask("GET", f"/q/{queue_name}").json for _ in range(3)] == [0, 1, 2]


async def test_a_client_takes_the_jobs_of_one_of_its_devices_only(xmpp: Chatting, queue_name: str) -> None:
    """Nor does the other one settle them without their token."""
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "worker") as one, friend(xmpp.prosody, "worker") as other:
        await one.appear()
        await other.appear()
        come(one, at(queue_name))
        await jobs(one, 1)
        assert await other.chat(at(queue_name), "ack") == "not done: you hold no job here"
        other.xml("<presence type='unavailable'/>")
        assert await one.chat(at(queue_name), "ack") == "1: done"


async def test_a_list_of_queues_is_consumed_at_the_address_of_presque(
    xmpp: Chatting, queue_name: str
) -> None:
    async with friend(xmpp.prosody, "worker") as worker:
        lease = {"cmd": "lease", "queue": f"{queue_name}-b,{queue_name}-a", "count": 1, "ref": 1}
        worker.command(DOMAIN, **lease)
        assert (await worker.told())["code"] == "not-present"
        worker.xml(f"<presence to='{DOMAIN}'/>")
        worker.command(DOMAIN, **lease)
        assert await worker.told() == {"ref": 1, "queue": f"{queue_name}-b,{queue_name}-a", "count": 1}
        push(xmpp, f"{queue_name}-a")
        [job] = await jobs(worker, 1)
        push(xmpp, f"{queue_name}-a")
        push(xmpp, f"{queue_name}-b")
        worker.command(at(job["queue"]), cmd="ack", id=job["id"], lease=job["lease"])
        assert (await jobs(worker, 1))[0]["queue"] == f"{queue_name}-b"
        worker.xml(f"<presence to='{DOMAIN}' type='unavailable'/>")
        await held(xmpp, f"{queue_name}-b", 0)


async def test_credits_are_changed_by_another_presence_and_ended_by_none(
    xmpp: Chatting, queue_name: str
) -> None:
    for number in range(4):
        push(xmpp, queue_name, number)
    async with friend(xmpp.prosody, "worker") as worker:
        come(worker, at(queue_name), 1)
        await jobs(worker, 1)
        come(worker, at(queue_name), 3)
        await jobs(worker, 2)
        come(worker, at(queue_name), 0)
        assert await worker.chat(at(queue_name), "ack 1") == "1: done"
        assert await worker.silent()
        assert counts(xmpp, queue_name)["leased"] == 2


@pytest.mark.parametrize("wrong", ["count='-1'", "count='1001'", "seconds='soon'", "cuont='1'"])
async def test_presence_that_asks_for_nonsense_is_told_so(
    xmpp: Chatting, queue_name: str, wrong: str
) -> None:
    async with friend(xmpp.prosody, "worker") as worker:
        worker.xml(f"<presence to='{at(queue_name)}'><consume xmlns='{OURS}' {wrong}/></presence>")
        kind, condition, words = condition_of(await worker.seen())
    assert (kind, condition) == ("modify", "bad-request")
    assert words.startswith(("`count` should be", "`seconds` should be", "unknown field `cuont`"))


async def test_a_broadcast_reaches_everybody_present_and_in_turn_one_each(
    xmpp: Chatting, queue_name: str
) -> None:
    for delivery in ("broadcast", "roundrobin"):
        queue = f"{queue_name}-{delivery}"
        xmpp.server.ask("PATCH", f"/p/{queue}", json.dumps({"delivery": delivery}))
        async with friend(xmpp.prosody, "worker") as one, friend(xmpp.prosody, "ana") as other:
            for client in (one, other):
                client.xml(f"<presence to='{DOMAIN}'/>")
                client.command(DOMAIN, cmd="lease", queue=queue, ref=1)
                assert (await client.told())["delivery"] == delivery
            for number in range(4):
                push(xmpp, queue, number)
            heard = [sorted([(await one.told())["body"] for _ in range(2)]) for one in (one, other)]
            if delivery == "broadcast":
                heard = [found + sorted([(await client.told())["body"] for _ in range(2)])
                         for found, client in zip(heard, (one, other), strict=True)]  # fmt: skip
                assert heard == [[0, 1, 2, 3]] * 2
            else:
                assert sorted(heard[0] + heard[1]) == [0, 1, 2, 3]
            assert "lease" not in json.dumps(heard)


async def test_a_job_that_is_too_large_fails_and_says_so_and_a_large_one_comes_without_a_body(
    xmpp: Chatting, queue_name: str
) -> None:
    xmpp.server.ask("PATCH", f"/p/{queue_name}", '{"max_attempts": 1}')
    push(xmpp, queue_name, "x" * 300_000)
    push(xmpp, queue_name, "y" * 150_000)
    push(xmpp, queue_name, "small")
    async with friend(xmpp.prosody, "worker") as worker:
        come(worker, at(queue_name), 3)
        large, small = await worker.heard(), await worker.heard()
        assert (len(answer_of(large)["body"]), text_of(large, "body")) == (150_000, None)
        assert text_of(small, "body") == '"small"'
        await soon(lambda: counts(xmpp, queue_name)["dead"] == 1)
    [error] = xmpp.server.ask("GET", f"/j/{queue_name}/1").json["errors"]
    assert "too large for XMPP" in error["error"]


async def test_a_job_that_xml_cannot_hold_comes_with_its_value(xmpp: Chatting, queue_name: str) -> None:
    """It would end the connection of the component, for everybody."""
    said = {"text": "a\uffff\ufffe\u007f]]>&<\r\n\u2028 🙂", "n": 12345678901234567890}
    xmpp.server.ask("POST", f"/q/{queue_name}", json.dumps(said, ensure_ascii=False).encode())
    async with friend(xmpp.prosody, "worker") as worker:
        come(worker, at(queue_name))
        [job] = await jobs(worker, 1)
        assert job["body"] == said
        assert await worker.chat(at(queue_name), "ack") == "1: done"


async def test_settling_without_the_lease_of_the_job_does_nothing(xmpp: Chatting, queue_name: str) -> None:
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "worker") as worker, friend(xmpp.prosody, "reader") as reader:
        come(worker, at(queue_name))
        [job] = await jobs(worker, 1)
        worker.command(at(queue_name), cmd="ack", id=job["id"], lease="1-other")
        assert (await worker.told())["status"] == 409
        told = await reader.do(at(queue_name), {"cmd": "ack", "id": job["id"], "lease": job["lease"]})
        assert told["code"] == "not-allowed"
        assert counts(xmpp, queue_name)["leased"] == 1


async def test_presence_that_is_told_to_everybody_makes_no_consumer(xmpp: Chatting, queue_name: str) -> None:
    push(xmpp, queue_name)
    async with friend(xmpp.prosody, "worker") as worker:
        await worker.appear()
        worker.xml(f"<presence to='{at(queue_name)}' type='subscribe'/>")
        while (await worker.seen()).get("type") != "subscribed":
            pass
        worker.xml("<presence><show>away</show></presence>")
        assert await worker.silent()
    assert ready(xmpp, queue_name) == 1


async def test_whatever_is_asked_of_a_consumer_that_left_is_not_done(xmpp: Chatting, queue_name: str) -> None:
    """A fetch that waits takes no job for somebody who has gone."""
    async with friend(xmpp.prosody, "ana") as ana:
        await ana.appear()
        ana.xml(f"<presence to='{DOMAIN}'/>")
        wait = payload({"cmd": "fetch", "wait": 30})
        ana.xml(f"<iq to='{at(queue_name)}' type='set' id='w'>{wait}</iq>")
        await soon(lambda: counts(xmpp, queue_name) is not None)
        await ana.ask(DOMAIN, "<ping xmlns='urn:xmpp:ping'/>")
        ana.xml("<presence type='unavailable'/>")
        await ana.ask(DOMAIN, "<ping xmlns='urn:xmpp:ping'/>")
    push(xmpp, queue_name)
    await asyncio.sleep(0.2)
    assert ready(xmpp, queue_name) == 1


async def test_many_clients_share_the_jobs_of_a_queue(xmpp: Chatting, queue_name: str) -> None:
    async with friend(xmpp.prosody, "worker") as one, friend(xmpp.prosody, "ana") as other:
        for client in (one, other):
            come(client, at(queue_name), 5)
        for number in range(40):
            push(xmpp, queue_name, number)
        found: list[int] = []

        async def work(client: Friend) -> None:
            while True:
                job = await client.told()
                found.append(job["body"])
                client.command(at(queue_name), cmd="ack", id=job["id"], lease=job["lease"])

        tasks = [asyncio.create_task(work(client)) for client in (one, other)]
        await soon(lambda: counts(xmpp, queue_name)["processed"] == 40, rig.PATIENCE)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert sorted(found) == list(range(40))
