"""Each function in the store, called directly. lua/head.lua has the data model."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import redis

from presque import codec
from presque.engine import library, records, replies
from presque.engine.engine import pack
from presque.engine.keys import Keys
from presque.job import Fetched, PushOptions

CLASSIC = ("meta", "jobs", "ready", "due", "ttl", "uniq")
NAMES = (
    *CLASSIC, "leased", "runs", "dead", "done", "memo", "memo:old",
    "groups", "ring", "rate", "idem", "idem:old", "purged", "bulk", "moved",
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
        args = [part for body in bodies for part in (packed, records.seal(body))]
        return list(self.call("push", self.of(queue), failures, 0, *args))

    def fetch(self, *queues: str, count: int = 1000, most_bytes: int = MIB) -> replies.Taken[Fetched]:
        return replies.fetched(self.call("fetch", self.of(*queues), count, most_bytes), queues)

    def bodies(self, *queues: str, count: int = 1000) -> list[bytes]:
        return [job.body for job in self.fetch(*queues, count=count).jobs]

    def stats(self, queue: str) -> Any:
        [found], _ = replies.stats(self.call("stats", self.of(queue)), [queue])
        return found

    def key(self, queue: str, name: str) -> str:
        return f"{self.keys.namespace}:{{{queue}}}:{name}"

    def state(self) -> dict[bytes, bytes]:
        """Every key of the namespace and all it holds."""
        keys: list[Any] = self.client.keys(f"{self.keys.namespace}:*")
        return dict(zip(keys, self.together("DUMP", ((key,) for key in keys)), strict=True))

    def clear(self) -> None:
        """Delete every key of the namespace."""
        self.together("DEL", ((key,) for key in self.client.keys(f"{self.keys.namespace}:*")))

    def together(self, command: str, many: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Send a command several times at once, and return its replies."""
        with self.client.pipeline(transaction=False) as pipeline:
            for args in many:
                pipeline.execute_command(command, *args)  # type: ignore[no-untyped-call]
            return pipeline.execute()

    def census(self) -> set[str]:
        """The names of the keys that queues have, without the namespace, and without those of the history:
        whether there are any depends on the time of day."""
        prefix = f"{self.keys.namespace}:"
        return {
            key.decode().removeprefix(prefix)
            for key in self.client.scan_iter(f"{prefix}*")
            if b"{:queues}" not in key and b"}:history:" not in key
        }


def wait_ms(milliseconds: int) -> None:
    """Let the store's clock pass so much time; it runs on this machine's."""
    time.sleep((milliseconds + 1) / 1000)


# --- push ---------------------------------------------------------------------------------------


def test_push_answers_ids_and_stores_header_and_body(functions: Functions) -> None:
    before = int(time.time() * 1000)
    assert functions.push("q", b"1", b'{"a":  2}') == [1, 2]

    stored: Any = functions.client.hgetall(functions.key("q", "jobs"))

    assert stored.keys() == {b"1", b"2"}
    layout, priority = stored[b"2"][:2]
    [pushed_at] = struct.unpack(">Q", b"\0\0" + stored[b"2"][2:8])
    assert (layout, priority, stored[b"2"][8:]) == (records.PLAIN, 5, records.seal(b'{"a":  2}'))
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

    assert records.body_of(record) == body


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
    while functions.call("sweep", functions.of("q"))[0]:
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


def test_one_call_moves_250_due_jobs_at_most(functions: Functions) -> None:
    functions.push("q", *[b"1"] * 1000, delay=1)
    functions.push("q", *[b"1"] * 200, delay=1)
    wait_ms(1)
    ready = functions.key("q", "ready")

    moved = []
    while True:
        more, _, _ = functions.call("sweep", functions.of("q"))
        moved.append(functions.client.llen(ready))
        if not more:
            break

    assert moved == [250, 500, 750, 1000, 1200]
    assert len(functions.bodies("q")) == 1000


def test_one_call_drops_250_expired_jobs_at_most(functions: Functions) -> None:
    functions.push("q", *[b"1"] * 1000, ttl=1)
    functions.push("q", *[b"1"] * 200, ttl=1)
    wait_ms(1)
    jobs = functions.key("q", "jobs")

    left = []
    while True:
        more, _, _ = functions.call("sweep", functions.of("q"))
        left.append(functions.client.hlen(jobs))
        if not more:
            break

    assert left == [950, 700, 450, 200, 0]
    assert functions.stats("q").expired == 1200


def test_due_jobs_become_ready_in_the_order_of_their_times_then_of_their_ids(functions: Functions) -> None:
    now = int(time.time() * 1000)
    for body, at in ((b"c", 30), (b"a", 10), (b"b1", 20), (b"b2", 20)):
        functions.push(
            "q", body, delayed=now + 4000 + at
        )  # all from one moment, and none before the last push
    functions.push("q", b"first", b"second")
    wait_ms(4030)

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
    kept = {b"seq", b"stopped", b"more", b"clock", b"skew", b"busy"}
    assert set(functions.client.hkeys(functions.key("q", "meta"))) == kept


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
    assert functions.call("worker_list", keys, "", 10) == []
    assert functions.call("worker_show", keys, "new")[1:] == [b"1", b"0"]


