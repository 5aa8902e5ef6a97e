"""How history is cut: the periods that can be asked for, their buckets, and quantiles of times. No I/O.

The functions of the store cut it as this table says: lua/history.lua has the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TIME_MOST = 31
"""The last class of a histogram of times. Class n counts those of less than 2**n ms and not less than half of
that; 0 those of less than 1 ms, the last one all that are longer."""


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time up to now, cut into `count` buckets of `ms` milliseconds each."""

    name: str
    ms: int
    count: int


PERIODS = {
    one.name: one
    for one in (
        Period("5m", 10_000, 30),
        Period("1h", 60_000, 60),
        Period("1d", 900_000, 96),
        Period("7d", 7_200_000, 84),
    )
}
"""Every period by its name, the shortest first."""


def quantile_ms(share: float, times: Mapping[int, int]) -> float | None:
    """The time that this share of all does not exceed; None of none. `times` says how many fell into each
    class.

    It is right to within its class, so it may be up to twice or half of the real one. Within the class it is
    taken as if times were spread evenly over the logarithms.
    """
    left = share * sum(times.values())
    if left <= 0:
        return None
    found = 0
    for found in sorted(times):
        if left <= times[found]:
            break
        left -= times[found]
    if found == 0:
        return 0.0
    return float(2 ** (found - 1 + min(1.0, left / times[found])))
