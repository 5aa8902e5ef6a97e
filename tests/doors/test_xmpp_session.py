"""A session over XMPP on an engine, without a server or a socket: stanzas in, stanzas out."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from presque.engine.engine import Engine
from presque.http.door import Bodies
from presque.xmpp.accounts import Accounts
from presque.xmpp.alerts import Alerts
from presque.xmpp.parsing import Parser
from presque.xmpp.presence import SILENT_BEATS
from presque.xmpp.session import Session
from tests import rig
from tests.asking import push, serving, soon
from tests.chatting import DOMAIN, OURS, at

WORKER = "worker@localhost/1"
LARGE = 100_000  # bytes of a stanza, of which three may be under way
UNSUPPORTED = (
    "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
)
HEAD = b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>"


class Talk:
    """A session, and all that it has sent."""

    def __init__(self, engine: Engine) -> None:
        self.sent: list[str] = []
        accounts = Accounts({"worker@localhost": ("*:*",)}, {})
        service = serving(engine)
        alerts = Alerts(service, accounts, DOMAIN)
        self.bodies = Bodies(3 * LARGE)
        self.session = Session(service, accounts, alerts, DOMAIN, self._send, 256 * 1024, self.bodies.hold)
        self._parser = Parser(256 * 1024)
        self._parser.feed(HEAD)
        list(self._parser.read_events())

    def _send(self, stanza: str, undo: object = None) -> None:
        assert undo is None or callable(undo)
        self.sent.append(stanza)

    def say(self, stanza: str) -> None:
        self._parser.feed(stanza.encode())
        for event, element in self._parser.read_events():
            if event == "end":
                self.session.receive(element)

    def come(self) -> None:
        self.say(
            f"<presence from='{WORKER}' to='{at('mail')}'><consume xmlns='{OURS}' count='5'/></presence>"
        )

    async def heard(self, what: str) -> str:
        found = await soon(lambda: [one for one in self.sent if what in one])
        return str(found[-1])


@pytest.fixture
async def talk(engine: Engine) -> Talk:
    return Talk(engine)


async def stats(engine: Engine) -> Any:
    [found] = await engine.stats(["mail"])
    return found


async def until_leased(engine: Engine, count: int) -> None:
    for _ in range(int(rig.PATIENCE * 100)):
        if (await stats(engine)).leased == count:
            return
    raise AssertionError(await stats(engine))


async def test_a_client_that_answers_no_ping_is_let_go_and_its_jobs_count_as_tried(
    engine: Engine, talk: Talk
) -> None:
    await push(engine, "mail")
    talk.come()
    await talk.heard('"event":"job"')
    for _ in range(SILENT_BEATS + 1):
        talk.session.beat()
    ping = await talk.heard("urn:xmpp:ping")
    assert f'to="{WORKER}"' in ping
    assert (await stats(engine)).leased == 1
    talk.session.beat()
    await until_leased(engine, 0)
    assert (await stats(engine)).failed == 1


@pytest.mark.parametrize(
    "answer",
    [
        "<iq from='{0}' to='{1}' type='result' id='presque-ping'/>",
        "<iq from='{0}' to='{1}' type='error' id='presque-ping'>" + UNSUPPORTED + "</iq>",
        "<message from='{0}' to='{1}' type='chat'><body>stats</body></message>",
    ],
)
async def test_a_client_that_gives_any_sign_stays(engine: Engine, talk: Talk, answer: str) -> None:
    await push(engine, "mail")
    talk.come()
    await talk.heard('"event":"job"')
    for _ in range(4 * SILENT_BEATS):
        talk.session.beat()
        talk.say(answer.format(WORKER, at("mail")))
    assert (await stats(engine)).leased == 1
    talk.session.end()
    await until_leased(engine, 0)
    assert (await stats(engine)).failed == 0


async def test_a_ping_that_comes_back_lets_the_client_go(engine: Engine, talk: Talk) -> None:
    await push(engine, "mail")
    talk.come()
    await talk.heard('"event":"job"')
    gone = "<recipient-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
    talk.say(
        f"<iq from='{WORKER}' to='{at('mail')}' type='error' id='x'><error type='wait'>{gone}</error></iq>"
    )
    await until_leased(engine, 0)


async def test_nothing_is_answered_once_the_connection_has_ended(engine: Engine, talk: Talk) -> None:
    talk.session.end()
    talk.come()
    talk.say(f"<message from='{WORKER}' to='{at('mail')}' type='chat'><body>1</body></message>")
    assert talk.sent == []
    assert (await stats(engine)).ready == 0


async def test_an_error_is_never_answered_and_neither_is_what_comes_from_ourselves(
    engine: Engine, talk: Talk
) -> None:
    command = f'<json xmlns=\'{OURS}\'>{{"cmd":"push","job":1}}</json><body>1</body>'
    for sender in (WORKER, DOMAIN, at("mail"), f"{at('mail')}/x", "", "eve@localhost/x"):
        for name in ("message", "iq", "presence"):
            talk.say(f"<{name} from='{sender}' to='{at('mail')}' type='error' id='1'>{command}</{name}>")
    for sender in (DOMAIN, at("mail"), f"{at('mail')}/x", ""):
        talk.say(f"<message from='{sender}' to='{at('mail')}' type='chat' id='1'>{command}</message>")
        talk.say(f"<iq from='{sender}' to='{at('mail')}' type='set' id='1'>{command}</iq>")
        talk.say(f"<presence from='{sender}' to='{at('mail')}'/>")
        talk.say(f"<presence from='{sender}' to='{at('mail')}' type='subscribe'/>")
    talk.say(f"<iq from='{WORKER}' to='{at('mail')}' type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
    assert len(talk.sent) == 1
    assert (await stats(engine)).ready == 0


OF_A_CLIENT = (
    "<message type='chat' id='1'{}><body>stats</body></message>",
    "<message type='chat' id='1'{}><body>fetch wait=60</body></message>",
    "<message type='chat' id='1'{}><json xmlns='" + OURS + '\'>{{"cmd":"stats"}}</json></message>',
    "<message type='chat' id='1'{}><json xmlns='" + OURS + '\'>{{"cmd":"lease","count":1}}</json></message>',
    "<iq type='set' id='1'{}><json xmlns='" + OURS + '\'>{{"cmd":"stats"}}</json></iq>',
    "<iq type='set' id='1'{}><command xmlns='http://jabber.org/protocol/commands' node='stats'/></iq>",
    "<iq type='get' id='1'{}><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    "<presence type='subscribe'{}/>",
    "<presence{}><consume xmlns='" + OURS + "' count='5'/></presence>",
)


@pytest.mark.parametrize("stanza", OF_A_CLIENT)
async def test_a_client_that_leaves_at_once_has_asked_for_nothing(
    engine: Engine, talk: Talk, stanza: str
) -> None:
    await push(engine, "mail")
    addressed = f" from='{WORKER}' to='{at('mail')}'"
    talk.say(stanza.format(addressed) + f"<presence type='unavailable'{addressed}/>")
    await asyncio.sleep(0)
    gc.collect()  # a coroutine that was never awaited is told of when it goes
    assert not [one for one in talk.sent if "<error" in one]
    await until_leased(engine, 0)
    found = await stats(engine)
    assert (found.ready, found.failed) == (1, 0)


@pytest.mark.parametrize(
    "inside",
    [
        "<body>1</body>",
        "<body>push 1</body>",
        f'<json xmlns="{OURS}">{{"cmd":"push","job":1}}</json>',
    ],
)
async def test_what_a_client_has_pushed_before_it_left_is_kept(
    engine: Engine, talk: Talk, inside: str
) -> None:
    addressed = f" from='{WORKER}' to='{at('mail')}'"
    talk.say(f"<message type='chat' id='1'{addressed}>{inside}</message>")
    talk.say(f"<presence type='unavailable'{addressed}/>")
    await talk.heard('"id":"1"' if "json" in inside else "1")
    assert (await stats(engine)).ready == 1


async def test_a_line_of_the_audit_is_short_however_long_an_address_is(
    engine: Engine, talk: Talk, store: rig.Store
) -> None:
    stranger = f"{'e' * 900}@localhost/{'r' * 1000}"
    talk.say(f"<message from='{stranger}' to='{at('mail')}' type='chat' id='1'><body>1</body></message>")
    await talk.heard("may not use this presque")
    while not (notes := await engine.notes.page(None, 10)):
        await asyncio.sleep(0.01)
    with store.client() as client:  # the audit is nobody's to clear
        client.delete(engine.keys.access()[7])
    [note] = notes
    assert note.what["from"].startswith("e" * 190)
    assert all(len(str(value)) <= 200 for value in note.what.values())


WAITS = (
    "<iq type='set' id='{1}' from='" + WORKER + "' to='" + at("mail") + "'>"
    "<json xmlns='" + OURS + '\'>{{"cmd":"fetch","queue":"{0}","wait":60}}{2}</json></iq>'
)
CHAT = (
    "<message type='chat' id='{1}' from='" + WORKER + "' to='" + at("mail") + "'><body>{0}</body></message>"
)


async def test_the_bytes_of_requests_under_way_are_counted_with_the_bodies_of_all(
    engine: Engine, talk: Talk
) -> None:
    for number in range(3):
        talk.say(WAITS.format(f"none{number}", f"w{number}", " " * (LARGE - 500)))
    assert not talk.sent
    talk.say(WAITS.format("none3", "w3", " " * LARGE))
    refused = await talk.heard('id="w3"')
    assert "<resource-constraint" in refused
    assert "too many bytes of requests are under way" in refused
    talk.say(CHAT.format('"' + "x" * LARGE + '"', "large"))
    assert "not done: too many bytes" in await talk.heard('id="re-large"')
    talk.say(CHAT.format('"small"', "small"))
    await talk.heard('id="re-small"')
    assert (await stats(engine)).ready == 1

    await push(engine, "none0")  # one of those that wait is answered, and there is room again
    await talk.heard('id="w0"')
    await soon(lambda: talk.bodies._held < 2 * LARGE + 1000)  # a moment after its answer
    talk.say(CHAT.format('"' + "x" * (LARGE - 1000) + '"', "again"))
    assert "not done" not in await talk.heard('id="re-again"')
    talk.say(f"<presence type='unavailable' from='{WORKER}' to='{at('mail')}'/>")
    await soon(lambda: talk.bodies._held == 0)
