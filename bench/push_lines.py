"""How much does a push by lines gain over pushes by the thousand?

Both store the same 25-byte jobs through one connection, one request at a time: `POST /qb/bench` with a list
of 1000 jobs again and again, and one `POST /qb/bench` with as many lines (`application/x-ndjson`), sent in
chunks of 64 KiB. The requests are made before the clock starts. Three processes share the machine's cores, so
on two of them the ratio holds only while nothing else runs.

Owed: lines at least 1.5 x as many jobs a second as lists, and memory flat.

Both wait for the store. A job costs the store about the same either way, and two to three times as much CPU
as it costs the server: for the functions, the hash, the list and the append-only file. With lines the server
prepares two calls while one is under way, so the store has the next one as soon as it has answered. At best
a job then takes what it costs the store, and one of a list what it costs both. Lines cost the server 0.8 x of
what lists do, and lists cost it 0.7 x of what they did at f51ab5d (bench/before.py): the lists have caught
up. A chunk of lines is checked by one call of the JSON library, is not encoded again, and gets its checksums
in one go. Tried without gain: one argument a job in the call instead of two (0.99 x CPU of the store).

run:          python bench/push_lines.py
last result:  2026-11-30, 2 cores, quiet: 1.27 x, MISS; earlier that day 1.21 x, and before two calls were
              prepared ahead 0.94 x. The CPU of the server for a job is 1.00 x
"""

from __future__ import annotations

import functools
import socket
import sys
import time
from dataclasses import dataclass

import rig

JOBS = 200_000
A_LIST = 1000
CHUNK = 64 * 1024
MEMORY_MOST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one side took for its jobs."""

    rate: float
    cpu_us: float
    store_us: float
    grown: int


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    jobs = max(20_000, JOBS * bench.seconds // 5)
    with rig.presque(bench.directory / "presque") as presque:
        sides = {
            "lines": functools.partial(push, presque, [by_lines(presque.port, jobs)], jobs),
            "lists": functools.partial(push, presque, [by_list(presque.port)] * (jobs // A_LIST), jobs),
        }
        for side in sides.values():
            side()
        found = rig.in_turns(bench.rounds, sides)
    rig.table("jobs a second", {name: [one.rate for one in its] for name, its in found.items()})
    rig.table(
        "server CPU microseconds a job",
        {name: [one.cpu_us for one in its] for name, its in found.items()},
        "{:.2f}",
    )
    rig.table(
        "store CPU microseconds a job",
        {name: [one.store_us for one in its] for name, its in found.items()},
        "{:.2f}",
    )
    rates = {name: [one.rate for one in its] for name, its in found.items()}
    cpu = {name: [one.cpu_us for one in its] for name, its in found.items()}
    grown = max(one.grown for one in found["lines"]) / 1e6
    return [
        rig.at_least("jobs a second, lines / lists", rig.median_ratio(rates["lines"], rates["lists"]), 1.5),
        rig.noted("server CPU a job, lines / lists", f"{rig.median_ratio(cpu['lines'], cpu['lists']):.2f} x"),
        rig.at_most("memory of the server grew", grown, MEMORY_MOST / 1e6, "MB"),
    ]


def by_list(port: int) -> bytes:
    body = b'{"jobs":[' + b",".join([rig.BODY.encode()] * A_LIST) + b"]}"
    head = f"POST /qb/bench HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def by_lines(port: int, jobs: int) -> bytes:
    lines = (rig.BODY.encode() + b"\n") * jobs
    chunks = (lines[at : at + CHUNK] for at in range(0, len(lines), CHUNK))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = (
        f"POST /qb/bench HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head.encode() + framed + b"0\r\n\r\n"


def push(server: rig.Program, requests: list[bytes], jobs: int) -> Pushed:
    """Send the requests one after the other on one connection, then empty the queue."""
    cpu, rss = rig.cpu_s(server.pid), rig.rss_bytes(server.pid)
    store = rig.store_of(server)
    store_cpu = rig.cpu_s(store)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in requests:
            connection.sendall(request)
            rig.receive(connection)
    took = time.perf_counter() - began
    found = Pushed(
        jobs / took,
        (rig.cpu_s(server.pid) - cpu) / jobs * 1e6,
        (rig.cpu_s(store) - store_cpu) / jobs * 1e6,
        rig.rss_bytes(server.pid) - rss,
    )
    if rig.size(server, "bench") != jobs:
        raise rig.Broken(f"{rig.size(server, 'bench')} jobs are stored, not {jobs}")
    rig.ask(server.port, "DELETE", "/q/bench")
    return found


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
