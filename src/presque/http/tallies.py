"""How often each verb was answered with which status, and how soon: plain numbers, which cost a request
less than half a microsecond."""

from __future__ import annotations

from typing import Any

EACH_SECOND = 2048
CLASSES = 20
"""Answers are counted in classes of time. Class n holds those that took less than 2**n / 2048 s and not less
than half of that; 0 those of less than half a millisecond, the last one also all that took longer."""


class Tally:
    """The answers of one verb."""

    __slots__ = ("seconds", "statuses", "times", "verb")

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.statuses: dict[bytes, int] = {}
        self.times = [0] * CLASSES
        self.seconds = 0.0

    def add(self, status: bytes, seconds: float) -> None:
        """Count an answer."""
        self.seconds += seconds
        power = int(seconds * EACH_SECOND).bit_length()
        self.times[power if power < CLASSES else -1] += 1
        try:
            self.statuses[status] += 1
        except KeyError:
            self.statuses[status] = 1


class Tallies:
    """A tally for each verb."""

    def __init__(self) -> None:
        self._by_verb: dict[str, Tally] = {}

    def of(self, verb: str) -> Tally:
        """The tally of a verb, or of something else such as a page, under its own name."""
        found = self._by_verb.get(verb)
        if found is None:
            found = self._by_verb[verb] = Tally(verb)
        return found

    def told(self) -> dict[str, Any]:
        """All of them as plain values: those that counted anything."""
        return {
            verb: {
                "statuses": {status.decode(): count for status, count in tally.statuses.items()},
                "times": tally.times,
                "seconds": tally.seconds,
            }
            for verb, tally in self._by_verb.items()
            if tally.statuses
        }
