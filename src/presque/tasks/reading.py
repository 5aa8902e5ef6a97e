"""From JSON back to Python values, as the annotations of a signature say.

`reader_of` makes of an annotation what reads a value: None where anything goes. A reader refuses what does
not fit with `Unfit`, a sentence that says where and what was expected.
"""

from __future__ import annotations

import base64
import binascii
import collections
import collections.abc
import datetime as dt
import functools
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, Union
from uuid import UUID

from presque import quantities
from presque.client.json_values import encoded
from presque.quantities import quoted
from presque.tasks.plain import fields_of, plain

Reader = Callable[[Any], Any]
Decode = Callable[[type, Any], Any]
"""A hook: makes a value of a type that presque does not know, of what `Encode` has made of it."""


class Unfit(ValueError):
    """A value does not fit its annotation. `path` says where it is, the text what is wrong with it."""

    def __init__(self, text: str, path: str = "") -> None:
        self.path = path
        super().__init__(text)

    def within(self, piece: str) -> Unfit:
        """The same, seen from one level further out."""
        return Unfit(str(self), f"{piece}{self.path}")


class Readers:
    """The readers of one App: those of classes are made once."""

    def __init__(self, decode: Decode | None = None) -> None:
        self._decode = decode
        self._of_classes: dict[Any, Reader | None] = {}

    def reader_of(self, annotation: Any) -> Reader | None:
        """What reads a value that is annotated so. None: anything goes, and stays as it is."""
        while True:
            if isinstance(annotation, typing.NewType):
                annotation = annotation.__supertype__
            elif hasattr(annotation, "__value__") and type(annotation).__name__ == "TypeAliasType":
                annotation = annotation.__value__
            else:
                break
        origin = typing.get_origin(annotation)
        arguments = typing.get_args(annotation)
        if origin is typing.Annotated or origin in _WRAPPERS:
            return self.reader_of(arguments[0])
        if annotation is None or annotation is type(None):
            return null
        if isinstance(annotation, typing.TypeVar):
            return None if annotation.__bound__ is None else self.reader_of(annotation.__bound__)
        if origin is Literal:
            return _literal(arguments)
        if origin is Union or origin is types.UnionType:
            return self._union(arguments)
        kind = annotation if origin is None else origin
        if not isinstance(kind, type) or kind is object:
            return None
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        if issubclass(kind, tuple) and not hasattr(kind, "_fields"):
            return self._tuple(arguments)
        if kind in _LISTS:
            return self._list(_LISTS[kind], arguments[0] if arguments else Any)
        if kind in _OBJECTS:
            key, value = arguments if len(arguments) == 2 else (Any, Any)
            return self._object(_OBJECTS[kind], key, value)
        if kind is collections.defaultdict:
            key, value = arguments if len(arguments) == 2 else (Any, Any)
            made = typing.get_origin(value) or value
            missing = made if made in _EMPTY else None
            return self._object(functools.partial(collections.defaultdict, missing), key, value)
        try:
            hash(annotation)
        except TypeError:  # what stands in the brackets cannot be compared, such as a list in `Annotated`
            return self._of_class(kind, kind, ())
        return self._of_class(annotation if arguments else kind, kind, arguments)

    def _of_class(self, named: Any, kind: type, arguments: Sequence[Any]) -> Reader | None:
        if named not in self._of_classes:
            self._of_classes[named] = None  # for a class that refers to itself
            reader = self._class(kind, named, arguments)
            self._of_classes[named] = reader
            return reader
        return lambda value: self._again(named, value)

    def _again(self, named: Any, value: Any) -> Any:
        reader = self._of_classes[named]
        return value if reader is None else reader(value)

    # --- what is made of others

    def _list(self, kind: Callable[[list[Any]], Any], item: Any) -> Reader:
        reader = self.reader_of(item)

        def read(value: Any) -> Any:
            found = value if type(value) is list else _wrong("a list", value)
            if reader is not None:
                found = [_at(reader, one, f"[{number}]") for number, one in enumerate(found)]
            try:
                return found if kind is list else kind(found)
            except TypeError:
                return _wrong("a list of what a set can hold", value)

        return read

    def _tuple(self, arguments: Sequence[Any]) -> Reader:
        if not arguments or (len(arguments) == 2 and arguments[1] is Ellipsis):
            return self._list(tuple, arguments[0] if arguments else Any)
        readers = [self.reader_of(one) for one in arguments if one != ()]

        def read(value: Any) -> Any:
            if type(value) is not list or len(value) != len(readers):
                return _wrong(f"a list of {len(readers)}", value)
            return tuple(
                one if reader is None else _at(reader, one, f"[{number}]")
                for number, (reader, one) in enumerate(zip(readers, value, strict=True))
            )

        return read

    def _object(self, kind: Callable[[dict[Any, Any]], Any], key: Any, item: Any) -> Reader:
        of_keys = None if key is str else self.reader_of(key)
        by_number = key in (int, float, bool)
        reader = self.reader_of(item)

        def read_key(text: str) -> Any:
            if of_keys is None:
                return text
            return of_keys(_number(text) if by_number else text)

        def read(value: Any) -> Any:
            if type(value) is not dict:
                return _wrong("an object", value)
            found = {
                _at(read_key, name, f" key {name!r}"): one
                if reader is None
                else _at(reader, one, f"[{name!r}]")
                for name, one in value.items()
            }
            return found if kind is dict else kind(found)

        return read

    def _union(self, arguments: Sequence[Any]) -> Reader | None:
        """The first that fits. What JSON has itself goes first, text last: any other text may be more."""
        readers = [self.reader_of(one) for one in sorted(arguments, key=_rank)]
        sure = [one for one in readers if one is not None]

        def read(value: Any) -> Any:
            deepest: Unfit | None = None
            for reader in sure:
                try:
                    return reader(value)
                except Unfit as error:
                    if deepest is None or len(error.path) > len(deepest.path):
                        deepest = error
            if len(sure) < len(readers):
                return value
            if deepest is not None and deepest.path:
                raise deepest
            return _wrong(" or ".join(_named(one) for one in arguments), value)

        return read

    # --- classes

    def _class(self, kind: type, named: Any, arguments: Sequence[Any]) -> Reader | None:
        """The reader of a class; `named` is how an annotation names it, with `arguments` in brackets."""
        if issubclass(kind, Enum):
            return _enum(kind)
        if issubclass(kind, PurePath):
            return lambda value: kind(value) if type(value) is str else _wrong("a path", value)
        if typing.is_typeddict(kind):
            return self._typed_dict(kind, arguments)
        if issubclass(kind, tuple):
            return self._named_tuple(kind, arguments)
        if fields_of(kind) is not None:
            return self._of_fields(kind, arguments)
        if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate_json"):
            validate = kind.model_validate_json
            return lambda value: _by(kind, lambda: validate(encoded(value)), value)
        if hasattr(kind, "__struct_fields__") and "msgspec" in sys.modules:
            convert = sys.modules["msgspec"].convert
            return lambda value: _by(kind, lambda: convert(value, named, dec_hook=self._decode), value)
        if self._decode is not None and not _is_abstract(kind):
            decode = self._decode
            return lambda value: _by(kind, lambda: decode(kind, value), value)
        return None

    def _of_fields(self, kind: type, arguments: Sequence[Any]) -> Reader:
        """A dataclass, or a class of attrs: an object with its fields."""
        readers = {name: self.reader_of(one) for name, one in hints_of(kind, arguments).items()}
        names = fields_of(kind) or []
        aliases = {
            one.name: one.alias for one in getattr(kind, "__attrs_attrs__", ()) if hasattr(one, "alias")
        }

        def read(value: Any) -> Any:
            if type(value) is not dict:
                return _wrong(f"an object, a `{kind.__name__}`", value)
            found: dict[str, Any] = {}
            for name, one in value.items():
                if name not in names:
                    raise Unfit(f"has a field `{name}`, which a `{kind.__name__}` does not have")
                reader = readers.get(name)
                found[str(aliases.get(name, name))] = one if reader is None else _at(reader, one, f".{name}")
            return _by(kind, lambda: kind(**found), value)

        return read

    def _typed_dict(self, kind: Any, arguments: Sequence[Any]) -> Reader:
        hints = hints_of(kind, arguments)
        readers = {name: self.reader_of(one) for name, one in hints.items()}
        # Python does not see `Required` in annotations that are texts.
        optional = {name for name, one in hints.items() if typing.get_origin(one) is typing.NotRequired}
        required = {name for name, one in hints.items() if typing.get_origin(one) is typing.Required}
        required |= kind.__required_keys__ - optional

        def read(value: Any) -> Any:
            if type(value) is not dict:
                return _wrong("an object", value)
            for name in required:
                if name not in value:
                    raise Unfit(f"has no `{name}`, which a `{kind.__name__}` needs")
            return {
                name: one if (reader := readers.get(name)) is None else _at(reader, one, f"[{name!r}]")
                for name, one in value.items()
            }

        return read

    def _named_tuple(self, kind: Any, arguments: Sequence[Any]) -> Reader:
        hints = hints_of(kind, arguments)
        readers = [self.reader_of(hints.get(name, Any)) for name in kind._fields]

        def read(value: Any) -> Any:
            if type(value) is dict:
                value = [value[name] for name in kind._fields if name in value]
            if type(value) is not list or len(value) > len(readers):
                return _wrong(f"a list of {len(readers)}, a `{kind.__name__}`", value)
            found = [
                one if reader is None else _at(reader, one, f".{name}")
                for name, reader, one in zip(kind._fields, readers, value, strict=False)
            ]
            return _by(kind, lambda: kind(*found), value)

        return read


