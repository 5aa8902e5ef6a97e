"""Each function in the store, called directly. lua/head.lua has the data model."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from presque import codec
from presque.engine import library, replies
from presque.engine.engine import pack
from presque.engine.keys import Keys
from presque.job import Fetched, PushOptions
from tests import rig

CLASSIC = ("meta", "jobs", "ready", "due", "ttl", "uniq")
NAMES = (
    *CLASSIC, "leased", "runs", "dead", "done", "memo", "memo:old",
    "groups", "ring", "rate", "idem", "idem:old",
)  # fmt: skip
MIB = 1024 * 1024


class Functions:
    """The functions on the queues of one namespace, called as the engine calls them."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.client = client
        self.keys = Keys(namespace)

    def call(self, name: str, keys: tuple[str, ...], *args: Any) -> Any:
        return self.client.fcall(f"{library.NAME}_{name}", len(keys), *keys, *args)

    def of(self, *queues: str) -> tuple[str, ...]:
        return tuple(key for queue in queues for key in self.keys.of(queue))

    def push(self, queue: str, *bodies: bytes, failures: int = 0, **options: Any) -> list[Any]:
        packed = pack(PushOptions(**options)) if options else b""
        args = [part for body in bodies for part in (packed, body)]
        return list(self.call("push", self.of(queue), failures, 0, *args))

    def fetch(self, *queues: str, count: int = 1000, most_bytes: int = MIB) -> replies.Fetch:
        return replies.fetched(self.call("fetch", self.of(*queues), count, most_bytes), queues)

    def bodies(self, *queues: str, count: int = 1000) -> list[bytes]:
        return [job.body for job in self.fetch(*queues, count=count).jobs]

    def stats(self, queue: str) -> Any:
        [found] = replies.stats(self.call("stats", self.of(queue)), [queue])
        return found

    def key(self, queue: str, name: str) -> str:
        return f"{self.keys.namespace}:{{{queue}}}:{name}"

    def state(self) -> dict[bytes, bytes]:
        """Every key of the namespace and all it holds."""
        return {
            key: self.client.dump(key) or b"" for key in self.client.scan_iter(f"{self.keys.namespace}:*")
        }

    def clear(self) -> None:
        """Delete every key of the namespace."""
        for key in self.client.keys(f"{self.keys.namespace}:*"):
            self.client.delete(key)

    def census(self) -> set[str]:
        """The names of the keys that exist, without the namespace."""
        prefix = f"{self.keys.namespace}:"
        return {key.decode().removeprefix(prefix) for key in self.client.scan_iter(f"{prefix}*")}


@pytest.fixture
def functions(store: rig.Store) -> Iterator[Functions]:
    with store.client() as client:
        client.function_load(library.source(), replace=True)
        found = Functions(client, f"l{uuid4().hex[:8]}")
        yield found
        found.clear()


def wait_ms(milliseconds: int) -> None:
    """Let the store's clock pass so much time; it runs on this machine's."""
    time.sleep((milliseconds + 1) / 1000)


# --- push ---------------------------------------------------------------------------------------


def test_push_answers_ids_and_stores_header_and_body(functions: Functions) -> None:
    before = int(time.time() * 1000)
    assert functions.push("q", b"1", b'{"a":  2}') == [1, 2]

    records: Any = functions.client.hgetall(functions.key("q", "jobs"))

    assert records.keys() == {b"1", b"2"}
    flags, priority = records[b"2"][:2]
    [pushed_at] = struct.unpack(">Q", b"\0\0" + records[b"2"][2:8])
    assert (flags, priority, records[b"2"][8:]) == (0, 5, b'{"a":  2}')
    assert before <= pushed_at <= time.time() * 1000


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 9},
        {"delay": 60_000},
        {"ttl": 60_000},
        {"uniq": "key"},
        {"uniq": "k|e|y", "uniq_until": "done"},
        {"uniq": "ü" * 100},
        {"attempts": 3},
        {"keep": 0},
        {"priority": 1, "delay": 1000, "ttl": 60_000, "uniq": "key", "attempts": 65535, "keep": 2**31},
    ],
    ids=str,
)
def test_whatever_the_options_the_body_is_kept(functions: Functions, options: dict[str, Any]) -> None:
    body = bytes(range(256))
    assert functions.push("q", body, **options) == [1]

    record: Any = functions.client.hget(functions.key("q", "jobs"), "1")

    assert replies.body_of(record) == body


