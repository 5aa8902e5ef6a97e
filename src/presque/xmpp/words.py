"""What people type, and how they are answered: commands in words, made from the rows of the verbs; no I/O.

A line begins with the name of a verb. Then come values of its fields, in the order of its row, or by name:
`jobs dead`, `jobs state=dead limit=5`, `retry 42`, `policy lease=30s rate.count=10`. What is left of a line
is the JSON or the text that some verbs take: `push priority=9 {"to": "ana"}`, `fail the disk is full`. At the
address of a queue, the queue need not be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from presque import codec
from presque.errors import CallerError, UnknownParameter, nearest, shown
from presque.fields import Field, Fields, Kind, check_together
from presque.quantities import counted
from presque.verbs import COMMANDS, CONSUME
from presque.verbs.verb import Verb
from presque.xmpp.alerts import OF_ALERTS

_FOR_PROGRAMS = (
    "put_back", "push_many", "fetch_many", "settle", "info", "size", "started", "register", "unregister",
    "leave", "add", "take", "get", "del",
)  # fmt: skip

IN_WORDS: dict[str, Verb] = {
    name: verb
    for name, verb in (COMMANDS | {"lease": CONSUME} | OF_ALERTS).items()
    if name not in _FOR_PROGRAMS
}
"""The verbs that people use."""

OF_A_JOB_HELD = ("ack", "fail", "release", "extend")
HELP = ("help", "?", "hi", "hello")

_REST = {"push": "job", "fail": "error", "ack": "result", "put_cron": "body"}
"""The field that takes the rest of a line."""

_named = re.compile(r"([a-z_]+(?:\.[a-z_]+)?)=").match
_value = re.compile(r'"([^"]*)"|\S+').match


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that was typed: its verb, and its fields as texts."""

    verb: Verb
    given: dict[str, str]


def read(line: str, queue: str | None) -> Asked:
    """The command that a line says, at the address of `queue`. Raises `CallerError`."""
    word, _, rest = line.strip().partition(" ")
    name = word.lower()
    verb = IN_WORDS.get(name)
    if verb is None:
        raise CallerError(
            f"there is no command `{shown(word)}`: {nearest(name, [*IN_WORDS, 'help'])} (`help` lists them)"
        )
    given = values(verb, rest.strip(), queue)
    if verb.name == "policy" and given.keys() - {"queue"}:
        verb = IN_WORDS["change_policy"]
    if (
        verb.without is not None
        and verb.without[0] not in given
        and not (verb.without[0] == "queue" and queue)
    ):
        verb = IN_WORDS[verb.without[1]]
    return Asked(verb, given)


def values(verb: Verb, rest: str, queue: str | None) -> dict[str, str]:
    """What a line says behind its first word. Raises `CallerError`."""
    known = IN_WORDS["change_policy"].members if verb.name == "policy" else verb.members
    tail = _REST.get(verb.name)
    places = [one for one in known.values() if _has_place(one, verb, queue, tail)]
    given: dict[str, str] = {}
    while rest:
        if (found := _named(rest)) and (found[1].partition(".")[0] in known or not tail):
            name, rest = found[1], rest[found.end() :]
            if name.partition(".")[0] not in known:
                raise UnknownParameter(name, list(known), "field")
            word, rest = _word_of(rest)
            given[name] = word
            continue
        word, left = _word_of(rest)
        field = next((one for one in places if one.name not in given), None)
        flag = known.get(word)
        if flag is not None and flag.kind is Kind.FLAG:
            given[word], rest = "true", left
        elif tail and (field is None or not _could_be(field, word)):
            given[tail], rest = rest, ""
        elif field is None:
            raise CallerError(f"`{shown(word)}` is too much: {usage(verb, queue)}")
        else:
            given[field.name], rest = word, left
    return given


def _has_place(field: Field, verb: Verb, queue: str | None, tail: str | None) -> bool:
    """Whether a value without a name can be meant for a field."""
    if field.name == tail or field.kind in (Kind.FLAG, Kind.OBJECT, Kind.LIST, Kind.JSON):
        return False
    if field.name in ("queue", "queues") and queue is not None:
        return False
    if verb.name in ("push", "policy", "change_policy") or (tail and not field.required):
        return field.name == "queue"
    return field.name != "lease" or verb.name not in OF_A_JOB_HELD


def _could_be(field: Field, word: str) -> bool:
    """Whether a word may be the value of a field, where it could be the beginning of a text as well."""
    return word.isdigit() if field.kind is Kind.ID else not word.startswith(("{", "[", '"'))


def _word_of(text: str) -> tuple[str, str]:
    """The first word, or what stands in quotes, and the rest."""
    found = _value(text)
    if found is None:
        return "", text.strip()
    quoted = found[1]
    return (found[0] if quoted is None else quoted), text[found.end() :].strip()


def fields_of(verb: Verb, given: Mapping[str, str], queue: str | None) -> dict[str, Any]:
    """The fields of a verb out of texts, typed and checked together; `rate.count` is a part of `rate`, and
    `null` goes back to the default where there is one to go back to. Raises `CallerError`."""
    known = verb.members
    found: dict[str, Any] = {}
    for name, text in given.items():
        outer, _, inner = name.partition(".")
        field = known.get(outer)
        parts = {} if field is None else {one.name: one for one in field.fields}
        if field is None or (inner and inner not in parts):
            raise UnknownParameter(name, [*_leaves(known)], "field")
        if text == "null" and field.nullable and not inner:
            found[outer] = None
        elif inner:
            found.setdefault(outer, {})[inner] = _read(parts[inner], text)
        elif parts:
            raise CallerError(
                f"`{outer}` has parts: say them one by one, as in {outer}.{field.fields[0].name}=…"
            )
        elif text or not field.blank:
            found[outer] = _read(field, text)
    for name, value in found.items():
        if isinstance(value, dict) and known[name].kind is Kind.OBJECT:
            check_together({one.name: one for one in known[name].fields}, value)
    if queue is not None and "queue" in known and "queue" not in found:
        found["queue"] = known["queue"].read(queue)
    check_together(known, found)
    if "queues" in verb.fields and "queue" in found:
        found["queues"] = found.pop("queue")
    return found


