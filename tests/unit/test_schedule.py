"""When recurring jobs are due, also when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from presque.errors import CallerError
from presque.schedule import LAST_MS, Schedule
from presque.verbs.bounds import SCHEDULE_MOST

DAY_MS = 24 * 3600 * 1000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        # Spring: at 02:00 the clock goes to 03:00.
        ("30 2 * * *", "Europe/Paris", "2026-03-28T12:00:00+01:00",
         ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("*/30 * * * *", "Europe/Paris", "2026-03-29T01:15:00+01:00",
         ["2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"]),
        ("@daily", "Europe/Paris", "2026-03-28T12:00:00+01:00",
         ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00:00-05:00",
         ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]),
        # Autumn: at 03:00 (Paris) or 02:00 (New York) the clock goes back an hour.
        ("30 2 * * *", "Europe/Paris", "2026-10-24T12:00:00+02:00",
         ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        ("*/30 * * * *", "Europe/Paris", "2026-10-25T02:15:00+02:00",
         ["2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00-04:00",
         ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]),
        ("@hourly", "America/New_York", "2026-11-01T00:30:00-04:00",
         ["2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T02:00:00-05:00"]),
        # Within the repeated hour a moment that is over does not come again.
        ("30 2 * * *", "Europe/Paris", "2027-10-31T02:10:00+01:00",
         ["2027-11-01T02:30:00+01:00", "2027-11-02T02:30:00+01:00"]),
        ("15,45 1-3 * * *", "Europe/Paris", "2027-10-31T02:20:00+01:00",
         ["2027-10-31T03:15:00+01:00", "2027-10-31T03:45:00+01:00", "2027-11-01T01:15:00+01:00"]),
        # Hours that are named come once, however the minutes are written.
        ("*/30 2 * * *", "Europe/Paris", "2026-03-29T01:00:00+01:00",
         ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("*/30 2 * * *", "Europe/Paris", "2026-10-25T01:00:00+02:00",
         ["2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-26T02:00:00+01:00"]),
        ("0 30 2 * * *", "Europe/Paris", "2026-03-28T12:00:00+01:00",
         ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("0 */2 * * *", "Europe/Paris", "2026-03-29T01:00:00+01:00",
         ["2026-03-29T04:00:00+02:00", "2026-03-29T06:00:00+02:00"]),
        # Samoa had no 30 December 2011.
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00-10:00",
         ["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"]),
        ("*/20 * * * * *", "UTC", "2026-01-01T00:00:15+00:00",
         ["2026-01-01T00:00:20+00:00", "2026-01-01T00:00:40+00:00", "2026-01-01T00:01:00+00:00"]),
        # A fixed interval knows no zone.
        ("@every 90m", "Europe/Paris", "2026-03-29T01:00:00+01:00",
         ["2026-03-29T03:30:00+02:00", "2026-03-29T05:00:00+02:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00+00:00", ["2028-02-29T00:00:00+00:00"]),
        ("*/15 9-17 * * MON-FRI", "UTC", "2026-11-20T17:40:00+00:00",
         ["2026-11-20T17:45:00+00:00", "2026-11-23T09:00:00+00:00"]),
    ],
)  # fmt: skip
def test_the_next_moments(schedule: str, zone: str, after: str, expected: list[str]) -> None:
    found = Schedule(schedule, zone)
    assert [found.written(moment) for moment in found.next(at(after), len(expected))] == expected


@pytest.mark.parametrize(
    ("schedule", "zone", "part"),
    [
        ("61 * * * *", "UTC", "bad minute: `61 * * * *`"),
        ("* * *", "UTC", "`schedule` cannot be read"),
        ("@often", "UTC", "`schedule` cannot be read"),
        ("@every 0m", "UTC", "`schedule` cannot be read"),
        ("@every 400d", "UTC", "at most 366 days"),
        (
            "1," * SCHEDULE_MOST + "1 * * * *",
            "UTC",
            f"at most {SCHEDULE_MOST} characters; it has {2 * SCHEDULE_MOST + 9}",
        ),
        ("* * * * * * *", "UTC", "`schedule` cannot be read: wrong number of fields"),
        ("@daily", "", "`timezone` should be a zone of the IANA database"),
        ("@daily", "Europe", "`timezone` should be a zone of the IANA database"),
        ("@daily", "x" * 5000, "`timezone` should be a zone of the IANA database"),
        ("@daily", "Europe/Paris\0", "`timezone` should be a zone of the IANA database"),
        ("@daily", "\ud83d", "`timezone` should be a zone of the IANA database"),
        ("@daily", "Europe/Pariss", "`timezone` should be a zone of the IANA database"),
        ("@daily", "../etc/passwd", "`timezone` should be a zone of the IANA database"),
    ],
)
def test_what_is_no_schedule_says_why(schedule: str, zone: str, part: str) -> None:
    with pytest.raises(CallerError) as error:
        Schedule(schedule, zone)
    assert part in str(error.value)


@pytest.mark.parametrize("schedule", ["@daily", "@every 1d"])
def test_the_moments_that_have_come_are_those_up_to_now_and_the_last_of_many(schedule: str) -> None:
    found = Schedule(schedule, "UTC")
    first = at("2026-01-01T00:00:00+00:00")
    assert found.missed(first, first, 10) == [first]
    assert found.missed(first, first + 2 * DAY_MS + 1, 10) == [first, first + DAY_MS, first + 2 * DAY_MS]
    moments = found.missed(first, first + 100 * DAY_MS, 3)
    assert moments == [first + number * DAY_MS for number in (98, 99, 100)]
    assert found.next(moments[-1]) == [first + 101 * DAY_MS]


@pytest.mark.parametrize("years", [0.08, 5, 56])
@pytest.mark.parametrize("schedule", ["* * * * *", "* * * * * *", "*/5 3 * * MON", "0 0 29 2 *", "@every 1s"])
def test_catching_up_looks_at_no_more_moments_than_it_returns(schedule: str, years: float) -> None:
    found, looked = Schedule(schedule, "Europe/Paris"), 0

    class Counted(type(found._clock)):  # type: ignore[misc]
        def offset(self, moment: int) -> int:
            nonlocal looked
            looked += 1
            return int(super().offset(moment))

    found._clock = Counted(found._clock.zone)
    first, now = at("1970-01-01T00:00:00+00:00"), int(years * 366 * DAY_MS)
    moments = found.missed(first, now, 1)
    assert len(moments) == 1
    assert found.next(moments[0])[0] > now
    assert looked < 200


def test_utc_needs_no_database_of_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(key: str) -> ZoneInfo:
        raise ZoneInfoNotFoundError(key)

    monkeypatch.setattr("zoneinfo.ZoneInfo", unknown)
    assert Schedule("@daily", "UTC").next(0) == [DAY_MS]
    with pytest.raises(CallerError, match="timezone"):
        Schedule("@daily", "Antarctica/Troll")


# The table of docs/protocol.md: what comes on the day of a change, from midnight on.
SPRING, AUTUMN = "2026-03-29", "2026-10-25"
ON_THE_DAY = {
    "30 2 * * *": ("03:00", "02:30A"),
    "0 30 2 * * *": ("03:00", "02:30A"),
    "0,30 2 * * *": ("03:00", "02:00A 02:30A"),
    "*/30 2 * * *": ("03:00", "02:00A 02:30A"),
    "30 1-3 * * *": ("01:30 03:00 03:30", "01:30 02:30A 03:30"),
    "30 0-3/1 * * *": ("00:30 01:30 03:00 03:30", "00:30 01:30 02:30A 03:30"),
    "30 * * * *": ("00:30 01:30 03:30", "00:30 01:30 02:30A 02:30B 03:30"),
    "0 */2 * * *": ("00:00 04:00 06:00", "00:00 02:00A 02:00B 04:00"),
    "*/30 1-23 * * *": ("01:00 01:30 03:00 03:30", "01:00 01:30 02:00A 02:30A 03:00"),
    "*/30 * * * *": (
        "00:00 00:30 01:00 01:30 03:00 03:30",
        "00:00 00:30 01:00 01:30 02:00A 02:30A 02:00B 02:30B",
    ),
    "@daily": ("00:00", "00:00"),
    "@every 1h": ("01:00 03:00 04:00", "01:00 02:00A 02:00B 03:00"),
}


@pytest.mark.parametrize("schedule", ON_THE_DAY)
def test_what_the_document_says_of_the_change_of_the_clocks_holds(schedule: str) -> None:
    for day, expected in zip((SPRING, AUTUMN), ON_THE_DAY[schedule], strict=True):
        found = Schedule(schedule, "Europe/Paris")
        midnight = datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=ZoneInfo("Europe/Paris"))
        start = int(midnight.timestamp() * 1000) - (0 if found.steady else 1)
        written = [found.written(moment) for moment in found.next(start, len(expected.split()))]
        wanted = expected.split()
        assert [moment[:10] for moment in written] == [day] * len(wanted)
        assert [moment[11:16] for moment in written] == [time[:5] for time in wanted]
        for moment, time in zip(written, wanted, strict=True):
            if time[5:]:
                assert moment.endswith({"A": "+02:00", "B": "+01:00"}[time[5:]])


# --- every moment against a reference that walks -------------------------------------------------

ZONES = (
    "Europe/Paris", "Europe/London", "Europe/Dublin", "America/New_York", "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns", "America/Santiago", "America/Asuncion", "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Beirut", "Asia/Tehran", "Asia/Kolkata", "Australia/Lord_Howe", "Australia/Sydney", "Pacific/Apia",
    "Pacific/Chatham", "America/Nuuk", "UTC",
)  # fmt: skip
NAMES = {"SUN": 0, "MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5, "SAT": 6}


def values(field: str, least: int, most: int) -> set[int]:
    """What a field of cron stands for."""
    found: set[int] = set()
    for part in field.split(","):
        part, _, step = part.partition("/")
        if part == "*":
            low, high = least, most
        elif "-" in part:
            low, high = map(int, part.split("-"))
        else:
            low = NAMES[part] if part in NAMES else int(part)
            high = most if step else low
        found |= set(range(low, high + 1, int(step or 1)))
    return found


class Walker:
    """Finds the moments of a schedule by looking at each second or minute."""

    def __init__(self, text: str, zone: str) -> None:
        fields = text.split()
        self.step = 1 if len(fields) == 6 else 60
        fields = fields if len(fields) == 6 else ["0", *fields]
        bounds = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        self.sets = [values(field, *both) for field, both in zip(fields, bounds, strict=True)]
        self.both = fields[3].startswith("*") or fields[5].startswith("*")
        self.follows = fields[2].startswith("*")
        self.zone = ZoneInfo(zone)

    def fits(self, wall: datetime) -> bool:
        seconds, minutes, hours, days, months, weekdays = self.sets
        if wall.second not in seconds or wall.minute not in minutes or wall.hour not in hours:
            return False
        day, weekday = wall.day in days, wall.isoweekday() in weekdays or wall.isoweekday() % 7 in weekdays
        return wall.month in months and ((day and weekday) if self.both else (day or weekday))

    def moments(self, start: int, end: int) -> list[int]:
        """All moments after `start` up to `end`, in seconds."""
        if self.follows:
            first = start // self.step * self.step + self.step
            ticks = range(first, end + 1, self.step)
            return [tick for tick in ticks if self.fits(datetime.fromtimestamp(tick, self.zone))]
        found = set()
        wall = datetime.fromtimestamp(start, self.zone).replace(tzinfo=None, fold=0) - timedelta(days=1)
        wall = wall.replace(second=0, microsecond=0)
        last = datetime.fromtimestamp(end, self.zone).replace(tzinfo=None, fold=0) + timedelta(hours=3)
        while wall <= last:
            if self.fits(wall):
                real = wall
                while self.skipped(real):
                    real = real.replace(second=0) + timedelta(minutes=1)
                moment = int(real.replace(tzinfo=self.zone, fold=0).timestamp())
                if start < moment <= end:
                    found.add(moment)
            wall += timedelta(seconds=self.step)
        return sorted(found)

    def skipped(self, wall: datetime) -> bool:
        there = wall.replace(tzinfo=self.zone)
        return there.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None, fold=0) != wall


def changes(zone: str, year: int) -> list[int]:
    """About when the clocks of a zone change in a year, to the hour."""
    there, start = ZoneInfo(zone), int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    hours = range(start, start + 366 * 86400, 3600)
    offsets = [datetime.fromtimestamp(hour, there).utcoffset() for hour in hours]
    return [hour for hour, one, next in zip(hours, offsets, offsets[1:], strict=False) if one != next]


def any_field(random: Random, least: int, most: int, *, star: float) -> str:
    if random.random() < star:
        return random.choice(["*", "*", f"*/{random.randint(2, 30)}"])
    one = random.randint(least, most)
    other = random.randint(min(one + 1, most), most)
    if other == one:
        return str(one)
    return random.choice([str(one), f"{one},{other}", f"{one}-{other}", f"{one}-{other}/2"])


@pytest.mark.parametrize("zone", ZONES)
def test_all_moments_near_a_change_of_the_clocks_are_those_of_a_walk(zone: str) -> None:
    random = Random(zone)
    near = [change for year in (2024, 2026, 2027) for change in changes(zone, year)] or [1_800_000_000]
    for number in range(40):
        seconds = number % 6 == 0
        hours = random.choice([any_field(random, 0, 4, star=0), any_field(random, 0, 23, star=0.6)])
        days = random.choice(["* *", "* *", "*/2 *", "1-7 SUN", "* MON", "* 0,3,5", "25-31 SUN", "*/5 0-4"])
        day, weekday = days.split()
        text = " ".join([any_field(random, 0, 59, star=0.5), hours, day, "*", weekday])
        if seconds:
            text = f"{random.choice(['0', '*/30', '15,45', '7'])} {text}"
        start = random.choice(near) + random.randint(-30 * 3600, 8 * 3600)
        end = start + (8 if seconds else 50) * 3600
        expected = Walker(text, zone).moments(start, end)
        schedule = Schedule(text, zone)

        found, at = [], start * 1000
        while (following := schedule.next(at)) and following[0] <= end * 1000:
            at = following[0]
            found.append(at // 1000)
        assert found == expected, (text, zone, start)

        back, at = [], end * 1000
        while (before := schedule.last(at)) is not None and before > start * 1000:
            back.append(before // 1000)
            at = before - 1
        assert back[::-1] == expected, (text, zone, start)

        # The next and the last of any moment in between, not only of those that were found.
        for moment in (random.randint(start, end) for _ in range(5)):
            later = [one for one in expected if one > moment]
            if later:
                assert schedule.next(moment * 1000) == [later[0] * 1000], (text, zone, moment)
            earlier = [one for one in expected if one <= moment]
            if earlier:
                assert schedule.last(moment * 1000) == earlier[-1] * 1000, (text, zone, moment)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "text", ["30 2 * * *", "@daily", "@hourly", "* * * * * *", "0 0 29 2 *", "@yearly", "@every 366d"]
)
def test_a_schedule_goes_up_to_the_year_9999_in_every_zone(zone: str, text: str) -> None:
    schedule = Schedule(text, zone)
    for start in (0, LAST_MS - 400 * DAY_MS, LAST_MS - DAY_MS, LAST_MS - 1000, LAST_MS, LAST_MS + 10**12):
        found = schedule.next(start, 5)
        assert all(start < moment for moment in found)
        assert schedule.steady or all(moment <= LAST_MS for moment in found)
        assert all(schedule.written(moment)[4] == "-" for moment in [*found, start])
        before = schedule.last(start)
        assert before is None or before <= start


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_a_schedule_without_a_moment_is_found_out(zone: str) -> None:
    assert Schedule("0 0 */31 * MON#5", zone).next(0) == []
    assert Schedule("0 0 */31 * MON#5", zone).last(LAST_MS) is None


@pytest.mark.parametrize(
    ("schedule", "words"),
    [("@every 5m", "Every 5 minutes"), ("@every 1h", "Every hour"), ("@daily", "At 00:00 every day")],
)
def test_a_schedule_is_told_in_words(schedule: str, words: str) -> None:
    assert Schedule(schedule, "UTC").words() == words
