"""What the functions count in a namespace that was made: jobs and bytes, whatever happens to them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from presque.engine import records
from tests import rig
from tests.lua.conftest import loaded
from tests.lua.test_functions import MIB, Functions

USED = ("jobs", "bytes")


@pytest.fixture
def inside(store: rig.Store) -> Iterator[Functions]:
    """The functions in a namespace that was made in another one."""
    with loaded(store, ":acme") as found:
        yield found


def used(functions: Functions) -> tuple[int, int]:
    """What was counted: jobs and bytes."""
    found: Any = functions.client.hmget(functions.keys.usage()[1], *USED)
    return int(found[0] or 0), int(found[1] or 0)


def there(functions: Functions, *queues: str) -> tuple[int, int]:
    """What there is."""
    stored: list[Any] = [functions.client.hvals(functions.key(queue, "jobs")) for queue in queues]
    return sum(map(len, stored)), sum(len(record) for some in stored for record in some)


def limit(functions: Functions, queues: Any = "", jobs: Any = "", size: Any = "") -> None:
    functions.call("quota", functions.keys.usage(), queues, jobs, size)


def test_whatever_happens_to_jobs_the_count_is_what_there_is(inside: Functions) -> None:
    """Random pushes, takes, ends, changes, purges: after each the sums are right."""
    some = random.Random(7)
    held: list[tuple[str, list[bytes], bytes]] = []
    queues = ("a", "b")
    for _ in range(400):
        queue = some.choice(queues)
        act = some.choice(
            [
                *("push", "push", "push", "options", "fetch", "lease", "settle", "patch", "remove"),
                *("unfetch", "sweep", "purge", "expire"),
            ]
        )
        if act == "push":
            inside.push(queue, *(b"1" * some.randint(1, 300) for _ in range(some.randint(1, 4))))
        elif act == "options":
            inside.push(queue, b"12345", priority=some.randint(1, 9), uniq=str(some.randint(1, 3)))
        elif act == "expire":
            inside.push(queue, b"12345", ttl=1)
        elif act == "fetch":
            inside.fetch(queue, count=2)
        elif act == "lease":
            reply = inside.call("lease", inside.of(queue), 3, MIB, some.choice(["", 1]), "w", "n", "")
            taken = reply[3]
            held += [(queue, taken[at + 1], taken[at + 3][0]) for at in range(0, len(taken), 5)]
        elif act == "settle" and held:
            where, ids, token = held.pop()
            verb = some.choice(["ack", "fail", "release", "give_back"])
            fields = b""
            inside.call("settle", inside.of(where), "0.5", verb, token, fields, b" ".join(ids))
        elif act == "patch":
            one = next(iter(inside.client.hkeys(inside.key(queue, "jobs"))), b"1")
            inside.call(
                "patch_body", inside.of(queue), one, "", "", "", records.seal(b"2" * some.randint(1, 99))
            )
        elif act == "remove":
            one = next(iter(inside.client.hkeys(inside.key(queue, "jobs"))), b"1")
            inside.call("remove", inside.of(queue), one)
        elif act == "unfetch":
            for job in inside.fetch(queue, count=1).jobs:
                inside.call("unfetch", inside.of(queue), job.id, job.record)
        elif act == "sweep":
            inside.call("sweep", inside.of(*queues))
        elif act == "purge" and some.random() < 0.2:
            inside.call("purge", inside.of(queue))
        assert used(inside) == there(inside, *queues), act
    for queue in queues:
        inside.call("purge", inside.of(queue))
    assert used(inside) == (0, 0)


def test_nothing_is_counted_in_the_namespace_of_the_server(functions: Functions) -> None:
    functions.push("a", b"1", b"2")
    assert not functions.client.exists(functions.keys.usage()[1])
    assert functions.client.hget(functions.key("a", "meta"), "bytes") is None


def test_jobs_beyond_a_quota_are_refused_one_by_one_and_what_frees_goes_on(inside: Functions) -> None:
    limit(inside, jobs=3)

    assert inside.push("a", *[b"1"] * 5) == [1, 2, 3, b"quota jobs 3 3", b"quota jobs 3 3"]
    assert inside.push("b", b"1") == [b"quota jobs 3 3"]
    inside.fetch("a", count=2)

    assert inside.push("b", b"1", b"2", b"3") == [1, 2, b"quota jobs 3 3"]
    assert used(inside) == there(inside, "a", "b") == (3, 3 * 13)


def test_bytes_beyond_a_quota_are_refused_and_smaller_jobs_are_not(inside: Functions) -> None:
    limit(inside, size=100)

    assert inside.push("a", b"1" * 50, b"2" * 50, b"3" * 10) == [1, b"quota bytes 62 100 62", 2]
    assert (
        inside.call("patch_body", inside.of("a"), 2, "", "", "", records.seal(b"2" * 99))
        == b"quota bytes 84 100 89"
    )
    assert inside.call("patch_body", inside.of("a"), 1, "", "", "", records.seal(b"2")) == b"ok"
    assert used(inside) == there(inside, "a")


def test_of_a_push_of_all_or_none_nothing_is_counted_if_one_is_too_many(inside: Functions) -> None:
    limit(inside, jobs=2)
    args = [part for _ in range(3) for part in (b"", records.seal(b"1"))]

    assert inside.call("push", inside.of("a"), 0, 1, *args) == [1, 2, b"quota jobs 0 2 3 or more"]
    assert used(inside) == there(inside, "a") == (0, 0)


def test_a_queue_beyond_a_quota_takes_no_job_no_policy_and_is_not_registered(inside: Functions) -> None:
    limit(inside, queues=1)
    registry = inside.keys.registry()
    assert inside.call("register", registry, "a") == 1
    inside.push("a", b"1")

    assert inside.call("register", registry, "b") == 0
    assert inside.push("b", b"1") == [b"quota queues 1 1"]
    assert inside.call("control", inside.of("b"), "stop") == b"quota queues 1 1"
    assert inside.call("policy", inside.of("b"), b"\x81\xa5lease\xcd\x03\xe8") == [b"quota queues 1 1"]
    assert inside.push("a", b"2") == [2]
    limit(inside, queues=2)
    assert inside.push("b", b"1") == [1]


def test_a_server_that_says_nothing_any_more_has_no_connections(inside: Functions) -> None:
    keys = inside.keys.usage()
    assert inside.call("usage", keys, "one", 3) == [0, 0, 0, 3]
    assert inside.call("usage", keys, "other", 4) == [0, 0, 0, 7]
    inside.client.hset(keys[2], "one", "3 1000")
    assert inside.call("usage", keys, "", 0) == [0, 0, 0, 4]
    assert inside.call("usage", keys, "other", 0) == [0, 0, 0, 0]
    assert not inside.client.exists(keys[2])
