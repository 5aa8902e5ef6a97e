"""Patterns of names: `*` stands for any characters, also none, and `?` for one.

They are compared by hand. To compile one of 128 characters as a regular expression takes more than a
millisecond, and one request can bring a hundred of them; to compare it takes some microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable


def fits(name: str, pattern: str) -> bool:
    """Whether a name is what the pattern stands for."""
    if "?" in pattern:
        return _fits_by_states(name, pattern)
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    *between, last = others
    at, end = len(first), len(name) - len(last)
    if end < at or not name.startswith(first) or not name.endswith(last):
        return False
    for part in between:  # the first place of each leaves most room for those behind it
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _fits_by_states(name: str, pattern: str) -> bool:
    """The same for any pattern, in a time that grows with the two lengths alone.

    A state is how many characters of the pattern have been matched, the stars left out; bit n says that n
    can be. Each character of the name moves all states at once.
    """
    wanted: dict[str, int] = {}
    anything = stays = length = 0
    for character in pattern:
        if character == "*":
            stays |= 1 << length
            continue
        if character == "?":
            anything |= 1 << length
        else:
            wanted[character] = wanted.get(character, 0) | 1 << length
        length += 1
    states = 1
    for character in name:
        states = (states & (wanted.get(character, 0) | anything)) << 1 | states & stays
    return bool(states >> length)


class Patterns:
    """Some patterns, ready to be compared with names. Names and `mail*` are looked up together."""

    __slots__ = ("_beginnings", "_names", "_others", "all")

    def __init__(self, patterns: Iterable[str]) -> None:
        names, beginnings, others = set(), [], []
        for pattern in patterns:
            if "*" not in pattern and "?" not in pattern:
                names.add(pattern)
            elif "?" not in pattern and pattern.find("*") == len(pattern) - 1:
                beginnings.append(pattern[:-1])
            else:
                others.append(pattern)
        self._names, self._beginnings, self._others = frozenset(names), tuple(beginnings), tuple(others)
        self.all = "" in beginnings or any(not pattern.strip("*") for pattern in others)
        """Whether one of them stands for every name."""

    def match(self, name: str) -> bool:
        """Whether one of them stands for this name."""
        return (
            self.all
            or name in self._names
            or name.startswith(self._beginnings)
            or any(fits(name, pattern) for pattern in self._others)
        )
