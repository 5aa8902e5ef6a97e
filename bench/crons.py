"""What do recurring jobs cost that catch up, and how punctual are many of one moment?

Catching up is measured in this process: the last missed moment, the last thousand and the next one of
`* * * * *` in Europe/Paris after an absence, in CPU time. cronsim walks through one day of the same moments
for comparison; before, presque walked so through all of an absence.

A server gets a thousand recurring jobs of one minute, then three hundred of each second for 20 seconds.
`pushed_at` of their jobs says how late they are. Meanwhile a client pushes one job after the other to another
queue, and its slowest push is printed.

Owed: 5 ms for each recurring job and absence, 20 ms with a thousand missed moments; 2 s; none lost.

run:          python bench/crons.py
last result:  2026-11-25, 2 cores, load 6: 0.06 ms, 4 ms with a thousand; 0.7 s; none lost, PASS
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import rig
from cronsim import CronSim

from presque.schedule import Schedule

DAY_MS = 24 * 3600 * 1000
AWAY_DAYS = {"30 days": 30, "5 years": 5 * 365, "56 years": 56 * 365}
MINUTELY, SECONDLY, SECONDS = 1000, 300, 20


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    verdicts = []
    for away, days in AWAY_DAYS.items():
        verdicts.append(rig.at_most(f"CPU after {away}", catch_up_ms(days, 1), 5, "ms"))
        verdicts.append(
            rig.at_most(f"the same, missed: all, after {away}", catch_up_ms(days, 1000), 20, "ms")
        )
    verdicts.append(rig.noted("cronsim through one day", f"{walk_ms():.1f} ms"))
    with rig.presque(bench.directory / "presque") as server:
        slowest = Slowest(server)
        late = of_one_minute(server)
        verdicts += [
            rig.at_most(f"the last of {MINUTELY} of one minute", max(late), 2, "s"),
            rig.noted("their median", f"{statistics.median(late):.2f} s"),
            rig.noted("slowest push of others meanwhile", f"{slowest.end() * 1000:.0f} ms"),
        ]
        slowest = Slowest(server)
        lost = of_each_second(server)
        verdicts += [
            rig.at_most(f"lost of {SECONDLY} of each second in {SECONDS} s", lost, 0, "moments"),
            rig.noted("slowest push of others meanwhile", f"{slowest.end() * 1000:.0f} ms"),
        ]
    return verdicts


def catch_up_ms(days: int, most: int) -> float:
    """CPU time to find what was missed in so many days, each time with a schedule that was just read."""
    first = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    now = first + days * DAY_MS + 12345

    def once() -> None:
        schedule = Schedule("* * * * *", "Europe/Paris")
        assert len(schedule.missed(first, now, most)) == most
        assert schedule.next(now)

    return cpu_ms(once)


def walk_ms() -> float:
    """CPU time of cronsim for the moments of one day."""
    start = datetime(2026, 1, 1, tzinfo=Schedule("@daily", "Europe/Paris")._clock.zone)

    def once() -> None:
        moments = CronSim("* * * * *", start)
        for _ in range(1440):
            next(moments)

    return cpu_ms(once)


def cpu_ms(once: Callable[[], None]) -> float:
    once()
    began = time.process_time()
    for _ in range(20):
        once()
    return (time.process_time() - began) / 20 * 1000


class Slowest:
    """A client that pushes one job after the other, until `end` returns its slowest push in seconds."""

    def __init__(self, server: rig.Program) -> None:
        self._server, self._ended, self._most = server, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._push, daemon=True)
        self._thread.start()

    def _push(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            status, _ = rig.ask(self._server.port, "POST", "/q/other", "1")
            assert status == 201
            self._most = max(self._most, time.monotonic() - began)
            time.sleep(0.005)

    def end(self) -> float:
        self._ended.set()
        self._thread.join()
        return self._most


def define(server: rig.Program, name: str, queue: str, schedule: str) -> None:
    body = json.dumps({"queue": queue, "schedule": schedule, "body": {"n": name}})
    status, answer = rig.ask(server.port, "PUT", f"/cron/{name}", body)
    if status != 201:
        raise rig.Broken(f"PUT /cron/ answered {status}: {answer!r}")


def of_one_minute(server: rig.Program) -> list[float]:
    """By how many seconds the jobs of one minute are late."""
    if time.time() % 60 > 30:  # there must be time to define them
        time.sleep(61 - time.time() % 60)
    for number in range(MINUTELY):
        define(server, f"m{number}", f"minute{number % 10}", "* * * * *")
    time.sleep(61 - time.time() % 60)
    deadline = time.monotonic() + 60
    while sum(rig.size(server, f"minute{number}") for number in range(10)) < MINUTELY:
        if time.monotonic() > deadline:
            raise rig.Broken("not all were pushed within a minute")
        time.sleep(0.1)
    late = []
    for number in range(10):
        _, answer = rig.get(server.port, f"/j/minute{number}?state=ready&limit=500")
        jobs = json.loads(answer)["jobs"]
        late += [datetime.fromisoformat(job["pushed_at"]).timestamp() % 60 for job in jobs]
    for number in range(MINUTELY):
        rig.ask(server.port, "DELETE", f"/cron/m{number}")
    return late


def of_each_second(server: rig.Program) -> int:
    """How many moments are lost in some seconds."""
    for number in range(SECONDLY):
        define(server, f"s{number}", f"second{number % 10}", "* * * * * *" if number % 2 else "@every 1s")
    before = sum(rig.size(server, f"second{number}") for number in range(10))
    began = time.monotonic()
    time.sleep(SECONDS)
    took = time.monotonic() - began
    time.sleep(2)  # as late as they may be
    found = sum(rig.size(server, f"second{number}") for number in range(10)) - before
    return max(0, int(took) * SECONDLY - found)


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
