"""JSON as the clients read and write it: any document that a server stores, whatever Python thinks of it.

Python reads no integer of more than 4300 digits (`sys.set_int_max_str_digits`) and nothing that is nested
deeper than its stack. JSON allows both, so one odd job would make a page of jobs, or a lease of many,
unreadable. Such documents are read the slow way. They are rare: the standard library goes first.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # it is there, and in PyPy too
from typing import Any, NoReturn

DIGITS_MOST = 100_000
"""Digits of an integer that is read as one. One that is longer stays a text: reading it takes seconds."""

LEVELS_READ_MOST = 100_000
"""How deep a document may be nested that is read: many times what a server stores, and a moment's work."""
VALUES_READ_MOST = 2_500_000
"""How many values a document may have that is read the slow way: more than the 4 MiB of an answer hold."""

TOO_DEEP = "the value is nested too deep for Python, or holds itself; push it as a text"

_PIECE = 600  # digits that Python reads, however its limit is set

_spaces = re.compile(r"[ \t\n\r]*").match
_plain = re.compile(r"(-?(?:0|[1-9][0-9]*))((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|true|false|null").match
_mark = re.compile(r'["\[\]{}]').search
_scan = json.JSONDecoder(parse_int=str, parse_float=str, strict=False).raw_decode
_WORDS = {"true": True, "false": False, "null": None}


def decoded(text: str | bytes) -> Any:
    """The value of a JSON document. Raises `ValueError` if it is not one.

    An integer of more than `DIGITS_MOST` digits becomes a `str` of them. A document that no server stores,
    nested without end, is refused before it has taken all memory.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer is too long for Python, or the text is not UTF-8
        try:
            return json.loads(text, parse_int=integer)
        except RecursionError:
            pass
    except RecursionError:
        pass
    return _read_deep(text if isinstance(text, str) else text.decode())


def encoded(value: Any) -> str:
    """`value` as compact JSON. Raises `ValueError` or `TypeError` for what JSON cannot say, such as NaN."""
    try:
        text = _dumped(value)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError:
        text = _dumped_with_long_integers(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates: JSON can say it, UTF-8 cannot
        return json.dumps(json.loads(text), allow_nan=False, separators=(",", ":"))
    return text


def _dumped_with_long_integers(value: Any) -> str:
    long: dict[str, int] = {}
    try:
        text = _dumped(_without_long_integers(value, long, os.urandom(8).hex()))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    for token, number in long.items():
        text = text.replace(f'"{token}"', _digits(number), 1)
    return text


def checked(text: str) -> str:
    """Return `text` if it is one JSON document, raise `ValueError` that says where it is not."""
    try:
        json.loads(text, parse_constant=_no_constant, parse_int=len)
    except RecursionError:
        _read_deep(text)
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def end_of(text: str, at: int) -> int:
    """Just behind the JSON value that begins at `at`, or behind the blanks there. Raises `ValueError`."""
    at = _spaces(text, at).end()  # type: ignore[union-attr]  # it matches everywhere
    try:
        return int(_scan(text, at)[1])
    except RecursionError:
        pass
    for bracket, depth in _depths(text, at):
        if depth == 0:
            return bracket + 1
    raise ValueError("a bracket is missing")


def is_deeper(text: str, levels: int) -> bool:
    """Whether a JSON document is nested deeper than that."""
    if text.count("[") + text.count("{") <= levels:
        return False
    return any(depth > levels for _, depth in _depths(text, 0))


def _depths(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Where the brackets stand that are not in strings, from `at` on, and how deep it is behind each.

    No regular expression goes through a string: one notes each step, in some 100 bytes, and a possessive one
    is not right before Python 3.11.5.
    """
    depth = 0
    while (found := _mark(text, at)) is not None:
        at = found.start()
        if text[at] == '"':
            _, at = scanstring(text, at + 1, False)
            continue
        depth += 1 if text[at] in "[{" else -1
        yield at, depth
        at += 1


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# --- long integers