def _read(field: Field, text: str) -> Any:
    if field.kind is Kind.JSON:
        codec.check(text.encode())
    if field.kind in (Kind.LIST, Kind.OBJECT):
        return field.read(codec.decode(text.encode()))
    return field.read_text(text)


def _leaves(fields: Fields) -> Iterable[str]:
    for field in fields.values():
        yield from (f"{field.name}.{one.name}" for one in field.fields) if field.fields else (field.name,)


# --- answers


def usage(verb: Verb, queue: str | None) -> str:
    """How a command is typed: `jobs STATE [limit=…] [cursor=…]`."""
    parts = [verb.name]
    tail = _REST.get(verb.name)
    for field in verb.members.values():
        if field.name in ("queue", "queues") and queue is not None:
            continue
        if field.name == "lease" and verb.name in OF_A_JOB_HELD:
            continue
        if field.name == tail:
            continue
        if verb.name in OF_A_JOB_HELD and field.name == "id":
            parts.append("[ID]")
        elif field.required:
            parts.append(field.name.upper())
        else:
            parts += [f"[{name}=…]" for name in _leaves({field.name: field})]
    if tail:
        parts.append("JSON" if verb.members[tail].kind is Kind.JSON else "TEXT")
    return "say " + " ".join(parts)


def help_of(verbs: Iterable[Verb], queue: str | None) -> str:
    """What may be typed here."""
    lines = [
        f"{one.name}: {one.means[:1].lower()}{one.means[1:].partition('. ')[0].rstrip('.')}" for one in verbs
    ]
    first = (
        f"This is the queue {queue} of presque. Send JSON, and it is pushed; or send a command:"
        if queue is not None
        else "This is presque. Send a command, followed by the name of a queue where it is about one:"
    )
    return "\n".join([first, *lines, "`help push` says more about one of them."])


def help_about(verb: Verb, queue: str | None) -> str:
    """What may be said with one command."""
    lines = [verb.means, usage(verb, queue)]
    for field in verb.members.values():
        if not (field.name in ("queue", "queues") and queue is not None):
            default = "" if field.default is None else f" ({field.default} by default)"
            lines.append(f"{field.name}: {field.means}{default}")
    return "\n".join(lines)


_VERBATIM = ("body", "result", "progress")


def opened(document: bytes, within: str = "") -> Any:
    """A JSON document, in which the bodies of jobs stay the texts that they were."""
    if within in _VERBATIM and document == b"null":
        return None
    if within in _VERBATIM or (within == "jobs" and document[:1] != b"["):
        return document.decode()
    if document[:1] == b"{":
        members = codec.decode_request(document, dict[str, codec.Raw])
        return {name: opened(bytes(raw), name) for name, raw in members.items()}
    if document[:1] == b"[":
        return [opened(bytes(raw)) for raw in codec.decode_request(document, list[codec.Raw])]
    return codec.decode(document)


def readable(verb: str, reply: bytes) -> str:
    """An answer as a person reads it."""
    if verb == "peek":
        members = codec.decode_request(reply, dict[str, codec.Raw])
        jobs = [bytes(one).decode() for one in codec.decode_request(bytes(members["jobs"]), list[codec.Raw])]
        return "\n".join([f"{bytes(members['ready']).decode()} ready", *jobs])
    answer = opened(reply)
    if verb == "push":
        return str(answer["id"])
    if verb == "fetch":
        return str(answer["body"])
    if verb == "explain":
        return "\n".join(one["text"] for one in answer["reasons"])
    if verb in ("start", "stop"):
        return f"{answer['queue']} is {'started' if answer['status'] else 'stopped'}"
    if verb == "stats":
        return _stats(answer)
    if verb in OF_ALERTS:
        told = [" ".join(f"{_plain(value)}" for value in one.values()) for one in answer["alerts"]]
        return "\n".join(["your alerts:", *told]) if told else "you have no alerts"
    if verb == "all_stats":
        queues = [_stats(one | {"queue": name}) for name, one in answer["by_queue"].items()]
        return "\n".join([counted(answer["size"], "queue"), *queues])
    lists = [name for name, value in answer.items() if isinstance(value, list)]
    if len(lists) == 1 and len(answer) <= 3:
        of = answer[lists[0]]
        lines = [_line(one) if isinstance(one, dict) else _plain(one) for one in of]
        more = [f"there are more: cursor={answer['cursor']}"] if answer.get("cursor") else []
        return "\n".join([*lines, *more]) or f"no {lists[0]}"
    said = [f"{name.replace('_', ' ')}: {_plain(one)}" for name, one in answer.items() if _says(one)]
    return "\n".join(said) or "done"


def _stats(one: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{one[name]} {name}" for name in ("ready", "scheduled", "leased", "dead"))
    stopped = "" if one["status"] else ", stopped"
    oldest = one["oldest_seconds"]
    waits = "" if oldest is None else f", the oldest has waited {oldest:.0f} s"
    return f"{one['queue']}: {counts}{stopped}{waits}; {one['processed']} processed, {one['failed']} failed"


def _line(one: Mapping[str, Any]) -> str:
    """One of many, on a line."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_plain(value)}" for name, value in one.items() if _says(value)
    )


def _says(value: Any) -> bool:
    return value not in (None, [], {}, "")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else codec.encode(value).decode()