def test_push_takes_1000_jobs_and_refuses_more(functions: Functions) -> None:
    assert functions.push("q", *[b"1"] * 1000) == list(range(1, 1001))
    with pytest.raises(redis.ResponseError, match="too many jobs"):
        functions.push("q", *[b"1"] * 1001)

    assert functions.stats("q").ready == 1000


def test_a_refused_push_writes_nothing(functions: Functions) -> None:
    functions.push("q", b"1", uniq="key")
    before = functions.state()

    assert functions.push("q", b"2", uniq="key") == [b"exists"]
    assert functions.push("q", b"2", delay=2000, ttl=1000) == [b"late"]

    assert functions.state() == before


def test_ids_go_on_after_a_purge(functions: Functions) -> None:
    functions.push("q", b"1", b"2")
    functions.call("purge", functions.of("q"))

    assert functions.push("q", b"3") == [3]


def test_ids_are_whole_numbers_beyond_a_million_millions(functions: Functions) -> None:
    """Where Lua would write 1e+14 if it were let."""
    functions.client.hset(functions.key("q", "meta"), "seq", 10**14 - 1)

    assert functions.push("q", b"1", delay=1, ttl=60_000, uniq="key") == [10**14]
    wait_ms(1)
    assert [job.id for job in functions.fetch("q").jobs] == [str(10**14)]
    assert functions.push("q", b"2") == [10**14 + 1]
    assert functions.bodies("q") == [b"2"]
    assert functions.census() == {"{q}:meta"}


# --- fetch --------------------------------------------------------------------------------------


def test_fetch_takes_the_highest_priority_first_and_in_order_within_it(functions: Functions) -> None:
    for priority in (5, 1, 9, 3, 5, 9, 7):
        functions.push("q", str(priority).encode(), priority=priority)

    assert functions.bodies("q", count=3) == [b"9", b"9", b"7"]
    assert functions.bodies("q") == [b"5", b"5", b"3", b"1"]


def test_fetch_goes_through_queues_in_their_order(functions: Functions) -> None:
    functions.push("a", b"a1", b"a2")
    functions.push("b", b"b1")

    answer = functions.fetch("b", "c", "a", count=2)

    assert [(job.queue, job.id, job.body) for job in answer.jobs] == [("b", "1", b"b1"), ("a", "1", b"a1")]
    assert not answer.more


def test_fetch_is_bounded_by_bytes_but_never_below_one_job(functions: Functions) -> None:
    functions.push("q", *[b"x" * 1000] * 10)

    assert len(functions.fetch("q", most_bytes=1).jobs) == 1
    answer = functions.fetch("q", most_bytes=3500)
    assert len(answer.jobs) == 4
    assert answer.more, "so that who asked for more jobs asks again"
    assert len(functions.fetch("q").jobs) == 5


def test_fetch_names_stopped_queues_and_when_the_next_job_is_due(functions: Functions) -> None:
    functions.push("stopped", b"1")
    functions.call("control", functions.of("stopped"), "stop")
    functions.push("later", b"1", delay=5000)

    answer = functions.fetch("stopped", "later")

    assert answer.jobs == []
    assert answer.stopped == ["stopped"]
    assert 4000 < answer.due_ms["later"] <= 5001


def test_a_fetched_job_leaves_nothing_but_the_counters(functions: Functions) -> None:
    functions.push("q", b"1", priority=9, ttl=60_000, uniq="key")
    functions.push("q", b"2", delay=1)
    wait_ms(1)

    assert functions.bodies("q") == [b"1", b"2"]
    assert functions.census() == {"{q}:meta"}