def integer(text: str) -> int | str:
    """The integer that these digits stand for, however many: for `parse_int`."""
    if len(text) <= _PIECE:
        return int(text)
    digits = text.removeprefix("-")
    if len(digits) > DIGITS_MOST:
        return text
    number = _of_digits(digits)
    return number if digits is text else -number


def _of_digits(text: str) -> int:
    if len(text) <= _PIECE:
        return int(text)
    half = len(text) // 2
    shift: int = 10**half
    return _of_digits(text[:-half]) * shift + _of_digits(text[-half:])


def _digits(number: int) -> str:
    """All digits of an integer, whatever the limit. 3 bits hold less than a digit."""
    if number < 0:
        return f"-{_digits(-number)}"

    def padded(part: int, width: int) -> str:
        if width <= _PIECE:
            return str(part).zfill(width)
        half = width // 2
        high, low = divmod(part, 10**half)
        return padded(high, width - half) + padded(low, half)

    return padded(number, number.bit_length() // 3 + 1).lstrip("0") or "0"


def _without_long_integers(value: Any, found: dict[str, int], token: str) -> Any:
    """A copy in which texts stand for the integers that Python does not write, and which are those."""
    if isinstance(value, dict):
        return {key: _without_long_integers(one, found, token) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_long_integers(one, found, token) for one in value]
    limit = sys.get_int_max_str_digits()
    if isinstance(value, int) and limit and value.bit_length() > 3 * limit:
        name = f"{token}-{len(found)}"
        found[name] = int(value)
        return name
    return value


# --- deep documents


def _read_deep(text: str) -> Any:
    """Read a document that is nested deeper than Python's stack, without recursion."""
    containers: list[list[Any] | dict[str, Any]] = []
    keys: list[str] = []
    at = _skip(text, 0)
    for _ in range(VALUES_READ_MOST):
        first = text[at : at + 1]
        value: Any
        if first in ("[", "{"):
            value = [] if first == "[" else {}
            at = _skip(text, at + 1)
            if text[at : at + 1] != ("]" if first == "[" else "}"):
                containers.append(value)
                if len(containers) > LEVELS_READ_MOST:
                    break
                if first == "{":
                    at = _read_key(text, at, keys)
                continue
            at += 1
        else:
            value, at = _read_plain(text, at)
        while True:  # a value is whole: put it where it belongs, and close what ends with it
            at = _skip(text, at)
            if not containers:
                if at != len(text):
                    raise json.JSONDecodeError("Extra data", text, at)
                return value
            inside = containers[-1]
            if isinstance(inside, list):
                inside.append(value)
                closing = "]"
            else:
                inside[keys.pop()] = value
                closing = "}"
            following = text[at : at + 1]
            if following == ",":
                at = _skip(text, at + 1)
                if closing == "}":
                    at = _read_key(text, at, keys)
                break
            if following != closing:
                raise json.JSONDecodeError(f"Expecting ',' or '{closing}'", text, at)
            value = containers.pop()
            at += 1
    raise ValueError("it is nested too deep")


def _read_key(text: str, at: int, keys: list[str]) -> int:
    """Read a key and its colon. Returns where its value begins."""
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    key, at = scanstring(text, at + 1)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    keys.append(key)
    return _skip(text, at + 1)


def _read_plain(text: str, at: int) -> tuple[Any, int]:
    """Read a text, a number or a word. Returns it and where it ends."""
    if text[at : at + 1] == '"':
        found: tuple[str, int] = scanstring(text, at + 1)
        return found
    match = _plain(text, at)
    if match is None:
        raise json.JSONDecodeError("Expecting value", text, at)
    if match[1] is None:
        return _WORDS[match[0]], match.end()
    return (float(match[0]) if match[2] else integer(match[1])), match.end()


def _skip(text: str, at: int) -> int:
    match = _spaces(text, at)
    assert match is not None
    return match.end()
