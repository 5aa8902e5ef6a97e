"""Readers of single values: texts, numbers, times, members of an enum."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

from presque import quantities
from presque.tasks.plain import plain
from presque.tasks.unfit import Reader, one_of, wrong


def null(value: Any) -> None:
    """Nothing else than null."""
    if value is not None:
        wrong("null", value)


def _text(value: Any) -> Any:
    return value if type(value) is str else wrong("a text", value)


def _whole(value: Any) -> Any:
    if type(value) is int or type(value) is bool:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    return wrong("a whole number", value)


def _real(value: Any) -> Any:
    if type(value) is float:
        return value
    return float(value) if type(value) is int or type(value) is bool else wrong("a number", value)


def _switch(value: Any) -> Any:
    return value if type(value) is bool else wrong("true or false", value)


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        return wrong("bytes in Base64", value)


def _datetime(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is float:
            return dt.datetime.fromtimestamp(value, dt.UTC)
        return dt.datetime.fromisoformat(_text(value))
    except (ValueError, OverflowError, OSError):
        return wrong("a date and time such as 2031-05-07T09:30:00Z", value)


def _date(value: Any) -> Any:
    try:
        return dt.date.fromisoformat(_text(value))
    except ValueError:
        return wrong("a date such as 2031-05-07", value)


def _time(value: Any) -> Any:
    try:
        return dt.time.fromisoformat(_text(value))
    except ValueError:
        return wrong("a time such as 09:30:00", value)


def _timedelta(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is float:
            return dt.timedelta(seconds=value)
        return dt.timedelta(milliseconds=quantities.milliseconds(_text(value)))
    except (ValueError, OverflowError):
        return wrong("a number of seconds, or a duration such as 90s or 1h30m", value)


def _uuid(value: Any) -> Any:
    try:
        return UUID(_text(value))
    except ValueError:
        return wrong("a UUID", value)


def _decimal(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is str:
            return Decimal(value)
        return Decimal(repr(value)) if type(value) is float else wrong("a decimal number", value)
    except InvalidOperation:
        return wrong("a decimal number such as 12.50", value)


SIMPLE: dict[type, Reader] = {
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


def literal(options: Sequence[Any]) -> Reader:
    known = [(plain(one), one) for one in options]

    def read(value: Any) -> Any:
        for said, option in known:
            if said == value and type(said) is type(value):
                return option
        return wrong(one_of([said for said, _ in known]), value)

    return read


def enum(kind: type[Enum]) -> Reader:
    known = [(plain(one.value, lambda value: value), one) for one in kind]

    def read(value: Any) -> Any:
        for said, member in known:
            if said == value:
                return member
        try:
            return kind(value)
        except ValueError:
            return wrong(one_of([said for said, _ in known]), value)

    return read
