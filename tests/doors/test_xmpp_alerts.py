"""Alerts over XMPP: who asked is told, in one message for many, and not again at once."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from presque.engine.engine import Engine
from presque.errors import CallerError
from presque.job import Ask, Settle
from presque.names import queue_list
from presque.xmpp import alerts, words
from presque.xmpp.accounts import Account, Accounts
from presque.xmpp.alerts import ALERT, ALERTS, UNALERT, Alerts
from tests import rig
from tests.asking import push, serving
from tests.chatting import DOMAIN, OURS, at, friend
from tests.doors.conftest import Chatting


class Told:
    """What accounts are told, message by message."""

    def __init__(self, engine: Engine) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        allow = {"ana@localhost": ("*:*",), "ben@localhost": ("read:mail*",)}
        self.accounts = Accounts(allow, {})
        self.alerts = Alerts(serving(engine), self.accounts, DOMAIN)
        self.alerts.send = self.send

    def send(self, stanza: str) -> None:
        element = ElementTree.fromstring(stanza)
        document = json.loads(element.findtext(f"{{{OURS}}}json") or "")
        assert (element.findtext("body") or "").splitlines()[: len(document["alerts"])] == [
            one["text"] for one in document["alerts"]
        ]
        self.messages.append((element.get("to", ""), document))

    def who(self, name: str = "ana") -> Account:
        found = self.accounts.who(f"{name}@localhost")
        assert found is not None
        return found

    async def say(self, line: str, name: str = "ana") -> list[dict[str, Any]]:
        asked = words.read(line, None)
        fields = words.fields_of(asked.verb, asked.given, None)
        found: list[dict[str, Any]] = (await self.alerts.do(self.who(name), asked.verb, fields))["alerts"]
        return found

    async def look(self) -> list[str]:
        """What is told when it is looked now."""
        self.messages.clear()
        await self.alerts.look()
        return [one["text"] for _, document in self.messages for one in document["alerts"]]


@pytest.fixture
async def told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(alerts, "EVERY_S", 0.0)
    return Told(engine)


async def die(engine: Engine, queue: str, count: int = 1, error: str = "no such user") -> None:
    for _ in range(count):
        await push(engine, queue)
    [*found] = await leased(engine, queue, count)
    for job in found:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        settle = Settle("fail", queue, job.id, job.token, {"error": error, "retry": False})
        engine.settle(settle, done.set_result)
        await done


async def leased(engine: Engine, queue: str, count: int) -> Any:
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(jobs: Any) -> bool:
        found.set_result(jobs)
        return True

    engine.lease(queue_list(queue), Ask(count, 60_000, "", ""), 0, take)
    return await found


async def test_a_job_that_died_is_told_once_with_its_error(engine: Engine, told: Told) -> None:
    await die(engine, "mail")
    await told.say("alert dead mail*")
    assert await told.look() == []  # it died before
    await die(engine, "mail")
    await die(engine, "mail2", 2, "the disk is full")
    assert sorted(await told.look()) == [
        "mail2: job 1 is dead: the disk is full", "mail2: job 2 is dead: the disk is full",
        "mail: job 2 is dead: no such user",
    ]  # fmt: skip
    assert len(told.messages) == 1
    assert await told.look() == []
    await die(engine, "mail", 15)
    found = await told.look()
    assert len(found) == alerts.DEAD_AT_ONCE + 1
    assert found[-1] == "mail: more jobs are dead, 17 in all"


async def test_a_queue_that_is_stopped_is_told_until_it_is_started(engine: Engine, told: Told) -> None:
    await push(engine, "mail")
    await told.say("alert stopped mail")
    assert await told.look() == []
    await engine.stop_queue("mail")
    assert await told.look() == ["mail is stopped, with 1 ready job"]
    assert await told.look() == []
    await engine.start_queue("mail")
    assert await told.look() == []
    await engine.stop_queue("mail")
    assert len(await told.look()) == 1


async def test_a_job_that_waits_too_long_is_told(engine: Engine, told: Told) -> None:
    await push(engine, "mail")
    await told.say("alert oldest mail 1s")
    async with asyncio.timeout(rig.PATIENCE):
        while not (texts := await told.look()):
            await asyncio.sleep(0.05)
    [text] = texts
    assert re.match(r"mail: 1 ready job, the oldest has waited \d+ s", text)
    assert await told.look() == []


async def test_a_worker_that_falls_silent_is_told(
    engine: Engine, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.say("alert silent mail*")
    await engine.report_worker("w1", b"{}", ["mail"])
    await engine.report_worker("w2", b"{}", ["other"])
    assert await told.look() == []
    monkeypatch.setattr(alerts, "SILENT_MS", -1)
    [text] = await told.look()
    assert re.fullmatch(r"worker w1 of mail has said nothing for \d+ s", text)
    assert await told.look() == []


async def test_many_things_wait_for_one_message(
    engine: Engine, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "EVERY_S", 3600.0)
    await told.say("alert dead q*")
    await die(engine, "q0")
    assert len(await told.look()) == 1
    for number in range(60):
        await die(engine, f"q{number}")
    assert await told.look() == []
    for box in told.alerts._boxes.values():
        box.not_before = 0.0
    assert len(await told.look()) == alerts.LINES_MOST
    [(_, document)] = told.messages
    assert document["more"] == 10


async def test_whoever_may_not_read_a_queue_is_told_nothing_of_it(engine: Engine, told: Told) -> None:
    await told.say("alert dead *", "ben")
    await die(engine, "secret")
    await die(engine, "mail")
    assert await told.look() == ["mail: job 1 is dead: no such user"]
    assert told.messages[0][0] == "ben@localhost"


async def test_alerts_are_listed_ended_and_outlive_the_process(engine: Engine, told: Told) -> None:
    assert await told.say("alerts") == []
    await told.say("alert dead mail*")
    await told.say("alert oldest mail* 5m")
    both = [{"what": "dead", "queues": "mail*"}, {"what": "oldest", "queues": "mail*", "limit": 300.0}]
    assert await told.say("alerts") == both
    assert await told.say("alerts", "ben") == []
    again = Told(engine)
    assert sorted(await again.say("alerts"), key=str) == sorted(both, key=str)
    assert await again.look() == []
    await die(engine, "mail")
    assert await again.look() == ["mail: job 1 is dead: no such user"]
    assert await again.say("unalert dead") == both[1:]
    assert await Told(engine).say("alerts") == both[1:]
    assert await again.say("unalert") == []


async def test_without_a_connection_what_is_to_be_told_waits(engine: Engine, told: Told) -> None:
    await told.say("alert dead mail")
    send, told.alerts.send = told.alerts.send, None
    await die(engine, "mail")
    assert await told.look() == []
    told.alerts.send = send
    assert len(await told.look()) == 1


async def test_there_is_a_limit_of_alerts(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "WANTED_OF_ONE_MOST", 1)
    await told.say("alert dead a")
    await told.say("alert dead a")
    with pytest.raises(CallerError, match="you have 1 alerts already"):
        await told.say("alert dead b")
    with pytest.raises(CallerError, match="`limit` goes with `oldest`"):
        await told.say("alert dead a 5m")
    assert {ALERT.name, ALERTS.name, UNALERT.name} <= set(words.IN_WORDS)


async def test_an_alert_is_asked_for_in_words_and_comes_as_a_message(xmpp: Chatting, queue_name: str) -> None:
    async with friend(xmpp.prosody) as ana:
        await ana.appear()
        assert await ana.chat(at(queue_name), "alert stopped") == f"your alerts:\nstopped {queue_name}"
        assert await ana.chat(at(queue_name), "stop") == f"{queue_name} is stopped"
        message = await ana.heard()
        assert message.get("from") == DOMAIN
        assert f"{queue_name} is stopped, with 0 ready jobs" in ElementTree.tostring(
            message, encoding="unicode"
        )
        assert await ana.chat(at(queue_name), "unalert") == "you have no alerts"
    async with friend(xmpp.prosody, "reader") as reader:
        assert "is not allowed to `read:other`" in await reader.chat(at("other"), "alert dead")
