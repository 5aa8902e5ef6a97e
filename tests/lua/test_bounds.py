"""No call holds up the store for long, however large the jobs and what is known of them.

Counted is what a call does, not how long it takes: the time is measured by bench/longest_hold.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from presque import codec
from presque.engine import replies
from presque.engine.importing import Arriving
from presque.job import Failure
from tests import rig
from tests.lua.test_functions import Functions

KIB = 1024
LONG = Failure(1, "w", "e" * 60_000, "b" * 60_000)
JOBS_A_CALL, BYTES_A_CALL = 250, KIB * KIB
LARGE_JOBS = BYTES_A_CALL // 120_000 + 2
"""So many jobs with LONG errors may be in one call: what they fill, the last one, one more."""


def arriving(**about: Any) -> Arriving:
    said: dict[str, Any] = dict.fromkeys(Arriving.__struct_fields__)
    said |= {"body": b"1", "state": "ready", "priority": 5, "attempt": 0, "errors": (), "worker": "w"}
    return Arriving(**(said | {"until_done": False} | about))


def put(functions: Functions, queue: str, jobs: list[Arriving]) -> None:
    for first in range(0, len(jobs), 50):
        parts = [part for job in jobs[first : first + 50] for part in job.packed(1000)]
        functions.call("import", functions.of(queue), "import:test", first + 1, *parts)


def lease(functions: Functions, queue: str, count: int) -> list[Any]:
    """Lease so many jobs, in as many calls as it takes."""
    found: list[Any] = []
    while len(found) < count:
        found += lease_once(functions, queue, count - len(found)).jobs
    return found


def lease_once(functions: Functions, queue: str, count: int, attempt_id: str = "") -> Any:
    args = count, 4 * BYTES_A_CALL, 600_000, "w", "nonce", attempt_id
    return replies.leased(functions.call("lease", functions.of(queue), *args), [queue])


def calls_of(functions: Functions) -> Iterator[int]:
    """How many commands were carried out in the store since this was asked last."""
    functions.client.config_resetstat()
    while True:
        stats: dict[str, Any] = functions.client.info("commandstats")
        yield sum(one["calls"] for one in stats.values())
        functions.client.config_resetstat()


def test_a_lease_reads_and_writes_so_many_bytes_of_errors(functions: Functions) -> None:
    put(functions, "q", [arriving(errors=(LONG,), attempt=1, attempts=1000) for _ in range(100)])

    taken = lease_once(functions, "q", 100, "again")

    assert 0 < len(taken.jobs) <= LARGE_JOBS
    assert taken.more
    rest = lease(functions, "q", 100 - len(taken.jobs))
    assert [int(job.id) for job in [*taken.jobs, *rest]] == list(range(1, 101))
    assert {job.attempt for job in taken.jobs} == {2}
    again = lease_once(functions, "q", 100, "again")
    assert [job.id for job in again.jobs] == [job.id for job in taken.jobs]


def test_a_lease_hands_out_so_many_bytes_of_what_jobs_saved(functions: Functions) -> None:
    saved = b'"%b"' % (b"s" * 60_000)
    put(functions, "q", [arriving(saved=saved, attempt=1) for _ in range(100)])

    taken = lease_once(functions, "q", 100)

    assert 0 < len(taken.jobs) <= 2 * LARGE_JOBS
    assert taken.more
    assert {job.saved for job in taken.jobs} == {saved}


@pytest.mark.parametrize("verb", ["ack", "fail", "release", "extend", "give_back"])
@pytest.mark.parametrize("about", [{"errors": (LONG,)}, {"group": "g", "body": b"1" * 120_000}, {}])
def test_a_settle_answers_for_as_many_as_it_may_write(
    functions: Functions, verb: str, about: dict[str, Any]
) -> None:
    put(functions, "q", [arriving(attempt=1, attempts=1000, **about) for _ in range(60)])
    jobs = lease(functions, "q", 60)
    fields = (
        {"progress": "p" * 60_000, "saved": "s" * 60_000}
        if not about and verb != "ack"
        else {"progress": "1"}
    )
    if verb == "ack" and not about:
        functions.call("policy", functions.of("q"), codec.pack({"keep": 600}))
        fields = {"result": "r" * 60_000, "progress": "p" * 60_000}

    found: list[Any] = []
    most = 0
    while len(found) < 60:
        left = jobs[len(found) :]
        args = [part for job in left for part in (verb, job.token, codec.pack(fields), job.id)]
        some = replies.settled_all(functions.call("settle", functions.of("q"), "0.5", *args), len(left))
        most = max(most, len(some))
        assert some
        found += some

    assert most <= LARGE_JOBS
    assert {one.status for one in found} == {200}


def test_a_settle_gives_their_turn_to_so_many_groups(functions: Functions) -> None:
    put(functions, "q", [arriving(group=f"g{n % 300}", priority=n % 9 + 1) for n in range(900)])
    functions.call("policy", functions.of("q"), codec.pack({"group_leased": 1}))
    jobs = lease(functions, "q", 250)
    calls = calls_of(functions)

    settled = 0
    while settled < len(jobs):
        next(calls)
        args = [part for job in jobs[settled:] for part in ("ack", job.token, "", job.id)]
        some = replies.settled_all(
            functions.call("settle", functions.of("q"), "0.5", *args), len(jobs) - settled
        )
        settled += len(some)
        assert next(calls) < 5000


def test_a_call_takes_back_so_many_leases_at_once(functions: Functions) -> None:
    put(functions, "q", [arriving(errors=(LONG,), attempt=1, attempts=1000) for _ in range(60)])
    put(functions, "small", [arriving() for _ in range(600)])
    for queue, count in (("q", 60), ("small", 600)):
        for job in lease(functions, queue, count):
            functions.client.zadd(functions.key(queue, "leased"), {job.id.zfill(15): 1})

    assert most_moved(functions, "q", "leased") <= LARGE_JOBS
    assert most_moved(functions, "small", "leased") == JOBS_A_CALL


@pytest.mark.parametrize("about", [{"state": "scheduled", "run_at": 1}, {"expires_at": 1}])
def test_a_call_moves_so_many_bytes_because_of_the_time(functions: Functions, about: dict[str, Any]) -> None:
    put(functions, "q", [arriving(body=b"1" * 120_000, **about) for _ in range(60)])

    assert most_moved(functions, "q", "due" if "run_at" in about else "ttl") <= LARGE_JOBS


def most_moved(functions: Functions, queue: str, index: str) -> int:
    """How many jobs one call of `sweep` takes off an index at most, until nothing is left to do."""
    most, more = 0, 1
    while more:
        before = functions.client.zcard(functions.key(queue, index))
        more, _, _ = functions.call("sweep", functions.of(queue))
        most = max(most, before - functions.client.zcard(functions.key(queue, index)))
    assert functions.client.zcard(functions.key(queue, index)) == 0
    return most


@pytest.mark.parametrize("verb", ["sweep", "fetch", "lease"])
def test_a_call_over_many_queues_moves_no_more_than_one_over_one(functions: Functions, verb: str) -> None:
    queues = [f"q{number}" for number in range(20)]
    for queue in queues:
        put(functions, queue, [arriving(state="scheduled", run_at=1) for _ in range(100)])

    def due() -> int:
        return sum(functions.together("ZCARD", ((functions.key(queue, "due"),) for queue in queues)))

    keys = functions.of(*queues)
    asks: dict[str, tuple[Any, ...]] = {"sweep": (), "fetch": (1, 1000), "lease": (1, 1000, "", "w", "n", "")}
    while before := due():
        more, *_ = functions.call(verb, keys, *asks[verb])
        assert more == 1 or due() == 0 or verb != "sweep"
        assert before - due() <= JOBS_A_CALL


def test_a_fetch_skips_so_many_bytes_of_jobs_whose_time_is_over(functions: Functions) -> None:
    put(functions, "q", [arriving(body=b"1" * 120_000, expires_at=10**13) for _ in range(60)])
    functions.client.delete(functions.key("q", "ttl"))
    functions.client.hset(functions.key("q", "meta"), mapping={"clock": 10**13 + 1, "more": "1"})

    taken = functions.fetch("q", count=1)

    assert not taken.jobs
    assert taken.more
    assert 0 < functions.client.llen(functions.key("q", "ready")) < 60


@pytest.mark.parametrize("verb", ["fetch", "lease"])
def test_groups_take_so_many_turns_in_a_call(functions: Functions, verb: str) -> None:
    put(functions, "q", [arriving(group=f"g{n % 40}", priority=n % 9 + 1) for n in range(600)])

    most, found = 0, 0
    while found < 600:
        taken = lease_once(functions, "q", 1000) if verb == "lease" else functions.fetch("q", count=1000)
        most, found = max(most, len(taken.jobs)), found + len(taken.jobs)
        assert taken.more or found == 600

    assert most == JOBS_A_CALL


def test_large_jobs_of_groups_are_read_one_by_one(functions: Functions) -> None:
    put(functions, "q", [arriving(group=f"g{n}", body=b"1" * 120_000) for n in range(60)])

    taken = functions.fetch("q", count=60, most_bytes=BYTES_A_CALL)

    assert 0 < len(taken.jobs) <= LARGE_JOBS
    assert sorted(job.id for job in taken.jobs) == sorted(str(n + 1) for n in range(len(taken.jobs)))
    left: list[str] = []
    while len(left) < 60 - len(taken.jobs):
        left += [job.id for job in functions.fetch("q", count=60).jobs]
    assert sorted(map(int, [*left, *(job.id for job in taken.jobs)])) == list(range(1, 61))


def test_a_retry_of_all_is_made_in_pieces(functions: Functions) -> None:
    put(functions, "q", [arriving(state="dead", errors=(LONG,), attempt=5) for _ in range(60)])
    put(functions, "small", [arriving(state="dead", attempt=5) for _ in range(600)])

    for queue, total, most in (("q", 60, LARGE_JOBS), ("small", 600, JOBS_A_CALL)):
        done = 0
        while done < total:
            found, left = functions.call("retry", functions.of(queue), "", 1000, "0", 0)
            done += found
            assert 0 < found <= most
            assert left == total - done


def test_a_page_of_jobs_holds_so_many_bytes_of_errors(functions: Functions) -> None:
    put(functions, "q", [arriving(state="dead", errors=(LONG,), attempt=5) for _ in range(60)])

    seen: list[bytes] = []
    cursor, pages = b"", 0
    while cursor or not pages:
        cursor, *rows = functions.call("list", functions.of("q"), "dead", 500, cursor, BYTES_A_CALL)
        seen += [row[0] for row in rows]
        pages += 1
        assert len(rows) <= LARGE_JOBS

    assert sorted(map(int, seen)) == list(range(1, 61))


@pytest.mark.parametrize("name", ["stats", "history"])
def test_how_old_jobs_are_is_read_of_so_many_large_ones(functions: Functions, name: str) -> None:
    queues = [f"q{number}" for number in range(30)]
    for queue in queues:
        put(functions, queue, [arriving(body=b"1" * 900_000)])
    args = ("1h",) if name == "history" else ()

    looked, calls = 0, 0
    while looked < len(queues):
        reply = functions.call(name, functions.of(*queues[looked:]), *args)
        looked, calls = looked + reply[2], calls + 1
        assert 0 < reply[2] <= 6

    assert looked == 30


def test_a_policy_lets_groups_have_their_turn_in_pieces(functions: Functions) -> None:
    put(functions, "q", [arriving(group=f"g{n % 2000}") for n in range(4000)])
    functions.call("policy", functions.of("q"), codec.pack({"group_leased": 1}))
    assert len(lease(functions, "q", 2000)) == 2000
    while lease_once(functions, "q", 1000).more:
        pass
    assert functions.client.zcard(functions.key("q", "ring")) == 0
    calls = calls_of(functions)

    next(calls)
    functions.call("policy", functions.of("q"), codec.pack({"group_leased": 2}))
    assert next(calls) < 200
    following = b"0"
    while True:
        next(calls)
        following = functions.call("rejoin", functions.of("q"), following)
        assert next(calls) < 2000
        if following == b"0":
            break

    assert functions.client.zcard(functions.key("q", "ring")) == 2000
    assert len(lease(functions, "q", 2000)) == 2000


@pytest.mark.parametrize("together", [True, False])
def test_what_the_store_leaves_for_another_call_is_asked_for_again(
    server: rig.Server, queue_name: str, together: bool
) -> None:
    line = {
        "queue": queue_name,
        "body": 1,
        "attempt": 1,
        "attempts": 1000,
        "errors": [{"at": "2026-01-01T00:00:00Z", "error": LONG.error, "backtrace": LONG.backtrace}],
    }
    for _ in range(8):
        assert server.ask("POST", "/import", b"\n".join([codec.encode(line)] * 5)).status == 200
    jobs: list[Any] = []
    while len(jobs) < 40:
        jobs += server.ask("POST", f"/q/{queue_name}/lease?count=1000").json["jobs"]
    leases = [{name: job[name] for name in ("queue", "id", "lease")} for job in jobs]

    if together:
        settled = server.ask("POST", "/settle", codec.encode({"fail": leases})).json["settled"]
        answers = [one["status"] for one in settled]
    else:
        with ThreadPoolExecutor(len(leases)) as pool:
            answers = list(pool.map(lambda one: fail_alone(server, one), leases))

    assert answers == [200] * 40
    assert server.ask("GET", f"/stats/{queue_name}").json["scheduled"] == 40


def fail_alone(server: rig.Server, lease: dict[str, str]) -> int:
    path = f"/j/{lease['queue']}/{lease['id']}/fail?lease={lease['lease']}"
    return server.ask("POST", path, b'{"error":"again"}').status


LARGE = b'"%b"' % (b"x" * 300_000)


def reads_of(functions: Functions, name: str, *args: Any) -> int:
    """How many HGET there are in one call of this function."""
    functions.client.config_resetstat()
    functions.call(name, functions.of("q"), *args)
    stats: dict[str, Any] = functions.client.info("commandstats")
    return int(stats.get("cmdstat_hget", {"calls": 0})["calls"])


def explained(functions: Functions, queue: str) -> list[Any]:
    return list(functions.call("explain", functions.of(queue), "1"))


@pytest.mark.parametrize("asks", [("stats",), ("explain", "1"), ("history", "1h")])
def test_a_large_record_is_not_read_again_to_see_how_long_it_waits(
    functions: Functions, asks: tuple[str, ...]
) -> None:
    functions.push("q", LARGE)
    once = reads_of(functions, *asks)

    assert reads_of(functions, *asks) == once - 1


def test_what_is_known_of_a_large_record_follows_its_changes(functions: Functions) -> None:
    for queue, body in (("q", LARGE), ("small", b"1")):
        functions.push(queue, body)
        functions.push(queue, b"2", priority=6)

    for priority in (3, 8, 4):  # the record has the same size each time
        for queue in ("q", "small"):
            assert functions.call("patch", functions.of(queue), "1", priority, "", "", "") == b"ok"
        assert explained(functions, "q") == explained(functions, "small")


def test_what_is_known_of_a_large_record_goes_with_its_queue(functions: Functions) -> None:
    functions.push("q", LARGE)
    assert explained(functions, "q")[3] == 0
    functions.call("purge", functions.of("q"))
    while functions.call("forget", functions.of("q")) == 0:
        pass

    assert functions.push("q", LARGE, priority=2) == [1]  # of the same size again
    functions.push("q", b"1", priority=4)

    assert explained(functions, "q")[3] == 1
