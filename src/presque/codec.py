"""JSON in and out. The one module that knows the library (msgspec).

A job's bytes are stored and handed out unchanged, so they are checked but never decoded: decoding and
encoding again would change large integers, the order of keys and every space.
"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from presque import misfits
from presque.errors import CallerError, NotJson, UnknownParameter, shown
from presque.fields import Fields

T = TypeVar("T")

Raw = msgspec.Raw
"""A piece of JSON that is passed on unchanged."""

NOTHING = Raw()
"""The `Raw` of a field that was not given."""

UNSET = msgspec.UNSET
"""The value of a field that a request does not have; not the same as null."""

Struct = msgspec.Struct
"""The base of request bodies that presque reads: a field that is not known is an error."""

_check = msgspec.json.Decoder(msgspec.Raw).decode
_decode_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Batch(msgspec.Struct):
    """The body of a batch push: the jobs as they came, whatever else the object may hold."""

    jobs: list[msgspec.Raw]


_decode_batch = msgspec.json.Decoder(_Batch).decode

pack = msgspec.msgpack.Encoder().encode
"""A value as MessagePack, which the functions in the store read."""

unpack = msgspec.msgpack.Decoder().decode
"""The value that `pack`, or a function in the store, wrote."""


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def unpack_map(packed: bytes) -> dict[str, Any]:
    """A map that was packed; an empty one if the bytes are damaged."""
    try:
        found = unpack(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def check(body: bytes) -> None:
    """Raise `NotJson` unless `body` is exactly one JSON document (RFC 8259) in UTF-8."""
    try:
        _check(body)
        if not body.isascii():
            body.decode()  # msgspec checks the syntax of a Raw, not its UTF-8
    except _UNREADABLE as error:
        raise _not_json(error, body) from None


def decode(body: bytes) -> Any:
    """Read a JSON document that presque itself looks into, such as the body of a control request. A number
    that no float is large enough for is infinite, so that it is out of whatever bounds there are."""
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        if misfits.place(str(error)):
            raise CallerError("a number in the body is too large: at most 1.8e308 can be read") from None
        return -math.inf if body.lstrip().startswith(b"-") else math.inf
    except _UNREADABLE as error:
        raise _not_json(error, body) from None


def decode_batch(body: bytes) -> list[bytes]:
    """Take `{"jobs": [...]}` apart into the bytes of each job, untouched."""
    check(body)
    try:
        return [bytes(job) for job in _decode_batch(body).jobs]
    except msgspec.ValidationError:
        raise CallerError("jobs should be an array of job") from None


def decode_lines(text: bytes) -> list[bytes] | None:
    """The documents of whole lines, untouched; None unless each line is one document without a space around
    it. Raises `NotJson` if one of them is not JSON in UTF-8."""
    try:
        if not text.isascii():
            text.decode()
        found = _decode_lines(text)
    except _UNREADABLE as error:
        raise NotJson(f"a line is not JSON: {error}") from None
    # The library takes several documents on one line, one on several lines, and spaces around them. With as
    # many line ends as belong between so many documents, and nothing besides, each line is one.
    lines = text.removesuffix(b"\n")
    if lines.count(b"\n") != len(found) - 1 or b"\n".join(found) != lines:
        return None
    return lines.split(b"\n")


def decode_as(body: bytes, kind: type[T]) -> T:
    """Read what `encode_typed` wrote of a value of this type."""
    return msgspec.json.decode(body, type=kind, dec_hook=lambda wanted, text: wanted(text))


def decode_stored(body: bytes, kind: type[T]) -> T:
    """Read what `encode` wrote of a value of this type, perhaps long ago or in another version.

    Raises `ValueError` with the reason for what is damaged or has other fields.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(_wrong(error)) from None
    except msgspec.DecodeError as error:
        raise ValueError(_reason(error)) from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def decode_request(body: bytes, kind: type[T], field: str = "") -> T:
    """Read a request body of a known shape, or a field of one; no body at all is one without fields."""
    try:
        if not body.isascii():
            body.decode()  # msgspec checks the syntax of a Raw, not its UTF-8
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        check(body)  # text that is not JSON at all is reported first
        raise _refused(error, kind, field) from None
    except _UNREADABLE as error:
        raise _not_json(error, body) from None


def members(body: bytes, fields: Fields) -> dict[str, Any]:
    """The members of a JSON object: as bytes where the field says so, decoded where not. No body has none."""
    found: dict[str, Any] = {}
    for name, raw in decode_request(body, dict[str, msgspec.Raw]).items():
        field = fields.get(name)
        found[name] = bytes(raw) if field is not None and field.raw else decode(bytes(raw))
    return found


def _refused(error: msgspec.ValidationError, kind: Any, field: str) -> CallerError:
    """Why a body of this shape is refused."""
    unknown = misfits.unknown_field(str(error))
    if unknown is None:
        return CallerError(_wrong(error, field))
    place = misfits.place(str(error))
    for name in re.findall(r"[a-z_]+", place):
        kind = get_type_hints(kind)[name]
        kind = next(iter(get_args(kind)), kind)
    return UnknownParameter(unknown, kind.__struct_fields__, "field", (field + place).lstrip("."))


