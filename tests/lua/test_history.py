"""The history that the functions keep, with a clock that the test turns: exact, bounded, and forgotten."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from presque import codec
from presque.commands.history import as_json
from presque.engine import history, library, records
from presque.engine.history import COUNTERS, Happened, History
from presque.engine.keys import Keys
from presque.periods import PERIODS, TIME_MOST, Period, quantile_ms
from tests import rig

MIB = 1024 * 1024
START_MS = 1_900_000_000_000
NOTHING = (0, 0, 0, 0)
names = itertools.count()


class Kept:
    """The functions on one namespace, at a moment that the test says."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.client = client
        self.keys = Keys(namespace)
        self.at = START_MS
        self.set_clock(START_MS)

    def set_clock(self, at: int) -> None:
        self.at = at
        self.client.set("histories:now", at)

    def pass_time(self, ms: int) -> None:
        self.set_clock(self.at + ms)

    def call(self, name: str, queue: str, *args: Any) -> Any:
        keys = self.keys.of(queue)
        return self.client.fcall(f"histories_{name}", len(keys), *keys, *args)

    def of_all(self, name: str, *args: Any) -> Any:
        keys = self.keys.registry()
        return self.client.fcall(f"histories_{name}", len(keys), *keys, *args)

    def push(self, queue: str, count: int = 1) -> list[Any]:
        found: list[Any] = self.call("push", queue, 0, 0, *[b"", records.seal(b"1")] * count)
        return found

    def fetch(self, queue: str, count: int = 1) -> int:
        jobs = self.call("fetch", queue, count, MIB)[3]
        return len(jobs[1]) if jobs else 0

    def lease(self, queue: str, count: int = 1) -> tuple[list[bytes], bytes]:
        jobs = self.call("lease", queue, count, MIB, 60_000, "w", "nonce", "")[3]
        return (jobs[1], jobs[3][0]) if jobs else ([], b"")

    def settle(self, queue: str, verb: str, token: bytes, *ids: bytes, **fields: Any) -> Any:
        packed = codec.pack(fields) if fields else b""
        return self.call("settle", queue, "0.5", verb, token, packed, b" ".join(ids))

    def of(self, queue: str, over: str) -> History:
        _, _, _, _, live, then, buckets = self.call("history", queue, over)
        return history._of_queue(PERIODS[over], live, then, buckets)

    def of_everything(self, over: str, most: int = 100) -> History:
        return history._together(PERIODS[over], self.of_all("history_of_all", over, most))[0]

    def add_up(self, count: int = 2) -> Iterator[None]:
        """Add what all queues did to the history of all, a call at a time."""
        _, _, _, before = self.of_all("history_of_all", "all", 0)
        while before and self.of_all("close", count, before):
            yield


@pytest.fixture
def kept(store: rig.Store) -> Iterator[Kept]:
    source = library.source().replace(f"name={library.NAME}", "name=histories")
    source = source.replace(f"'presque_{library.VERSION}_'", "'histories_'")
    begin = source.index("local function clock()")
    end = source.index("end", begin) + len("end")
    source = (
        source[:begin]
        + "local function clock() return tonumber(redis.call('GET', 'histories:now')) end"
        + source[end:]
    )
    with store.client() as client:
        client.function_load(source, replace=True)
        found = Kept(client, f"h{next(names)}")
        yield found
        for key in client.scan_iter(f"{found.keys.namespace}:*"):
            client.delete(key)
        client.function_delete("histories")
        client.delete("histories:now")


def counters(found: Happened) -> dict[str, int]:
    """What is not nothing."""
    return {name: count for name in COUNTERS if (count := found.count(name))}


def total(found: History) -> Happened:
    added = Happened()
    for one in found.buckets.values():
        added.add(one)
    return added


def test_what_happened_stands_in_the_bucket_in_which_it_happened(kept: Kept) -> None:
    kept.push("q", 3)
    kept.pass_time(4_000)
    assert kept.fetch("q") == 1
    kept.pass_time(26_000)
    kept.push("q", 5)

    found = kept.of("q", "5m")

    assert {number - found.last: counters(one) for number, one in found.buckets.items()} == {
        -3: {"pushed": 3, "fetched": 1, "waited_ms": 4_000},
        0: {"pushed": 5},
    }
    told = as_json(found)
    assert [one["depth"]["ready"] for one in told["buckets"][-5:]] == [0, 2, 2, 2, 7]
    assert [one["oldest_seconds"] for one in told["buckets"][-5:]] == [None, 10.0, 20.0, 30.0, 30.0]
    assert (told["total"]["pushed"], told["total"]["fetched"], told["total"]["depth"]["ready"]) == (8, 1, 7)


