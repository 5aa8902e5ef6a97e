"""Is presque as fast and as small as it was before?

Compares this working tree with a revision of the repository's history, which is checked out into a temporary
worktree and installed into an environment of its own. Both run with a store of their own and `everysec`.

Pushes and fetches of single jobs come from wrk: one connection and 64, one request at a time and 16 at once.
Pushes of many send a list of 1000 jobs on one connection. All requests carry the same 25-byte body.
Latencies are measured at a moderate rate: a thousand pushes a second to each server, alternately, so that
both meet the same disturbances. Memory is that of the server alone: after the start, and for each of 2,000
connections that wait for a job on 500 queues.

CPU time is what the server and the store use for one job. Other work on the machine changes it less than it
changes the rates.

Owed: nothing worse than before. A tenth is left for noise.

run:          python bench/before.py                       # against f51ab5d, about six minutes
              python bench/before.py --revision v0.1.0     # against another revision
last result:  2026-11-30, 2 cores, quiet, against f51ab5d, since a request that nobody joins goes out at once:
              push: one connection 0.96 x of the rate, 64 connections 0.91 x (server 1.1 x), 16 at once 0.91
              and 1.07 x; fetch: one connection 0.88 x (server 1.11 x, store 1.15 x), 64 connections 0.96 x
              (server 0.97 x, store 1.10 x), 16 at once 0.98 and 0.83 x; push many 1.34 x; p50 1.05 x, p99
              0.95 x; memory 1.02 x and 0.42 x. MISS for fetches on one connection, 16 at once, and where
              the server is at 1.1 x
              earlier that day, two runs:
              memory after the start 1.02 x, for each waiter 0.4 x, PASS
              push many: 1.05 and 1.15 x of the rate, server 0.65 x, store 1.07 x, PASS
              latency at 1,000 pushes a second: p50 1.10 and 1.05 x, p99 1.0 and 1.1 x
              push, 64 connections: 1.01 and 0.99 x of the rate, server 1.02 and 1.05 x, store 0.9 x, PASS; 16
              at once 0.93 and 0.90 x, server 1.06 and 1.14 x, store 1.0 x
              fetch, 64 connections: 0.81 and 0.90 x of the rate, server 1.21 and 1.07 x, store 1.37 and
              1.18 x, MISS (the second run with less for each job that was fetched); 16 at once 0.88 x,
              server 1.1 to 1.2 x, store 1.1 x
              one connection: push and fetch 0.84 to 0.91 x of the rate, server 1.1 to 1.2 x, store 1.05 to
              1.13 x, MISS
              What came since f51ab5d costs this:
              the history of each queue, the figures of each route, a message for patterns, checksums,
              bounds in bytes. Instructions of a request as cachegrind counts them, without sockets and
              store, in thousands, this morning and now: push on 64 connections 30.2, 27.7; fetch 34.4, 32.1
              (f51ab5d: 26.5 and 28.4, with more counted around them). Instructions of the store for a job, in
              f51ab5d, then, and since, in thousands: push alone 171, 199, 180 to 190; 16 a call 22.3,
              25.0, 23.2; 60 a call 14.6, 15.0, 14.1; fetch alone 222, 288, 251; 16 a call 23.9, 35.6, 28.5;
              60 a call 14.2, 20.8, 15.9; lease and ack alone 862, 990, 840; by the hundred 153, 94, 64
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rig
import waiters

REVISION = "f51ab5d"
ROOT = Path(__file__).resolve().parents[1]
NOISE = 1.1
PIPELINED = 16
JOBS_A_SECOND = 120_000  # more than one server hands out
LISTS = 100
PUSHES_A_SECOND = 1000
PUSHING = 64
WAITERS = 2_000
WAITED_QUEUES = 500
SETTLE_S = 1.0

PUSH = rig.Request("POST", "/q/bench", rig.BODY)
FETCH = rig.Request("GET", "/q/bench")


@dataclass(frozen=True, slots=True)
class Done:
    """Jobs a second of one round, and microseconds of CPU for each."""

    rate: float
    server_us: float
    store_us: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the server after its start, and for each connection that waits."""

    started: float
    waiter: float


