"""The fields of a request: what is taken, what it becomes, and what is said of the rest."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque import codec
from presque.commands import params
from presque.engine.engine import pack
from presque.errors import CallerError, UnknownParameter
from presque.job import PLAIN, PushOptions


def test_no_fields_are_the_plain_options_themselves() -> None:
    assert params.push_options({}) is PLAIN  # the engine has a short cut for exactly these


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"priority": "9"}, PushOptions(priority=9)),
        ({"delay": "1.5"}, PushOptions(delay=1500)),
        ({"delay": "0.0001"}, PushOptions(delay=1)),
        ({"delayed": "1700000000"}, PushOptions(delayed=1_700_000_000_000)),
        ({"delayed": "0.5"}, PushOptions(delayed=500)),
        ({"delayed": "2023-11-14T22:13:20Z"}, PushOptions(delayed=1_700_000_000_000)),
        ({"delayed": "2023-11-14t23:13:20.5+01:00"}, PushOptions(delayed=1_700_000_000_500)),
        ({"delayed": "2023-11-14 23:13:20 01:00"}, PushOptions(delayed=1_700_000_000_000)),
        ({"delayed": "1969-12-31T23:59:59Z"}, PushOptions(delayed=0)),
        ({"ttl": "0.001"}, PushOptions(ttl=1)),
        ({"attempts": "1000", "keep": "0"}, PushOptions(attempts=1000, keep=0)),
        ({"uniq": "a|b\n", "uniq_until": "done"}, PushOptions(uniq="a|b\n", uniq_until="done")),
    ],
)
def test_push_options_are_read(fields: dict[str, str], options: PushOptions) -> None:
    assert params.push_options(fields) == options


@given(st.dictionaries(st.sampled_from(params.PUSH), st.text(max_size=12) | st.from_regex(r"[0-9]{1,12}\Z")))
def test_push_options_are_within_bounds_or_refused(fields: dict[str, str]) -> None:
    with contextlib.suppress(CallerError):
        options = params.push_options(fields)
        assert 1 <= options.priority <= 9
        for number in options.delayed, options.delay, options.ttl, options.attempts, options.keep:
            assert number is None or 0 <= number < 2**48
        assert codec.unpack(pack(options))["priority"] == options.priority


@given(st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1)), st.integers(-23 * 60, 23 * 60))  # noqa: DTZ001
def test_a_moment_means_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    written = there.isoformat(timespec="microseconds")
    exact = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    found = params.push_options({"delayed": written}).delayed
    assert found is not None
    assert -(-exact // 1000) == found  # rounded up, so never early


@pytest.mark.parametrize("name", ["delay", "ttl"])
@pytest.mark.parametrize(
    "text", ["9" * 5000, "1" + "0" * 400, "0x10", "1_000", " 1", "1 ", "1\n", "\uff11", "∞", "-0"]
)
def test_what_python_takes_for_a_number_is_not_enough(name: str, text: str) -> None:
    with pytest.raises(CallerError, match=f"`{name}` should be seconds from"):
        params.push_options({name: text})


@pytest.mark.parametrize(
    ("fields", "prefer", "seconds", "preferred"),
    [
        ({}, None, 0, False),
        ({"wait": "60"}, None, 60, False),
        ({"wait": "0"}, "wait=20", 0, False),
        ({"wait": "5"}, "return=minimal", 5, False),
        ({}, "wait=20", 20, True),
        ({}, "wait=1000", 60, True),
        ({}, 'foo; bar, wait = "2.5"', 2.5, True),
        ({}, "wait=soon", 0, False),
        ({}, "wait", 0, False),
        ({}, "await=5", 0, False),
    ],
)
def test_how_long_to_wait(
    fields: dict[str, str], prefer: str | None, seconds: float, preferred: bool
) -> None:
    assert params.wait(fields, prefer) == (seconds, preferred)


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("wiat", ("wait",), "unknown parameter `wiat`, did you mean `wait`?"),
        ("zzz", ("b", "a"), "unknown parameter `zzz`, known are `a`, `b`"),
        ("zzz", (), "unknown parameter `zzz`, none is taken here"),
        ("x" * 100, (), f"unknown parameter `{'x' * 64}…`, none is taken here"),
    ],
)
def test_an_unknown_field_is_named_with_its_nearest_neighbour(
    name: str, known: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UnknownParameter) as caught:
        params.only({name: "1"}, known)
    assert str(caught.value) == said


@pytest.mark.parametrize(("text", "on"), [("1", True), ("0", False), (None, False)])
def test_a_flag_is_1_or_0(text: str | None, on: bool) -> None:
    assert params.flag({} if text is None else {"f": text}, "f") is on
