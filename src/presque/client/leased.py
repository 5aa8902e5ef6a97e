"""Leased jobs, and how the answer to a lease is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from presque.client.json_values import decoded, end_of

if TYPE_CHECKING:
    from presque.client.answers import Settled


class LeasedJob(NamedTuple):
    """A job that is held until it is settled, or until `lease_until`. `lease` is the proof of holding it.

    `value` is its JSON decoded. Times are RFC 3339 texts. `text` is the job as it was pushed, if it was asked
    for. `saved` is what an earlier attempt has left, None if there is nothing.
    """

    queue: str
    id: str
    value: Any
    attempt: int
    max_attempts: int
    priority: int
    pushed_at: str
    lease: str
    lease_until: str
    group: str | None = None
    traceparent: str | None = None
    text: str | None = None
    saved: Any = None
    tracestate: str | None = None


Holder = LeasedJob | Mapping[str, Any]
"""What names a lease: a leased job, or a mapping with `queue`, `id` and `lease`."""


def named(holder: Holder) -> tuple[str, str, str]:
    """Queue, id and token of a lease."""
    if isinstance(holder, LeasedJob):
        return holder.queue, holder.id, holder.lease
    return str(holder["queue"]), str(holder["id"]), str(holder["lease"])


@dataclass(frozen=True, slots=True)
class Leased:
    """The answer to a lease: jobs, what became of leases settled with it, and which queues are stopped."""

    jobs: list[LeasedJob]
    settled: list[Settled] = field(default_factory=list)
    paused: tuple[str, ...] = ()


def leased(body: bytes, *, texts: bool) -> Leased:
    """Read the answer to a lease, with the text of each job if `texts` are asked for.

    Raises `ValueError` or `LookupError` for what is not one.
    """
    if texts:
        jobs, rest = _apart(body.decode())
        found = [_job(decoded(fields), decoded(text), text) for fields, text in jobs]
        return Leased(found, decoded(rest).get("settled", []))
    answer = decoded(body)
    if type(answer["jobs"]) is not list:
        raise ValueError("its jobs are not a list")
    return Leased(_jobs(answer["jobs"]), answer.get("settled", []))


def settled(found: Any, asked: int) -> list[Settled]:
    """What became of this many leases. Raises `ValueError` if that is not what was found."""
    if type(found) is not list:
        raise ValueError("it does not say what became of leases")
    for one in found:
        if type(one) is not dict or type(one.get("status", 200)) is not int:
            raise ValueError("it does not say what became of a lease")
        if type(one.get("ids", [])) is not list:
            raise ValueError("it does not say of which leases it speaks")
    if counts(found) != asked:
        raise ValueError("it does not say what became of each lease")
    return found


def counts(entries: Iterable[Mapping[str, Any]]) -> int:
    """How many leases these entries of a settlement, or of its answer, are about."""
    return sum(len(one["ids"]) if "ids" in one else 1 for one in entries)


_PLAIN = ("queue", "id", "body", "attempt", "max_attempts", "priority", "pushed_at", "lease", "lease_until")
_KINDS = (str, str, None, int, int, int, str, str, str)
_plain_of = itemgetter(*_PLAIN)
_NO_MORE = [repeat(None)] * (len(LeasedJob._fields) - len(_PLAIN))
_made: Callable[[tuple[Any, ...]], LeasedJob] = partial(tuple.__new__, LeasedJob)


def _jobs(found: Sequence[Mapping[str, Any]]) -> list[LeasedJob]:
    """Leased jobs. Those that have nothing but what all have are read together, see `bench/workers.py`."""
    if set(map(len, found)) != {len(_PLAIN)}:
        return [_job(one, one["body"]) for one in found]
    columns = list(zip(*map(_plain_of, found), strict=True))
    for values, kind in zip(columns, _KINDS, strict=True):
        if kind is not None and set(map(type, values)) != {kind}:
            raise ValueError("it is not a leased job")
    return list(map(_made, zip(*columns, *_NO_MORE, strict=False)))


_texts_of = itemgetter("queue", "id", "pushed_at", "lease", "lease_until")
_numbers_of = itemgetter("attempt", "max_attempts", "priority")
_TEXTS, _NUMBERS = [str] * 5, [int] * 3


def _job(fields: Mapping[str, Any], value: Any, text: str | None = None) -> LeasedJob:
    """One leased job. On the way of every job: `bench/workers.py`."""
    texts, numbers = _texts_of(fields), _numbers_of(fields)
    group, traceparent, tracestate = fields.get("group"), fields.get("traceparent"), fields.get("tracestate")
    if list(map(type, texts)) != _TEXTS or list(map(type, numbers)) != _NUMBERS:
        raise ValueError("it is not a leased job")
    for more in (group, traceparent, tracestate):
        if more is not None and type(more) is not str:
            raise ValueError("it is not a leased job")
    queue, id, pushed_at, lease, lease_until = texts
    attempt, most, priority = numbers
    return LeasedJob(
        queue, id, value, attempt, most, priority, pushed_at, lease, lease_until, group, traceparent, text,
        fields.get("saved"), tracestate,
    )  # fmt: skip


def _apart(text: str) -> tuple[list[tuple[str, str]], str]:
    """The jobs of an answer, each as its fields with a null body and the body, and the answer without jobs.

    A body is what stands at the second level of the list `jobs` under the key `body`; what comes behind it
    begins with the key `attempt`.
    """
    jobs: list[tuple[str, str]] = []
    begin = text.index('"jobs":[') + len('"jobs":')
    end = begin
    for start, stop in _members(text, begin):
        opening = text.index('"body":', start) + len('"body":')
        closing = text.index(",", end_of(text, opening))  # spaces around a job are part of it
        jobs.append((f"{text[start:opening]}null{text[closing:stop]}", text[opening:closing]))
        end = stop
    end = text.index("]", end)
    return jobs, f"{text[:begin]}[{text[end:]}"


def _members(text: str, begin: int) -> Iterator[tuple[int, int]]:
    """Where each object of the array that begins at `begin` starts and stops."""
    at = begin + 1
    while text[at] != "]":
        stop = end_of(text, at)
        yield at, stop
        at = stop + 1 if text[stop] == "," else stop
