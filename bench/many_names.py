"""Does a request take longer, or hold up others, when 100,000 queues are known?

Two servers: on one 1,000 queues were used once and emptied, on the other 100,000. Then each kind of request
that lists queues or names them by patterns is made on both, one after the other. Meanwhile a process beside
them asks both for a route that does not exist, which needs nothing but the event loop, and the store notes
its slow commands. It begins when the sweep has found that all queues are empty. Printed for each kind: how
long it took, the CPU of server and store, the longest answer to the process beside it (a stall of the event
loop, or of this machine), the longest command in the store.

Owed: no command in the store of more than 20 ms; with 100,000 names no more CPU than with 1,000, but for 20
ms.

run:          python bench/many_names.py
last result:  2026-11-30, 2 cores, quiet: PASS, but for 100 waiters with lists of their own (21.9 ms of CPU
              more than with few) and nothing for 5 s, right after the queues were used (296 ms more). Longest
              command in the store 12 ms, longest stall 4 ms
              2026-11-29, much other work beside it, right after the queues were used, while the sweep still
              went through them. With 100,000 names, before and after what lists read became pages: GET
              /stats/ 3.7 and 0.1 s, GET /q/* 2.9 and 0.2 s; the longest stall of 62 patterns 2.4 s and 8 ms,
              of 100 waiters with lists of their own 4.7 s and 25 ms; several kinds MISS on such a machine
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import multiprocessing
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import rig

FEW, MANY = 1_000, 100_000
AT_ONCE = 1_000
PATTERNS = ",".join(f"*{'a*' * 50}{number}" for number in range(10, 72))
IDLE_S = 5.0
WAITERS = 100
STALL_MS = 20.0
PROBE_EVERY_S = 0.001
REST_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kind of request cost."""

    seconds: float
    cpu_ms: float
    stall_ms: float
    store_ms: float


class Beside:
    """A process that asks a server again and again, and tells the longest that it waited for an answer."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=ask_and_ask, args=(port, theirs), daemon=True)
        self._process.start()

    def longest_ms(self) -> float:
        """The longest wait since this was asked last."""
        self._ours.send(True)
        return float(self._ours.recv())

    def end(self) -> None:
        self._ours.send(False)
        self._process.join(10)


def ask_and_ask(port: int, told: Connection) -> None:
    """What runs in the process beside."""
    request = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    longest = 0.0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            began = time.monotonic()
            connection.sendall(request)
            answer = b""
            while b"\n" not in answer.partition(b"\r\n\r\n")[2]:
                answer += connection.recv(65536)
            longest = max(longest, time.monotonic() - began)
            if told.poll():
                if not told.recv():
                    return
                told.send(longest * 1000)
                longest = 0.0
            time.sleep(PROBE_EVERY_S)


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    found: dict[int, dict[str, Cost]] = {}
    for count in (FEW, MANY):
        with rig.presque(bench.directory / str(count)) as server:
            use_once(server, count)
            found[count] = costs(server, bench.rounds)
    verdicts = []
    print(f"\n{'':36}{f'{FEW:,} names':^36}{f'{MANY:,} names':^36}")
    print(f"{'':36}" + f"{'s':>8}{'CPU ms':>10}{'stall ms':>10}{'store ms':>10}" * 2)
    for kind in found[FEW]:
        row = ""
        for count in (FEW, MANY):
            cost = found[count][kind]
            row += f"{cost.seconds:8.3f}{cost.cpu_ms:10.1f}{cost.stall_ms:10.1f}{cost.store_ms:10.1f}"
        print(f"{kind:36}{row}")
        few, many = found[FEW][kind], found[MANY][kind]
        verdicts.append(rig.at_most(f"{kind}: longest command in the store", many.store_ms, STALL_MS, "ms"))
        verdicts.append(
            rig.at_most(f"{kind}: CPU more than with few", many.cpu_ms - few.cpu_ms, STALL_MS, "ms")
        )
        verdicts.append(rig.noted(f"{kind}: longest stall", f"{many.stall_ms:.1f} ms"))
    return verdicts


def use_once(server: rig.Program, count: int) -> None:
    """Push a job to each of so many queues, and fetch it."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        for first in range(0, count, AT_ONCE):
            names = [f"used-{number:06}" for number in range(first, min(count, first + AT_ONCE))]
            for commands in (
                [{"cmd": "push", "queue": name, "job": 1} for name in names],
                [{"cmd": "fetch", "queue": name} for name in names],
            ):
                connection.request("POST", "/queue", json.dumps(commands))
                answer = connection.getresponse()
                if answer.status != 200 or any("error" in one for one in json.loads(answer.read())):
                    raise rig.Broken(f"using {names[0]} and others answered {answer.status}")
    deadline = time.monotonic() + REST_WITHIN_S
    while json.loads(rig.get(server.port, "/status/?busy=1")[1])["queues"]:
        if time.monotonic() > deadline:
            raise rig.Broken(f"the sweep still finds queues busy after {REST_WITHIN_S:.0f} s")
        time.sleep(1)
    if (known := json.loads(rig.get(server.port, "/status/")[1])["size"]) != count:
        raise rig.Broken(f"{count} queues were used, /status/ says {known}")


