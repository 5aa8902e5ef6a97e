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

    __slots__ = ("answers", "seconds", "verb")

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.answers: dict[bytes, list[int]] = {}
        """Those of each status, by class of time."""
        self.seconds = 0.0

    def add(self, status: bytes, seconds: float) -> None:
        """Count an answer."""
        self.seconds += seconds
        try:
            self.answers[status][int(seconds * EACH_SECOND).bit_length()] += 1
        except LookupError:  # the first with its status, or one that took very long
            times = self.answers.setdefault(status, [0] * CLASSES)
            times[min(int(seconds * EACH_SECOND).bit_length(), CLASSES - 1)] += 1

    def told(self) -> dict[str, Any]:
        """What was counted, as plain values."""
        return {
            "statuses": {status.decode(): sum(times) for status, times in self.answers.items()},
            "times": [sum(times) for times in zip(*self.answers.values(), strict=True)],
            "seconds": self.seconds,
        }


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
        return {verb: tally.told() for verb, tally in self._by_verb.items() if tally.answers}
