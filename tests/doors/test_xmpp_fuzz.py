"""Stanzas of all shapes, drawn by chance: each request is answered with a sentence, and none is our fault."""

from __future__ import annotations

import random
import re
from xml.sax.saxutils import escape, quoteattr

import pytest

from presque.engine.engine import Engine
from tests.asking import soon
from tests.chatting import DOMAIN, OURS, at
from tests.doors.test_xmpp_session import WORKER, Talk

WORDS = (
    "stats", "help", "help push", "start", "stop", "push", "push a b c", "ack", "fail 1 x", "{}", "[", "[1]",
    '"\\ud83d"', "null", "-1", "1e999", "[" * 5000, '{"cmd":"push","queue":"mail","job":1}', '{"cmd":"nix"}',
    '{"cmd":"lease","queue":"mail","count":1e400}', '{"cmd":12}', '[{"cmd":"push"}]', "policy mail lease=x",
    "consume count=99999", "x" * 100_000, "\u202epush", "peek count=-1", "push delay=nix 1", "  ", "😀",
)  # fmt: skip
NODES = ("push", "stats", "purge", "nix", "", "n" * 1000, "lease", "policy", "cron")
SPACES = (
    "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "vcard-temp",
    "urn:xmpp:ping", "jabber:iq:version", "jabber:iq:roster", OURS, "urn:nix",
)  # fmt: skip
TO = (at("mail"), DOMAIN, at("x" * 200), f"%zz@{DOMAIN}", f"@{DOMAIN}", f"{DOMAIN}/x", at("*"), at("a,x*"))
FORM = (
    "<x xmlns='jabber:x:data' type='submit'><field var='queue'><value>{}</value></field><field/>"
    "<field var='count'/></x>"
)
FROM = (WORKER, "worker@localhost", f"worker@localhost/{'r' * 500}")
TYPES = {
    "message": ("chat", "normal", "error", "groupchat", "nix"),
    "presence": ("", "subscribe", "probe", "error", "nix"),
    "iq": ("get", "set", "result", "error", "nix"),
}


def inside(dice: random.Random) -> str:
    """One element of a stanza."""
    said, node = escape(dice.choice(WORDS)), quoteattr(dice.choice(NODES))
    number = quoteattr(dice.choice(("1", "-1", "x", "1e9", "", "9" * 20)))
    return dice.choice((
        f"<json xmlns='{OURS}'>{said}</json>",
        f"<consume xmlns='{OURS}' count={number} seconds={number}/>",
        f"<command xmlns='http://jabber.org/protocol/commands' node={node} action='execute'/>",
        f"<command xmlns='http://jabber.org/protocol/commands' node={node}>{FORM.format(said)}</command>",
        f"<query xmlns={quoteattr(dice.choice(SPACES))} node={node}/>",
        "<a>" * 40 + "</a>" * 40,
        "<b/>" * 5000,
        f"<body>{said}</body>",
    ))  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_a_stanza_holds_is_answered_and_is_no_fault_of_the_server(
    engine: Engine, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    dice, talk = random.Random(seed), Talk(engine)
    owed = set()
    for number in range(200):
        name = dice.choice(tuple(TYPES))
        kind, id = dice.choice(TYPES[name]), f"n{number}."
        content = "".join(inside(dice) for _ in range(dice.choice((0, 1, 1, 1, 2))))
        sender = dice.choice(FROM) if dice.random() < 0.3 else WORKER
        typed = f" type='{kind}'" if kind else ""
        talk.say(f"<{name} from='{sender}' to='{dice.choice(TO)}' id='{id}'{typed}>{content}</{name}>")
        if kind in ("get", "set") and sender == WORKER:
            owed.add(id)

    def answered() -> set[str]:
        return {found for one in talk.sent for found in re.findall(r' id="(n[0-9]+\.)"', one)}

    await soon(lambda: owed <= answered())
    assert [one for one in talk.sent if "internal error" in one] == []
    assert [one for one in talk.sent if "<error" in one and "<text" not in one] == []
    assert "xmpp.broken" not in caplog.text
    talk.session.end()
    await soon(lambda: not talk.session.full)
