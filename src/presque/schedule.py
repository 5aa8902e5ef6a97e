"""When a recurring job is due: cron expressions in a time zone, and fixed intervals.

cronsim reads the expressions and puts them into words. The moments are found here, forwards and backwards, by
a few steps of arithmetic each, however far away they are: a schedule is asked for the last moment before now
after any absence, and for its next one when a clock was wrong by years.

How a schedule goes through a change of the clocks depends on its field of hours, as in Debian's cron:

* It begins with a star: the job follows the clock on the wall. It runs at every second whose wall clock
  reading matches. Readings that the change skips do not come; those that it repeats come twice.
* It names hours: each reading of a day comes once. One that the change skips comes at the end of the gap; of
  one that is repeated the first counts.

Debian's cron also looks for a star in the minutes, so that `*/30 2 * * *` is left out in spring and comes
four times in autumn, while `0,30 2 * * *`, the same minutes, comes once and twice. Here both mean the same.

Readings of the wall clock are whole seconds since the year 1 without a zone (the ordinal of the day times
86 400, and the second of the day), so that they can be compared and added up. Moments inside this module are
whole seconds since the epoch. Two changes of one zone are taken to be more than two days apart.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING

from presque.errors import CallerError, shown
from presque.verbs.bounds import SCHEDULE_MOST, ZONE_MOST

if TYPE_CHECKING:
    from cronsim import CronSim

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
DAYS_KEPT = 1000
LAST_MS = 253_402_300_799_999
"""The last moment of the year 9999 in UTC: no schedule goes further."""

_every = re.compile(r"@every ([1-9][0-9]{0,8})([smhd])", re.ASCII).fullmatch
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DAY = 86400
_EPOCH = date(1970, 1, 1).toordinal() * _DAY
_LAST_DAY = date.max.toordinal()
# Between these every moment has a date in every zone.
_OFFSETS_FROM, _OFFSETS_TO = 2 * _DAY - _EPOCH + _DAY, LAST_MS // 1000 - 2 * _DAY


class Schedule:
    """A schedule in a time zone. Moments are milliseconds since the epoch.

    The moments of a `steady` one, a fixed interval, count from whichever moment they are asked for: it knows
    no zone and no date, and so no last one. Clocks that were wrong can have carried the steady clock far.
    """

    def __init__(self, text: str, zone: str) -> None:
        """Raises `CallerError` for a text that is not a schedule or a zone that is not known here."""
        self.text = text
        self._clock = _clock(zone)
        self._step_ms, self._every = _interval(text)
        self.steady = self._step_ms > 0
        self._expression = ALIASES.get(text, text)
        if not self.steady:
            self._cron = _read(self._expression, text)
            self._times = _Times(self._cron)
            self._days = _Days(self._cron)
            self._follows = self._cron.parts[2].startswith("*")

    def next(self, moment: int, count: int = 1) -> list[int]:
        """The first `count` moments after this one; of named ones fewer where the year 9999 ends."""
        found: list[int] = []
        while len(found) < count:
            following = moment + self._step_ms if self.steady else self._after(moment // 1000)
            if following is None or (following > LAST_MS and not self.steady):
                break
            found.append(following)
            moment = following
        return found

    def last(self, moment: int) -> int | None:
        """The last moment that is not after this one; None before the first, and for a fixed interval."""
        return None if self.steady else self._before(moment // 1000)

    def missed(self, first: int, now: int, most: int) -> list[int]:
        """The moments from `first`, which counts as one, up to `now`: the last `most` of them."""
        if self.steady:
            count = min((now - first) // self._step_ms + 1, most)
            last = first + (now - first) // self._step_ms * self._step_ms
            return [last - back * self._step_ms for back in reversed(range(count))]
        found: list[int] = []
        at = now
        while len(found) < most:
            before = self.last(at)
            if before is None or before <= first:
                found.append(first)
                break
            found.append(before)
            at = before - 1
        return found[::-1]

    def words(self) -> str:
        """The schedule as a sentence part, such as "At 02:30 every day"."""
        if self._every is None:
            return str(self._cron.explain())
        count, unit = self._every
        return f"Every {unit}" if count == 1 else f"Every {count} {unit}s"

    def written(self, moment: int) -> str:
        """A moment in the time zone of the schedule, as RFC 3339 writes it; in UTC where the zone is past the
        year 9999 already."""
        try:
            there = datetime.fromtimestamp(moment / 1000, self._clock.zone)
        except (ValueError, OverflowError):
            there = datetime.fromtimestamp(min(max(moment, 0), LAST_MS) // 1000, UTC)
        return there.isoformat(timespec="seconds")

    def _after(self, moment: int) -> int | None:
        """The first moment after this one (in seconds), in milliseconds."""
        found = self._following(moment) if self._follows else self._named_after(moment)
        return None if found is None or found * 1000 > LAST_MS else found * 1000

    def _before(self, moment: int) -> int | None:
        """The last moment up to this one (in seconds), in milliseconds."""
        found = self._preceding(moment) if self._follows else self._named_before(moment)
        return None if found is None else found * 1000

    # --- readings of the wall clock

    def _reading_after(self, reading: int) -> int | None:
        """The first reading after this one that the expression names."""
        day, second = divmod(reading + 1, _DAY)
        found = self._days.first(day)
        if found is None:
            return None
        time = self._times.first(second) if found == day else self._times.earliest
        if time is None:  # too late for that day
            found = self._days.first(day + 1)
            time = self._times.earliest
        return None if found is None else found * _DAY + time

    def _reading_before(self, reading: int) -> int | None:
        """The last reading up to this one that the expression names."""
        day, second = divmod(reading, _DAY)
        found = self._days.last(day)
        if found is None:
            return None
        time = self._times.last(second) if found == day else self._times.latest
        if time is None:
            found = self._days.last(day - 1)
            time = self._times.latest
        return None if found is None else found * _DAY + time

    # --- hours that are named: each reading once a day

    def _moment_of(self, reading: int) -> int:
        """When the wall clock shows this first, or the end of the gap that it falls into.

        Later readings have later moments, or the same one if both fall into one gap.
        """
        naive = reading - _EPOCH
        before, after = self._clock.offset(naive - _DAY), self._clock.offset(naive + _DAY)
        early = naive - before
        if before == after or self._clock.offset(early) == before:
            return early
        late = naive - after
        if self._clock.offset(late) == after:
            return late
        return self._clock.change(late, early)

    def _start(self, moment: int) -> int:
        """The last reading whose moment is not after this one, as `_moment_of` has it."""
        reading = moment + self._clock.offset(moment) + _EPOCH
        first = self._moment_of(reading)
        if first == moment:
            return reading
        change = self._clock.change(first, moment)  # the reading is repeated, and this is the second time
        return change + self._clock.offset(first) + _EPOCH - 1

    def _named_after(self, moment: int) -> int | None:
        reading = self._reading_after(self._start(moment))
        return None if reading is None else self._moment_of(reading)

    def _named_before(self, moment: int) -> int | None:
        reading = self._reading_before(self._start(moment))
        return None if reading is None else self._moment_of(reading)

    # --- hours with a star: whenever the wall clock shows it

    def _following(self, moment: int) -> int | None:
        offset = self._clock.offset(moment)
        reading = moment + offset + _EPOCH
        while (found := self._reading_after(reading)) is not None:
            there = found - offset - _EPOCH
            end = min(there, moment + _DAY)
            if self._clock.offset(end) == offset:
                if end == there:
                    return there
                # Nothing comes before that day, even if the clock changes on the way by less than a day.
                moment = there - _DAY
                offset = self._clock.offset(moment)
                reading = moment + offset + _EPOCH
            else:
                change = self._clock.change(moment, end)
                moment, offset = change - 1, self._clock.offset(change)
                reading = moment + offset + _EPOCH
        return None

    def _preceding(self, moment: int) -> int | None:
        offset = self._clock.offset(moment)
        while (found := self._reading_before(moment + offset + _EPOCH)) is not None:
            there = found - offset - _EPOCH
            start = max(there, moment - _DAY)
            if self._clock.offset(start) == offset:
                if start == there:
                    return there
                moment = there + _DAY
            else:
                moment = self._clock.change(start, moment) - 1
            offset = self._clock.offset(moment)
        return None


class _Clock:
    """By how much the clock on the wall of one zone is ahead of UTC."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._of_days: dict[int, int | None] = {}

    def offset(self, moment: int) -> int:
        """The seconds by which it is ahead at a moment (in seconds)."""
        day = moment // _DAY
        try:
            found = self._of_days[day]
        except KeyError:
            if len(self._of_days) >= DAYS_KEPT:
                self._of_days.clear()
            start, end = self._asked(day * _DAY), self._asked(day * _DAY + _DAY)
            found = self._of_days[day] = start if start == end else None
        return self._asked(moment) if found is None else found

    def _asked(self, moment: int) -> int:
        there = datetime.fromtimestamp(min(max(moment, _OFFSETS_FROM), _OFFSETS_TO), self.zone)
        offset = there.utcoffset()
        assert offset is not None
        return offset // timedelta(seconds=1)

    def change(self, before: int, after: int) -> int:
        """The moment between these two from which on the offset is another."""
        offset = self.offset(after)
        while after - before > 1:
            middle = (before + after) // 2
            if self.offset(middle) == offset:
                after = middle
            else:
                before = middle
        return after