def _wrong(error: msgspec.ValidationError, field: str = "") -> str:
    """What is wrong with a body, or a field of one, in a sentence."""
    text = str(error)
    place = (field + misfits.place(text)).lstrip(".")
    where = f" in `{place}`" if place else ""
    if said := misfits.should_be(text):
        return f"`{place}` {said}" if place else f"the body {said}"
    if unknown := misfits.unknown_field(text):
        return f"unknown field `{shown(unknown)}`{where}"
    if missing := misfits.missing_field(text):
        return f"`{missing}` is missing{where}"
    if "out of range" in text:
        return f"`{place}` holds a number that is too large" if place else "the number is too large"
    reason = misfits.reason(text)
    return f"invalid body: {reason[:1].lower()}{reason[1:]}" + (f", at `{place}`" if place else "")


def encode(value: Any) -> bytes:
    """Write a JSON document, without spaces."""
    return _encode(value)


def encode_typed(value: Any) -> bytes:
    """Write a value of one of our own types, for `decode_as`."""
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def text(body: bytes) -> str:
    """The text of a stored job. Stored bodies were checked, so this cannot fail."""
    return body.decode()


_BYTE = re.compile(r" \(byte ([0-9]+)\)").search
_FORM = re.compile(rb"[\w.\[\]%+-]{1,64}=", re.ASCII).match
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{0,15}").match
_LONE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}",
    re.DOTALL,
).finditer
_LONE_MOST = 100
_OTHER_WORDS = (b"NaN", b"Infinity", b"None", b"True", b"False", b"undefined")
_EXCERPT = 16


def _not_json(error: Exception, body: bytes) -> NotJson:
    """What is wrong with a body that is not JSON, for the person who wrote it.

    What often goes wrong has a sentence of its own: quotes that a shell took away, a form, words of other
    languages, half a character. No more than a few characters of the body are quoted.
    """
    if isinstance(error, UnicodeDecodeError):
        return NotJson(f"the body is not UTF-8: byte {error.start} cannot be read")
    if isinstance(error, RecursionError):
        return NotJson("the body is nested too deep")
    return NotJson(f"the body is not JSON: {_explained(str(error), body)}")


def _explained(found: str, body: bytes) -> str:
    if "surrogate" in found or "truncated" in found or "hex escape" in found:
        lone = _lone_surrogate(body)
        if lone is not None:
            return (
                f"`{body[lone : lone + 6].decode()}` at byte {lone} is half a character (a lone surrogate); "
                "write both halves, or the character itself in UTF-8"
            )
        if "hex escape" not in found:
            return "it ends in the middle" if "truncated" in found else found
    if form := _FORM(body):
        document = f'{{"{form[0][:-1].decode()}": 1}}'
        return f"`{_quoted(body, 0)}` looks like a form; send a document such as {document}"
    if body.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark; send UTF-8 without one"
    reason = found.removeprefix("JSON is malformed: ")
    place = _BYTE(reason)
    if place is None:
        return reason
    at = int(place[1])
    if body[at : at + 1] < b" " and at < len(body):
        return f"there is a control character at byte {at}; in a text write \\n, \\t or \\u00…"
    while at > 0 and at > int(place[1]) - _EXCERPT and body[at - 1 : at].isalpha():
        at -= 1
    if body[at : at + 1] == b"'":
        return f"`{_quoted(body, at)}` at byte {at} begins with a single quote; JSON has double quotes"
    word = None if "escape" in reason else _WORD(body, at)
    if word is not None and word[0] in _OTHER_WORDS:
        return f"`{word[0].decode()}` at byte {at} is not a word of JSON, which has true, false and null"
    if word is not None and ("invalid character" in reason or "expected '\"'" in reason or "keys" in reason):
        return (
            f"`{_quoted(body, at)}` at byte {at} is not in double quotes; "
            "if a shell took them away, put the whole body in single quotes"
        )
    return f"{reason}, at `{_quoted(body, at)}`" if at < len(body) else reason


def _lone_surrogate(body: bytes) -> int | None:
    """Where half a surrogate pair is escaped, among the first that may be one."""
    for match in itertools.islice(_LONE(body), _LONE_MOST):
        before = body[: match.start()]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:  # the backslash is not escaped itself
            return match.start()
    return None


def _quoted(body: bytes, at: int) -> str:
    """A few characters of a body, from a byte on."""
    return shown(body[at : at + _EXCERPT].decode(errors="replace")) + (
        "…" if at + _EXCERPT < len(body) else ""
    )


def _reason(error: msgspec.DecodeError) -> str:
    """What the library found, to stand inside a sentence."""
    found = str(error).removeprefix("JSON is malformed: ")
    return found[:1].lower() + found[1:]
