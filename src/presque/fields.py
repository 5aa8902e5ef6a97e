"""What a request may say: named, typed, bounded fields, read alike from every door.

A `Field` is a row of data. The same row reads a parameter of a query string, a header and a member of a JSON
object, says what it should be when it is not, and describes itself for the OpenAPI document and the tables of
docs/protocol.md. verbs/ has the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from presque import names, quantities
from presque.errors import CallerError, UnknownParameter, reworded


class Kind(Enum):
    """How a value is written, and what the reader returns."""

    TEXT = "text"  # str of 1 to `most` bytes
    WHOLE = "whole number"  # int
    NUMBER = "number"  # float
    DURATION = "duration"  # milliseconds, int; bounds are in seconds
    MOMENT = "moment"  # milliseconds since the epoch, int
    FLAG = "flag"  # bool
    WORD = "word"  # one of `words`
    JSON = "JSON value"  # bytes, as they came
    QUEUE = "queue"  # str
    QUEUES = "queue list"  # QueueList
    ID = "job id"  # str
    NAME = "name"  # str, as a queue may be called; `means` is "The …'s name."
    WORKER = "worker id"  # str
    LIST = "list"  # tuple of what `of` reads
    OBJECT = "object"  # dict of what `fields` read


Reader = Callable[["Field", Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that a request may say."""

    name: str
    kind: Kind
    means: str
    """A sentence for people; it stands in the documents, in OpenAPI and in `--help`."""
    least: float = 0
    most: float = math.inf
    words: tuple[str, ...] = ()
    default: Any = None
    """What holds when it is not given, for people; the verb decides."""
    required: bool = False
    nullable: bool = False
    """Whether null is a value of its own; otherwise it is as if the field were not given."""
    blank: bool = False
    """Whether an empty text is as if it were not given, as clients of 2010 send it."""
    header: str | None = None
    """The HTTP header that says it, over HTTP."""
    also_query: bool = False
    """Whether the query may say it as well as the header."""
    needs: str | None = None
    """Another field that must be given, too."""
    instead_of: str | None = None
    """Another field that must not be given, too."""
    of: Field | None = None
    fields: tuple[Field, ...] = ()
    undecoded: bool = False
    """Whether the verb gets its JSON as it came and reads it itself, since there may be many of them."""

    @property
    def raw(self) -> bool:
        """Whether its value is JSON as it came."""
        return self.undecoded or self.kind is Kind.JSON

    def read(self, value: Any) -> Any:
        """The value from JSON, typed and within bounds. Raises `CallerError`."""
        if self.undecoded:
            return value
        reader: Reader = _VALUES[self.kind]
        return reader(self, value)

    def read_text(self, text: str) -> Any:
        """The value from text. Raises `CallerError`."""
        reader: Reader = _TEXTS.get(self.kind) or _VALUES[self.kind]
        return reader(self, text)

    def wrong(self, should_be: str, value: Any) -> CallerError:
        """The error that says what it should be and what arrived."""
        return CallerError(f"`{self.name}` should be {should_be}, not {quantities.quoted(value)}")

    @property
    def bounds(self) -> str:
        """` from 1 to 9`, to follow the type in a message; empty without bounds."""
        if self.most == math.inf:
            return f" of at least {plain(self.least)}" if self.least > 0 else ""
        return f" from {plain(self.least)} to {plain(self.most)}"

    def schema(self) -> dict[str, Any]:
        """It as JSON Schema (2020-12)."""
        found = _SCHEMAS[self.kind](self)
        if self.nullable:
            found = {"anyOf": [found, {"type": "null"}]}
        return {**found, "description": self.means} | (
            {} if self.default is None else {"default": self.default}
        )


Fields = Mapping[str, Field]


def text(name: str, means: str, most: float, **more: Any) -> Field:
    """A text of 1 to `most` bytes."""
    return Field(name=name, kind=Kind.TEXT, means=means, most=most, **more)


def whole(name: str, means: str, least: int, most: int, **more: Any) -> Field:
    """A whole number."""
    return Field(name=name, kind=Kind.WHOLE, means=means, least=least, most=most, **more)


def number(name: str, means: str, least: float, most: float, **more: Any) -> Field:
    """A number."""
    return Field(name=name, kind=Kind.NUMBER, means=means, least=least, most=most, **more)


def duration(name: str, means: str, least: float, most: float, **more: Any) -> Field:
    """A duration, with its bounds in seconds."""
    return Field(name=name, kind=Kind.DURATION, means=means, least=least, most=most, **more)


def flag(name: str, means: str, *, default: bool, **more: Any) -> Field:
    """A switch."""
    return Field(name=name, kind=Kind.FLAG, means=means, default=default, **more)


def word(name: str, means: str, *words: str, **more: Any) -> Field:
    """One of a few words."""
    return Field(name=name, kind=Kind.WORD, means=means, words=words, **more)


