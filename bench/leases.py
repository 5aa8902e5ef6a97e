"""How many jobs a second can one client lease and ack, a hundred at a time?

One connection; each request acks the hundred jobs of the answer before and leases the next hundred. Three
servers in turn: a queue that is filled for the round, one with a million jobs waiting besides, and one among
10,000 other queues. The client is a bare socket; what it spends on its own JSON is in the figure.

Owed: at least 30,000 jobs a second, and within 10 % of that with a million waiting and among 10,000 queues.

run:          python bench/leases.py
last result:  2026-11-30, 2 cores, quiet: 1.39 x (41,700 jobs a second), a million waiting 1.00 x, 10,000
              queues 0.93 x, PASS
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import sys
import time
from typing import Any

import rig

COUNT = 100
MOST_PER_S = 80_000
OTHERS = 10_000
MILLION = 1_000_000


class Worker:
    """Leases and acks over one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held: list[dict[str, str]] = []

    def turn(self) -> int:
        """Ack what is held and lease the next. Returns how many jobs were acked."""
        acked = len(self._held)
        asked = {"count": COUNT, "settle": {"ack": self._held}} if acked else {"count": COUNT}
        answer = self._ask("/q/bench/lease", asked)
        self._held = [
            {"queue": job["queue"], "id": job["id"], "lease": job["lease"]} for job in answer["jobs"]
        ]
        if len(self._held) != COUNT:
            raise rig.Broken("the queue ran empty")
        return acked

    def settle(self) -> None:
        """Ack what is held, and lease nothing more."""
        self._ask("/settle", {"ack": self._held})
        self._held = []

    def close(self) -> None:
        self._socket.close()

    def _ask(self, path: str, asked: Any) -> Any:
        body = json.dumps(asked, separators=(",", ":")).encode()
        self._socket.sendall(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), len(body), body)
        )
        answer = json.loads(self._answer())
        if any(one["status"] != 200 for one in answer.get("settled", ())):
            raise rig.Broken(f"an ack was refused: {answer['settled'][0]}")
        return answer

    def _answer(self) -> bytes:
        data = b""
        while True:
            part = self._socket.recv(262_144)
            if not part:
                raise rig.Broken("the server closed the connection")
            data += part
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                continue
            if not head.startswith(b"HTTP/1.1 200"):
                raise rig.Broken(f"presque answered {head[:60]!r}")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            if len(body) >= length:
                return body


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "alone") as alone,
        rig.presque(bench.directory / "waiting") as waiting,
        rig.presque(bench.directory / "among") as among,
    ):
        rig.fill(waiting, "bench", MILLION)
        for number in range(OTHERS):
            rig.fill(among, f"other-{number}", 1)

        def drain(server: rig.Program) -> float:
            rig.top_up(
                server, "bench", (bench.seconds + 1) * MOST_PER_S + (MILLION if server is waiting else 0)
            )
            with contextlib.closing(Worker(server.port)) as worker:
                worker.turn()
                began, done = time.perf_counter(), 0
                while time.perf_counter() - began < bench.seconds:
                    done += worker.turn()
                return done / (time.perf_counter() - began)

        sides = {"one queue": alone, "a million waiting": waiting, "among 10,000 queues": among}
        rates = rig.in_turns(
            bench.rounds, {name: functools.partial(drain, server) for name, server in sides.items()}
        )
    rig.table("jobs leased and acked a second", rates)
    best = sorted(rates["one queue"])[len(rates["one queue"]) // 2]
    return [
        rig.at_least("jobs a second / 30,000", best / 30_000, 1.0),
        rig.at_least(
            "a million waiting / one queue",
            rig.median_ratio(rates["a million waiting"], rates["one queue"]),
            0.9,
        ),
        rig.at_least(
            "among 10,000 queues / one queue",
            rig.median_ratio(rates["among 10,000 queues"], rates["one queue"]),
            0.9,
        ),
    ]


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
