"""A host whose clock leaps, goes back or begins in 1970, and hosts that know other time zones.

libfaketime turns the clock of the store and of the server on it, all but the monotonic one, which no clock
of a real host moves either.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import zoneinfo
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests import rig

DAY_S = 86400


def libfaketime() -> str:
    """The library that turns clocks, of the Debian package `faketime`."""
    rig.require("faketime")
    found = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    assert found, "libfaketimeMT.so.1 does not lie beside the program `faketime`"
    return found[0]


class Clock:
    """The clock of a host."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.turn("+0")
        self.environment = {
            "LD_PRELOAD": libfaketime(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def turn(self, by: str) -> None:
        """By how many seconds it is ahead from now on, such as `+86400`."""
        new = self._file.with_suffix(".new")
        new.write_text(by + "\n")
        new.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@contextlib.contextmanager
def host(clock: Clock, data: Path) -> Iterator[rig.Server]:
    with rig.server("--data", str(data), **clock.environment) as server:
        yield server


def put(server: rig.Server, name: str, schedule: str, **fields: Any) -> None:
    body = {"queue": name, "body": 1, "schedule": schedule} | fields
    answer = server.ask("PUT", f"/cron/{name}", json.dumps(body))
    assert answer.status in (200, 201), answer.body


def size(server: rig.Server, queue: str) -> int:
    return int(server.ask("GET", f"/status/{queue}").json["size"])


def come(server: rig.Server, sizes: dict[str, int], within: float = rig.PATIENCE) -> None:
    """Wait until the queues have so many jobs."""
    rig.eventually(lambda: all(size(server, queue) >= count for queue, count in sizes.items()), within)


@pytest.mark.parametrize("ahead", [3600, DAY_S, 5 * 365 * DAY_S])
def test_recurring_jobs_go_on_after_the_clock_was_ahead(clock: Clock, tmp_path: Path, ahead: int) -> None:
    schedules = {"named": "* * * * * *", "interval": "@every 1s"}
    with host(clock, tmp_path / "data") as server:
        for name, schedule in schedules.items():
            put(server, name, schedule)
        come(server, dict.fromkeys(schedules, 1))
        clock.turn(f"+{ahead}")
        time.sleep(3)  # as long as the clock is wrong; nothing is waited for
        clock.turn("+0")
        come(server, {name: size(server, name) + 4 for name in schedules}, within=2 * rig.PATIENCE)
        for name in schedules:
            found = datetime.fromisoformat(server.ask("GET", f"/cron/{name}").json["next"][0])
            assert found.timestamp() < time.time() + 10


@pytest.mark.parametrize("back", [1800, 3600, DAY_S])
def test_recurring_jobs_go_on_after_the_clock_was_set_back(clock: Clock, tmp_path: Path, back: int) -> None:
    with host(clock, tmp_path / "data") as server:
        put(server, "named", "* * * * * *")
        put(server, "interval", "@every 1s")
        come(server, {"named": 2, "interval": 2})
        clock.turn(f"-{back}")
        come(server, {name: size(server, name) + 4 for name in ("named", "interval")})


@pytest.mark.parametrize(("missed", "expected"), [("once", 1), ("all", 1000)])
@pytest.mark.parametrize("start", ["now", "1970"])
def test_a_clock_that_leaps_by_years_holds_up_nobody(
    clock: Clock, tmp_path: Path, missed: str, expected: int, start: str
) -> None:
    if start == "1970":
        clock.turn(f"-{int(time.time()) - 10 * DAY_S}")
    with host(clock, tmp_path / "data") as server:
        for number in range(5):
            put(server, f"c{number}", "* * * * *", timezone="Europe/Paris", missed=missed)
        clock.turn("+0" if start == "1970" else f"+{5 * 365 * DAY_S}")
        deadline, slowest = time.monotonic() + 3 * rig.PATIENCE, 0.0
        while min(size(server, f"c{number}") for number in range(5)) < expected:
            began = time.monotonic()
            assert began < deadline
            assert server.ask("POST", "/q/other", "1").status == 201
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 20, "before, it was nine seconds after a year and 52 after five"
        assert not [line for line in server.said().splitlines() if "store.lost" in line]


def test_a_server_that_was_away_for_a_month_serves_at_once(clock: Clock, tmp_path: Path) -> None:
    with host(clock, tmp_path / "data") as server:
        for number in range(20):
            put(server, f"c{number}", "* * * * *")
    clock.turn(f"+{30 * DAY_S}")
    with host(clock, tmp_path / "data") as server:
        slowest = 0.0
        deadline = time.monotonic() + 3 * rig.PATIENCE
        while min(size(server, f"c{number}") for number in range(20)) < 1:
            began = time.monotonic()
            assert began < deadline
            assert server.ask("POST", "/q/other", "1").status == 201
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 20


def test_a_thousand_of_one_minute_are_pushed_at_its_beginning(clock: Clock, tmp_path: Path) -> None:
    with host(clock, tmp_path / "data") as server:
        for number in range(1000):
            put(server, f"c{number}", "* * * * *", queue=f"q{number % 10}")
        sizes = {f"q{number}": size(server, f"q{number}") for number in range(10)}
        clock.turn(f"+{60 - time.time() % 60 - 2:.3f}")  # two seconds before a minute
        come(server, {queue: count + 100 for queue, count in sizes.items()}, within=2 * rig.PATIENCE)
        late = []
        for queue, count in sizes.items():
            jobs = server.ask("GET", f"/j/{queue}?state=ready&limit=100").json["jobs"]
            moments = [datetime.fromisoformat(job["pushed_at"]) for job in jobs]
            assert len(moments) == 100, count
            late += [moment.second + moment.microsecond / 1e6 for moment in moments]
        assert max(late) < 15, "two on an idle machine; before, it was 23"


# --- delays, ttls, retries


def test_delays_and_ttls_do_not_notice_that_the_clock_was_set_back(clock: Clock, tmp_path: Path) -> None:
    with host(clock, tmp_path / "data") as server:
        named = f"{time.time() - 3600 + 12:.0f}"  # a moment on the wall, as it will be then
        server.ask("POST", "/q/delayed?delay=10", "1")
        server.ask("POST", "/q/dropped?ttl=10", "1")
        server.ask("POST", "/q/tried", "1")
        [job] = server.ask("POST", "/q/tried/lease").json["jobs"]
        failed = json.dumps({"lease": job["lease"], "error": "no", "retry_in": 10})
        assert server.ask("POST", "/j/tried/1/fail", failed).json["state"] == "scheduled"
        clock.turn("-3600")
        server.ask("POST", f"/q/wall?delayed={named}", "1")
        shown = server.ask("GET", "/j/delayed/1").json
        assert abs(datetime.fromisoformat(shown["run_at"]).timestamp() - (time.time() - 3600)) < 30
        rig.eventually(lambda: [ready(server, queue) for queue in ("delayed", "tried", "wall")] == [1] * 3)
        rig.eventually(lambda: server.ask("GET", "/stats/dropped").json["expired"] == 1)


def ready(server: rig.Server, queue: str) -> int:
    return int(server.ask("GET", f"/stats/{queue}").json["ready"])


def test_a_named_moment_comes_when_the_wall_shows_it(clock: Clock, tmp_path: Path) -> None:
    with host(clock, tmp_path / "data") as server:
        moment = time.time() + 1800
        server.ask("POST", f"/q/wall?delayed={moment:.3f}", "1")
        written = server.ask("GET", "/j/wall/1").json["run_at"]
        for by in (-3600, 1200, -60):
            clock.turn(f"{by:+d}")
            shown = server.ask("GET", "/j/wall/1").json
            assert (shown["state"], shown["run_at"]) == ("scheduled", written)
            assert server.ask("GET", "/q/wall").status == 404
        clock.turn("+1800")
        rig.eventually(lambda: ready(server, "wall") == 1)


# --- time zones


def without(zone: str, there: Path) -> Path:
    """A database of time zones with a few of them, and this one only beside it."""
    source = Path(next(path for path in zoneinfo.TZPATH if Path(path, "Europe/Paris").exists()))
    for name in ("Europe/Paris", "America/New_York"):
        (there / "small" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, there / "small" / name)
    shutil.copytree(there / "small", there / "whole")
    shutil.copy(source / "Europe/Paris", there / "whole" / zone)
    return there


def test_a_zone_that_this_server_does_not_know_stops_only_its_own_jobs(tmp_path: Path) -> None:
    databases = without("Europe/Newtown", tmp_path / "zones")
    data = ("--data", str(tmp_path / "data"))
    with rig.server(*data, PYTHONTZPATH=str(databases / "whole")) as server:
        put(server, "odd", "* * * * * *", timezone="Europe/Newtown")
        put(server, "paris", "* * * * * *", timezone="Europe/Paris")
        put(server, "plain", "* * * * * *")
        put(server, "interval", "@every 1s")
        come(server, {"odd": 1})
    with rig.server(*data, PYTHONTZPATH=str(databases / "small")) as server:
        before = size(server, "odd")
        come(server, {name: size(server, name) + 3 for name in ("paris", "plain", "interval")})
        assert size(server, "odd") == before
        told = [line for line in server.said().splitlines() if "cron.broken" in line]
        assert len(told) == 1
        assert "name=odd" in told[0]
        assert "Europe/Newtown" in told[0]
        shown = {one["name"]: one["broken"] for one in server.ask("GET", "/cron/").json["crons"]}
        assert "Europe/Newtown" in shown.pop("odd")
        assert set(shown.values()) == {None}
        one = server.ask("GET", "/cron/odd").json
        assert (one["queue"], one["next"], one["timezone"]) == ("odd", [], "Europe/Newtown")
        assert server.ask("POST", "/cron/odd/run").status == 201
        put(server, "odd", "* * * * * *", timezone="America/New_York")
        come(server, {"odd": before + 3})
        assert server.ask("DELETE", "/cron/odd").status == 204
