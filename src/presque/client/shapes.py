"""Whether an answer has the shape that its type says, so that nobody is handed what is not one.

The types are those of `answers`: typed dictionaries of plain JSON. Fields that they do not name are let
through, so that an older client understands a newer server.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")

Check = Callable[[Any], bool]


def shaped(kind: type[T], value: object) -> T:
    """Return `value` if it is a `kind`. Raises `ValueError` otherwise."""
    if not _check(cast(Hashable, kind))(value):
        raise ValueError("the answer has another shape than it should have")
    return cast(T, value)


@lru_cache(maxsize=256)
def _check(kind: Hashable) -> Check:
    if kind is Any:
        return lambda _: True
    if kind is int:
        return lambda value: type(value) is int
    if kind is float:
        return lambda value: type(value) in (int, float)
    if kind in (str, bool, dict, NoneType):
        return lambda value: type(value) is kind
    if is_typeddict(kind):
        return _check_fields(kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:  # a newer server may know more words
        return lambda value: type(value) is str
    if origin in (Union, UnionType):
        checks = [_check(part) for part in parts]
        return lambda value: any(check(value) for check in checks)
    if origin is list:
        one = _check(parts[0])
        return lambda value: type(value) is list and all(map(one, value))
    if origin is dict:
        one = _check(parts[1])
        return lambda value: type(value) is dict and all(map(one, value.values()))
    raise TypeError(f"no check is known for {kind}")


def _check_fields(kind: Any) -> Check:
    required: frozenset[str] = kind.__required_keys__
    checks = {name: _check(of) for name, of in get_type_hints(kind).items()}

    def check(value: Any) -> bool:
        return (
            type(value) is dict
            and required <= value.keys()
            and all(check(value[name]) for name, check in checks.items() if name in value)
        )

    return check
