"""What msgspec says of a value that does not fit, in the words of those who write JSON.

It says: Expected `int`, got `str` - at `$.x`. It need not be installed to read that.
"""

from __future__ import annotations

import re

_EXPECTED = re.compile(r"Expected `(.+?)(?: \| null)?`, got `(.+?)`").match
_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*?)`").match
_KINDS = {
    "object": "an object",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "float | str": "a number or a text",
    "bool": "true or false",
    "null": "null",
}


def place(text: str) -> str:
    """Where the value is, such as `.jobs[…].id`; empty for the whole document."""
    return text.partition(" - at `$")[2].removesuffix("`").replace("[...]", "[…]")


def reason(text: str) -> str:
    """What is wrong with it, without the place."""
    return text.partition(" - at `$")[0]


def should_be(text: str) -> str | None:
    """`should be a whole number, not a text`; None if it is not of the wrong type."""
    match = _EXPECTED(text)
    if match is None:
        return None
    wanted, got = (_KINDS.get(kind, kind) for kind in match.groups())
    return f"should be {wanted}, not {got}"


def unknown_field(text: str) -> str | None:
    """The field that it has and should not have, if that is what is wrong."""
    match = _FIELD(text)
    return match[2] if match and match[1] == "contains unknown" else None


def missing_field(text: str) -> str | None:
    """The field that it should have and does not, if that is what is wrong."""
    match = _FIELD(text)
    return match[2] if match and match[1] == "missing required" else None