def test_a_fetch_looks_at_a_bounded_number_of_expired_jobs(functions: Functions) -> None:
    for _ in range(3):
        functions.push("q", *[b"0"] * 1000, ttl=1)
    functions.push("q", b"alive")
    wait_ms(1)

    calls = 0
    found: list[Fetched] = []
    while not found:
        answer = functions.fetch("q", count=10)
        found = answer.jobs
        calls += 1
        assert found or answer.more

    assert [job.body for job in found] == [b"alive"]
    assert calls > 1
    while functions.call("sweep", functions.of("q")):
        pass
    assert functions.stats("q").expired == 3000
    assert functions.census() == {"{q}:meta"}


def test_a_fetch_that_finds_nothing_writes_nothing(functions: Functions) -> None:
    functions.push("q", b"1", delay=60_000)
    before = functions.state()

    functions.fetch("q", "never seen")

    assert functions.state() == before


def test_unfetch_restores_the_queue_as_it_was(functions: Functions) -> None:
    functions.push("q", b"1", b"2")
    functions.push("q", b"3", priority=9, ttl=60_000, uniq="key")
    jobs_key, ttl, uniq = (functions.key("q", name) for name in ("jobs", "ttl", "uniq"))

    def contents() -> list[Any]:
        lists = [functions.client.lrange(functions.key("q", name), 0, -1) for name in ("ready", "ready:9")]
        hashes = [functions.client.hgetall(jobs_key), functions.client.hgetall(uniq)]
        return [lists, hashes, functions.client.zrange(ttl, 0, -1, withscores=True)]

    before = contents()
    jobs = functions.fetch("q").jobs

    def put_back() -> list[int]:
        return [functions.call("unfetch", functions.of("q"), job.id, job.record) for job in jobs]

    assert put_back() == [1, 1, 1]

    assert contents() == before
    assert functions.stats("q").processed == 0
    assert put_back() == [0, 0, 0], "a second time changes nothing"
    assert functions.bodies("q") == [b"3", b"1", b"2"]


# --- time ---------------------------------------------------------------------------------------


def test_one_call_moves_500_due_jobs_at_most(functions: Functions) -> None:
    functions.push("q", *[b"1"] * 1000, delay=1)
    functions.push("q", *[b"1"] * 200, delay=1)
    wait_ms(1)
    ready = functions.key("q", "ready")

    moved = []
    while True:
        more = functions.call("sweep", functions.of("q"))
        moved.append(functions.client.llen(ready))
        if not more:
            break

    assert moved == [500, 1000, 1200]
    assert len(functions.bodies("q")) == 1000


def test_one_call_drops_500_expired_jobs_at_most(functions: Functions) -> None:
    functions.push("q", *[b"1"] * 1000, ttl=1)
    functions.push("q", *[b"1"] * 200, ttl=1)
    wait_ms(1)
    jobs = functions.key("q", "jobs")

    left = []
    while True:
        more = functions.call("sweep", functions.of("q"))
        left.append(functions.client.hlen(jobs))
        if not more:
            break

    assert left == [700, 200, 0]
    assert functions.stats("q").expired == 1200


def test_due_jobs_become_ready_in_the_order_of_their_times_then_of_their_ids(functions: Functions) -> None:
    now = int(time.time() * 1000)
    for body, at in ((b"c", 30), (b"a", 10), (b"b1", 20), (b"b2", 20)):
        functions.push("q", body, delayed=now + at + 50)
    functions.push("q", b"first", b"second")
    wait_ms(90)

    assert functions.bodies("q") == [b"first", b"second", b"a", b"b1", b"b2", b"c"]


def test_a_due_job_keeps_its_priority(functions: Functions) -> None:
    functions.push("q", b"urgent", delay=1, priority=9)
    functions.push("q", b"plain")
    wait_ms(1)

    assert functions.bodies("q") == [b"urgent", b"plain"]