def hints_of(kind: Any, arguments: Sequence[Any] = ()) -> dict[str, Any]:
    """The annotations of a class, resolved, for these arguments in brackets: those of a `Box[int]`. If one
    cannot be resolved, none is known: anything goes."""
    try:
        found = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001  (an annotation may be any expression)
        return {}
    meant = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
    own = vars(kind).get("__annotations__", {})
    for base in getattr(kind, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if isinstance(origin, type) and origin is not typing.Generic and hasattr(origin, "__annotations__"):
            inherited = hints_of(origin, [_filled(one, meant) for one in typing.get_args(base)])
            found |= {name: hint for name, hint in inherited.items() if name not in own}
    return {name: _filled(hint, meant) for name, hint in found.items()}


def _filled(hint: Any, meant: Mapping[Any, Any]) -> Any:
    """An annotation with what its type variables stand for."""
    if isinstance(hint, typing.TypeVar):
        return meant.get(hint, hint)
    parameters = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    if not any(one in meant for one in parameters):
        return hint
    return hint[tuple(meant.get(one, one) for one in parameters)]


# --- single values


def _wrong(wanted: str, value: Any) -> Any:
    kind = "the text " if isinstance(value, str) and _looks_like_another(value) else ""
    raise Unfit(f"should be {wanted}, not {kind}{quoted(value)}")


def _looks_like_another(text: str) -> bool:
    """Whether a text, written as it is, would be taken for a number or the like."""
    return type(_number(text)) is not str or text == "null"


def _at(reader: Reader, value: Any, piece: str) -> Any:
    try:
        return reader(value)
    except Unfit as error:
        raise error.within(piece) from None


def _by(kind: type, make: Callable[[], Any], value: Any) -> Any:
    """What a class, or a hook, makes of a value: whatever it raises, the value does not fit."""
    try:
        return make()
    except Unfit:
        raise
    except Exception as error:  # noqa: BLE001  (a class of the job's own may raise anything)
        said = " ".join(str(error).split())[:300]
        raise Unfit(f"should be a `{kind.__name__}`, not {quoted(value)}: {said}") from None


def null(value: Any) -> None:
    """Nothing else than null."""
    if value is not None:
        _wrong("null", value)


def _text(value: Any) -> Any:
    return value if type(value) is str else _wrong("a text", value)


def _whole(value: Any) -> Any:
    if type(value) is int or type(value) is bool:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    return _wrong("a whole number", value)


def _real(value: Any) -> Any:
    if type(value) is float:
        return value
    return float(value) if type(value) is int or type(value) is bool else _wrong("a number", value)


def _switch(value: Any) -> Any:
    return value if type(value) is bool else _wrong("true or false", value)


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        return _wrong("bytes in Base64", value)


def _datetime(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is float:
            return dt.datetime.fromtimestamp(value, dt.UTC)
        return dt.datetime.fromisoformat(_text(value))
    except (ValueError, OverflowError, OSError):
        return _wrong("a date and time such as 2031-05-07T09:30:00Z", value)


def _date(value: Any) -> Any:
    try:
        return dt.date.fromisoformat(_text(value))
    except ValueError:
        return _wrong("a date such as 2031-05-07", value)


def _time(value: Any) -> Any:
    try:
        return dt.time.fromisoformat(_text(value))
    except ValueError:
        return _wrong("a time such as 09:30:00", value)


def _timedelta(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is float:
            return dt.timedelta(seconds=value)
        return dt.timedelta(milliseconds=quantities.milliseconds(_text(value)))
    except (ValueError, OverflowError):
        return _wrong("a number of seconds, or a duration such as 90s or 1h30m", value)


def _uuid(value: Any) -> Any:
    try:
        return UUID(_text(value))
    except ValueError:
        return _wrong("a UUID", value)


def _decimal(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is str:
            return Decimal(value)
        return Decimal(repr(value)) if type(value) is float else _wrong("a decimal number", value)
    except InvalidOperation:
        return _wrong("a decimal number such as 12.50", value)


_SIMPLE: dict[type, Reader] = {
    str: _text,
    int: _whole,
    float: _real,
    bool: _switch,
    bytes: _bytes,
    bytearray: lambda value: bytearray(_bytes(value)),
    dt.datetime: _datetime,
    dt.date: _date,
    dt.time: _time,
    dt.timedelta: _timedelta,
    UUID: _uuid,
    Decimal: _decimal,
}
_LISTS: dict[type, Callable[[list[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.deque: collections.deque,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
    **dict.fromkeys(
        (
            collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable,
            collections.abc.Collection, collections.abc.Container, collections.abc.Reversible,
        ),
        list,
    ),
}  # fmt: skip
_OBJECTS: dict[type, Callable[[dict[Any, Any]], Any]] = {
    dict: dict,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
    collections.Counter: collections.Counter,
}
_EMPTY = [int, float, bool, str, list, set, dict, collections.deque, collections.Counter]
"""Of what the annotation of a defaultdict says that there is an empty one for each key that is missing."""
_WRAPPERS = {
    getattr(typing, name)
    for name in ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar", "Unpack")
    if hasattr(typing, name)
}
# A date and time with no time is a date.
_RANKS = {type(None): 0, bool: 1, int: 2, float: 3, dt.date: 4, str: 9}


def _rank(annotation: Any) -> int:
    return _RANKS.get(annotation, 5)


def _named(annotation: Any) -> str:
    return {type(None): "null", str: "a text", int: "a whole number", float: "a number"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def _number(text: str) -> Any:
    """A key that stands for a number or a switch."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _literal(options: Sequence[Any]) -> Reader:
    known = [(plain(one), one) for one in options]

    def read(value: Any) -> Any:
        for said, option in known:
            if said == value and type(said) is type(value):
                return option
        return _wrong(" or ".join(str(said) for said, _ in known), value)

    return read


def _enum(kind: type[Enum]) -> Reader:
    known = [(plain(one.value, lambda value: value), one) for one in kind]

    def read(value: Any) -> Any:
        for said, member in known:
            if said == value:
                return member
        try:
            return kind(value)
        except ValueError:
            return _wrong(" or ".join(str(said) for said, _ in known[:10]), value)

    return read


def _is_abstract(kind: type) -> bool:
    return kind.__module__ in ("collections.abc", "typing", "abc") or getattr(kind, "_is_protocol", False)
