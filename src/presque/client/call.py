"""How a verb is asked: the request to send, made by its row in `presque.verbs`, and how its answer is read.
No I/O.

`Client` and `AsyncClient` carry calls out, each in its own way, so that both say and understand the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from presque import quantities
from presque.client.errors import ClientError, refusal
from presque.client.json_values import decoded, encoded
from presque.client.options import Duration
from presque.client.shapes import shaped
from presque.fields import Field, Fields, Kind
from presque.verbs import VERBS
from presque.verbs.verb import Verb

T = TypeVar("T")


class Answer(NamedTuple):
    """What the server said. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Pushes:
    """What a push says of itself to those who trace: the queue, how many jobs if it is a batch, and the trace
    that they were given."""

    queue: str
    count: int | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    `reads` says that it changes nothing and may be repeated; `wait` is how many seconds the server may take
    on purpose; `meaning` makes the result of the answer, or raises a `ClientError`; `pushes` is there if it
    brings jobs.
    """

    method: str
    path: str
    meaning: Callable[[Answer], T]
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    reads: bool = False
    wait: float = 0
    pushes: Pushes | None = None

    def read(self, answer: Answer) -> T:
        """The result. Raises a `ClientError`, also for an answer that no presque would give."""
        try:
            return self.meaning(answer)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            text = f"the answer ({answer.status}) cannot be read: is there a presque at this address?"
            raise ClientError(text, status=answer.status, code="unreadable-answer") from error


def ask(
    name: str,
    meaning: Callable[[Answer], T],
    given: Mapping[str, Any],
    *,
    body: bytes | None = None,
    worker: str | None = None,
    pushes: Pushes | None = None,
) -> Call[T]:
    """The request that asks this verb. Each field goes where its row in `verbs` says: path, header, query or
    body. One that is None is as if it were not given, unless null means something; one that no row knows is
    sent as well, so that the server says what is wrong with it.
    """
    verb, parts, nullable = _row(name)
    left = {field: value for field, value in given.items() if value is not None or field in nullable}
    try:
        path = "".join([part if text else quote(left.pop(part), safe=",*!:@~+") for part, text in parts])
    except KeyError as error:
        raise ValueError(f"`{error.args[0]}` is missing") from None
    wait = seconds_of("wait", left.get("wait")) or 0
    if verb.body == "fields":
        headers = _of_headers(verb, left)
        body, query = written(verb.fields, left), ""
    else:
        parameters, headers = parameters_of(name, left)
        query = urlencode(parameters) if parameters else ""
    if worker is not None:
        headers["X-presque-workerid"] = worker
    return Call(
        verb.method, f"{path}?{query}" if query else path, meaning, body, headers or None,
        reads=verb.reads, wait=wait, pushes=pushes,
    )  # fmt: skip


def parameters_of(name: str, given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """How these fields of a verb are said: those in the query of its URL, and those in headers."""
    verb = VERBS[name]
    left = {field: value for field, value in given.items() if value is not None}
    headers = _of_headers(verb, left)
    return {field: _text(verb.fields.get(field), field, value) for field, value in left.items()}, headers


def _of_headers(verb: Verb, left: dict[str, Any]) -> dict[str, str]:
    """Take those fields out that are said in headers."""
    return {str(row.header): str(left.pop(row.name)) for row in verb.headers.values() if row.name in left}


@cache
def _row(name: str) -> tuple[Verb, list[tuple[str, bool]], frozenset[str]]:
    """A verb, its path as texts (True) and names of fields (False), and what may be null."""
    verb = VERBS[name]
    pieces = re.split(r"[{}]", verb.path)
    parts = [(piece, number % 2 == 0) for number, piece in enumerate(pieces)]
    nullable = {one.name for one in verb.fields.values() if one.nullable or one.kind is Kind.JSON}
    return verb, parts, frozenset(nullable)


def seconds_of(name: str, value: Duration | None) -> float | None:
    """A duration in seconds. Raises `ValueError` with a sentence about what is called so."""
    if value is None:
        return None
    try:
        found = quantities.milliseconds(value)
    except ValueError as error:
        raise ValueError(f"`{name}` {error}") from None
    return found // 1000 if found % 1000 == 0 else found / 1000


def seconds_within(least: float, most: float, what: str, value: Duration | None) -> float | None:
    """The same within bounds. Raises `ValueError`: so many seconds is `what` may be, and not this."""
    try:
        found = seconds_of(what, value)
    except ValueError:
        found = -1.0
    if found is not None and not least <= found <= most:
        raise ValueError(f"{what} {least:g} to {most:.15g} seconds, not {value}")
    return found


def _plain(field: Field | None, name: str, value: Any) -> Any:
    """A value as JSON can say it: durations are seconds, moments are RFC 3339 texts in UTC."""
    kind = None if field is None else field.kind
    if field is not None and kind is Kind.LIST and isinstance(value, list | tuple):
        return [_plain(field.of, name, one) for one in value]
    if field is not None and kind is Kind.OBJECT and isinstance(value, Mapping):
        rows = {row.name: row for row in field.fields}
        return {part: _plain(rows.get(part), part, one) for part, one in value.items()}
    if kind is Kind.DURATION and isinstance(value, timedelta):
        return seconds_of(name, value)
    if kind is Kind.MOMENT and isinstance(value, datetime):
        try:
            quantities.moment(value)
        except ValueError as error:
            raise ValueError(f"`{name}` {error}") from None
        return value.astimezone(UTC).isoformat()
    return value


def written(fields: Fields, given: Mapping[str, Any]) -> bytes:
    """The JSON body that says these fields."""
    try:
        return encoded(given).encode()
    except TypeError:  # a duration or a moment: seldom, so what is sent all day is not searched for them
        return encoded({name: _plain(fields.get(name), name, one) for name, one in given.items()}).encode()


def _text(field: Field | None, name: str, value: Any) -> str:
    """A parameter of a query."""
    if field is not None and field.kind is Kind.DURATION:
        value = seconds_of(name, value)
    value = _plain(field, name, value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def accepted(answer: Answer) -> Answer:
    if answer.status >= 300:
        raise refusal(answer.status, answer.body, answer.headers)
    return answer


def object_of(answer: Answer) -> dict[str, Any]:
    return shaped(dict, decoded(accepted(answer).body))


def answered(kind: type[T]) -> Callable[[Answer], T]:
    return lambda answer: shaped(kind, object_of(answer))


def id_of(answer: Answer) -> str:
    return shaped(str, object_of(answer)["id"])


def no_content(answer: Answer) -> None:
    accepted(answer)