def test_expired_jobs_are_passed_over_and_their_marks_go(functions: Functions) -> None:
    functions.push("q", b"old", ttl=1, uniq="key")
    functions.push("q", b"new")
    wait_ms(1)
    functions.call("sweep", functions.of("q"))
    assert functions.client.lrange(functions.key("q", "ready"), 0, -1) == [b"1", b"2"]

    assert functions.bodies("q") == [b"new"]
    assert functions.census() == {"{q}:meta"}


def test_an_expired_job_that_nobody_swept_counts_as_expired_already(functions: Functions) -> None:
    functions.push("q", b"1", ttl=1, uniq="key")
    wait_ms(1)

    assert (functions.stats("q").ready, functions.stats("q").expired) == (0, 1)
    assert functions.call("peek", functions.of("q"), 10, MIB) == [0]
    assert functions.push("q", b"2", uniq="key") == [2]
    assert functions.bodies("q") == [b"2"]


# --- counts, purge, workers, registry -----------------------------------------------------------


def test_the_counts_add_up_to_the_jobs_that_are_stored(functions: Functions) -> None:
    functions.push("q", b"1", b"2", b"3")
    functions.push("q", b"4", b"5", priority=9)
    functions.push("q", b"6", delay=60_000)
    functions.push("q", b"7", ttl=60_000, uniq="key")
    functions.bodies("q", count=2)

    found = functions.stats("q")

    assert found.ready + found.scheduled == functions.client.hlen(functions.key("q", "jobs")) == 5
    assert (found.ready, found.scheduled, found.processed) == (4, 1, 2)


def test_a_purge_leaves_the_sequence_and_whether_it_is_stopped(functions: Functions) -> None:
    for priority in range(1, 10):
        functions.push("q", b"1", priority=priority, ttl=60_000, uniq=f"key{priority}")
    functions.push("q", b"1", delay=60_000, failures=1)
    functions.call("control", functions.of("q"), "stop")

    assert functions.call("purge", functions.of("q")) == 10

    assert functions.census() == {"{q}:meta"}
    assert functions.client.hkeys(functions.key("q", "meta")) == [b"seq", b"stopped"]


def test_the_keys_of_a_queue_are_those_of_the_data_model(functions: Functions) -> None:
    for priority in range(1, 10):
        functions.push("q", b"1", priority=priority, ttl=60_000, uniq=f"key{priority}")
    functions.push("q", b"1", delay=60_000)

    lists = {f"{{q}}:ready:{priority}" for priority in (1, 2, 3, 4, 6, 7, 8, 9)}
    assert functions.census() == lists | {f"{{q}}:{name}" for name in CLASSIC}


def test_control_answers_whether_the_queue_is_started(functions: Functions) -> None:
    keys = functions.of("q")

    assert [functions.call("control", keys, word) for word in ("ask", "stop", "ask", "stop")] == [1, 0, 0, 0]
    assert [functions.call("control", keys, word) for word in ("start", "start", "ask")] == [1, 1, 1]


def test_register_tells_how_many_names_are_new(functions: Functions) -> None:
    keys = functions.keys.registry()

    assert functions.call("register", keys, "a", "b") == 2
    assert functions.call("register", keys, "b", "c") == 1


def test_a_worker_not_heard_of_for_a_week_is_forgotten(functions: Functions) -> None:
    keys = functions.keys.workers()
    functions.call("worker_register", keys, "old", "q")
    functions.call("worker_count", keys, "old", 3, 1)
    functions.client.zadd(keys[4], {"old": time.time() * 1000 - 8 * 24 * 3600 * 1000})

    functions.call("worker_count", keys, "new", 1, 0)

    assert functions.call("worker_show", keys, "old") == []
    assert functions.call("worker_list", keys) == []
    assert functions.call("worker_show", keys, "new")[1:] == [b"1", b"0"]


