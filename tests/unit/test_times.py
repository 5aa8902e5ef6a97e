"""Durations and moments on the command line."""

from __future__ import annotations

import pytest

from presque.cli.times import duration, moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("20", 20),
        ("1.5", 1.5),
        ("90s", 90),
        ("0.25s", 0.25),
        ("5m", 300),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d2h3m4s5ms", 93_784.005),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5x",
        "m",
        "-5",
        "-5m",
        "+5",
        "5 m",
        "30m1h",
        "1h1h",
        "1.5h",
        "1e3",
        "nan",
        "inf",
        "5M",
        "\u0665m",
        "5m\n",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="should be a duration such as 20, 90s, 5m, 1h30m or 500ms"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("0", 0),
        ("1767225600", 1_767_225_600),
        ("1767225600.25", 1_767_225_600.25),
        ("2026-01-01T00:00:00Z", 1_767_225_600),
        ("2026-01-01t00:00:00z", 1_767_225_600),
        ("2026-01-01T01:30:00.5+01:30", 1_767_225_600.5),
        ("2025-12-31T19:00:00-05:00", 1_767_225_600),
    ],
)
def test_a_moment_is_read(text: str, epoch: float) -> None:
    assert moment(text) == epoch


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "should be a time such as"),
        ("tomorrow", "should be a time such as"),
        ("2026-01-01", "should be a time such as"),
        ("2026-01-01 00:00:00Z", "should be a time such as"),
        ("20260101T000000Z", "should be a time such as"),
        ("2026-W01-1T00:00:00Z", "should be a time such as"),
        ("-5", "should be a time such as"),
        ("2026-01-01T00:00:00", "should say its offset: end it with Z, or with one such as"),
        ("2026-13-01T00:00:00Z", "is no moment: month must be in"),
        ("2026-02-30T00:00:00Z", "is no moment: day is out of range for month"),
        ("2026-01-01T25:00:00Z", "is no moment: hour must be in"),
        ("2026-01-01T00:00:00+99:00", "is no moment: "),
    ],
)
def test_anything_else_is_no_moment(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        moment(text)