def test_each_fetch_is_counted_in_its_class_of_time_whatever_the_one_before_waited(kept: Kept) -> None:
    kept.push("q", 6)
    for ms in (4, 0, 100, 0, 0, 8_000):
        kept.pass_time(ms)
        assert kept.fetch("q") == 1

    found = total(kept.of("q", "5m"))

    assert {name: count for name, count in found.times.items() if count} == {"w3": 2, "w7": 3, "w13": 1}
    assert (found.count("fetched"), found.count("waited_ms")) == (6, 8 + 3 * 104 + 8_104)


def test_a_queue_that_was_used_before_the_sums_were_packed_keeps_them(kept: Kept) -> None:
    kept.push("q", 3)
    kept.fetch("q")
    meta = kept.keys.of("q")[0]
    kept.client.hdel(meta, "passed")
    kept.client.hset(meta, mapping={"fetched": 1, "waited": 70, "w7": 1})

    before = total(kept.of("q", "5m"))
    kept.pass_time(200)
    kept.fetch("q")
    after = total(kept.of("q", "5m"))

    assert (before.count("fetched"), before.count("waited_ms")) == (1, 70)
    assert (after.count("fetched"), after.count("done"), after.count("waited_ms")) == (2, 0, 270)
    assert not kept.client.hexists(meta, "fetched")
    assert not kept.client.hexists(meta, "waited")


def test_the_ends_of_jobs_are_told_apart_and_timed(kept: Kept) -> None:
    kept.push("q", 5)
    kept.pass_time(100)
    ids, token = kept.lease("q", 4)
    kept.pass_time(3_000)
    kept.settle("q", "ack", token, *ids[:2])
    kept.settle("q", "fail", token, ids[2], error="no", retry=False)
    kept.settle("q", "release", token, ids[3])
    kept.lease("q", 2)

    found = as_json(kept.of("q", "1h"))["total"]

    assert {name: found[name] for name in ("pushed", "fetched", "done", "failed", "dead", "expired")} == {
        "pushed": 5, "fetched": 0, "done": 2, "failed": 1, "dead": 1, "expired": 0,
    }  # fmt: skip
    assert found["depth"] == {"ready": 0, "leased": 2, "scheduled": 0, "dead": 1}
    assert found["run"]["mean"] == 3.0
    assert 2.048 <= found["run"]["p50"] <= found["run"]["p95"] <= 4.096
    assert found["wait"]["mean"] == round((4 * 0.1 + 3.1) / 5, 3)  # a second time does not count


def test_a_scheduled_job_waits_from_when_it_is_due(kept: Kept) -> None:
    kept.call("push", "q", 0, 0, codec.pack({"delay": 60_000}), records.seal(b"1"))
    kept.pass_time(60_001 + 50)

    assert kept.fetch("q") == 1

    assert as_json(kept.of("q", "1h"))["total"]["wait"]["mean"] == 0.05


def test_time_that_passes_without_a_call_is_seen_by_the_sweep(kept: Kept) -> None:
    kept.call("push", "q", 0, 0, codec.pack({"ttl": 1_000}), records.seal(b"1"))
    kept.push("q")
    ids, _ = kept.lease("q", 1)
    assert ids == [b"1"]
    kept.pass_time(70_000)
    kept.call("sweep", "q")

    found = kept.of("q", "5m")

    assert {number - found.last: counters(one) for number, one in found.buckets.items()} == {
        -7: {"pushed": 2},
        0: {"failed": 1},
    }


def test_jobs_that_expire_or_become_due_long_after_the_last_call_are_counted(kept: Kept) -> None:
    kept.push("q")
    kept.call("push", "q", 0, 0, codec.pack({"ttl": 25_000}), records.seal(b"1"))
    kept.call("push", "q", 0, 0, codec.pack({"delay": 25_000}), records.seal(b"1"))
    kept.pass_time(12_000)
    kept.of_all("close", 50, "")
    kept.pass_time(18_000)
    for _ in range(3):
        kept.call("sweep", "q")
        kept.pass_time(10_000)

    for found in (kept.of("q", "5m"), kept.of_everything("5m")):
        assert {number - found.last: counters(one) for number, one in found.buckets.items()} == {
            -6: {"pushed": 3},
            -3: {"expired": 1},
        }
        told = as_json(found)
        ready = [one["depth"]["ready"] for one in told["buckets"][-8:]]
        assert ready == [0, 2, 2, 2, 2, 2, 2, 2]
    assert [one["oldest_seconds"] for one in as_json(kept.of("q", "5m"))["buckets"][-3:]] == [50, 60, 60]


