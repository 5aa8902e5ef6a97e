"""A session over XMPP on an engine, without a server or a socket: stanzas in, stanzas out."""

from __future__ import annotations

from typing import Any

import pytest

from presque.engine.engine import Engine
from presque.xmpp import session as sessions
from presque.xmpp.accounts import Accounts
from presque.xmpp.alerts import Alerts
from presque.xmpp.parsing import Parser
from presque.xmpp.session import Session
from tests import rig
from tests.asking import push, serving, soon
from tests.chatting import DOMAIN, OURS, at

WORKER = "worker@localhost/1"
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
        self.session = Session(service, accounts, alerts, DOMAIN, self.sent.append, 256 * 1024)
        self._parser = Parser(256 * 1024)
        self._parser.feed(HEAD)
        list(self._parser.read_events())

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
    for _ in range(sessions.SILENT_BEATS + 1):
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
    for _ in range(4 * sessions.SILENT_BEATS):
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