def test_a_worker_that_reports_is_forgotten_after_an_hour(functions: Functions) -> None:
    keys = functions.keys.workers()
    functions.call("worker_report", keys, "reports", "{}", "q")
    functions.call("worker_register", keys, "registered", "q")
    two_hours_ago = time.time() * 1000 - 2 * 3600 * 1000
    functions.client.zadd(keys[4], {"reports": two_hours_ago, "registered": two_hours_ago})

    functions.call("worker_count", keys, "new", 1, 0)

    assert functions.call("worker_list", keys, "", 10) == [b"registered"]
    assert functions.client.hlen(keys[5]) == 0


# --- keys of a wrong type -----------------------------------------------------------------------


def settling(verb: str, token: str, *ids: str, **fields: Any) -> list[Any]:
    """One group of the arguments of `settle`."""
    return [verb, token, codec.pack(fields) if fields else b"", " ".join(ids)]


SEALED = records.seal(b"1")


def step_of(act: str, *states: str, **only: Any) -> bytes:
    """What `bulk_step` is asked for."""
    return codec.pack({"act": act, "states": states, "filter": only, "bound": 2**47})


def asked_of(state: str, **more: Any) -> dict[str, Any]:
    """What `sift` is asked for."""
    asked = {
        "state": state,
        "upward": False,
        "cursor": "",
        "look": 100,
        "bytes": MIB,
        "room": 100,
        "tell": 100,
    }
    return asked | {"filter": {"find": "1"}} | more


PLAIN_9 = struct.pack(">BB", records.PLAIN, 9) + bytes(6) + records.seal(b"1")
FOUND = codec.pack({"following": "", "looked": 1, "matched": 1, "refused": 0, "states": 1})


def batch_of(*jobs: tuple[str, dict[str, Any]]) -> bytes:
    """What `bulk_put` gets: jobs in these states, with these extras."""
    found = []
    for state, extras in jobs:
        packed = codec.pack(extras)
        record = struct.pack(">BB6xH", records.EXTENDED, 9, len(packed)) + packed + records.seal(b"1")
        run = struct.pack(">BBH6sI6sBH", records.EXTENDED, 9, 1, bytes(6), 0, bytes(6), 0, 0)
        found.append((record, run if state == "dead" else b"", state, 2**40, 2**41, "uniq" in extras))
    return b"1 " + as_strings(found)


def as_strings(value: Any) -> bytes:
    """MessagePack in which bytes are strings, as the store writes it."""
    if isinstance(value, bytes):
        return b"\xda" + struct.pack(">H", len(value)) + value
    if isinstance(value, list | tuple):
        return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(as_strings, value))
    return codec.pack(value)