def costs(server: rig.Program, rounds: int) -> dict[str, Cost]:
    """The cost of each kind of request, that of the round with the shortest stall."""
    kinds: dict[str, Callable[[], object]] = {
        "GET /status/": functools.partial(ask, server, "GET", "/status/"),
        "GET /stats/": functools.partial(ask, server, "GET", "/stats/"),
        "GET /q/*": functools.partial(ask, server, "GET", "/q/*"),
        "POST /q/*/lease": functools.partial(ask, server, "POST", "/q/*/lease"),
        "GET /q/62 patterns": functools.partial(ask, server, "GET", f"/q/{PATTERNS}"),
        "POST /q/62 patterns/lease": functools.partial(ask, server, "POST", f"/q/{PATTERNS}/lease"),
        "GET /q/62 patterns?wait=1": functools.partial(ask, server, "GET", f"/q/{PATTERNS}?wait=1"),
        "100 waiters, each its own list": functools.partial(wait, server, WAITERS),
        "a push to a new queue": functools.partial(push_to_a_new_one, server),
        "GET /events, its first event": functools.partial(events, server, ""),
        "GET /events?jobs=1, the same": functools.partial(events, server, "?jobs=1"),
        f"nothing, for {IDLE_S:.0f} s": functools.partial(time.sleep, IDLE_S),
    }
    store = rig.store_of(server)
    found = {}
    beside = Beside(server.port)
    beside.longest_ms()
    with rig.store(rig.listening_socket(store)) as direct:
        direct("CONFIG", "SET", "slowlog-log-slower-than", "500", "slowlog-max-len", "10000")
        for kind, do in kinds.items():
            rounds_of_it = []
            for _ in range(rounds):
                direct("SLOWLOG", "RESET")
                beside.longest_ms()
                began, before = time.monotonic(), rig.cpu_s(server.pid) + rig.cpu_s(store)
                do()
                seconds = time.monotonic() - began
                cpu_ms = (rig.cpu_s(server.pid) + rig.cpu_s(store) - before) * 1000
                slow = max((entry[2] for entry in direct("SLOWLOG", "GET", "-1")), default=0)
                rounds_of_it.append(Cost(seconds, cpu_ms, beside.longest_ms(), slow / 1000))
            found[kind] = min(rounds_of_it, key=lambda cost: cost.stall_ms)
    beside.end()
    return found


def ask(server: rig.Program, method: str, path: str) -> None:
    status, body = rig.ask(server.port, method, path)
    if status not in (200, 204, 404):
        raise rig.Broken(f"{method} {path[:80]} answered {status}: {body[:200]!r}")


def wait(server: rig.Program, count: int) -> None:
    """So many connections wait for all queues and one of their own."""
    with contextlib.ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(b"GET /q/*,own%d?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            stack.callback(connection.recv, 4096)


_new = iter(range(1_000_000))


def push_to_a_new_one(server: rig.Program) -> None:
    name = f"new-{next(_new)}"
    for method, path in (("POST", f"/q/{name}"), ("DELETE", f"/q/{name}?forget=true")):
        status, _ = rig.ask(server.port, method, path, rig.BODY if method == "POST" else None)
        if status not in (201, 204):
            raise rig.Broken(f"{method} {path} answered {status}")


def events(server: rig.Program, query: str) -> None:
    """Read events until the first is there."""
    with first_event(server, query):
        pass


@contextlib.contextmanager
def first_event(server: rig.Program, query: str) -> Iterator[None]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"GET /events%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % query.encode())
        found = b""
        while b"\nid:" not in found:
            found = found[-16:] + connection.recv(1 << 20)
        yield


SCRIPT = rig.Script(measure, __doc__, rounds=2, seconds=1)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
