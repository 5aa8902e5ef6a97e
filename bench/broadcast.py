"""How many broadcast deliveries a second reach 100 listeners, without falling behind?

One server process, 100 WebSocket listeners of one broadcast queue. Jobs are pushed in batches of ten, each
when its time has come, 120 jobs a second; a delivery is late when it comes more than a second after its push.
The rate is what was received over the time until the last one came.

Owed: 10,000 deliveries a second, none lost, none late.

run:          python bench/broadcast.py
last result:  2026-11-24, 2 cores: 12,300 deliveries a second, none lost, 0.005 s, PASS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import rig
import uvloop

from presque.client import address
from presque.client.call import Call
from presque.client.consume import _Protocol
from presque.client.exchange import Request

LISTENERS = 100
A_SECOND = 120
BATCH = 10


class Listener:
    """Counts what it receives."""

    def __init__(self) -> None:
        self.received = 0
        self.slowest = 0.0
        self.ready = asyncio.Event()

    def receive(self, message: bytes) -> None:
        if message.startswith(b'{"event"'):
            self.received += 1
            at = float(message[message.rindex(b":") + 1 : message.index(b"}")])
            self.slowest = max(self.slowest, time.time() - at)
        else:
            self.ready.set()

    def end(self, error: Exception) -> None:
        """The socket has closed."""


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as server:
        rig.ask(server.port, "PATCH", "/p/news", '{"delivery":"broadcast"}')
        runs = [uvloop.run(broadcast(server, bench.seconds * A_SECOND)) for _ in range(bench.rounds)]
    rig.table("deliveries a second", {"to 100 listeners": [rate for rate, _, _ in runs]})
    return [
        rig.at_least("deliveries a second / 10,000", min(rate for rate, _, _ in runs) / 10_000, 1),
        rig.at_most("lost", float(sum(lost for _, lost, _ in runs)), 0, ""),
        rig.at_most("slowest, from push to listener", max(slowest for _, _, slowest in runs), 1, "s"),
    ]


async def broadcast(server: rig.Program, count: int) -> tuple[float, int, float]:
    """Returns deliveries a second, how many were lost, and how long the slowest took, in seconds."""
    loop = asyncio.get_running_loop()
    listeners = [Listener() for _ in range(LISTENERS)]
    sockets = []
    request = Request(address.server(f"http://127.0.0.1:{server.port}"), None)
    call = Call("GET", "/ws/news", lambda _: None)
    for listener in listeners:
        protocol = _Protocol(listener)  # type: ignore[arg-type]
        await loop.create_connection(lambda p=protocol: p, "127.0.0.1", server.port)  # type: ignore[misc]
        await protocol.shake_hands(request, call)
        protocol.send(1, b'{"cmd":"lease"}')
        sockets.append(protocol)
    for listener in listeners:
        await listener.ready.wait()
    started = loop.time()
    for first in range(0, count, BATCH):
        await asyncio.sleep(started + first / A_SECOND - loop.time())
        body = json.dumps({"jobs": [{"at": time.time()}] * BATCH})
        await loop.run_in_executor(None, rig.ask, server.port, "POST", "/qb/news", body)
    deadline = loop.time() + 5
    while sum(one.received for one in listeners) < count * LISTENERS and loop.time() < deadline:
        await asyncio.sleep(0.005)
    took = loop.time() - started
    received = sum(one.received for one in listeners)
    for socket in sockets:
        await socket.close()
    return received / took, count * LISTENERS - received, max(one.slowest for one in listeners)


SCRIPT = rig.Script(measure, __doc__, rounds=2, seconds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