BATCH = batch_of(("ready", {}))
BATCH_IN_FULL = batch_of(
    ("ready", {"group": "acme", "uniq": "own"}), ("dead", {}), ("done", {}), ("scheduled", {"run_at": 2**40})
)
IMPORTED = [
    *(PLAIN_9, b"", "ready", 0, "", ""),
    *(records.record_of(b"1", 5, 0, {"group": "acme", "uniq": "new"}), b"", "ready", 0, 2**41, "1"),
    *(PLAIN_9, b"", "scheduled", 2**41, "", ""),
    *(PLAIN_9, records.packed_run(records.Run(1), 9, plain=True), "dead", 5, "", ""),
]
QUEUE_CALLS: dict[str, list[list[Any]]] = {
    "push": [
        [0, 0, b"", SEALED],
        [1, 0, b"", SEALED],
        [0, 1, pack(PushOptions(priority=9)), SEALED],
        [0, 0, pack(PushOptions(group="acme", idempotency="new", fingerprint="f", priority=9)), SEALED],
        [0, 0, b"", SEALED, pack(PushOptions(delay=60_000, ttl=90_000, uniq="new key", priority=1)), SEALED],
    ],
    "fetch": [[10, MIB], [1, 1]],
    "unfetch": [["99", PLAIN_9], ["99", PLAIN_9, "damaged"]],
    "lease": [[10, MIB, "", "w", "nonce", ""], [2, MIB, 1000, "w", "nonce", "again"]],
    "settle": [
        ["0.5", *settled]
        for settled in (
            settling("ack", "1-nonce", "1", result='"result"'),
            settling("fail", "1-nonce", "1", error="error", backtrace="backtrace"),
            settling("fail", "1-nonce", "1", error="error", retry_in=0),
            settling("fail", "1-nonce", "1", error="error", retry=False),
            settling("release", "1-nonce", "1"),
            settling("release", "1-nonce", "1", delay=1000),
            settling("extend", "1-nonce", "1", ms=1000, progress="50"),
            settling("ack", "unknown", "2"),
            settling("extend", "1-nonce", "1", "1") + settling("ack", "1-nonce", "1"),
        )
    ],
    "show": [["1"], ["3"]],
    "list": [[state, 10, "", MIB] for state in ("ready", "scheduled", "leased", "done", "dead")],
    "patch": [
        ["3", "9", "", "", ""],
        ["4", "", "", "60000", ""],
        ["5", "1", "1", "", records.seal(b"new")],
        ["6", "", "", "0", ""],
    ],
    "remove": [["1"], ["2"], ["3"], ["4"], ["6"]],
    "retry": [["2", 0, 0, 0], ["", 10, 0, 0], ["", 10, "100.5", 0]],
    "explain": [["1"], ["3"]],
    "policy": [[b""], [codec.pack({"max_leased": 3, "rate_count": 1, "rate_ms": 1000})]],
    "sweep": [[]],
    "stats": [[]],
    "sift": [[codec.pack(asked_of(state))] for state in ("ready", "scheduled", "leased", "done", "dead")],
    "kinds": [["dead", "", 100, MIB], ["scheduled", "", 100, MIB]],
    "bulk_step": [
        ["1", 0, 100, MIB, 100, step_of("retry", "dead")],
        *(
            ["1", 0, 100, MIB, 100, step_of("delete", state)]
            for state in ("ready", "scheduled", "leased", "done", "dead")
        ),
    ],
    "bulk_take": [["1", 0, FOUND, "1", "2", "3", "4", "5", "6"]],
    "bulk_left": [["1"]],
    "bulk_drop": [["1", "1"]],
    "bulk_room": [["key"]],
    "bulk_put": [["1", "other", BATCH], ["1", "other", BATCH_IN_FULL]],
    "import": [["import:x", 1, *IMPORTED]],
    "bulk_forget": [["1"]],
    "history": [["5m"], ["all"]],
    "rejoin": [["0"]],
    "peek": [[10, MIB]],
    "control": [["stop"], ["start"]],
    "policy_known": [[b"", "known"], [codec.pack({"max_leased": 3}), "known"]],
    "control_known": [["stop", "known"], ["start", "known"]],
    "purge": [[]],
    "forget": [[]],
}
EXTRAS = codec.pack({"uniq": "own", "expires_at": 2**47})
UNFETCH_ALL = struct.pack(">BB6xH", records.EXTENDED, 1, len(EXTRAS)) + EXTRAS + records.seal(b"1")
QUEUE_CALLS["patch_body"] = QUEUE_CALLS["patch"]
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
        functions.push(queue, b"5", ttl=60_000, idempotency="key", fingerprint="f")
        functions.push(queue, b"6", delay=60_000)
        if filling == "limits":
            functions.push(queue, b"7", group="acme")
            functions.push(queue, b"8", group="acme", priority=9)
        functions.call("lease", functions.of(queue), 4, MIB, 60_000, "w", "nonce", "before")
        functions.call(
            "settle", functions.of(queue), "0.5",
            *settling("fail", "1-nonce", "2", error="error", retry=False),
            *settling("ack", "1-nonce", "3"),
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
    fill(functions, "q", filling)
    filled = functions.state()
    functions.clear()
    for wrong in wrong_keys:
        for args in QUEUE_CALLS[name]:
            functions.together("RESTORE", ((key, 0, dump) for key, dump in filled.items()))
            functions.client.set(functions.key("q", wrong), "wrong")
            before = functions.state()
            try:
                functions.call(name, functions.of("q"), *args)
            except redis.ResponseError as error:
                refused += 1
                assert functions.state() == before, (wrong, args, str(error))  # noqa: PT017 (not every call fails)
            else:
                if name in ("purge", "forget"):
                    continue  # they delete a key of whatever type
                if wrong in ("memo:old", "idem:old"):
                    continue  # its time had come
                # It went well, so it had no business with this key.
                assert functions.client.get(functions.key("q", wrong)) == b"wrong", (wrong, args)
            finally:
                functions.clear()
    assert refused > 0


OF_MANY: dict[str, list[Any]] = {
    "fetch": [10, MIB],
    "lease": [10, MIB, "", "w", "nonce", ""],
    "stats": [],
    "sweep": [],
}


@pytest.mark.parametrize("name", OF_MANY)
def test_a_spoilt_queue_is_named_and_passed_over_among_others(functions: Functions, name: str) -> None:
    for wrong in (*CLASSIC, "leased"):
        for queue in "first", "bad", "last":
            fill(functions, queue, "leases" if wrong == "leased" else "everything")
        functions.client.delete(functions.key("bad", wrong))
        functions.client.set(functions.key("bad", wrong), "wrong")
        before = functions.state()

        reply = functions.call(name, functions.of("first", "bad", "last"), *OF_MANY[name])

        position, reason = reply[{"fetch": 4, "lease": 4, "stats": 1, "sweep": 2}[name]]
        assert position == 2, wrong
        assert b"WRONGTYPE" in reason
        after = functions.state()
        assert {key for key in after if b"{bad}" in key and after[key] != before[key]} == set(), wrong
        if name in ("fetch", "lease"):
            assert reply[3][::5] == [1, 3], wrong
        elif name == "stats":
            assert [figures[0] for figures in reply[3:]] == [1, 3]
        functions.clear()


@pytest.mark.parametrize("name", OF_MANY)
def test_a_record_that_cannot_be_read_harms_no_other_queue(functions: Functions, name: str) -> None:
    """It is met in the middle of a call, when jobs of the queue before were taken already."""
    functions.push("first", b"1")
    functions.push("bad", b"2", ttl=60_000)
    functions.push("last", b"3")
    functions.client.hset(functions.key("bad", "jobs"), "1", b"nonsense")

    reply = functions.call(name, functions.of("first", "bad", "last"), *OF_MANY[name])

    if name in ("fetch", "lease"):
        assert [reply[3][at] for at in range(0, len(reply[3]), 5) if reply[3][at] != 2] == [1, 3]


def refused_by(functions: Functions, wrong: str, name: str, keys: tuple[str, ...], *args: Any) -> None:
    """A function refuses to work where one of its keys holds something else, and has changed nothing."""
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
        ("worker_register", ["w", "other"]),
        ("worker_register", ["new", "q"]),
        ("worker_unregister", ["w", "q"]),
        ("worker_count", ["w", 1, 1]),
        ("worker_list", ["", 10]),
        ("worker_takers", ["q"]),
        ("worker_show", ["w"]),
        ("worker_report", ["w", "{}", "q", "other"]),
        ("worker_report", ["new", "{}", "q"]),
        ("worker_leave", ["w"]),
        ("worker_tell", ["w", "quiet"]),
        ("worker_records", [10, MIB]),
    ],
)
def test_a_wrong_key_of_the_workers_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    keys = functions.keys.workers()
    for wrong in keys:
        functions.call("worker_register", keys, "w", "q")
        functions.call("worker_count", keys, "w", 1, 1)
        refused_by(functions, wrong, name, keys, *args)


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
        ("cron_advance", ["c", 5, "due", 9, 5]),
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
        refused_by(functions, wrong, name, keys, *args)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("access_look", []),
        ("access_page", ["tokens", 0, 10]),
        ("access_page", ["names", 0, 10]),
        ("access_put", ["new", "record", 10, "", "seal"]),
        ("access_remove", ["t"]),
        ("access_end", ["t:other", 2**42, 10]),
        ("access_ended", [0, 10]),
        ("access_note", [10, "", "{}"]),
        ("access_notes", [0, 10]),
        ("access_spend", ["t", 1]),
        ("namespace_put", ["n", "other", 10, "record"]),
        ("namespace_remove", ["n", "record", "t"]),
        ("namespace_use", ["n"]),
        ("namespaces_active", ["0"]),
        ("namespace_rest", ["n", 0]),
    ],
)
def test_a_wrong_key_of_the_tokens_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    keys = functions.keys.access()
    tokens, meta, acts, _, names, active, spent, refused, ended = keys
    reads: dict[str, tuple[str, ...]] = {
        "access_look": (meta,),
        "access_page": (tokens if args[0] == "tokens" else names,) if name == "access_page" else (),
        "access_put": (tokens, meta),
        "access_remove": (tokens, meta, spent),
        "access_spend": (spent,),
        "access_end": (meta, ended),
        "access_ended": (ended,),
        "access_note": (meta, acts, refused),
        "access_notes": (acts, refused),
        "namespace_put": (meta, names),
        "namespace_remove": (tokens, meta, names, active, spent),
        "namespace_use": (meta, active),
        "namespaces_active": (meta, active),
        "namespace_rest": (meta, active),
    }
    for wrong in reads[name]:
        functions.call("access_put", keys, "t", "record", 10, "", "seal")
        functions.call("access_note", keys, 10, "", "{}", "1", "{}")
        functions.call("namespace_put", keys, "n", "record", 10, "")
        functions.call("namespace_use", keys, "n")
        functions.call("access_spend", keys, "t", 1)
        functions.call("access_end", keys, "t:s", 2**42, 10)
        wait_ms(1)
        refused_by(functions, wrong, name, keys, *args)