@contextlib.contextmanager
def installed(revision: str, directory: Path) -> Iterator[str]:
    """The interpreter of an environment with that revision, which ends with the block."""
    tree, environment = directory / "tree", directory / "environment"
    run("git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(tree), revision)
    try:
        run(sys.executable, "-m", "venv", str(environment))
        run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", str(tree))
        yield str(environment / "bin" / "python")
    finally:
        run("git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise rig.Broken(f"{' '.join(command)} failed:\n{done.stderr}")


def measure(bench: rig.Bench, revision: str) -> list[rig.Verdict]:
    with installed(revision, bench.directory) as python:
        return compare(bench, {"now": sys.executable, "before": python})


def compare(bench: rig.Bench, pythons: Mapping[str, str]) -> list[rig.Verdict]:
    """Measure the servers of two interpreters in turn."""
    verdicts = memory(bench, pythons)
    with contextlib.ExitStack() as running:
        servers = {
            side: running.enter_context(serve(bench.directory / side, python))
            for side, python in pythons.items()
        }
        for connections, pipelined in itertools.product((1, rig.CONNECTIONS), (1, PIPELINED)):
            how = f"{connections} connections" if connections > 1 else "1 connection"
            how += f", {pipelined} at once" if pipelined > 1 else ""
            for what, act in (("push", push), ("fetch", fetch)):
                sides = {
                    side: functools.partial(act, server, bench.seconds, connections, pipelined)
                    for side, server in servers.items()
                }
                verdicts += throughput(f"{what}, {how}", bench.rounds, sides)
        many = {side: functools.partial(push_many, server) for side, server in servers.items()}
        verdicts += throughput("push many", bench.rounds, many)
        verdicts += latency(bench, servers)
    return verdicts


def serve(directory: Path, python: str) -> contextlib.AbstractContextManager[rig.Program]:
    return rig.presque(directory, python=python, ready="/status/")


def no_less(what: str, now: Sequence[float], before: Sequence[float]) -> rig.Verdict:
    return rig.at_least(what, rig.median_ratio(now, before), 1 / NOISE)


def no_more(what: str, now: Sequence[float], before: Sequence[float]) -> rig.Verdict:
    return rig.at_most(what, rig.median_ratio(now, before), NOISE, "x")


# --- rates and CPU ----------------------------------------------------------------------------------------


def throughput(what: str, rounds: int, sides: Mapping[str, Callable[[], Done]]) -> list[rig.Verdict]:
    for side in sides.values():
        side()
    found = rig.in_turns(rounds, sides)
    rates = {side: [done.rate for done in its] for side, its in found.items()}
    server = {side: [done.server_us for done in its] for side, its in found.items()}
    store = {side: [done.store_us for done in its] for side, its in found.items()}
    rig.table(f"{what}: jobs a second", rates)
    rig.table(f"{what}: microseconds of the server's CPU", server, "{:.2f}")
    rig.table(f"{what}: microseconds of the store's CPU", store, "{:.2f}")
    return [
        no_less(f"{what}: jobs a second", rates["now"], rates["before"]),
        no_more(f"{what}: CPU of the server", server["now"], server["before"]),
        no_more(f"{what}: CPU of the store", store["now"], store["before"]),
    ]


def push(server: rig.Program, seconds: int, connections: int, pipelined: int) -> Done:
    done = loaded(server, PUSH, seconds, connections, pipelined)
    rig.ask(server.port, "DELETE", "/q/bench")
    return done


def fetch(server: rig.Program, seconds: int, connections: int, pipelined: int) -> Done:
    """Fetch for so long; there are more jobs than that takes."""
    rig.top_up(server, "bench", JOBS_A_SECOND * seconds)
    return loaded(server, FETCH, seconds, connections, pipelined)


def loaded(server: rig.Program, request: rig.Request, seconds: int, connections: int, pipelined: int) -> Done:
    spent = cpu(server)
    load = rig.load(server, request, seconds, connections, pipelined)
    return per_job(spent, cpu(server), load.requests, load.seconds)


def push_many(server: rig.Program) -> Done:
    """Push lists of a thousand jobs on one connection, one after the other."""
    body = b'{"jobs":[' + b",".join([rig.BODY.encode()] * rig.BATCH) + b"]}"
    head = f"POST /qb/bench HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    spent = cpu(server)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        for _ in range(LISTS):
            connection.sendall(request)
            rig.receive(connection)
    took = time.perf_counter() - began
    done = per_job(spent, cpu(server), LISTS * rig.BATCH, took)
    rig.ask(server.port, "DELETE", "/q/bench")
    return done


def cpu(server: rig.Program) -> tuple[float, float]:
    """CPU seconds of the server and of its store."""
    return rig.cpu_s(server.pid), rig.cpu_s(rig.store_of(server))


def per_job(before: tuple[float, float], after: tuple[float, float], jobs: int, seconds: float) -> Done:
    server, store = ((later - earlier) / jobs * 1e6 for earlier, later in zip(before, after, strict=True))
    return Done(jobs / seconds, server, store)


# --- latency ----------------------------------------------------------------------------------------------


def latency(bench: rig.Bench, servers: Mapping[str, rig.Program]) -> list[rig.Verdict]:
    rounds = [asyncio.run(latencies(servers, bench.seconds)) for _ in range(bench.rounds)]
    verdicts = []
    for name, part in (("p50", 50), ("p99", 99)):
        found = {
            side: [statistics.quantiles(its[side], n=100)[part - 1] for its in rounds] for side in servers
        }
        rig.table(f"push, {PUSHES_A_SECOND} a second: {name} in ms", found, "{:.2f}")
        verdicts.append(no_more(f"push, {PUSHES_A_SECOND} a second: {name}", found["now"], found["before"]))
    return verdicts


async def latencies(servers: Mapping[str, rig.Program], seconds: int) -> dict[str, list[float]]:
    """Milliseconds of each push, at a steady rate to each server in turn."""
    idle = {
        side: [await waiters.connect(server.port) for _ in range(PUSHING)] for side, server in servers.items()
    }
    connections = [connection for its in idle.values() for connection in its]
    requests = {
        side: (
            f"POST /q/bench HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Content-Length: {len(rig.BODY)}\r\n\r\n{rig.BODY}"
        ).encode()
        for side, server in servers.items()
    }
    took: dict[str, list[float]] = {side: [] for side in servers}

    async def one(side: str, due: float) -> None:
        connection = idle[side].pop()
        _, answered_ns = await connection.send(requests[side])
        took[side].append(answered_ns / 1e6 - due * 1e3)
        idle[side].append(connection)

    pushes = []
    due = time.perf_counter()
    try:
        for number, side in enumerate(itertools.cycle(servers)):
            if number == PUSHES_A_SECOND * seconds * len(servers):
                break
            due += 1 / PUSHES_A_SECOND / len(servers)
            await asyncio.sleep(due - time.perf_counter())
            if idle[side]:
                pushes.append(asyncio.create_task(one(side, time.perf_counter())))
        await asyncio.gather(*pushes)
    finally:
        for connection in connections:
            connection.transport.abort()
    return took


# --- memory -----------------------------------------------------------------------------------------------


def memory(bench: rig.Bench, pythons: Mapping[str, str]) -> list[rig.Verdict]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * WAITERS)), hard))
    sides = {
        side: functools.partial(one_memory, bench.directory / f"memory-{side}", python)
        for side, python in pythons.items()
    }
    found = rig.in_turns(bench.rounds, sides)
    started = {side: [one.started / 1e6 for one in its] for side, its in found.items()}
    waiter = {side: [one.waiter / 1e3 for one in its] for side, its in found.items()}
    rig.table("memory of the server after the start, MB", started, "{:.1f}")
    rig.table("memory of the server for each waiter, kB", waiter, "{:.2f}")
    return [
        no_more("memory of the server after the start", started["now"], started["before"]),
        no_more("memory of the server for each waiter", waiter["now"], waiter["before"]),
    ]


def one_memory(directory: Path, python: str) -> Memory:
    with serve(directory, python) as server:
        time.sleep(SETTLE_S)
        started = rig.rss_bytes(server.pid)
        waiter = asyncio.run(of_waiters(server, started))
    return Memory(started, waiter)


async def of_waiters(server: rig.Program, before: int) -> float:
    waiting = waiters.Waiting(server.port, [f"wait{number % WAITED_QUEUES}" for number in range(WAITERS)])
    await waiting.start()
    try:
        await asyncio.sleep(2 * SETTLE_S)
        waiting.check()
        return (rig.rss_bytes(server.pid) - before) / WAITERS
    finally:
        await waiting.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--revision", default=REVISION)
    asked, rest = parser.parse_known_args()
    script = rig.Script(functools.partial(measure, revision=asked.revision), __doc__, seconds=1)
    sys.exit(rig.main([script], __doc__, rest))