def test_a_worker_that_reports_is_forgotten_after_an_hour(functions: Functions) -> None:
    keys = functions.keys.workers()
    functions.call("worker_report", keys, "reports", "{}", "q")
    functions.call("worker_register", keys, "registered", "q")
    two_hours_ago = time.time() * 1000 - 2 * 3600 * 1000
    functions.client.zadd(keys[4], {"reports": two_hours_ago, "registered": two_hours_ago})

    functions.call("worker_count", keys, "new", 1, 0)

    assert functions.call("worker_list", keys) == [b"registered", b"q"]
    assert functions.client.hlen(keys[5]) == 0


# --- keys of a wrong type -----------------------------------------------------------------------

QUEUE_CALLS: dict[str, list[list[Any]]] = {
    "push": [
        [0, 0, b"", b"1"],
        [1, 0, b"", b"1"],
        [0, 1, pack(PushOptions(priority=9)), b"1"],
        [0, 0, pack(PushOptions(group="acme", idempotency="new", fingerprint="f", priority=9)), b"1"],
        [0, 0, b"", b"1", pack(PushOptions(delay=60_000, ttl=90_000, uniq="new key", priority=1)), b"1"],
    ],
    "fetch": [[10, MIB], [1, 1]],
    "unfetch": [["99", struct.pack(">BBQ", 0, 9, 0)[:2] + bytes(6) + b"1"]],
    "lease": [[10, MIB, "", "w", "nonce", ""], [2, MIB, 1000, "w", "nonce", "again"]],
    "settle": [
        ["0.5", *settled]
        for settled in (
            ["ack", "1", "1-nonce", '"result"', "", "", ""],
            ["fail", "1", "1-nonce", "error", "backtrace", "", ""],
            ["fail", "1", "1-nonce", "error", "", "0", ""],
            ["fail", "1", "1-nonce", "error", "", "", "0"],
            ["release", "1", "1-nonce", "0", "", "", ""],
            ["release", "1", "1-nonce", "1000", "", "", ""],
            ["extend", "1", "1-nonce", "1000", "50", "", ""],
            ["ack", "2", "unknown", "", "", "", ""],
        )
    ],
    "show": [["1"], ["3"]],
    "list": [[state, 10, "", MIB] for state in ("ready", "scheduled", "leased", "done", "dead")],
    "patch": [
        ["3", "9", "", "", "", ""],
        ["4", "", "", "60000", "", ""],
        ["5", "1", "1", "", "1", "new"],
        ["6", "", "", "0", "", ""],
    ],
    "remove": [["1"], ["2"], ["3"], ["4"], ["6"]],
    "retry": [["2", 0, 0, 0], ["", 10, 0, 0], ["", 10, "100.5", 0]],
    "explain": [["1"], ["3"]],
    "policy": [[b""], [codec.pack({"max_leased": 3, "rate_count": 1, "rate_ms": 1000})]],
    "sweep": [[]],
    "stats": [[]],
    "peek": [[10, MIB]],
    "control": [["stop"], ["start"]],
    "purge": [[]],
}
UNFETCH_ALL = struct.pack(">BB", 1 | 4, 1) + bytes(6) + b"\x03own" + struct.pack(">Q", 2**47)[2:] + b"1"
QUEUE_CALLS["unfetch"].append(["98", UNFETCH_ALL])

FILLINGS = ("nothing", "plain", "uniq", "everything", "leases", "limits")