def test_a_session_that_was_ended_is_kept_until_it_would_have_ended(functions: Functions) -> None:
    keys = functions.keys.access()
    for number in range(5):
        functions.call("access_end", keys, f"t:{number}", 2**42 + number, 3)
    assert functions.call("access_ended", keys, 0, 2) == [b"t:2", b"t:3"]
    assert functions.call("access_ended", keys, 2, 2) == [b"t:4"]
    functions.call("access_end", keys, "t:over", 1, 3)
    functions.call("access_end", keys, "t:4", 2**42, 3)
    assert functions.call("access_ended", keys, 0, 10) == [b"t:4", b"t:2", b"t:3"]


def test_refusals_push_no_acts_out_of_the_audit(functions: Functions) -> None:
    keys = functions.keys.access()
    functions.call("access_note", keys, 3, "", "acted")
    for at in range(10):
        functions.call("access_note", keys, 3, "1", f"refused {at}", "1", "again")

    def notes(before: str, most: int) -> list[tuple[int, bytes]]:
        found = (line.split(b" ", 2) for line in functions.call("access_notes", keys, before, most))
        return sorted((int(number), what) for number, _, what in found)

    kept = [(19, b"again"), (20, b"refused 9"), (21, b"again")]
    assert notes("", 10) == [(1, b"acted"), *kept]
    assert notes("21", 1) == [(1, b"acted"), (20, b"refused 9")]
    assert notes("1", 10) == []


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("task_put", ["what", "how"]),
        ("task_claim", ["me", 1000, 10]),
        ("task_save", ["1", "me", "how", 1000, ""]),
        ("task_save", ["1", "me", "how", 1000, "done"]),
        ("task_steer", ["1", "pause"]),
        ("task_steer", ["1", "cancel"]),
        ("task_show", ["1"]),
        ("task_list", ["", 10]),
    ],
)
def test_a_wrong_key_of_the_tasks_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    keys = functions.keys.tasks()
    for wrong in keys:
        functions.call("task_put", keys, "what", "how")
        functions.call("task_claim", keys, "me", 1000, 10)
        refused_by(functions, wrong, name, keys, *args)


def test_a_wrong_key_of_the_registry_leaves_everything_as_it_was(functions: Functions) -> None:
    names, channel, layout = functions.keys.registry()
    functions.client.set(names, "wrong")

    with pytest.raises(redis.ResponseError):
        functions.call("register", (names, channel, layout), "a", "b")
    assert functions.call("layout", (names, channel, layout)) == b"1"
    assert functions.client.get(names) == b"wrong"