@pytest.mark.parametrize("seed", range(3))
def test_every_period_of_every_queue_is_exact_and_all_together_are_their_sum(kept: Kept, seed: int) -> None:
    """Calls at random moments, in three queues, against sums that the test keeps itself."""
    chance = random.Random(seed)
    done: list[tuple[int, str, str, int]] = []
    held: list[tuple[str, bytes, bytes]] = []

    def note(queue: str, what: str, count: int) -> None:
        if count:
            done.append((kept.at, queue, what, count))

    for _ in range(150):
        queue, act = (
            chance.choice("abc"),
            chance.choice(["push", "fetch", "lease", "ack", "die", "close", "add up", "wait"]),
        )
        if act == "push":
            note(queue, "pushed", len(kept.push(queue, chance.randint(1, 5))))
        elif act == "fetch":
            note(queue, "fetched", kept.fetch(queue, 2))
        elif act == "lease":
            ids, token = kept.lease(queue, 3)
            held += [(queue, token, one) for one in ids]
        elif act in ("ack", "die") and held:
            queue, token, one = held.pop()
            more = {} if act == "ack" else {"error": "no", "retry": False}
            [got] = kept.settle(queue, "ack" if act == "ack" else "fail", token, one, **more)
            if got == b"done":
                note(queue, "done", 1)
            elif got == b"dead":
                note(queue, "died", 1)
        elif act == "close":
            kept.of_all("close", 50, "")
        elif act == "add up":
            exhaust(kept.add_up())
        elif act == "wait":
            kept.pass_time(chance.choice([7, 400, 9_000, 10_000, 45_000, 500_000]))

        over = chance.choice(list(PERIODS))
        period, depth = PERIODS[over], list(NOTHING)
        added = History(kept.at, period, {}, list(NOTHING))
        for name in "abc":
            found = kept.of(name, over)
            wanted = expected([row for row in done if row[1] == name], period, kept.at)
            counted = {number: some for number, of in found.buckets.items() if (some := known(of))}
            assert counted == wanted
            depth = [before + more for before, more in zip(depth, found.now_holds, strict=True)]
            added.add(found)
        together = kept.of_everything(over)
        if chance.random() < 0.3:
            exhaust(kept.add_up())
            assert as_json(kept.of_everything(over, 0)) == as_json(together)
        assert together.now_holds == depth
        assert {n: counters(of) for n, of in together.buckets.items() if counters(of)} == {
            n: counters(of) for n, of in added.buckets.items() if counters(of)
        }


@pytest.mark.parametrize("seed", range(4))
def test_what_was_there_before_is_in_a_sum_that_takes_many_calls(kept: Kept, seed: int) -> None:
    """Whatever others do meanwhile: jobs come and go, buckets are closed, queues purged, sums asked."""
    chance = random.Random(seed)
    queues = [f"q{number}" for number in range(12)]
    pushed = fetched = least = 0
    for _ in range(12):
        before = pushed, fetched
        for _ in kept.add_up():
            for queue in chance.choices(queues, k=6):
                pushed += len(kept.push(queue, 2))
                fetched += kept.fetch(queue)
            match chance.randrange(6):
                case 0:
                    kept.pass_time(10_000)
                case 1:
                    kept.of_all("close", 5, "")
                case 2:
                    kept.call("purge", chance.choice(queues))
                case 3:
                    exhaust(itertools.islice(kept.add_up(), 3))
                case 4:
                    kept.set_clock(kept.at - 3_000)
        found = history._together(Period("all", 2**53, 1), kept.of_all("history_of_all", "all", 0))[1]
        assert max(before[0], least) <= found.count("pushed") <= pushed
        assert before[1] <= found.count("fetched") <= fetched
        least = found.count("pushed")
        for queue in chance.choices(queues, k=6):
            pushed += len(kept.push(queue, 2))
            fetched += kept.fetch(queue)
    kept.set_clock(START_MS + 3_600_000)
    exhaust(kept.add_up())
    assert (
        counters(total(kept.of_everything("7d", 0))).items() >= {"pushed": pushed, "fetched": fetched}.items()
    )