def fill(functions: Functions, queue: str, filling: str) -> None:
    """Bring a queue into a state: which functions touch which keys depends on it."""
    if filling == "plain":
        functions.push(queue, b"1", b"2")
    if filling in ("uniq", "everything"):
        functions.push(queue, b"1", uniq="key")
    if filling in ("leases", "limits"):
        if filling == "limits":
            limits = {"rate_count": 100, "rate_ms": 1, "max_leased": 90, "group_leased": 50, "max_length": 99}
            functions.call("policy", functions.of(queue), codec.pack(limits))
        for number in range(4):
            functions.push(
                queue, b"%d" % number, keep=60, attempts=2, uniq=f"key {number}", uniq_until="done"
            )
        functions.push(queue, b"5", ttl=1000, idempotency="key", fingerprint="f")
        functions.push(queue, b"6", delay=1000)
        if filling == "limits":
            functions.push(queue, b"7", group="acme")
            functions.push(queue, b"8", group="acme", priority=9)
        functions.call("lease", functions.of(queue), 4, MIB, 60_000, "w", "nonce", "before")
        functions.call(
            "settle", functions.of(queue), "0.5",
            "fail", "2", "2-nonce", "error", "", "", "0",
            "ack", "3", "3-nonce", "", "", "", "",
        )  # fmt: skip
        functions.call("lease", functions.of(queue), 1, MIB, 1, "w", "short", "")
        wait_ms(2)
    if filling == "everything":
        functions.push(queue, b"2", priority=9, uniq="key 9")
        functions.push(queue, b"3", priority=1)
        functions.push(queue, b"4", delay=1, ttl=60_000)
        functions.push(queue, b"5", ttl=1, uniq="expired")
        functions.push(queue, b"6", delay=60_000)
        functions.push(queue, b"7", delay=1, priority=9)
        wait_ms(1)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", sorted(QUEUE_CALLS))
def test_a_key_of_a_wrong_type_never_leaves_half_a_change(
    functions: Functions, name: str, filling: str
) -> None:
    """An error after the first write would keep it, so every function has to check before."""
    wrong_keys = [*NAMES, "ready:1", "ready:9"]
    refused = 0
    for position, wrong in enumerate(wrong_keys):
        for number, args in enumerate(QUEUE_CALLS[name]):
            queue = f"q{position}-{number}"
            fill(functions, queue, filling)
            functions.client.delete(functions.key(queue, wrong))
            functions.client.set(functions.key(queue, wrong), "wrong")
            before = functions.state()
            try:
                functions.call(name, functions.of(queue), *args)
            except redis.ResponseError as error:
                refused += 1
                assert functions.state() == before, (wrong, args, str(error))  # noqa: PT017 (not every call fails)
            else:
                if name == "purge":
                    continue  # it deletes a key of whatever type
                if wrong in ("memo:old", "idem:old"):
                    continue  # its time had come
                # It went well, so it had no business with this key.
                assert functions.client.get(functions.key(queue, wrong)) == b"wrong", (wrong, args)
            finally:
                functions.clear()
    assert refused > 0


@pytest.mark.parametrize("name", ["fetch", "stats"])
def test_a_wrong_key_of_one_queue_leaves_the_queues_before_it_as_they_were(
    functions: Functions, name: str
) -> None:
    args = [10, MIB] if name == "fetch" else []
    for wrong in CLASSIC:
        fill(functions, "good", "everything")
        fill(functions, "bad", "everything")
        functions.client.delete(functions.key("bad", wrong))
        functions.client.set(functions.key("bad", wrong), "wrong")
        before = functions.state()

        with pytest.raises(redis.ResponseError):
            functions.call(name, functions.of("good", "bad"), *args)

        assert functions.state() == before, wrong
        functions.clear()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("worker_register", ["w", "other"]),
        ("worker_register", ["new", "q"]),
        ("worker_unregister", ["w", "q"]),
        ("worker_count", ["w", 1, 1]),
        ("worker_list", []),
        ("worker_show", ["w"]),
        ("worker_report", ["w", "{}", "q", "other"]),
        ("worker_report", ["new", "{}", "q"]),
        ("worker_leave", ["w"]),
        ("worker_tell", ["w", "quiet"]),
        ("worker_records", [10]),
    ],
)
def test_a_wrong_key_of_the_workers_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    keys = functions.keys.workers()
    for wrong in keys:
        functions.call("worker_register", keys, "w", "q")
        functions.call("worker_count", keys, "w", 1, 1)
        functions.client.delete(wrong)
        functions.client.set(wrong, "wrong")
        before = functions.state()

        with pytest.raises(redis.ResponseError):
            functions.call(name, keys, *args)

        assert functions.state() == before, wrong
        functions.clear()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cron_put", ["c", "definition", "1", "due", 5, ""]),
        ("cron_put", ["new", "definition", "1", "steady", 5, "1"]),
        ("cron_remove", ["c"]),
        ("cron_show", ["c"]),
        ("cron_list", ["", 10, MIB]),
        ("cron_look", [0, "0", 10]),
        ("cron_look", [2**48, "0", 10]),
        ("cron_bodies", [MIB, "c"]),
        ("cron_advance", ["c", 5, "due", 9, "fired"]),
        ("cron_advance", ["c", 5, "due", "", "era"]),
        ("cron_pause", ["c"]),
        ("cron_pause", ["c", "due", 5]),
    ],
)
def test_a_wrong_key_of_the_recurring_jobs_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    keys = functions.keys.crons()
    for wrong in keys:
        functions.call("cron_put", keys, "c", "definition", "1", "due", 5, "")
        functions.client.delete(wrong)
        functions.client.set(wrong, "wrong")
        before = functions.state()

        with pytest.raises(redis.ResponseError):
            functions.call(name, keys, *args)

        assert functions.state() == before, wrong
        functions.clear()


