"""One AsyncClient and many event loops: one after the other, at once in threads, in forked children."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from presque import AsyncClient
from tests import rig

Run = Callable[[Coroutine[Any, Any, Any]], Any]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in a loop of its own, as `asyncio.run` does."""

    def in_a_loop_of_its_own(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(coroutine)

    return in_a_loop_of_its_own


def test_each_call_may_have_a_loop_of_its_own(run: Run, server: rig.Server, queue_name: str) -> None:
    client = AsyncClient(server.url, timeout=20)
    for number in range(5):
        run(client.push(queue_name, number))
    run(client.all_stats())
    assert run(client.peek(queue_name)) == ["0", "1", "2", "3", "4"]
    assert client.transport.sockets() == []  # each loop closed what it had kept


def test_a_loop_keeps_its_connections_while_it_lasts(run: Run, server: rig.Server, queue_name: str) -> None:
    client = AsyncClient(server.url, timeout=20)

    async def push_two() -> None:
        await client.push(queue_name, 1)
        [first] = client.transport.sockets()
        await client.push(queue_name, 2)
        assert client.transport.sockets() == [first]
        client.close()
        assert client.transport.sockets() == []
        await client.push(queue_name, 3)

    run(push_two())
    assert run(client.peek(queue_name)) == ["1", "2", "3"]


def test_several_loops_may_use_it_at_once(run: Run, server: rig.Server, queue_name: str) -> None:
    client = AsyncClient(server.url, timeout=20)
    errors: list[Exception] = []

    async def push_some(name: int) -> None:
        for turn in range(5):
            await asyncio.gather(*(client.push(queue_name, [name, turn, n]) for n in range(10)))

    def in_a_thread(name: int) -> None:
        try:
            run(push_some(name))
        except Exception as error:  # noqa: BLE001  (whatever it is, the test fails)
            errors.append(error)

    threads = [threading.Thread(target=in_a_thread, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert errors == []
    assert len(set(run(client.peek(queue_name)))) == 200


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio's, about loops that are closed so
def test_a_loop_that_was_closed_without_a_word_is_forgotten(server: rig.Server, queue_name: str) -> None:
    client = AsyncClient(server.url, timeout=20)
    for number in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.push(queue_name, number))
        loop.close()
    assert len(client.transport.sockets()) == 1
    client.close()
    assert client.transport.sockets() == []
    del client, loop
    gc.collect()  # here, where its warning is expected


def test_a_call_while_the_loop_shuts_down_keeps_no_connection(
    run: Run, server: rig.Server, queue_name: str
) -> None:
    client = AsyncClient(server.url, timeout=20)
    pushed: list[str] = []

    async def last_words() -> Any:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            pushed.append(await client.push(queue_name, "goodbye"))

    async def leave_it_open() -> Any:
        await client.push(queue_name, "hello")
        words = last_words()
        await anext(words)
        return words

    run(leave_it_open())
    assert len(pushed) == 1
    assert client.transport.sockets() == []


def test_a_forked_child_uses_connections_of_its_own(run: Run, server: rig.Server, queue_name: str) -> None:
    client = AsyncClient(server.url, timeout=20)

    async def parent() -> list[str]:
        await client.push(queue_name, "parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                threading.Thread(target=lambda: run(client.push(queue_name, "child"))).start()
                for thread in threading.enumerate():
                    if thread is not threading.current_thread():
                        thread.join(20)
                status = 0
            finally:
                os._exit(status)
        assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
        await client.push(queue_name, "parent again")
        return await client.peek(queue_name)

    assert run(parent()) == ['"parent"', '"child"', '"parent again"']


MANY = """
import asyncio, resource, sys
from presque import AsyncClient
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

async def main():
    async with AsyncClient(sys.argv[1], timeout=60) as client:
        ids = await asyncio.gather(*(client.push(sys.argv[2], n) for n in range(1500)))
        print(len(set(ids)), len(client.transport.sockets()))

asyncio.run(main())
"""


def test_any_number_of_tasks_get_along_with_few_files(server: rig.Server, queue_name: str) -> None:
    command = [sys.executable, "-W", "error", "-c", MANY, server.url, queue_name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("1500 16\n", "")


async def test_a_call_that_is_cancelled_takes_no_job(server: rig.Server, queue_name: str) -> None:
    async with AsyncClient(server.url, timeout=20) as client:
        waits = asyncio.create_task(client.fetch(queue_name, wait=20))
        await asyncio.sleep(0.2)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

        async def taken() -> bool:
            await client.push(queue_name, 1)
            return await client.fetch(queue_name) is not None

        assert await taken()


def test_a_handler_of_a_signal_may_push_whatever_it_interrupts(server: rig.Server, queue_name: str) -> None:
    code = """
        import faulthandler, random, signal, sys, time
        from presque import Client

        client, queue, done, pushed = Client(sys.argv[1]), sys.argv[2], 0, 0

        def push(*_):
            global pushed
            client.push(queue, 1)
            pushed += 1
            if pushed < 1000:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + random.random() * 0.0008)

        faulthandler.dump_traceback_later(float(sys.argv[3]), exit=True)
        signal.signal(signal.SIGALRM, push)
        signal.setitimer(signal.ITIMER_REAL, 0.0001)
        while pushed < 1000:
            client.push(queue, 1)
            done += 1
        print(client.size(queue) - done - pushed)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), server.url, queue_name, str(rig.PATIENCE)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=3 * rig.PATIENCE, check=False)
    assert found.stdout == "0\n", found.stderr