@pytest.mark.parametrize(("name", "args"), [("quota", [1, 2, ""]), ("usage", ["server", 1])])
def test_a_wrong_key_of_the_usage_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    keys = functions.keys.usage()
    for wrong in keys[1:2] if name == "quota" else keys:
        functions.call("quota", keys, 5, 5, 5)
        refused_by(functions, wrong, name, keys, *args)


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
        refused_by(functions, wrong, name, keys, *args)


@pytest.mark.parametrize(
    ("name", "args"), [("alerts_put", ["new", "value", 10]), ("alerts_remove", ["a"]), ("alerts_all", [])]
)
def test_a_wrong_key_of_the_alerts_leaves_everything_as_it_was(
    functions: Functions, name: str, args: list[Any]
) -> None:
    functions.client.set(functions.keys.alerts()[0], "wrong")
    before = functions.state()

    with pytest.raises(redis.ResponseError):
        functions.call(name, functions.keys.alerts(), *args)

    assert functions.state() == before


def test_alerts_are_kept_up_to_a_number_and_forgotten(functions: Functions) -> None:
    keys = functions.keys.alerts()
    assert [functions.call("alerts_put", keys, id, "v", 2) for id in "aab"] == [1, 1, 1]
    assert functions.call("alerts_put", keys, "c", "v", 2) == 0
    assert functions.call("alerts_put", keys, "a", "w", 2) == 1
    assert functions.call("alerts_all", keys) == [b"a", b"w", b"b", b"v"]
    assert [functions.call("alerts_remove", keys, id) for id in "aa"] == [1, 0]


@pytest.mark.parametrize("act", ["retry", "delete"])
def test_a_step_of_a_task_that_was_made_is_not_made_again(functions: Functions, act: str) -> None:
    functions.push("q", *[b"1"] * 6, attempts=1)
    functions.call("lease", functions.of("q"), 6, MIB, 60_000, "w", "nonce", "")
    functions.call("settle", functions.of("q"), "0.5", *settling("fail", "1-nonce", *"123456", error="no"))
    step = ["7", 0, 2, MIB, 100, step_of(act, "dead")]

    first = functions.call("bulk_step", functions.of("q"), *step)
    again = functions.call("bulk_step", functions.of("q"), *step)

    assert first == again
    assert first[:6] == [1, 0, 2, 2, 2, 0]
    assert functions.stats("q").dead == 4


def test_a_batch_that_was_taken_or_put_is_not_taken_or_put_again(functions: Functions) -> None:
    functions.push("q", *[b"1"] * 6)
    found = codec.pack({"following": "5:1:2", "looked": 2, "matched": 2, "refused": 0, "states": 1})

    progress, batch = functions.call("bulk_take", functions.of("q"), "7", 0, found, "1", "2")
    assert functions.call("bulk_take", functions.of("q"), "7", 0, found, "3", "4") == [progress, b""]
    assert functions.call("bulk_take", functions.of("q"), "7", 1, found, "3", "4") == [progress, b""]
    assert functions.call("bulk_left", functions.of("q"), "7") == [progress, batch]
    assert functions.call("bulk_put", functions.of("other"), "7", "q", batch) == 2
    assert functions.call("bulk_put", functions.of("other"), "7", "q", batch) == 0
    assert functions.call("bulk_drop", functions.of("q"), "7", 2) == 0
    assert functions.call("bulk_drop", functions.of("q"), "7", 1) == 1
    assert functions.call("bulk_take", functions.of("q"), "7", 0, found, "3", "4") == [progress, b""]

    assert (functions.stats("q").ready, functions.stats("other").ready) == (4, 2)
    progress, batch = functions.call("bulk_take", functions.of("q"), "7", 1, found, "3", "4")
    assert functions.call("bulk_put", functions.of("other"), "7", "q", batch) == 2
    assert functions.stats("other").ready == 4


def test_a_queue_that_is_spoilt_is_told_as_such_by_a_tally(functions: Functions) -> None:
    for queue in ("first", "bad", "last"):
        fill(functions, queue, "leases")
    functions.client.set(functions.key("bad", "dead"), "wrong")

    assert functions.call("tally", functions.of("first", "bad", "last"), "dead") == [1, -1, 1]
    assert functions.call("tally", functions.of("first", "bad", "last"), "ready") == [0, -1, 0]
    assert functions.call("tally", functions.of("last", "nowhere"), "leased") == [3, 0]


def test_a_queue_that_is_spoilt_holds_no_job(functions: Functions) -> None:
    for queue in ("first", "last"):
        functions.push(queue, b"1")
    functions.client.set(functions.key("bad", "jobs"), "wrong")
    jobs = [functions.key(queue, "jobs") for queue in ("first", "bad", "last", "nowhere")]

    assert functions.call("holding", tuple(jobs), "1") == [1, 3]


@pytest.mark.parametrize("new", ["0", "1"])
def test_a_wrong_key_of_a_watched_queue_is_passed_over(functions: Functions, new: str) -> None:
    fill(functions, "good", "everything")
    good, bad = functions.of("good")[0], functions.of("bad")[0]
    functions.client.set(bad, "wrong")

    _, wrong, last = functions.call("watch", (bad, good), new)

    assert (wrong, last) == (-1, 7)
    assert functions.client.get(bad) == b"wrong"
    assert functions.client.hget(good, "watched") == b"1"


