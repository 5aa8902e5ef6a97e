"""A glance at all that `surroundings` keeps: has any of it changed since it was last in order?

Most jobs change nothing, and looking at each thing by itself would take several times as long as they do
(bench/workers.py). So what can be looked at by a call that runs in C is looked at in one go, and compared in
one go. Only if something differs does `surroundings` look at one thing after the other, and put it back.

It is quick because it knows nothing of what it sees. It must see a change of anything that `surroundings`
puts back after a quick job; that it sees more does no harm. Objects are compared by `==`: one that claims to
equal the one it has replaced, as proxies do, is not seen here, and is put back at the next closer look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import call, itemgetter
from typing import Any

Look = Callable[[], Any]


class Glance:
    """What all these looks return now."""

    def __init__(self, looks: Iterable[Look]) -> None:
        self._looks = list(looks)
        self._seen = list(map(call, self._looks))

    def is_same(self) -> bool:
        """Whether they still do. May raise anything: an object may stand where another one was."""
        return list(map(call, self._looks)) == self._seen


def looks_at(holder: Any, names: Iterable[str]) -> list[Look]:
    """Looks at attributes of a module or another object, also at whether they are there."""
    own, names = vars(holder), list(names)
    there = [name for name in names if name in own]
    found: list[Look] = [partial(own.__contains__, name) for name in names if name not in own]
    return [partial(itemgetter(*there), own), *found] if there else found