def exhaust(steps: Iterator[None]) -> None:
    """Go through all of them."""
    for _ in steps:
        pass


KNOWN = ("pushed", "fetched", "done", "died")


def known(of: Happened) -> dict[str, int]:
    return {name: count for name, count in counters(of).items() if name in KNOWN}


def expected(done: list[tuple[int, str, str, int]], period: Period, now: int) -> dict[int, dict[str, int]]:
    """What should stand in each bucket."""
    found: dict[int, dict[str, int]] = {}
    for at, _, what, count in done:
        number = at // period.ms
        if number > now // period.ms - period.count:
            bucket = found.setdefault(number, {})
            bucket[what] = bucket.get(what, 0) + count
    return found


def test_it_is_bounded_and_forgotten(kept: Kept) -> None:
    for _ in range(400):
        kept.push("q")
        kept.pass_time(10_000)
        kept.of_all("close", 50, "")

    for over, period in PERIODS.items():
        key = f"{kept.keys.namespace}:{{q}}:history:{over}"
        assert kept.client.hlen(key) <= period.count
        assert 0 < int(kept.client.pttl(key)) <= 2 * period.ms * period.count
    minutes = [(START_MS + 10_000 * n) // 60_000 for n in range(400)]
    pushed = sum(minute > kept.at // 60_000 - 60 for minute in minutes)
    assert counters(total(kept.of("q", "1h"))) == {"pushed": pushed}
    assert counters(total(kept.of("q", "5m"))) == {"pushed": 29}


@pytest.mark.parametrize("how", ["purge", "forget"])
def test_a_purge_deletes_the_history_of_its_queue_and_not_what_all_did(kept: Kept, how: str) -> None:
    kept.push("q", 3)
    kept.push("other")
    kept.pass_time(20_000)
    kept.push("q", 2)

    kept.call("purge", "q")
    if how == "forget":
        assert kept.call("forget", "q") == 1

    assert not [key for key in kept.client.scan_iter("*") if b"{q}:history" in key]
    assert counters(total(kept.of("q", "1h"))) == {}
    together = kept.of_everything("1h")
    assert counters(total(together)) == {"pushed": 6}
    assert together.now_holds == [1, 0, 0, 0]


def test_a_spoilt_history_costs_no_job(kept: Kept) -> None:
    prefix = kept.keys.of("q")[0].removesuffix("meta")
    for key in (
        f"{prefix}history:5m",
        f"{kept.keys.registry()[0]}:opened",
        f"{kept.keys.registry()[0]}:history:1h",
    ):
        kept.client.set(key, "spoilt")

    for _ in range(3):
        kept.push("q", 2)
        assert kept.fetch("q") == 1
        kept.pass_time(10_000)

    assert kept.call("purge", "q") == 3


def test_a_clock_that_goes_back_loses_no_count(kept: Kept) -> None:
    kept.push("q", 3)
    kept.set_clock(START_MS - 120_000)
    kept.push("q", 2)

    assert counters(total(kept.of_everything("1h"))) == {"pushed": 2}
    kept.set_clock(START_MS + 1_000)
    assert counters(total(kept.of("q", "1h"))) == {"pushed": 5}


@pytest.mark.parametrize(
    ("times", "share", "least", "most"),
    [
        ({0: 10}, 0.95, 0, 0),
        ({10: 100}, 0.5, 512, 1024),
        ({1: 90, 10: 10}, 0.5, 1, 2),
        ({1: 90, 10: 10}, 0.95, 512, 1024),
        ({TIME_MOST: 1}, 0.5, 2**30, 2**31),
    ],
)
def test_a_quantile_is_within_its_class(
    times: dict[int, int], share: float, least: float, most: float
) -> None:
    found = quantile_ms(share, times)
    assert found is not None
    assert least <= found <= most


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile_ms(0.5, {}) is None


def test_the_functions_and_the_server_have_the_same_periods() -> None:
    source = library.source()
    for one in list(PERIODS.values())[1:]:
        assert f"name = '{one.name}', ms = {one.ms}, most = {one.count}}}" in source
    assert f"local TIME_MOST = {TIME_MOST}\n" in source
