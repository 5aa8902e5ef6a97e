"""Rates that hold for all servers together: how many requests a token or a namespace may still make.

Each server counts for itself, in a bucket that fills up again, so a request waits for nobody. Several times a
second it tells the store how many there were and learns how many there were everywhere, and takes those of
the others out of its own bucket. So servers together let pass what one would, and what they let pass at once
before they know of each other: a bucket each at most, after a rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from presque.engine import calls
from presque.engine.keys import ACCESS
from presque.errors import PresqueError, StoreUnavailable
from presque.store.store import Store

TELL_S = 0.2
HEEDED_S = 10.0  # so long after its last request a meter still heeds what others spend
AT_ONCE = 500


class Meter:
    """How many requests may still be made: `count` in `ms`."""

    __slots__ = ("_at", "_count", "_each_s", "_left", "_ms", "_refusal", "known", "spent", "used_at")

    def __init__(self, count: int, ms: int, refusal: Callable[[float], PresqueError]) -> None:
        self._refusal = refusal
        self._count = self._ms = 0
        self._each_s = 0.0
        self._left = float(count)
        self._at = self.used_at = time.monotonic()
        self.spent = 0  # since the last report to the store
        self.known: int | None = None  # how many there ever were everywhere, as far as we know
        self.set(count, ms)

    def set(self, count: int, ms: int) -> None:
        """Change the rate, from now on."""
        if (count, ms) != (self._count, self._ms):
            self._count, self._ms, self._each_s = count, ms, ms / 1000 / count
            self._left = min(self._left, float(count)) if self.spent else float(count)

    def spend(self) -> None:
        """Count one request. Raises the refusal if it is one too many."""
        now = self.used_at = time.monotonic()
        self._left = min(self._count, self._left + (now - self._at) / self._each_s)
        self._at = now
        if self._left < 1:
            raise self._refusal((1 - self._left) * self._each_s)
        self._left -= 1
        self.spent += 1

    def learn(self, told: int, total: int) -> None:
        """The store knows of `told` requests of ours, and there were `total` everywhere."""
        self.spent -= told
        if self.known is not None and total >= self.known + told:
            # Not deeper than a bucket: what others had at once is theirs.
            self._left = max(self._left - (total - self.known - told), -float(self._count))
        self.known = total


class Meters:
    """The meters of one server, by the id of a token, or `:` and the name of a namespace."""

    def __init__(self, store: Store, keys: tuple[str, ...]) -> None:
        self._store = store
        self._keys = keys
        self._meters: dict[str, Meter] = {}

    def of(self, id: str, rate: tuple[int, int], refusal: Callable[[float], PresqueError]) -> Meter:
        """The meter with this id, which holds this rate from now on."""
        meter = self._meters.get(id)
        if meter is None:
            meter = self._meters[id] = Meter(*rate, refusal)
        meter.set(*rate)
        return meter

    def forget(self, id: str) -> None:
        """The rate no longer exists."""
        self._meters.pop(id, None)

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget the others."""
        self._meters = {id: meter for id, meter in self._meters.items() if wanted(id)}

    async def tell(self) -> None:
        """Tell the store what was spent, and learn what others have spent. Raises `PresqueError`."""
        heeded = time.monotonic() - HEEDED_S
        due = [(id, one) for id, one in self._meters.items() if one.spent or one.used_at >= heeded]
        for first in range(0, len(due), AT_ONCE):
            some = [(id, meter, meter.spent) for id, meter in due[first : first + AT_ONCE]]
            args = [part for id, _, spent in some for part in (id, spent)]
            try:
                totals = await self._store.ask(ACCESS, calls.encode("access_spend", self._keys, *args))
            except StoreUnavailable as error:
                if error.sent:  # they may be counted
                    for _, meter, spent in some:
                        meter.spent -= spent
                        meter.known = None
                raise
            for (_, meter, spent), total in zip(some, totals, strict=True):
                meter.learn(spent, total)
