"""What does it cost to keep a checksum with each body, and to check it when the job is handed out?

About a microsecond, which no comparison of two servers shows on a machine that does anything else. So the
work itself is timed here, sealing and checking against copying the same bytes, in turn with the CPU time of
a server and its store for each job: pushed and fetched by the thousand, leased and acked a hundred at a time,
and pushed and fetched one by one with wrk. The one divided by the other is the share of the checksum.

Owed: at most 3 % where jobs come one by one or are leased; by the thousand it is noted.

run:          python bench/checksum.py
last result:  2026-11-25, 2 busy cores: leased and acked 2.7 %, one by one 1.7 %, PASS; by the thousand 8 %
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import timeit
from collections.abc import Callable

import lease_cpu
import leases
import rig

from presque.engine import records

PUSH = rig.Request("POST", "/q/single", rig.BODY)
FETCH = rig.Request("GET", "/q/single")


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as presque:
        works: dict[str, Callable[[], float]] = {
            "push + fetch by the thousand": lambda: _bulk(presque),
            "lease + ack by the hundred": lambda: _lease(presque),
            "push + fetch one by one": lambda: _single(presque, bench.seconds),
        }
        for work in works.values():
            work()
        costs = rig.in_turns(
            bench.rounds, {"checksum": _checksum, "checksum alone": _checksum_alone, **works}
        )
    rig.table("CPU microseconds for each job", costs, "{:.2f}")
    many, alone = costs["checksum"], costs["checksum alone"]
    bulk, leased, single = (costs[name] for name in works)
    return [
        rig.noted("by the thousand", f"{rig.median_ratio(many, bulk) * 100:.1f} %"),
        rig.at_most("leased and acked", rig.median_ratio(many, leased) * 100, 3, "%"),
        rig.at_most("one by one", rig.median_ratio(alone, single) * 100, 3, "%"),
    ]


def _timed(work: Callable[[], object], jobs: int) -> float:
    return statistics.median(timeit.repeat(work, number=max(1, 20_000 // jobs), repeat=15)) * 1e6 / 20_000


def _checksum() -> float:
    """What sealing and checking cost each of a thousand jobs more than copying them."""
    bodies = [b'{"to":"ana","n":%d}' % number for number in range(10_000_000, 10_001_000)]
    plain = bytes([records.PLAIN, 5, *bytes(6)])
    stored = [plain + records.seal(body) for body in bodies]
    cuts = _timed(lambda: [record[records.BODY :] for record in stored], 1000)
    with_seal = _timed(lambda: records.seals_of(bodies), 1000)
    with_check = _timed(lambda: records.bodies_of(stored), 1000)
    return with_seal + with_check - cuts


def _checksum_alone() -> float:
    """The same of a job that comes alone."""
    body = rig.BODY.encode()
    record = bytes([records.PLAIN, 5, *bytes(6)]) + records.seal(body)
    copied = _timed(lambda: b"0000" + body, 1)
    cut = _timed(lambda: record[records.BODY :], 1)
    return _timed(lambda: records.seal(body), 1) - copied + _timed(lambda: records.body_of(record), 1) - cut


def _cost(server: rig.Program, work: Callable[[], int]) -> float:
    """Microseconds of CPU for each of the jobs that `work` counts."""
    pids = server.pid, rig.store_of(server)
    before = sum(map(rig.cpu_s, pids))
    jobs = work()
    return (sum(map(rig.cpu_s, pids)) - before) / jobs * 1e6


def _bulk(server: rig.Program) -> float:
    def work() -> int:
        lease_cpu.push_and_fetch(server)
        return lease_cpu.JOBS

    return _cost(server, work)


def _lease(server: rig.Program) -> float:
    rig.fill(server, "bench", lease_cpu.JOBS + leases.COUNT)
    with contextlib.closing(leases.Worker(server.port)) as worker:
        worker.turn()

        def work() -> int:
            lease_cpu.lease_all(worker)
            return lease_cpu.JOBS

        found = _cost(server, work)
        worker.settle()
    return found


def _single(server: rig.Program, seconds: int) -> float:
    def push() -> int:
        return rig.load(server, PUSH, seconds).requests

    def fetch() -> int:
        return rig.load(server, FETCH, max(1, seconds // 2)).requests

    return _cost(server, push) + _cost(server, fetch)


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
