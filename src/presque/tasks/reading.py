"""From JSON back to Python values, as the annotations of a signature say.

`reader_of` makes of an annotation what reads a value: None where anything goes. A reader refuses what does
not fit with `Unfit`, a sentence that says where and what was expected.
"""

from __future__ import annotations

import collections
import collections.abc
import datetime as dt
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, Union

from presque.client.json_values import encoded
from presque.errors import nearest, shown
from presque.quantities import quoted
from presque.tasks.plain import fields_of
from presque.tasks.single import SIMPLE, enum, literal, null
from presque.tasks.unfit import Reader, Unfit, at, list_of, made_by, member, number, object_with, wrong

Decode = Callable[[type, Any], Any]
"""A hook: makes a value of a type that presque does not know, of what `Encode` has made of it."""


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
            return literal(arguments)
        if origin is Union or origin is types.UnionType:
            return self._union(arguments)
        kind = annotation if origin is None else origin
        if not isinstance(kind, type) or kind is object:
            return None
        if kind in SIMPLE:
            return SIMPLE[kind]
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
            found = value if type(value) is list else wrong("a list", value)
            if reader is not None:
                found = [at(reader, one, f"[{number}]") for number, one in enumerate(found)]
            try:
                return found if kind is list else kind(found)
            except TypeError:
                return wrong("a list without lists or objects in it", value)

        return read

    def _tuple(self, arguments: Sequence[Any]) -> Reader:
        if not arguments or (len(arguments) == 2 and arguments[1] is Ellipsis):
            return self._list(tuple, arguments[0] if arguments else Any)
        readers = [self.reader_of(one) for one in arguments if one != ()]

        def read(value: Any) -> Any:
            if type(value) is not list or len(value) != len(readers):
                return wrong(list_of(len(readers)), value)
            return tuple(
                one if reader is None else at(reader, one, f"[{number}]")
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
            try:
                return of_keys(number(text) if by_number else text)
            except Unfit as error:
                raise Unfit(f"has the key {quoted(text)}, which {error}") from None

        def read(value: Any) -> Any:
            if type(value) is not dict:
                return wrong("an object", value)
            found = {
                read_key(name): one if reader is None else at(reader, one, member(name))
                for name, one in value.items()
            }
            return found if kind is dict else kind(found)

        return read

    def _union(self, arguments: Sequence[Any]) -> Reader | None:
        """The first that fits. What JSON has itself goes first, text last: any other text may be more."""
        readers = [(place, self.reader_of(arguments[place])) for place in _by_rank(arguments)]
        sure = [(place, one) for place, one in readers if one is not None]

        def read(value: Any) -> Any:
            refusals: dict[int, Unfit] = {}
            for place, reader in sure:
                try:
                    return reader(value)
                except Unfit as error:
                    refusals[place] = error
            if len(sure) < len(readers):
                return value
            nearest = max(refusals.values(), key=lambda one: (len(one.path), not one.wanted))
            if not nearest.wanted:
                raise nearest
            return wrong(
                " or ".join(dict.fromkeys(refusals[place].wanted for place in sorted(refusals))), value
            )

        return read

    # --- classes

    def _class(self, kind: type, named: Any, arguments: Sequence[Any]) -> Reader | None:
        """The reader of a class; `named` is how an annotation names it, with `arguments` in brackets."""
        if issubclass(kind, Enum):
            return enum(kind)
        if issubclass(kind, PurePath):
            return lambda value: kind(value) if type(value) is str else wrong("a path", value)
        if typing.is_typeddict(kind):
            return self._typed_dict(kind, arguments)
        if issubclass(kind, tuple):
            return self._named_tuple(kind, arguments)
        if fields_of(kind) is not None:
            return self._of_fields(kind, arguments)
        if hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate_json"):
            validate = kind.model_validate_json
            return lambda value: made_by(kind, lambda: validate(encoded(value)), value)
        if hasattr(kind, "__struct_fields__") and "msgspec" in sys.modules:
            convert = sys.modules["msgspec"].convert
            return lambda value: made_by(kind, lambda: convert(value, named, dec_hook=self._decode), value)
        if self._decode is not None and not _is_abstract(kind):
            decode = self._decode
            return lambda value: made_by(kind, lambda: decode(kind, value), value)
        return None

    def _of_fields(self, kind: type, arguments: Sequence[Any]) -> Reader:
        """A dataclass, or a class of attrs: an object with its fields."""
        readers = {name: self.reader_of(one) for name, one in hints_of(kind, arguments).items()}
        names = fields_of(kind) or []
        aliases = {
            one.name: one.alias for one in getattr(kind, "__attrs_attrs__", ()) if hasattr(one, "alias")
        }
        needed = _needed(kind)

        def read(value: Any) -> Any:
            found = _fields(value, names, readers)
            for name in names:
                if name not in found and aliases.get(name, name) in needed:
                    raise Unfit(f"has no `{name}`, which it needs")
            return made_by(
                kind, lambda: kind(**{aliases.get(name, name): one for name, one in found.items()}), value
            )

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
                return wrong(object_with(list(hints)), value)
            for name in required:
                if name not in value:
                    raise Unfit(f"has no `{name}`, which it needs")
            return {
                name: one if (reader := readers.get(name)) is None else at(reader, one, member(name))
                for name, one in value.items()
            }

        return read

    def _named_tuple(self, kind: Any, arguments: Sequence[Any]) -> Reader:
        """A named tuple: a list of its fields in their order, or an object with them."""
        hints = hints_of(kind, arguments)
        names = kind._fields
        readers = {name: self.reader_of(hints.get(name, Any)) for name in names}

        def read(value: Any) -> Any:
            if type(value) is list and len(value) <= len(names):
                value = dict(zip(names, value, strict=False))
            elif type(value) is not dict:
                return wrong(list_of(len(names)), value)
            found = _fields(value, names, readers)
            for name in names:
                if name not in found and name not in kind._field_defaults:
                    raise Unfit(f"has no `{name}`, which it needs")
            return made_by(kind, lambda: kind(**found), value)

        return read


def _fields(value: Any, names: Sequence[str], readers: Mapping[str, Reader | None]) -> dict[str, Any]:
    """The fields that an object gives, each of them read."""
    if type(value) is not dict:
        return wrong(object_with(names), value)  # type: ignore[no-any-return]  # it raises
    for name in value:
        if name not in names:
            raise Unfit(f"has an unknown field `{shown(name)}`, {nearest(name, names)}")
    return {
        name: one if (reader := readers.get(name)) is None else at(reader, one, member(name))
        for name, one in value.items()
    }


def _needed(kind: type) -> set[str]:
    """What the constructor of a class cannot do without."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {one.name for one in parameters if one.default is one.empty and one.kind in _NAMED}


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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


def _by_rank(annotations: Sequence[Any]) -> list[int]:
    """The places of some annotations, in the order in which they are tried."""
    return sorted(range(len(annotations)), key=lambda place: _RANKS.get(annotations[place], 5))


def _is_abstract(kind: type) -> bool:
    return kind.__module__ in ("collections.abc", "typing", "abc") or getattr(kind, "_is_protocol", False)
