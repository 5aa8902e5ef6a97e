"""When recurring jobs are due, also when clocks change."""

from __future__ import annotations

from datetime import datetime

import pytest

from presque.errors import CallerError
from presque.schedule import Schedule

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
    assert found.due(first, first, 10) == ([first], first + DAY_MS)
    assert found.due(first, first + 2 * DAY_MS + 1, 10) == (
        [first, first + DAY_MS, first + 2 * DAY_MS], first + 3 * DAY_MS,
    )  # fmt: skip
    moments, following = found.due(first, first + 100 * DAY_MS, 3)
    assert moments == [first + number * DAY_MS for number in (98, 99, 100)]
    assert following == first + 101 * DAY_MS


@pytest.mark.parametrize(
    ("schedule", "words"),
    [("@every 5m", "Every 5 minutes"), ("@every 1h", "Every hour"), ("@daily", "At 00:00 every day")],
)
def test_a_schedule_is_told_in_words(schedule: str, words: str) -> None:
    assert Schedule(schedule, "UTC").words() == words
