"""Open connections when something breaks: listeners killed while jobs are on their way, a store that is lost,
consumers that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests import rig
from tests.asking import soon
from tests.doors.sockets import heard, speaking
from tests.doors.test_live import counts, handshake, listening, push, rss, text
from tests.faults.load import store_of

JOBS = 600
FLOOD_S = 10.0
FLAT = 48 * 1024 * 1024


async def ask(server: rig.Server, method: str, path: str, body: Any = None) -> rig.Answer:
    """A request that lets the sockets of this loop go on."""
    data = None if body is None else json.dumps(body)
    return await asyncio.to_thread(server.ask, method, path, data)


async def listener(server: rig.Server, queue: str, reads: int) -> None:
    """Listens to a queue, reads so many bytes of what comes, and is gone without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(handshake(f"/ws/{queue}") + text('{"cmd":"lease"}'))
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(2):
            await reader.readexactly(reads)
    writer.transport.abort()


@pytest.mark.parametrize("delivery", ["broadcast", "roundrobin"])
async def test_listeners_killed_while_jobs_are_on_their_way_take_nothing_from_those_who_stay(
    server: rig.Server, queue_name: str, delivery: str
) -> None:
    stopped = False

    async def come_and_go() -> None:
        while not stopped:
            await listener(server, queue_name, random.randint(150, 3000))

    async with listening(server, queue_name, delivery) as stays:
        killed = [asyncio.create_task(come_and_go()) for _ in range(4)]
        for first in range(0, JOBS, 20):
            await ask(server, "POST", f"/qb/{queue_name}", {"jobs": list(range(first, first + 20))})
        stopped = True
        await asyncio.gather(*killed)
        await soon(lambda: server.ask("GET", f"/stats/{queue_name}").json["processed"] == JOBS)
        # Those who went have no turn any more: from now on all is for the one who stays.
        for number in range(JOBS, JOBS + 5):
            push(server, queue_name, number)
        got: list[int] = []
        while not got or got[-1] != JOBS + 4:
            got.append((await heard(stays))["body"])
    assert got == sorted(set(got))
    assert got[-5:] == list(range(JOBS, JOBS + 5))
    if delivery == "broadcast":
        assert got == list(range(JOBS + 5))
    assert counts(server, queue_name) == (0, 0)


async def test_consumers_killed_while_jobs_are_on_their_way_lose_none_of_them(
    server: rig.Server, queue_name: str
) -> None:
    server.ask("PATCH", f"/p/{queue_name}", '{"max_attempts": 1000}')
    server.ask("POST", f"/qb/{queue_name}", json.dumps({"jobs": list(range(JOBS))}))
    done: Counter[int] = Counter()

    async def consume_and_die() -> None:
        async with speaking(server, f"/ws/{queue_name}") as on:
            await on.send('{"cmd":"lease","count":30,"seconds":3600}')
            for _ in range(random.randint(1, 50)):
                told = await heard(on)
                if told.get("event") == "job":
                    ack = {"cmd": "ack", "id": told["id"], "lease": told["lease"], "ref": told["body"]}
                    await on.send(json.dumps(ack))
                elif told.get("state") == "done":
                    done[told["ref"]] += 1
            on.transport.abort()

    for _ in range(4):
        await asyncio.gather(*(consume_and_die() for _ in range(4)))
    await soon(lambda: counts(server, queue_name)[1] == 0)
    left = [json.loads(one) for one in server.ask("GET", f"/qb/{queue_name}?batch_size=1000").json]
    stats = server.ask("GET", f"/stats/{queue_name}").json
    assert not set(done) & set(left)
    assert len(set(left)) == len(left)
    assert max(done.values()) == 1
    # Acked or left: what was acked without its answer being read is in neither list, and counted.
    assert stats["processed"] == JOBS
    assert stats["dead"] == 0


