"""What presque says about itself and its queues when XMPP clients look around.

Service discovery (XEP-0030), version (XEP-0092), last activity (XEP-0012) and names (XEP-0054). Each function
answers one kind of query with the element that the answer holds.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from presque import codec
from presque.commands.call import Call, Service
from presque.commands.carrying import carry_out
from presque.errors import NotFound, PresqueError, shown
from presque.tokens import CLASSES
from presque.verbs import VERBS
from presque.verbs.verb import Verb
from presque.version import __version__
from presque.xmpp import stanzas, words
from presque.xmpp.accounts import Account
from presque.xmpp.addresses import address
from presque.xmpp.parsing import Element
from presque.xmpp.stanzas import tag, text

FEATURES = (
    stanzas.INFO, stanzas.ITEMS, stanzas.COMMANDS, stanzas.FORMS, stanzas.PING, stanzas.VERSION, stanzas.LAST,
    stanzas.VCARD, stanzas.RECEIPTS, stanzas.OURS, "jid\\20escaping", "urn:xmpp:reply:0",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: who asks, and at the address of which queue; None for the address of presque itself."""

    service: Service
    who: Account
    queue: str | None
    query: Element
    domain: str
    up_s: int
    """How long we have been connected to the server."""


def may(who: Account, verb: Verb, queue: str | None) -> bool:
    """Whether somebody may ask this of a queue, or, without one, of some queue."""
    try:
        if queue is not None and ("queue" in verb.members or verb.over != "all"):
            who.may(verb.scope, queue)
        else:
            who.may(verb.scope, None, verb.over)
    except PresqueError:
        return False
    return True


def to_strangers() -> str:
    """What everybody may know."""
    identity = tag("identity", category="component", type="generic", name="presque")
    return tag(
        "query",
        identity,
        *(tag("feature", var=one) for one in (stanzas.INFO, stanzas.PING)),
        xmlns=stanzas.INFO,
    )


async def info(asked: Asked) -> str:
    """What an address is: presque, a queue, or a command."""
    node = asked.query.get("node")
    if node and node in words.IN_WORDS:
        identity = tag(
            "identity", category="automation", type="command-node", name=words.IN_WORDS[node].means
        )
        features = (stanzas.COMMANDS, stanzas.FORMS)
        return _query(asked, stanzas.INFO, identity, *(tag("feature", var=one) for one in features))
    if node == stanzas.COMMANDS:
        identity = tag("identity", category="automation", type="command-list", name="commands")
        return _query(asked, stanzas.INFO, identity)
    if node:
        raise NotFound(f"there is nothing called `{shown(node)}` here")
    if asked.queue is None:
        identity = tag("identity", category="component", type="generic", name="presque")
        return _query(asked, stanzas.INFO, identity, *(tag("feature", var=one) for one in FEATURES))
    asked.who.may("read", asked.queue)
    [found] = await asked.service.engine.stats([asked.queue])
    said = {
        "FORM_TYPE": f"{stanzas.OURS}#queue",
        "queue": asked.queue,
        "may": [one for one in CLASSES if asked.who.allows(one, asked.queue)],
        "status": str(int(found.started)),
        **{name: str(getattr(found, name)) for name in ("ready", "scheduled", "leased", "dead")},
    }
    identity = tag("identity", category="client", type="bot", name=asked.queue)
    return _query(
        asked, stanzas.INFO, identity, *(tag("feature", var=one) for one in FEATURES), form_of(said)
    )


async def items(asked: Asked) -> str:
    """The queues, at the address of presque; the commands, if they are asked for."""
    node = asked.query.get("node")
    if node == stanzas.COMMANDS:
        here = asked.domain if asked.queue is None else address(asked.queue, asked.domain)
        found = [
            tag("item", jid=here, node=one.name, name=f"{one.name}: {one.means}")
            for one in words.IN_WORDS.values()
            if may(asked.who, one, asked.queue)
        ]
        return _query(asked, stanzas.ITEMS, *found)
    if node:
        raise NotFound(f"there is nothing called `{shown(node)}` here")
    if asked.queue is not None:
        return _query(asked, stanzas.ITEMS)
    call = Call(asked.service, VERBS["queues"], {}, b"", None, asked.who)
    names = codec.decode((await carry_out(call)).object)["queues"]
    return _query(
        asked, stanzas.ITEMS, *(tag("item", jid=address(one, asked.domain), name=one) for one in names)
    )


async def version(_asked: Asked) -> str:
    """What runs here."""
    inside = [tag("name", "presque"), tag("version", __version__), tag("os", text(platform.system()))]
    return tag("query", *inside, xmlns=stanzas.VERSION)


async def last(asked: Asked) -> str:
    """How long presque has been here; a queue is always there, and says what it holds."""
    if asked.queue is None:
        return tag("query", xmlns=stanzas.LAST, seconds=str(asked.up_s))
    asked.who.may("read", asked.queue)
    [found] = await asked.service.engine.stats([asked.queue])
    said = f"{found.ready} ready, {found.leased} leased, {found.dead} dead"
    return tag("query", said, xmlns=stanzas.LAST, seconds="0")


async def vcard(asked: Asked) -> str:
    """What an address is called."""
    name = asked.queue or "presque"
    if asked.queue is not None:
        asked.who.may("read", asked.queue)
    about = (
        "A queue of presque: send JSON to push it, or `help`." if asked.queue else "A job queue: send `help`."
    )
    return tag(
        "vCard", tag("FN", text(name)), tag("NICKNAME", text(name)), tag("DESC", about), xmlns=stanzas.VCARD
    )


def form_of(said: Mapping[str, str | Sequence[str]]) -> str:
    """A form that only tells (XEP-0128)."""
    fields = [
        tag(
            "field",
            *(tag("value", text(one)) for one in ([value] if isinstance(value, str) else value)),
            var=name,
            type="hidden"
            if name == "FORM_TYPE"
            else ("text-single" if isinstance(value, str) else "list-multi"),
        )
        for name, value in said.items()
    ]
    return tag("x", *fields, xmlns=stanzas.FORMS, type="result")


def _query(asked: Asked, namespace: str, *inside: str) -> str:
    return tag("query", *inside, xmlns=namespace, node=asked.query.get("node"))


ANSWERS: dict[tuple[str, str], Callable[[Asked], Coroutine[Any, Any, str]]] = {
    ("get", f"{{{stanzas.INFO}}}query"): info,
    ("get", f"{{{stanzas.ITEMS}}}query"): items,
    ("get", f"{{{stanzas.VERSION}}}query"): version,
    ("get", f"{{{stanzas.LAST}}}query"): last,
    ("get", f"{{{stanzas.VCARD}}}vCard"): vcard,
}
"""The kind of an iq and what it holds, and who answers it."""
