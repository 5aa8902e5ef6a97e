"""Durations, sizes, moments and switches, as people write them."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque import quantities
from presque.quantities import milliseconds, moment, size, yes_or_no

DAY = 86_400_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("20", 20_000),
        ("1.5", 1500),
        ("90s", 90_000),
        ("0.25s", 250),
        ("5m", 300_000),
        ("500ms", 500),
        ("1m500ms", 60_500),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("2d", 2 * DAY),
        ("1w", 7 * DAY),
        ("1d2h3m4s5ms", 93_784_005),
        ("0.0001", 1),
        (20, 20_000),
        (0.5, 500),
        (1.1, 1100),
        (12345.678, 12_345_678),
        (1234567, 1_234_567_000),
        (timedelta(minutes=5), 300_000),
        (timedelta(microseconds=1), 1),
    ],
)
def test_a_duration_is_read(value: object, expected: int) -> None:
    assert milliseconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "5x", "m", "-5", "-5m", "+5", "5 m", "30m1h", "1h1h", "1e3", "nan", "inf", "5M", "\u0665m",
        "5m\n", "\uff11", "∞", "-0", "0x10", "1_000", " 1", "1 ", "9" * 5000, "1" + "0" * 400, "9" * 12 + "w",
        -1, -0.5, math.nan, math.inf, 10**400, 1e300, True, None, [], {}, b"5", timedelta(seconds=-1),
    ],
)  # fmt: skip
def test_anything_else_is_not_a_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"^should be a duration such as 20, 0.5, 500ms, 90s, 5m, 1h30m"):
        milliseconds(value)


@given(st.decimals(0, 10**6, places=6))
def test_a_number_of_seconds_is_what_its_digits_say(number: Decimal) -> None:
    expected = math.ceil(number * 1000)
    assert milliseconds(f"{number:f}") == expected
    if float(repr(float(number))) == float(number) and Decimal(repr(float(number))) == number:
        assert milliseconds(float(number)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("1767225600", 1_767_225_600_000),
        ("1767225600.25", 1_767_225_600_250),
        ("0.5", 500),
        (1893456000, 1_893_456_000_000),
        (1893456000.5, 1_893_456_000_500),
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01t00:00:00z", 1_767_225_600_000),
        ("2026-01-01 00:00:00 00:00", 1_767_225_600_000),
        ("2026-01-01T01:30:00.5+01:30", 1_767_225_600_500),
        ("2025-12-31T19:00:00-05:00", 1_767_225_600_000),
        ("2026-01-01T00:00:00.0000001Z", 1_767_225_600_001),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00+14:00", 0),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        (253402300799.999, 253_402_300_799_999),
        (datetime(2026, 1, 1, tzinfo=UTC), 1_767_225_600_000),
    ],
)
def test_a_moment_is_read(value: object, expected: int) -> None:
    assert moment(value) == expected


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("", "should be epoch seconds or a time such as"),
        ("tomorrow", "should be epoch seconds or a time such as"),
        ("2026-01-01", "should be epoch seconds or a time such as"),
        ("20260101T000000Z", "should be epoch seconds or a time such as"),
        ("2026-W01-1T00:00:00Z", "should be epoch seconds or a time such as"),
        ("-5", "should be epoch seconds or a time such as"),
        ("2026-13-01T00:00:00Z", "should be epoch seconds or a time such as"),
        ("2026-02-30T00:00:00Z", "should be epoch seconds or a time such as"),
        ("2026-01-01T25:00:00Z", "should be epoch seconds or a time such as"),
        ("2026-01-01T00:00:00+99:00", "should be epoch seconds or a time such as"),
        (10**400, "should be epoch seconds or a time such as"),
        (True, "should be epoch seconds or a time such as"),
        ("2026-01-01T00:00:00", "should end with Z or with an offset such as"),
        ("9999-12-31T23:59:59-10:00", "should be before the year 10000"),
        (253402300800, "should be before the year 10000"),
        (datetime(2026, 1, 1), "should have a time zone"),  # noqa: DTZ001
    ],
)
def test_anything_else_is_not_a_moment(value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        moment(value)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1)), st.integers(-23 * 60, 23 * 60))  # noqa: DTZ001
def test_a_moment_means_the_same_in_every_zone(when: datetime, minutes: int) -> None:
    there = when.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    exact = (when.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert moment(there.isoformat(timespec="microseconds")) == -(-exact // 1000)  # rounded up: never early
    assert moment(there) == -(-exact // 1000)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1048576, 1 << 20),
        ("1048576", 1 << 20),
        ("512KiB", 1 << 19),
        ("512K", 1 << 19),
        ("512kb", 1 << 19),
        ("2MiB", 1 << 21),
        ("2M", 1 << 21),
        ("1 GiB", 1 << 30),
        ("1T", 1 << 40),
        ("7B", 7),
    ],
)
def test_a_size_is_read(value: object, expected: int) -> None:
    assert size(value) == expected


@pytest.mark.parametrize("value", ["", "MiB", "-1", -1, "1.5M", "1XB", "1 000", True, 1.5, None, "9" * 16])
def test_anything_else_is_not_a_size(value: object) -> None:
    with pytest.raises(ValueError, match=r"^should be a size such as 512KiB"):
        size(value)


@pytest.mark.parametrize("text", ["0", "1", "1023", "1KiB", "1536KiB", "2MiB", "3GiB", "1TiB"])
def test_a_size_is_written_as_it_is_read(text: str) -> None:
    assert quantities.size_text(quantities.size(text)) == text


@pytest.mark.parametrize(
    ("value", "on"),
    [("1", True), ("Yes", True), ("on", True), (True, True), ("0", False), ("FALSE", False), (False, False)],
)
def test_a_switch_is_read(value: object, on: bool) -> None:
    assert yes_or_no(value) is on


@pytest.mark.parametrize("value", ["", "2", 1, 0, None, "ja"])
def test_anything_else_is_not_a_switch(value: object) -> None:
    with pytest.raises(ValueError, match=r"^should be true or false, not "):
        yes_or_no(value)


@given(st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.lists(st.integers(), max_size=2))
def test_whatever_comes_is_read_or_refused_with_half_a_sentence(value: object) -> None:
    for reader in milliseconds, moment, size, quantities.whole, yes_or_no:
        with contextlib.suppress(ValueError):
            reader(value)
