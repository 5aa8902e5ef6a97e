"""Commands with forms, for clients that show them (XEP-0050, XEP-0004): made from the rows of the verbs; no
I/O.

A verb that needs nothing is carried out at once. Any other shows its fields first, and is carried out when
they come back filled in: so nothing is remembered between the two, and a form may come back any time later.
A field that is left empty counts as left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from presque import codec
from presque.errors import CallerError
from presque.fields import Field, Kind
from presque.verbs.verb import Verb
from presque.xmpp import words
from presque.xmpp.discovery import form_of
from presque.xmpp.parsing import Element
from presque.xmpp.stanzas import COMMANDS, FORMS, payload, tag, text

SESSION_MOST = 128

_TYPES = {Kind.FLAG: "boolean", Kind.WORD: "list-single", Kind.JSON: "text-multi"}


def fields_of(verb: Verb, queue: str | None) -> list[Field]:
    """What the form of a verb asks for, at the address of a queue."""
    return [
        one
        for one in verb.members.values()
        if not (one.name in ("queue", "queues") and queue is not None)
        and not (one.name == "lease" and verb.name in words.OF_A_JOB_HELD)
    ]


def is_needed(verb: Verb, queue: str | None) -> bool:
    """Whether somebody must be asked before a verb can be carried out."""
    return bool(fields_of(verb, queue)) and verb.name not in ("policy", "crons")


def form(verb: Verb, queue: str | None, values: Mapping[str, str]) -> str:
    """The form of a verb, with what is known already."""
    fields = [part for one in fields_of(verb, queue) for part in _written(one, verb, values)]
    return tag(
        "x", tag("title", verb.name), tag("instructions", text(verb.means)), *fields, xmlns=FORMS, type="form"
    )


def _written(field: Field, verb: Verb, values: Mapping[str, str], within: str = "") -> Iterator[str]:
    name = f"{within}{field.name}"
    if field.fields:
        for one in field.fields:
            yield from _written(one, verb, values, f"{name}.")
        return
    held = verb.name in words.OF_A_JOB_HELD and name == "id"
    required = (field.required or name == "job") and not within and not held
    means = field.means if field.default is None else f"{field.means} ({field.default} by default)"
    given = values.get(name)
    if given is None and field.kind is Kind.FLAG and field.default is not None:
        given = "1" if field.default else "0"
    lines = [] if given is None else given.split("\n") if field.kind is Kind.JSON else [given]
    yield tag(
        "field",
        tag("desc", text(means)),
        *([tag("required")] if required else []),
        *(tag("value", text(line)) for line in lines),
        *(tag("option", tag("value", text(word)), label=word) for word in field.words),
        var=name,
        type=_TYPES.get(field.kind, "text-single"),
        label=name.replace("_", " "),
    )


def filled_in(command: Element, verb: Verb, queue: str | None) -> dict[str, str] | None:
    """What a form says that has come back; None if there is none. Raises `CallerError`."""
    found = command.find(f"{{{FORMS}}}x")
    if found is None:
        return None
    if found.get("type") != "submit":
        raise CallerError("a form comes back with the type `submit`")
    flags = {one.name: one for one in fields_of(verb, queue) if one.kind is Kind.FLAG}
    said: dict[str, str] = {}
    for field in found.iterfind(f"{{{FORMS}}}field"):
        name = field.get("var", "")
        value = "\n".join(one.text or "" for one in field.iterfind(f"{{{FORMS}}}value"))
        if name == "FORM_TYPE" or not value.strip():
            continue
        if name in flags:
            value = {"1": "true", "0": "false"}.get(value, value)
            if value == ("true" if flags[name].default else "false"):
                continue  # as it was in the form
        said[name] = value
    return said


def session_of(command: Element, otherwise: str) -> str:
    """The id of the exchange that a command belongs to."""
    return command.get("sessionid", otherwise)[:SESSION_MOST]


def asks(verb: Verb, session: str, form: str, error: CallerError | None) -> str:
    """The answer that shows a form, and what was wrong with the last one."""
    note = "" if error is None else tag("note", text(str(error)), type="error")
    actions = tag("actions", tag("complete"), execute="complete")
    return tag(
        "command", actions, form, note, xmlns=COMMANDS, node=verb.name, sessionid=session, status="executing"
    )


def canceled(verb: Verb, session: str) -> str:
    """The answer to somebody who does not want to go on."""
    return tag("command", xmlns=COMMANDS, node=verb.name, sessionid=session, status="canceled")


def completed(verb: Verb, session: str, reply: bytes) -> str:
    """The answer that says what became of it: for people in words and as a form, for programs as JSON."""
    note = tag("note", text(words.readable(verb.name, reply)), type="info")
    return tag(
        "command", note, result(words.opened(reply)), payload(reply),
        xmlns=COMMANDS, node=verb.name, sessionid=session, status="completed",
    )  # fmt: skip


def result(answer: Mapping[str, Any]) -> str:
    """An answer as a form: a table where it is a list of things of one kind."""
    lists = [value for value in answer.values() if _is_table(value)]
    if "by_queue" in answer:
        lists = [[{"queue": name, **one} for name, one in answer["by_queue"].items()]]
    if len(lists) != 1:
        return form_of(dict(flat(answer)))
    rows = [dict(flat(one)) for one in lists[0]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    reported = [tag("field", var=name, label=name.replace("_", " "), type="text-single") for name in columns]
    items = [
        tag("item", *(tag("field", tag("value", text(str(value))), var=name) for name, value in row.items()))
        for row in rows
    ]
    return tag("x", tag("reported", *reported), *items, xmlns=FORMS, type="result")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def flat(answer: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str | list[str]]]:
    """The members of an answer as texts, those of an object in it as `rate.count`."""
    for name, value in answer.items():
        if isinstance(value, dict):
            yield from flat(value, f"{within}{name}.")
        elif isinstance(value, list):
            yield f"{within}{name}", [_text(one) for one in value]
        elif value is not None:
            yield f"{within}{name}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else codec.encode(value).decode()