def test_every_function_is_called_with_wrong_keys_above(functions: Functions) -> None:
    listed = functions.client.function_list(library.NAME)
    offered = {name.decode() for name in _names_in(listed) if name.startswith(b"presque_")}
    workers = {
        *("worker_register", "worker_unregister", "worker_count", "worker_list", "worker_takers"),
        *("worker_show", "worker_report", "worker_leave", "worker_tell", "worker_records"),
    }
    deliveries = {"listen", "unlisten", "deliver"}
    registry = {
        "register",
        "unregister",
        "layout",
        "watch",
        "watch_all",
        "held",
        "holding",
        "tally",
        "close",
        "history_of_all",
    }
    crons = {
        *("cron_put", "cron_remove", "cron_show", "cron_list", "cron_look", "cron_bodies", "cron_advance"),
        "cron_pause",
    }
    tasks = {
        *("task_put", "task_put_freeing", "task_claim", "task_save", "task_steer", "task_show", "task_list"),
    }
    access = {
        *("access_look", "access_put", "access_remove", "access_page", "access_note", "access_notes"),
        *("access_spend", "access_end", "access_ended"),
        *("namespace_put", "namespace_remove", "namespace_use", "namespaces_active", "namespace_rest"),
        *("quota", "usage"),
    }

    alerts = {"alerts_put", "alerts_remove", "alerts_all"}

    called = {*QUEUE_CALLS, *workers, *crons, *deliveries, *registry, *access, *tasks, *alerts}
    assert offered - {library.NAME} == {f"{library.NAME}_{name}" for name in called}


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


# --- the layout of the data ---------------------------------------------------------------------


@pytest.mark.parametrize("function", ["register", "unregister"])
def test_a_set_of_names_of_a_wrong_type_leaves_everything_as_it_was(
    functions: Functions, function: str
) -> None:
    functions.push("q", b"1")
    functions.client.set(functions.keys.registry()[0], "wrong")
    before = functions.state()
    with pytest.raises(redis.ResponseError):
        functions.call(function, functions.keys.registry(), "q")
    assert functions.state() == before
    functions.client.delete(functions.keys.registry()[0])


def test_data_of_another_layout_is_told_from_ours(functions: Functions) -> None:
    keys = functions.keys.registry()
    layout = keys[2]
    ours = str(library.LAYOUT).encode()

    assert functions.call("layout", keys) == ours
    functions.client.delete(layout)
    functions.call("register", keys, "a")
    assert functions.call("layout", keys) == ours, "also after the store was emptied under a server"
    functions.client.delete(layout)
    assert functions.call("layout", keys) == b"1", "queues and no number: from before there was one"
    functions.client.set(layout, "99")
    assert functions.call("layout", keys) == b"99"


OLD_RECORDS = {
    "plain": b"\0\5" + bytes(6) + b"1",
    "uniq and ttl": bytes([1 | 4, 5]) + bytes(6) + b"\3key" + bytes(6) + b"1",
    "all there is": b"\xff\5" + bytes(60) + b"1",
    "a later layout": b"\x12\5" + bytes(6) + records.seal(b"1"),
}


@pytest.mark.parametrize("record", OLD_RECORDS.values(), ids=OLD_RECORDS)
def test_a_record_of_another_layout_is_damaged_and_never_misread(functions: Functions, record: bytes) -> None:
    functions.push("q", b"1", b"2")
    functions.client.hset(functions.key("q", "jobs"), "1", record)

    taken = functions.fetch("q")

    assert [job.body for job in taken.jobs] == [b"2"]
    assert [(job.id, job.record) for job in taken.damaged] == [("1", record)]
    functions.call("unfetch", functions.of("q"), "1", record, "damaged")
    job = replies.job("q", functions.call("show", functions.of("q"), "1"))
    assert (job.state, job.reason, job.body) == ("dead", "damaged", b"null")
    assert (functions.stats("q").dead, functions.stats("q").processed) == (1, 1)


# --- checksums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"group": "acme", "ttl": 60_000}], ids=["plain", "with extras"])
def test_no_flipped_bit_of_a_body_gets_through(functions: Functions, options: dict[str, Any]) -> None:
    body = b'{"to":"ana","n":12345678}'
    functions.push("q", body, **options)
    record: Any = functions.client.hget(functions.key("q", "jobs"), "1")
    sealed = len(records.seal(body))

    assert records.body_of(record) == body
    for bit in range(8 * sealed):
        at = len(record) - sealed + bit // 8
        flipped = record[:at] + bytes([record[at] ^ 1 << bit % 8]) + record[at + 1 :]
        assert records.body_of(flipped) == b""


# --- pages --------------------------------------------------------------------------------------


def page(functions: Functions, state: str, limit: int, cursor: str) -> tuple[list[int], str]:
    reply = functions.call("list", functions.of("q"), state, limit, cursor, MIB)
    return [int(row[0]) for row in reply[1:]], reply[0].decode()


def in_state(functions: Functions, state: str, jobs: int) -> None:
    """Bring jobs 1 to `jobs` into a state, all at the same moment."""
    if state == "scheduled":
        functions.push("q", *[b"1"] * jobs, delayed=2**41)
        return
    functions.push("q", *[b"1"] * jobs, keep=600)
    if state == "ready":
        return
    reply = functions.call("lease", functions.of("q"), jobs, MIB, 600_000, "w", "nonce", "")
    [_, ids, _, held, _] = reply[3]
    if state != "leased":
        verb, fields = ("ack", {}) if state == "done" else ("fail", {"retry": False})
        functions.call(
            "settle",
            functions.of("q"),
            "0.5",
            *settling(verb, held[0], *(id.decode() for id in ids), **fields),
        )


