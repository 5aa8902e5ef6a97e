"""When a recurring job is due: cron expressions in a time zone, and fixed intervals.

Cron expressions are read by cronsim and mean what Debian's cron makes of them, also when clocks change: a
moment that daylight saving skips comes at the end of the gap, one that it repeats comes once; expressions
that run at every so many minutes or hours follow the clock on the wall through both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from presque.errors import CallerError, shown

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
EVERY_MOST_S = 366 * 24 * 3600

_every = re.compile(r"@every ([1-9][0-9]{0,8})([smhd])\Z").match
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Schedule:
    """A schedule in a time zone. Moments are milliseconds since the epoch."""

    def __init__(self, text: str, zone: str) -> None:
        """Raises `CallerError` for a text that is no schedule or a zone that is unknown."""
        self.text = text
        self.zone = _zone(zone)
        every = _every(text)
        self._step_ms = int(every[1]) * _SECONDS[every[2]] * 1000 if every else 0
        if self._step_ms > EVERY_MOST_S * 1000:
            raise CallerError("`schedule` should be at most 366 days for `@every`")
        self._every = (int(every[1]), UNITS[every[2]]) if every else None
        self._expression = ALIASES.get(text, text)
        if not every:
            try:
                CronSim(self._expression, datetime.now(UTC))
            except CronSimError as error:
                known = "five fields of cron, @hourly, @daily, @weekly, @monthly, @yearly, or `@every 5m`"
                why = f"{str(error).lower()}: `{shown(text)}`"
                raise CallerError(f"`schedule` cannot be read: {why}; it should be {known}") from None

    def after(self, moment: int) -> Iterator[int]:
        """The moments after this one, in their order. Fixed intervals count from it."""
        if self._step_ms:
            while True:
                moment += self._step_ms
                yield moment
        for found in CronSim(self._expression, datetime.fromtimestamp(moment / 1000, self.zone)):
            yield int(found.timestamp() * 1000)

    def next(self, moment: int, count: int = 1) -> list[int]:
        """The first `count` moments after this one; fewer when the schedule ends."""
        return list(islice(self.after(moment), count))

    def due(self, first: int, now: int, most: int) -> tuple[list[int], int | None]:
        """The moments from `first` up to `now`, the last `most` of them, and the one after."""
        found = [first]
        if self._step_ms and now - first > most * self._step_ms:
            found = [first + (now - first) // self._step_ms * self._step_ms - most * self._step_ms]
        for moment in self.after(found[0]):
            if moment > now:
                return found[-most:], moment
            found.append(moment)
        return found[-most:], None

    def words(self) -> str:
        """The schedule as a sentence part, such as "At 02:30 every day"."""
        if self._every is None:
            return str(CronSim(self._expression, datetime.now(UTC)).explain())
        count, unit = self._every
        return f"Every {unit}" if count == 1 else f"Every {count} {unit}s"

    def written(self, moment: int) -> str:
        """A moment in the time zone of the schedule, as RFC 3339 writes it."""
        there = datetime.fromtimestamp(moment / 1000, self.zone)
        return there.isoformat(timespec="seconds")


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise CallerError(
            f"`timezone` should be a zone of the IANA database such as `Europe/Paris`, not `{shown(name)}`"
        ) from None
