"""Commands as JSON, for the doors that speak it: from a message to a call, from a reply to an answer.

A command is an object such as `{"cmd":"push","queue":"mail","job":{"to":"ana"},"delay":"5m"}`: `cmd` names a
verb, the other members are its fields, and a `ref` comes back in the answer, so that a client that sends many
can tell the answers apart. Where a verb takes a queue list, `queue` says it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from presque import codec
from presque.commands.call import Call, Service, Undo
from presque.commands.carrying import carry_out
from presque.commands.trace_context import trace_context
from presque.commands.who import ANYBODY, Who
from presque.errors import AnswerTooLarge, CallerError, OurFault, PresqueError, Refused, nearest, shown
from presque.fields import check_together, read_values
from presque.quantities import quoted
from presque.verbs import COMMANDS, VERBS
from presque.verbs.bounds import COMMANDS_MOST
from presque.verbs.verb import Verb

log = logging.getLogger("presque.commands")

OF_A_TRACE = {name: VERBS["push"].fields[name] for name in ("traceparent", "tracestate")}
REF_MOST = 256
ANSWER_BYTES = 4 * 1024 * 1024


class Asker(msgspec.Struct, frozen=True):
    """The client at the other end of a door: who it is, its worker's id, and what a message may leave out."""

    service: Service
    who: Who = ANYBODY
    worker: str | None = None
    queues: str | None = None
    """The queue list that a message means when it names none."""
    commands: Mapping[str, Verb] = msgspec.field(default_factory=lambda: COMMANDS)
    """What may be asked at this door."""
    source: str = ""
    """The client's address, for the audit."""


class Handshake(msgspec.Struct, frozen=True):
    """What a client says that wants to speak WebSocket, and who it is."""

    method: str
    queues: str | None
    headers: Mapping[str, str]
    fields: Mapping[str, str]
    who: Who
    source: str
    """The client's address."""


class Message(msgspec.Struct, frozen=True):
    """One command, read and checked."""

    call: Call
    ref: bytes


class Said(NamedTuple):
    """The answer to one command, or to an array of them, and what puts back the jobs in it, if any are."""

    text: bytes
    undo: Undo | None = None


async def run_all(asker: Asker, body: bytes) -> Said:
    """Carry out one command, or an array of them in their order. Returns the answer or the array of answers.

    If the client leaves while one of them waits, the jobs that those before it have taken are put back.

    A single command that cannot be carried out raises why; in an array it is answered with its error, and
    those behind it are carried out nevertheless, until the answers are ANSWER_BYTES long.
    """
    codec.check(body)
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        message = read(asker, body)
        return await _carry_out(message)
    answers: list[bytes] = []
    undos: list[Undo] = []
    size = 0
    try:
        for one in split(body):
            said = await _outcome(asker, one) if size < ANSWER_BYTES else Said(refusal(one, AnswerTooLarge()))
            answers.append(said.text)
            size += len(said.text)
            if said.undo is not None:
                undos.append(said.undo)
    except asyncio.CancelledError:
        _undo_all(undos)
        raise
    return Said(b"[%b]" % b",".join(answers), functools.partial(_undo_all, undos) if undos else None)


def _undo_all(undos: Sequence[Undo]) -> None:
    """The last one first, so that jobs of one queue are in their order again."""
    for undo in reversed(undos):
        undo()


async def _carry_out(message: Message) -> Said:
    reply = await carry_out(message.call)
    return Said(with_ref(reply.object, message.ref), reply.undo)


async def _outcome(asker: Asker, text: bytes) -> Said:
    """Carry out one command and return its answer, or its error as one."""
    try:
        return await _carry_out(read(asker, text))
    except PresqueError as error:
        if isinstance(error, Refused):
            asker.service.audit.refused(error, asker.source)
        return Said(refusal(text, error))
    except Exception:  # noqa: BLE001  (the last resort)
        return Said(broken(text))


def broken(text: bytes) -> bytes:
    """The answer to a command on which presque made a mistake; called where that is caught, for the log."""
    log.exception("command.broken bytes=%d", len(text))
    return refusal(text, OurFault("internal error; see the server log"))


def split(text: bytes) -> list[bytes]:
    """The commands of an array, each as its own bytes."""
    commands = codec.decode_request(text, list[codec.Raw])
    if len(commands) > COMMANDS_MOST:
        raise CallerError(f"an array should have at most {COMMANDS_MOST} commands, not {len(commands)}")
    return [bytes(one) for one in commands]


def read(asker: Asker, text: bytes) -> Message:
    """The command that a message holds. Raises `CallerError`."""
    given = codec.decode_request(text, dict[str, codec.Raw])
    word = codec.decode(bytes(given.pop("cmd", b"null")))
    if word is None:
        raise CallerError("`cmd` is missing: it says what to do, such as `push`")
    if not isinstance(word, str) or not word:
        raise CallerError(f"`cmd` should be a text such as `push`, not {quoted(word)}")
    verb = asker.commands.get(word)
    if verb is None:
        raise CallerError(f"there is no command `{shown(word)}`: {nearest(word, asker.commands)}")
    if verb.without is not None:
        field, other = verb.without
        if field not in given and not (field == "queue" and asker.queues is not None):
            verb = asker.commands[other]
    ref = bytes(given.pop("ref", b""))
    check_ref(ref)
    trace = None if "traceparent" in verb.members else _trace_of(given)
    fields = fields_of(verb, given, asker.queues)
    body = codec.encode(given) if verb.body == "raw" else b""
    call = Call(asker.service, verb, fields, body, asker.worker, asker.who, asker.source, trace=trace)
    return Message(call, ref)


def _trace_of(given: dict[str, Any]) -> tuple[str, str | None] | None:
    """The `traceparent` and `tracestate` of a command that itself has no such fields. Both are taken out."""
    if "traceparent" not in given and "tracestate" not in given:
        return None
    members = {name: given.pop(name) for name in tuple(OF_A_TRACE) if name in given}
    found = read_values(OF_A_TRACE, {name: codec.decode(bytes(raw)) for name, raw in members.items()})
    parent, state = trace_context(found)
    return None if parent is None else (parent, state)


def fields_of(verb: Verb, given: Mapping[str, Any], queues: str | None) -> dict[str, Any]:
    """The fields of a command, typed and checked together."""
    known = verb.members
    members: dict[str, Any] = {}
    for name, raw in given.items():
        field = known.get(name)
        members[name] = bytes(raw) if field is None or field.raw else codec.decode(bytes(raw))
    if queues is not None and "queue" in known:
        members.setdefault("queue", queues)
    found = read_values(known, members)
    check_together(known, found)
    if "queues" in verb.fields and "queue" in found:
        found["queues"] = found.pop("queue")
    return found


def check_ref(ref: bytes) -> None:
    """Raise `CallerError` unless this may be a `ref`."""
    if len(ref) > REF_MOST or ref[:1] in (b"{", b"["):
        raise CallerError(f"`ref` should be a text or a number of at most {REF_MOST} bytes")


def with_ref(reply: bytes, ref: bytes) -> bytes:
    """The answer with the `ref` of its command."""
    if not ref:
        return reply
    return b'{"ref":%b%b%b' % (ref, b"" if reply == b"{}" else b",", reply[1:])


def refusal(text: bytes, error: PresqueError) -> bytes:
    """Why a command was not carried out, with its `ref` as far as that can be read."""
    reply = codec.encode({"error": str(error), "code": error.code})
    try:
        ref = bytes(codec.decode_request(text, dict[str, codec.Raw]).get("ref", b""))
        check_ref(ref)
    except PresqueError:
        return reply
    return with_ref(reply, ref)