def value(name: str, means: str, most: float = math.inf, **more: Any) -> Field:
    """Any JSON value."""
    return Field(name=name, kind=Kind.JSON, means=means, most=most, **more)


def group(name: str, means: str, *fields: Field, **more: Any) -> Field:
    """An object of fields."""
    return Field(name=name, kind=Kind.OBJECT, means=means, fields=fields, **more)


def many(name: str, means: str, of: Field, most: int, **more: Any) -> Field:
    """A list."""
    return Field(name=name, kind=Kind.LIST, means=means, of=of, most=most, **more)


def of(*fields: Field) -> dict[str, Field]:
    """Fields by their names."""
    return {field.name: field for field in fields}


def read_texts(fields: Fields, given: Mapping[str, str]) -> dict[str, Any]:
    """Read parameters that came as text. Raises `CallerError` for the first that is wrong or unknown."""
    found = {}
    for name, text in given.items():
        field = fields.get(name)
        if field is None:
            raise UnknownParameter(name, list(fields))
        if text or not field.blank:
            found[name] = field.read_text(text)
    return found


def read_values(fields: Fields, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the members of a JSON object. Raises `CallerError` for the first that is wrong or unknown."""
    found = {}
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            raise UnknownParameter(name, list(fields), "field")
        if value is not None:
            found[name] = field.read(value)
        elif field.nullable:
            found[name] = None
    return found


def check_together(fields: Fields, given: Mapping[str, Any]) -> None:
    """Raise `CallerError` if fields are missing or do not go together."""
    for name in given:
        field = fields[name]
        if field.instead_of is not None and field.instead_of in given:
            raise CallerError(f"give `{name}` or `{field.instead_of}`, not both")
        if field.needs is not None and field.needs not in given:
            raise CallerError(f"`{name}` goes with `{field.needs}`: give `{field.needs}` too")
    for field in fields.values():
        if field.required and field.name not in given:
            raise CallerError(
                f"`{field.name}` is missing: {field.means[:1].lower()}{field.means[1:].rstrip('.')}"
            )


def plain(number: float) -> str:
    """A bound as people write it."""
    return str(int(number)) if number == int(number) else f"{number:.15g}"


def words_of(words: Iterable[str]) -> str:
    """`a`, `b` or `c`."""
    quoted = [f"`{word}`" for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


# --- readers


def _within(field: Field, number: float, value: Any, what: str) -> None:
    if not field.least <= number <= field.most:
        raise field.wrong(f"{what}{field.bounds}", value)


def _text(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise field.wrong("a text", value)
    if not max(field.least, 1) <= len(value.encode()) <= field.most:
        if not value:
            raise CallerError(f"`{field.name}` should not be empty")
        raise CallerError(
            f"`{field.name}` should be at most {plain(field.most)} bytes, not {len(value.encode())}"
        )
    return value


def _whole(field: Field, value: Any) -> int:
    if isinstance(value, float) and value == value // 1 and abs(value) < 2**53:
        value = int(value)  # JSON knows one kind of number
    if type(value) is not int:
        raise field.wrong(f"a whole number{field.bounds}", value)
    _within(field, value, value, "a whole number")
    return value


def _whole_text(field: Field, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise field.wrong(f"a whole number{field.bounds}", text)
    return _whole(field, int(text))


def _number(field: Field, value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise field.wrong(f"a number{field.bounds}", value)
    _within(field, value, value, "a number")
    return float(value)


def _number_text(field: Field, text: str) -> float:
    try:
        return _number(field, quantities.milliseconds(text) / 1000 if text[-1:].isdigit() else text)
    except ValueError:
        raise field.wrong(f"a number{field.bounds}", text) from None


def _duration(field: Field, value: Any) -> int:
    try:
        found = quantities.milliseconds(value)
    except ValueError:
        raise field.wrong(_seconds_of(field), value) from None
    if not field.least * 1000 <= found <= field.most * 1000:
        raise field.wrong(_seconds_of(field), value)
    return found


def _seconds_of(field: Field) -> str:
    """What a duration should be, with examples that are within its bounds."""
    such = "90s or 1h30m" if field.most >= 5400 else "500ms or 20s"
    return f"seconds{field.bounds}, or a duration such as {such}"


def _moment(field: Field, value: Any) -> int:
    try:
        return quantities.moment(value)
    except ValueError as error:
        raise CallerError(f"`{field.name}` {error}") from None


def _flag(field: Field, value: Any) -> bool:
    try:
        return quantities.yes_or_no(value)
    except ValueError as error:
        raise CallerError(f"`{field.name}` {error}") from None


def _word(field: Field, value: Any) -> str:
    if value not in field.words or not isinstance(value, str):
        raise field.wrong(words_of(field.words), value)
    return value


def _json(field: Field, value: Any) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    if len(value) > field.most:
        raise CallerError(f"`{field.name}` should be at most {plain(field.most)} bytes, not {len(value)}")
    return bytes(value)


def _named(check: Callable[[str], Any]) -> Callable[[Field, Any], Any]:
    def read(field: Field, value: Any) -> Any:
        if not isinstance(value, str):
            raise field.wrong(f"a {field.kind.value}", value)
        return check(value)

    return read


def _name(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise field.wrong("a name", value)
    return names.queue(value, field.means.removeprefix("The ").removesuffix("'s name."))


def _list(field: Field, value: Any) -> tuple[Any, ...]:
    assert field.of is not None
    if not isinstance(value, list):
        raise field.wrong("a list", value)
    if len(value) > field.most:
        raise CallerError(f"`{field.name}` should be a list of at most {plain(field.most)}, not {len(value)}")
    found = []
    for position, one in enumerate(value):
        try:
            found.append(field.of.read(one))
        except CallerError as error:
            raise reworded(error, f"{field.name}[{position}]: {error}") from None
    return tuple(found)


def _object(field: Field, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise field.wrong("an object", value)
    known = of(*field.fields)
    found = read_values(known, value)
    check_together(known, found)
    return found


_VALUES: dict[Kind, Reader] = {
    Kind.TEXT: _text,
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
    Kind.DURATION: _duration,
    Kind.MOMENT: _moment,
    Kind.FLAG: _flag,
    Kind.WORD: _word,
    Kind.JSON: _json,
    Kind.QUEUE: _named(names.queue),
    Kind.QUEUES: _named(names.queue_list),
    Kind.ID: _named(names.job),
    Kind.NAME: _name,
    Kind.WORKER: _named(names.worker),
    Kind.LIST: _list,
    Kind.OBJECT: _object,
}
_TEXTS: dict[Kind, Reader] = {Kind.WHOLE: _whole_text, Kind.NUMBER: _number_text}


# --- JSON Schema


def _numeric(kind: str) -> Callable[[Field], dict[str, Any]]:
    def schema(field: Field) -> dict[str, Any]:
        found: dict[str, Any] = {"type": kind, "minimum": _plain_number(field.least)}
        return found | ({} if field.most == math.inf else {"maximum": _plain_number(field.most)})

    return schema


def _plain_number(number: float) -> float:
    return int(number) if number == int(number) else number


def _duration_schema(field: Field) -> dict[str, Any]:
    text = {"type": "string", "pattern": "^[0-9.]+(w|d|h|m|s|ms)?", "examples": ["90s", "1h30m"]}
    return {"anyOf": [_numeric("number")(field), text]}


def _moment_schema(_field: Field) -> dict[str, Any]:
    return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "format": "date-time"}]}


def _text_schema(field: Field) -> dict[str, Any]:
    return {"type": "string", "minLength": 1} | (
        {} if field.most == math.inf else {"maxLength": _plain_number(field.most)}
    )


def _list_schema(field: Field) -> dict[str, Any]:
    assert field.of is not None
    found: dict[str, Any] = {"type": "array", "items": field.of.schema()}
    return found | ({} if field.most == math.inf else {"maxItems": _plain_number(field.most)})


def object_schema(fields: Iterable[Field]) -> dict[str, Any]:
    """An object that has these members and no others."""
    members = list(fields)
    found: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: field.schema() for field in members},
        "additionalProperties": False,
    }
    required = [field.name for field in members if field.required]
    return found | ({"required": required} if required else {})


_QUEUE_SCHEMA = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@~+-]{0,127}$"}
_SCHEMAS: dict[Kind, Callable[[Field], dict[str, Any]]] = {
    Kind.TEXT: _text_schema,
    Kind.WHOLE: _numeric("integer"),
    Kind.NUMBER: _numeric("number"),
    Kind.DURATION: _duration_schema,
    Kind.MOMENT: _moment_schema,
    Kind.FLAG: lambda _: {"type": "boolean"},
    Kind.WORD: lambda field: {"type": "string", "enum": list(field.words)},
    Kind.JSON: lambda _: {},
    Kind.QUEUE: lambda _: dict(_QUEUE_SCHEMA),
    Kind.QUEUES: lambda _: {"type": "string", "pattern": "^[!*?A-Za-z0-9._:@~+,-]+$"},
    Kind.ID: lambda _: {"type": "string", "minLength": 1, "maxLength": 64},
    Kind.NAME: lambda _: dict(_QUEUE_SCHEMA),
    Kind.WORKER: lambda _: {"type": "string", "pattern": "^[!-~]{1,256}$"},
    Kind.LIST: _list_schema,
    Kind.OBJECT: lambda field: object_schema(field.fields),
}