@pytest.mark.parametrize("state", ["ready", "scheduled", "leased", "done", "dead"])
@pytest.mark.parametrize("deleted", ["none", "odd", "last", "all"])
def test_pages_neither_repeat_nor_leave_out_rows_while_rows_are_deleted(
    functions: Functions, state: str, deleted: str
) -> None:
    in_state(functions, state, 100)
    seen: list[int] = []
    cursor = ""
    while True:
        rows, cursor = page(functions, state, 7, cursor)
        seen += rows
        if not cursor:
            break
        gone = {"none": [], "odd": [n for n in rows if n % 2], "last": rows[-1:], "all": rows}[deleted]
        for number in gone:
            if state == "leased":
                functions.client.zrem(functions.key("q", "leased"), f"{number:015}")
            else:
                assert functions.call("remove", functions.of("q"), number) == b"deleted"

    assert sorted(seen) == list(range(1, 101))
    assert seen == sorted(seen, reverse=state != "ready")


def test_a_scheduled_job_that_is_made_ready_is_listed_at_once(functions: Functions) -> None:
    functions.push("q", b"1", b"2", delay=3600_000)
    functions.call("patch", functions.of("q"), 1, "", "", 0, "")
    assert page(functions, "ready", 10, "")[0] == [1]
    assert page(functions, "scheduled", 10, "")[0] == [2]
    assert [job.id for job in functions.fetch("q").jobs] == ["1"]


def test_ready_jobs_are_listed_in_the_order_in_which_they_are_handed_out(functions: Functions) -> None:
    functions.push("q", b"1", b"2", b"3")
    functions.push("q", b"4", priority=9)
    functions.push("q", b"5", b"6", priority=1)
    functions.call("patch", functions.of("q"), 1, 1, "", "", "")
    listed: list[int] = []
    cursor = "begin"
    while cursor:
        rows, cursor = page(functions, "ready", 1, "" if cursor == "begin" else cursor)
        listed += rows

    assert listed == [int(job.id) for job in functions.fetch("q").jobs] == [4, 2, 3, 5, 6, 1]


def test_pages_of_ready_jobs_go_on_behind_what_was_taken_meanwhile(functions: Functions) -> None:
    functions.push("q", *[b"1"] * 1000)
    seen: list[int] = []
    cursor = "begin"
    while cursor:
        rows, cursor = page(functions, "ready", 20, "" if cursor == "begin" else cursor)
        seen += rows
        functions.fetch("q", count=7)

    assert seen == sorted(set(seen)), "none twice"
    assert seen[:20] == list(range(1, 21))
    assert seen[-1] == 1000
    assert len(seen) == 1000, "the taken ones stood before the cursor"


def test_the_last_ready_job_is_found_though_ten_thousand_ids_went_before(functions: Functions) -> None:
    functions.push("q", b"kept", priority=1)
    for _ in range(10):
        functions.push("q", *[b"1"] * 1000)
    functions.fetch("q", count=1000)
    while functions.stats("q").ready > 1:
        functions.fetch("q", count=min(1000, functions.stats("q").ready - 1))

    assert page(functions, "ready", 10, "") == ([1], "")


# --- settling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backoff",
    [
        {"backoff_first": 0, "backoff_factor": 100},
        {"backoff_first": 0, "backoff_factor": 1e300},
        {"backoff_first": 1, "backoff_factor": 1e300},
        {"backoff_first": 1e-300, "backoff_factor": 0.5},
        {"backoff_first": 1, "backoff_factor": 0, "backoff_most": 0},
    ],
    ids=str,
)
def test_no_backoff_overflows(functions: Functions, backoff: dict[str, float]) -> None:
    own = functions.of("q")
    functions.call("policy", own, codec.pack({"max_attempts": 60_000, "backoff_most": 0} | backoff))
    functions.push("q", b"1")
    for attempt in range(1, 701):
        [_, _, _, held, _] = functions.call("lease", own, 1, MIB, "", "w", "n", "")[3]
        answer = functions.call("settle", own, "1", *settling("fail", held[0], "1", error="no"))
        assert answer == [b"ready"], attempt

    assert functions.stats("q").failed == 700


def test_a_settle_that_fails_settles_nothing(functions: Functions) -> None:
    functions.push("q", b"1", b"2", b"3")
    [_, _, _, held, _] = functions.call("lease", functions.of("q"), 3, MIB, "", "w", "n", "")[3]
    good = settling("ack", held[0], "1", "2")
    before = functions.state()
    for bad in (
        settling("fail", held[0], "3", retry_in=float("nan")),
        settling("release", held[0], "3", delay=float("inf")),
        settling("release", held[0], "3", delay=-1),
        settling("extend", held[0], "3", ms="soon"),
        settling("finish", held[0], "3"),
        ["ack", held[0], b"\xc1", "3"],
    ):
        with pytest.raises(redis.ResponseError):
            functions.call("settle", functions.of("q"), "0.5", *good, *bad)
        assert functions.state() == before, bad


