"""The policy of a queue: how long leases last, how often jobs are tried, what limits hold.

verbs/vocabulary.py has the fields and their bounds. This file says how the store keeps them: times in
milliseconds, `keep` in seconds, each field of an object beside the others. A field that is not in the store
has its default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from presque.commands.call import Call, Reply
from presque.fields import Field, Kind
from presque.verbs.vocabulary import POLICY


async def run_policy(call: Call) -> Reply:
    """The policy of a queue, every field of it."""
    return Reply.of(told(call.queue, await call.engine.jobs.policy(call.queue)))


async def run_change_policy(call: Call) -> Reply:
    """Set the fields that are given (RFC 7396): null goes back to the default. Returns the whole policy, also
    to who may not read the queue: it may set every field of it, and none tells what is in jobs."""
    changes: dict[str, Any] = {}
    for field in POLICY:
        if field.name in call.fields:
            changes |= _changes(field, call.fields[field.name])
    return Reply.of(told(call.queue, await call.engine.jobs.policy(call.queue, changes)))


def _changes(field: Field, value: Any) -> dict[str, Any]:
    """One field in the words of the store; False goes back to the default."""
    if value is None:
        return {name: False for name, _ in _stored(field)}
    if field.kind is Kind.OBJECT:  # what is not given of it keeps its value
        return {
            name: _to_store(part, value[part.name]) for name, part in _stored(field) if part.name in value
        }
    return {field.name: _to_store(field, value)}


def _stored(field: Field) -> Iterator[tuple[str, Field]]:
    """The names under which a field is stored, and the values there."""
    if field.kind is not Kind.OBJECT:
        yield field.name, field
        return
    for part in field.fields:
        unit = "ms" if field.name == "rate" and part.kind is Kind.DURATION else part.name
        yield f"{field.name}_{unit}", part


def _to_store(field: Field, value: Any) -> Any:
    return -(-value // 1000) if field.name == "keep" else value


def told(queue: str, own: dict[str, Any]) -> dict[str, Any]:
    """The policy as the answers show it. `own` is what differs from the defaults, as it is stored."""
    answer: dict[str, Any] = {"queue": queue}
    for field in POLICY:
        parts = {part.name: _told(part, own.get(name)) for name, part in _stored(field)}
        if field.name == "rate":
            answer["rate"] = None if None in parts.values() else parts
        else:
            answer[field.name] = parts if field.kind is Kind.OBJECT else parts[field.name]
    return answer


def _told(field: Field, stored: Any) -> Any:
    if stored is None:
        return field.default
    if field.kind is Kind.DURATION and field.name != "keep":
        stored = stored / 1000
    return int(stored) if isinstance(stored, float) and stored == int(stored) else stored