class _Times:
    """The seconds of a day that an expression names."""

    def __init__(self, cron: CronSim) -> None:
        self._fields = [sorted(cron.hours), sorted(cron.minutes), sorted(cron.seconds)]
        self._mirrored = [[-value for value in reversed(field)] for field in self._fields]
        hours, minutes, seconds = self._fields
        self.earliest = hours[0] * 3600 + minutes[0] * 60 + seconds[0]
        self.latest = hours[-1] * 3600 + minutes[-1] * 60 + seconds[-1]

    def first(self, second: int) -> int | None:
        """The first from this second of the day on."""
        return _joined(_ceiling(self._fields, (second // 3600, second // 60 % 60, second % 60)))

    def last(self, second: int) -> int | None:
        """The last up to this second of the day."""
        found = _joined(_ceiling(self._mirrored, (-(second // 3600), -(second // 60 % 60), -(second % 60))))
        return None if found is None else -found


def _joined(found: list[int] | None) -> int | None:
    return None if found is None else found[0] * 3600 + found[1] * 60 + found[2]


def _ceiling(fields: Sequence[Sequence[int]], digits: Sequence[int]) -> list[int] | None:
    """The smallest row that is not below `digits`, taking one value of each sorted field."""
    found: list[int] = []
    for values, digit in zip(fields, digits, strict=True):
        position = bisect_left(values, digit)
        if position < len(values) and values[position] == digit:
            found.append(digit)
            continue
        at = len(found)
        while position == len(values):  # nothing is left in this field: one more in the field before
            if at == 0:
                return None
            at -= 1
            values = fields[at]
            position = bisect_right(values, found.pop())
        return [*found, values[position], *(field[0] for field in fields[at + 1 :])]
    return found


class _Days:
    """The days that an expression names, as ordinals."""

    def __init__(self, cron: CronSim) -> None:
        self._cron = cron
        self._every = cron.parts[3] == "*" and cron.parts[4] == "*" and cron.parts[5] == "*"
        self._of_months: dict[tuple[int, int], list[int]] = {}

    def first(self, day: int) -> int | None:
        """The first such day from this one on; None if there is none up to the year 9999."""
        if self._every or day > _LAST_DAY:
            return day if day <= _LAST_DAY else None
        start = date.fromordinal(day)
        for year, month in _months_from(start.year, start.month):
            if month in self._cron.months:
                days = self._of_month(year, month)
                least = start.day if (year, month) == (start.year, start.month) else 1
                position = bisect_left(days, least)
                if position < len(days):
                    return date(year, month, days[position]).toordinal()
        return None

    def last(self, day: int) -> int | None:
        """The last such day up to this one."""
        day = min(day, _LAST_DAY)
        if self._every or day < 1:
            return day if day >= 1 else None
        start = date.fromordinal(day)
        for year, month in _months_to(start.year, start.month):
            if month in self._cron.months:
                days = self._of_month(year, month)
                most = start.day if (year, month) == (start.year, start.month) else 31
                position = bisect_right(days, most)
                if position:
                    return date(year, month, days[position - 1]).toordinal()
        return None

    def _of_month(self, year: int, month: int) -> list[int]:
        """The days of one month. It depends on its length and its first weekday alone."""
        kind = monthrange(year, month)
        found = self._of_months.get(kind)
        if found is None:
            days = range(1, kind[1] + 1)
            found = [day for day in days if self._cron.match_day(date(year, month, day))]
            self._of_months[kind] = found
        return found


_CYCLE = 400 * 12  # months after which the calendar repeats


def _months_from(year: int, month: int) -> Iterator[tuple[int, int]]:
    """A cycle of months from this one on, up to the year 9999."""
    start = year * 12 + month - 1
    for number in range(start, min(start + _CYCLE + 1, (date.max.year + 1) * 12)):
        yield number // 12, number % 12 + 1


def _months_to(year: int, month: int) -> Iterator[tuple[int, int]]:
    """A cycle of months back from this one, down to the year 1."""
    start = year * 12 + month - 1
    for number in range(start, max(start - _CYCLE - 1, date.min.year * 12 - 1), -1):
        yield number // 12, number % 12 + 1


def _interval(text: str) -> tuple[int, tuple[int, str] | None]:
    """The milliseconds of `@every 5m`, and its count and unit; (0, None) for anything else."""
    match = _every(text)
    if match is None:
        return 0, None
    count, unit = int(match[1]), match[2]
    if count * _SECONDS[unit] > EVERY_MOST_S:
        raise CallerError("`schedule` should be at most 366 days for `@every`")
    return count * _SECONDS[unit] * 1000, (count, UNITS[unit])


def _read(expression: str, text: str) -> CronSim:
    from cronsim import CronSim, CronSimError  # a start need not wait for it

    known = (
        "five fields of cron, six with seconds in front, @hourly, @daily, @weekly, @monthly, @yearly, "
        "or `@every 5m`"
    )
    if len(text) > SCHEDULE_MOST:
        raise CallerError(f"`schedule` should have at most {SCHEDULE_MOST} characters; it has {len(text)}")
    try:
        return CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        why = f"{str(error).lower()}: `{shown(text)}`"
    raise CallerError(f"`schedule` cannot be read: {why}; it should be {known}")


@lru_cache(maxsize=1024)
def _clock(name: str) -> _Clock:
    if name == "UTC":  # known without a database, too
        return _Clock(UTC)
    from zoneinfo import ZoneInfo  # a start need not wait for it

    try:
        if len(name) <= ZONE_MOST:
            return _Clock(ZoneInfo(name))
    except (ValueError, OSError, KeyError, EOFError, struct.error):
        pass
    raise CallerError(
        f"`timezone` should be a zone of the IANA database such as `Europe/Paris`, not `{shown(name)}`"
    )


@lru_cache(maxsize=4096)
def read(text: str, zone: str) -> Schedule:
    """A schedule that may have been read before. Raises `CallerError`."""
    return Schedule(text, zone)