def test_what_is_the_same_for_all_jobs_of_a_call_is_said_once(functions: Functions) -> None:
    own = functions.of("q")
    functions.push("q", b"1", b"2", b"3")
    functions.push("q", b"4", attempts=2)

    [_, ids, _, alike, _] = functions.call("lease", own, 3, MIB, "", "w", "n", "")[3]
    [_, _, _, other, _] = functions.call("lease", own, 1, MIB, "", "w", "n", "")[3]
    token, _, most, ends = alike
    assert (len(ids), alike[1:3], other[2]) == (3, [1, 5], 2)

    assert functions.call("settle", own, "0.5", *settling("release", token, "1", "2", "3")) == [b"ready"]
    functions.call("settle", own, "0.5", *settling("release", other[0], "4"))
    token, *told = functions.call("lease", own, 4, MIB, "", "w", "n", "")[3][3]
    assert told == [1, 2, told[2]] + [1, most, told[2]] * 3, (
        "one has other attempts; given back last, it is first"
    )
    assert told[2] >= ends

    mixed = [*settling("ack", token, "1", "2"), *settling("ack", token, "9")]
    assert functions.call("settle", own, "0.5", *mixed) == [b"done", b"done", 404]


def test_a_lease_settled_many_times_in_one_call_is_written_once(functions: Functions) -> None:
    functions.push("q", b"1")
    token = functions.call("lease", functions.of("q"), 1, MIB, "", "w", "n", "")[3][3][0]
    writes = functions.client.info("commandstats")
    before = writes["cmdstat_hset"]["calls"], writes["cmdstat_zadd"]["calls"]

    answers = functions.call(
        "settle", functions.of("q"), "0.5", *settling("extend", token, *["1"] * 500, ms=9)
    )

    writes = functions.client.info("commandstats")
    assert {word for word, _ in answers} == {b"leased"}
    assert writes["cmdstat_hset"]["calls"] - before[0] <= 2, "the run, and the counters of the queue"
    assert writes["cmdstat_zadd"]["calls"] - before[1] == 1


# --- what is left behind ------------------------------------------------------------------------


def test_the_notes_of_a_rate_that_is_removed_go(functions: Functions) -> None:
    functions.call("policy", functions.of("q"), codec.pack({"rate_count": 5, "rate_ms": 60_000}))
    functions.push("q", b"1", b"2")
    functions.bodies("q")
    assert functions.client.llen(functions.key("q", "rate")) == 1

    functions.call("policy", functions.of("q"), codec.pack({"rate_count": False, "rate_ms": False}))

    assert functions.census() == {"{q}:meta"}
    assert not functions.client.hexists(functions.key("q", "meta"), "rated")


def test_a_purge_of_many_groups_is_done_a_piece_at_a_time(functions: Functions) -> None:
    groups = 3000
    for number in range(groups):
        functions.push("q", b"1", group=f"g{number}", priority=5 if number % 2 else 9)
    functions.call("policy", functions.of("q"), codec.pack({"group_leased": 1}))
    functions.push("q", b"1", group="g2")
    functions.call("lease", functions.of("q"), 1000, MIB, "", "w", "n", "")
    calls = functions.client.info("commandstats")["cmdstat_unlink"]["calls"]

    assert functions.call("purge", functions.of("q")) == groups + 1

    assert functions.client.info("commandstats")["cmdstat_unlink"]["calls"] - calls < 10
    functions.push("q", b"after", b"and another", group="g7")
    functions.push("q", b"held", group="g9")
    functions.call("lease", functions.of("q"), 2, MIB, "", "w", "n", "")
    sweeps = 1
    while functions.call("sweep", functions.of("q"))[0]:
        sweeps += 1
    assert sweeps > 4, "not all at once"
    assert functions.stats("q").ready == 1
    lists = {name for name in functions.census() if name.startswith("{q}:ready")}
    assert lists <= {"{q}:ready::g7", "{q}:ready::g9"}
    assert not [name for name in functions.census() if "purged" in name]
    assert functions.client.hget(functions.key("q", "meta"), "purges") is None


def test_the_age_of_the_oldest_job_is_had_from_one_body_a_priority(functions: Functions) -> None:
    for priority in (1, 5, 9):
        functions.push("q", *[b"1"] * 30, priority=priority)
    wait_ms(20)
    before = functions.client.info("commandstats")

    found = functions.stats("q")

    after = functions.client.info("commandstats")
    assert found.oldest_ms >= 20
    assert after["cmdstat_hget"]["calls"] - before.get("cmdstat_hget", {"calls": 0})["calls"] == 3
    assert (
        after.get("cmdstat_hmget", {}).get("calls", 0) - before.get("cmdstat_hmget", {}).get("calls", 0) == 1
    )


def test_a_job_deleted_at_the_head_of_its_list_is_ahead_of_nobody(functions: Functions) -> None:
    functions.push("q", b"1", priority=9)
    functions.push("q", b"2")
    assert functions.call("remove", functions.of("q"), 1) == b"deleted"

    assert functions.call("explain", functions.of("q"), 2)[3] == 0
    assert functions.census() == {"{q}:meta", "{q}:jobs", "{q}:ready"}


def test_the_library_has_room_for_more_names(functions: Functions) -> None:
    """Lua takes 200 local names at once. Two changes that each add a few must not meet at the limit."""
    more = "\n".join(f"local spare_{number} = {number}" for number in range(5))
    first, rest = library.source().split("\n", 1)
    text = f"{first}\n{more}\n{rest}".replace(f"{library.NAME}_", "spare_")

    functions.client.function_load(text.replace(library.NAME, "spare", 1))
    functions.client.function_delete("spare")
