"""Stanzas: what one that came says, and how one is written; no I/O.

What comes are elements, what goes is text: a stanza that we send is built once and never looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from presque.errors import (
    BodyTooLarge,
    CallerError,
    DiskFull,
    InvalidName,
    JobGone,
    NotFound,
    OurFault,
    PresqueError,
    QueueFull,
    Refused,
    StateError,
    StoreFull,
    StoreUnavailable,
    TooManyRequests,
)
from presque.xmpp.parsing import Element

OURS = "urn:presque:0"
JSON, CONSUME = f"{{{OURS}}}json", f"{{{OURS}}}consume"
STREAMS = ("jabber:component:accept", "jabber:client", "jabber:server")
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"
RECEIPTS = "urn:xmpp:receipts"
DELAY = "urn:xmpp:delay"
FORMS = "jabber:x:data"
COMMANDS = "http://jabber.org/protocol/commands"
INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"
PING = "urn:xmpp:ping"
VERSION = "jabber:iq:version"
LAST = "jabber:iq:last"
VCARD = "vcard-temp"

SECOND_HAND = (
    "{urn:xmpp:forward:0}forwarded",
    "{urn:xmpp:carbons:2}received",
    "{urn:xmpp:carbons:2}sent",
    "{urn:xmpp:mam:2}result",
    "{urn:xmpp:delay}delay",
    "{jabber:x:delay}x",
    "{http://jabber.org/protocol/muc#user}x",
    "{http://jabber.org/protocol/address}addresses",
)
"""What makes a message one that somebody else sent, or that was sent some time ago: it never acts."""

# --- reading


def name_of(stanza: Element) -> str:
    """`message`, `presence` or `iq`; "" for anything else."""
    namespace, _, name = stanza.tag.rpartition("}")
    return name if namespace[1:] in STREAMS else ""


def child(stanza: Element, name: str) -> Element | None:
    """The child of this name in the namespace of stanzas; None unless there is exactly one."""
    found = [one for one in stanza if name_of(one) == name]
    return found[0] if len(found) == 1 else None


def text_of(element: Element | None) -> str | None:
    """The text of an element; None if there is none, or it holds more than text."""
    if element is None or len(element):
        return None
    return element.text or ""


def is_second_hand(stanza: Element) -> bool:
    """Whether somebody else sent this first, or it was sent a while ago."""
    return any(one.tag in SECOND_HAND for one in stanza)


def own_words(message: Element) -> str | None:
    """What the sender has written: the body without what it quotes of another message (XEP-0428)."""
    bodies = [one for one in message if name_of(one) == "body"]
    if len(bodies) > 1:  # in several languages: the first of them
        bodies = [one for one in bodies if "{http://www.w3.org/XML/1998/namespace}lang" not in one.attrib][:1]
    text = text_of(bodies[0]) if bodies else None
    if text is None:
        return None
    for fallback in message.findall("{urn:xmpp:fallback:0}fallback"):
        for part in fallback.findall("{urn:xmpp:fallback:0}body"):
            start, end = part.get("start", "0"), part.get("end", str(len(text)))
            if start.isdecimal() and end.isdecimal() and len(start) < 10 and len(end) < 10:
                text = text[: int(start)] + text[max(int(start), int(end)) :]
    return text


# --- writing

_special = re.compile(r"[&<>\r]").sub
_in_attribute = re.compile(r"[&<>\"\r\n\t]").sub
_impossible = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]").sub
_entity = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;",
}  # fmt: skip


def text(words: str) -> str:
    """Text as XML has it. A character that XML cannot have becomes a replacement character."""
    return _special(_written, _impossible("\N{REPLACEMENT CHARACTER}", words))


def json_text(document: bytes) -> str:
    """JSON as the text of an element. A character that XML cannot have stands inside a string of it, where it
    can be written with an escape: the value is the same."""
    return _special(_written, _impossible(_json_escape, document.decode()))


def tag(name: str, /, *inside: str, xmlns: str | None = None, **attributes: str | None) -> str:
    """An element. What is inside is XML already; attributes that are None are left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in (("xmlns", xmlns), *attributes.items())
        if value is not None
    )
    content = "".join(inside)
    return f"<{name}{said}>{content}</{name}>" if content else f"<{name}{said}/>"


def _written(found: re.Match[str]) -> str:
    return _entity[found[0]]


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _attribute(value: str) -> str:
    return _in_attribute(_written, _impossible("\N{REPLACEMENT CHARACTER}", value))


def body(words: str) -> str:
    """What a person reads."""
    return tag("body", text(words))


def payload(document: bytes) -> str:
    """What a program reads."""
    return tag("json", json_text(document), xmlns=OURS)


not_kept = (
    tag("no-store", xmlns="urn:xmpp:hints")
    + tag("no-copy", xmlns="urn:xmpp:hints")
    + tag("private", xmlns="urn:xmpp:carbons:2")
)
"""Says that a message is for this client now, and for no archive and no other client (XEP-0334, 0280)."""


# --- errors: RFC 6120, section 8.3


class Unsupported(PresqueError):
    """The stanza asks for something that there is not here."""

    code = "not-supported"


def size_of(element: Element) -> int:
    """How much text a stanza holds, in characters: names, values, and what stands between."""
    return sum(
        len(one.tag)
        + len(one.text or "")
        + len(one.tail or "")
        + sum(len(name) + len(value) for name, value in one.attrib.items())
        for one in element.iter()
    )


class TooMany(PresqueError):
    """So much has been asked for that has not been done yet that no more is taken."""

    code = "too-many"


_ERRORS: tuple[tuple[type[PresqueError], str, str], ...] = (
    (Refused, "auth", "forbidden"),
    (TooManyRequests, "wait", "policy-violation"),
    (TooMany, "wait", "resource-constraint"),
    (Unsupported, "cancel", "service-unavailable"),
    (InvalidName, "modify", "bad-request"),
    (BodyTooLarge, "modify", "policy-violation"),
    (CallerError, "modify", "bad-request"),
    (NotFound, "cancel", "item-not-found"),
    (JobGone, "cancel", "item-not-found"),
    (QueueFull, "wait", "resource-constraint"),
    (StateError, "cancel", "conflict"),
    (StoreFull, "wait", "resource-constraint"),
    (DiskFull, "wait", "resource-constraint"),
    (StoreUnavailable, "wait", "remote-server-timeout"),
    (OurFault, "cancel", "internal-server-error"),
    (PresqueError, "cancel", "undefined-condition"),
)


def error_of(error: PresqueError) -> str:
    """The `<error/>` that says why something was not done: a condition, the text, and our code."""
    kind, condition = next((kind, word) for of, kind, word in _ERRORS if isinstance(error, of))
    return tag(
        "error",
        tag(condition, xmlns=STANZA_ERRORS),
        tag("text", text(str(error)), xmlns=STANZA_ERRORS),
        tag(error.code, xmlns=OURS),
        type=kind,
    )


def answer(stanza: Element, *inside: str, type_: str | None, id: str | None = None) -> str:
    """A stanza back to where this one came from."""
    return tag(
        name_of(stanza), *inside, **{"from": stanza.get("to"), "to": stanza.get("from")},
        id=stanza.get("id") if id is None else id, type=type_,
    )  # fmt: skip


def refusal(stanza: Element, error: PresqueError) -> str:
    """The error stanza that answers this one."""
    return answer(stanza, error_of(error), type_="error")


iq_result = partial(answer, type_="result")


def children(element: Element, namespace: str, name: str) -> Iterator[Element]:
    """Its children of this name."""
    return element.iterfind(f"{{{namespace}}}{name}")