async def test_a_store_that_is_killed_under_sockets_with_leased_jobs_loses_none_and_consuming_goes_on(
    new_data: Callable[[], str],
) -> None:
    with rig.server("--data", new_data()) as server:
        async with speaking(server, "/ws/live") as on, speaking(server, "/ws/idle") as idle:
            await idle.send('{"cmd":"lease","count":5}')
            await heard(idle)
            await on.send('{"cmd":"lease","count":10,"seconds":3600}')
            await heard(on)
            server.ask("POST", "/qb/live", json.dumps({"jobs": list(range(200))}))
            done: set[int] = set()
            killed = False
            held: dict[int, Any] = {}
            while len(done) < 200:
                told = await heard(on)
                if told.get("event") == "job":
                    held[told["body"]] = told
                elif told.get("status") == 200:
                    done.add(told["ref"])
                    held.pop(told["ref"], None)
                    continue
                elif "error" in told:  # the store was away: the same ack again, which is harmless
                    await asyncio.sleep(0.05)
                    told = held[told["ref"]]
                if "lease" in told:
                    ack = {"cmd": "ack", "id": told["id"], "lease": told["lease"], "ref": told["body"]}
                    await on.send(json.dumps(ack))
                if len(done) >= 50 and not killed:
                    killed = True
                    os.kill(store_of(server), signal.SIGKILL)
            assert killed
            await soon(lambda: counts(server, "live") == (0, 0))
            assert server.ask("GET", "/stats/live").json["processed"] == 200
            await ask(server, "POST", "/q/idle", "after")
            assert (await heard(idle))["body"] == "after"
        await soon(lambda: counts(server, "idle") == (1, 0))


@pytest.mark.parametrize("delivery", ["broadcast", "roundrobin"])
async def test_listeners_outlive_a_store_that_is_killed_and_get_what_comes_afterwards(
    new_data: Callable[[], str], delivery: str
) -> None:
    with rig.server("--data", new_data()) as server:
        async with (
            listening(server, "live", delivery) as one,
            listening(server, "live", delivery) as other,
        ):
            await ask(server, "POST", "/qb/live", {"jobs": [0, 1]})
            await asyncio.gather(heard(one), heard(other))
            if delivery == "broadcast":
                await asyncio.gather(heard(one), heard(other))
            os.kill(store_of(server), signal.SIGKILL)
            await soon(lambda: server.ask("POST", "/q/live", "2").status == 201)
            await soon(lambda: server.ask("POST", "/q/live", "3").status == 201)
            if delivery == "broadcast":
                for on in (one, other):
                    assert [(await heard(on))["body"] for _ in range(2)] == [2, 3]
            else:
                assert sorted([(await heard(one))["body"], (await heard(other))["body"]]) == [2, 3]
        assert counts(server, "live") == (0, 0)


async def flood(server: rig.Server, queue: str, seconds: float, at_least: int = 0) -> int:
    """Push jobs of some 20 KB for so long, and until there were so many bytes. Returns how many jobs."""
    body = {"jobs": ["x" * 20_000] * 20}
    ends, pushed = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < ends or pushed * 20_000 <= at_least:
        assert (await ask(server, "POST", f"/qb/{queue}", body)).status == 201
        pushed += 20
        await asyncio.sleep(0.02)  # some 10 MB a second are flood enough, and leave the machine to others
    return pushed


async def test_ten_seconds_of_a_flood_to_a_consumer_that_does_not_read_cost_no_memory(
    queue_name: str,
) -> None:
    with rig.server("--memory") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(handshake(f"/ws/{queue_name}") + text('{"cmd":"lease","count":50,"seconds":3600}'))
        await reader.readuntil(b'"count":50}')
        await flood(server, queue_name, 1)
        await soon(lambda: counts(server, queue_name)[1] == 50)
        before = rss(server)
        await flood(server, queue_name, FLOOD_S, at_least=FLAT)  # had it been kept, it would show
        assert rss(server) - before < FLAT
        assert counts(server, queue_name)[1] == 50
        writer.transport.abort()
        await soon(lambda: counts(server, queue_name)[1] == 0)


async def test_ten_seconds_of_broadcast_to_listeners_that_do_not_read_cost_no_memory(
    queue_name: str,
) -> None:
    with rig.server("--memory") as server:
        async with listening(server, queue_name, "broadcast") as reads:
            got = 0

            async def read() -> None:
                nonlocal got
                async for _ in reads:
                    got += 1

            reading = asyncio.create_task(read())
            pushed = await flood(server, queue_name, 1)
            before = rss(server)
            slow = []
            for path, hello in ((f"/ws/{queue_name}", text('{"cmd":"lease"}')), (f"/c/{queue_name}", b"")):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
                request = (
                    handshake(path) if hello else f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                )
                writer.write(request + hello)
                slow.append((reader, writer))
            highest = 0

            async def watch() -> None:
                nonlocal highest
                while True:
                    highest = max(highest, rss(server))
                    await asyncio.sleep(0.05)

            watching = asyncio.create_task(watch())
            try:
                pushed += await flood(server, queue_name, FLOOD_S, at_least=2 * FLAT)
                await soon(lambda: got == pushed)
            finally:
                watching.cancel()
                reading.cancel()
                for _, writer in slow:
                    writer.transport.abort()
            assert highest - before < FLAT
