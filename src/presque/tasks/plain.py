"""From Python values to what JSON can say. `reading` is the way back; docs/guides/tasks.md has the table.

A value becomes what other languages would expect: a date is an ISO 8601 text, a set a list, a dataclass an
object. What type it was is not written down. The signature of the task says it.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import math
import sys
from collections import deque
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from presque.client.json_values import TOO_DEEP

Encode = Callable[[Any], Any]
"""A hook: makes a value that JSON can say of one that presque does not know, else raises `TypeError`."""

_AS_IT_IS = frozenset((str, int, float, bool, type(None)))


def plain(value: Any, encode: Encode | None = None) -> Any:
    """`value` as JSON can say it. Raises `TypeError` or `ValueError` with a sentence if it cannot."""
    if type(value) in _AS_IT_IS:
        return _whole(value)
    try:
        return _plain(value, encode)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def _plain(value: Any, encode: Encode | None) -> Any:
    kind = type(value)
    if kind in _AS_IT_IS:
        return _whole(value)
    if kind is list or kind is tuple:
        return [_plain(one, encode) for one in value]
    if kind is dict:
        return {_key(key, encode): _plain(one, encode) for key, one in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value, encode)
    if isinstance(value, str):
        return _whole(str.__str__(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _whole(float(value))
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return _seconds(value)
    if isinstance(value, UUID | Decimal | PurePath):
        return _whole(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return _composed(value, kind, encode)


def _composed(value: Any, kind: type, encode: Encode | None) -> Any:
    """What is made of other values."""
    if isinstance(value, tuple | deque):
        return [_plain(one, encode) for one in value]
    if isinstance(value, Set):
        return _ordered([_plain(one, encode) for one in value])
    fields = fields_of(kind)
    if fields is not None:
        return {name: _plain(getattr(value, name), encode) for name in fields}
    if hasattr(kind, "__pydantic_validator__") and hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if hasattr(kind, "__struct_fields__") and "msgspec" in sys.modules:
        return sys.modules["msgspec"].to_builtins(value, enc_hook=encode)
    if isinstance(value, Mapping):
        return {_key(key, encode): _plain(one, encode) for key, one in value.items()}
    if encode is not None:
        return _plain(encode(value), None)
    raise TypeError(f"JSON cannot represent a `{kind.__name__}`: give the App an `encode` that can")


def fields_of(kind: type) -> list[str] | None:
    """The fields of a dataclass or of a class of attrs that its constructor takes; None for others."""
    if dataclasses.is_dataclass(kind):
        return [one.name for one in dataclasses.fields(kind) if one.init]
    found = getattr(kind, "__attrs_attrs__", None)
    return None if found is None else [one.name for one in found if one.init]


def _key(key: Any, encode: Encode | None) -> Any:
    if type(key) is str:
        return _whole(key)
    found = _plain(key, encode)
    if found is None or isinstance(found, bool):
        return {None: "null", True: "true", False: "false"}[found]
    if isinstance(found, str | int | float):
        return str(found)
    raise TypeError(f"JSON cannot represent a `{type(key).__name__}` as a key: use a text")


def _whole(value: Any) -> Any:
    """A value that JSON has itself. Raises `ValueError` for a number or a text that a server cannot store."""
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"JSON cannot represent {value}, only finite numbers")
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text has half a character at {error.start} ({value[error.start]!a}), as the name of a"
                " file has that is not UTF-8: pass bytes, or a text that is whole"
            ) from None
    return value


def _seconds(value: dt.timedelta) -> int | float:
    found = value.total_seconds()
    return int(found) if found.is_integer() else found


def _ordered(values: list[Any]) -> list[Any]:
    """A set has no order: the same set is the same text each time, where its values can be compared."""
    try:
        return sorted(values)
    except TypeError:
        return values