def test_a_wrong_key_of_the_registry_leaves_everything_as_it_was(functions: Functions) -> None:
    names, channel = functions.keys.registry()
    functions.client.set(names, "wrong")

    with pytest.raises(redis.ResponseError):
        functions.call("register", (names, channel), "a", "b")

    assert functions.client.get(names) == b"wrong"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("listen", ["s/1", "s/2"]),
        ("unlisten", ["s/1"]),
        ("deliver", [10, MIB, "0"]),
        ("deliver", [10, MIB, "1"]),
    ],
)
def test_a_wrong_key_of_a_delivery_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    cast, turns = functions.keys.cast("q"), functions.keys.turns("q")
    own = functions.of("q")
    keys = (*own, cast, turns) if name == "deliver" else (turns,)
    wrong_keys = [functions.key("q", part) for part in CLASSIC] if name == "deliver" else []
    if args[-1] != "0":
        wrong_keys.append(turns)
    for wrong in wrong_keys:
        fill(functions, "q", "everything")
        functions.call("listen", (turns,), "s/1")
        functions.client.delete(wrong)
        functions.client.set(wrong, "wrong")
        before = functions.state()

        with pytest.raises(redis.ResponseError):
            functions.call(name, keys, *args)

        assert functions.state() == before, wrong
        functions.clear()


@pytest.mark.parametrize("new", ["0", "1"])
def test_a_wrong_key_of_a_watched_queue_leaves_everything_as_it_was(functions: Functions, new: str) -> None:
    fill(functions, "good", "everything")
    good, bad = functions.of("good")[0], functions.of("bad")[0]
    functions.client.set(bad, "wrong")
    before = functions.state()

    with pytest.raises(redis.ResponseError):
        functions.call("watch", (good, bad), new)

    assert functions.state() == before


def test_every_function_is_called_with_wrong_keys_above(functions: Functions) -> None:
    listed = functions.client.function_list(library.NAME)
    offered = {name.decode() for name in _names_in(listed) if name.startswith(b"presque_")}
    workers = {
        *("worker_register", "worker_unregister", "worker_count", "worker_list", "worker_show"),
        *("worker_report", "worker_leave", "worker_tell", "worker_records"),
    }
    deliveries = {"listen", "unlisten", "deliver"}
    crons = {
        *("cron_put", "cron_remove", "cron_show", "cron_list", "cron_look", "cron_bodies", "cron_advance"),
        "cron_pause",
    }

    assert offered - {library.NAME} == {
        f"{library.NAME}_{name}"
        for name in {*QUEUE_CALLS, *workers, *crons, *deliveries, "register", "watch"}
    }


def _names_in(entry: Any) -> Iterator[bytes]:
    """All byte strings in what FUNCTION LIST says, however deep."""
    if isinstance(entry, bytes):
        yield entry
    elif isinstance(entry, dict):
        for pair in entry.items():
            yield from _names_in(list(pair))
    elif isinstance(entry, list | tuple | set):
        for one in entry:
            yield from _names_in(one)
