"""The two connections to the store: whatever is refused, missing or raised harms its own caller alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presque.errors import PresqueError, StoreError, StoreUnavailable
from presque.store.address import Address
from presque.store.channels import Channels
from presque.store.greeting import Functions
from presque.store.store import Store
from presque.store.wire import PATIENCE, Call, command, into
from tests import rig
from tests.asking import soon

ECHO = "redis.register_function('echo_it', function(keys, args) return args[1] end)"
FUNCTIONS = Functions("echo", f"#!lua name=echo\n{ECHO}\n")


@pytest.fixture(scope="module", params=sorted(rig.STORES))
def own(request: pytest.FixtureRequest) -> Iterator[rig.Store]:
    """A store that other tests do not use, since its functions are flushed here."""
    with rig.store(request.param) as found:
        yield found


@pytest.fixture
def address(own: rig.Store) -> Iterator[Address]:
    """The store under a user that may listen to channels that begin with `a`."""
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "resetchannels", "&a*", "+@all")
    yield Address(unix=own.socket, username="app", password="pw")
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "resetchannels", "&a*")


@pytest.fixture
async def store(address: Address) -> AsyncIterator[Store]:
    found = Store(address, FUNCTIONS, on_connected=lambda: None)
    await found.connect()
    yield found
    await found.close()


@pytest.fixture
async def channels(address: Address) -> AsyncIterator[Channels]:
    found = Channels(address)
    await found.connect()
    yield found
    await found.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The log's lines of one event."""
    caplog.set_level("INFO")
    return lambda event: [one.getMessage() for one in caplog.records if one.getMessage().startswith(event)]


def echo(word: str) -> bytes:
    return command("FCALL", "echo_it", 0, word)


# --- subscriptions ------------------------------------------------------------------------------


async def test_a_refused_subscription_is_an_error_for_its_hearer_and_shifts_no_reply(
    channels: Channels, said: Callable[[str], list[str]]
) -> None:
    heard: list[bytes] = []
    allowed = [channels.hear(f"a{n}", heard.append) for n in range(20)]
    refused = [channels.hear(f"b{n}", heard.append) for n in range(20)]
    wire = channels._wire
    assert wire is not None
    answers = await asyncio.gather(*(wire.ask("ECHO", f"{n}") for n in range(50)))

    assert answers == [f"{n}".encode() for n in range(50)]
    for one in allowed:
        await one.begun()
    for one in refused:
        with pytest.raises(StoreError, match="NOPERM"):
            await one.begun()
    assert len(said("store.channel_refused")) == 1
    assert channels._wire is wire


async def test_what_is_published_is_heard_once_a_hearing_has_begun(
    channels: Channels, own: rig.Store
) -> None:
    heard: list[bytes] = []
    first, second = channels.hear("a", heard.append), channels.hear("a", heard.append)
    await first.begun()
    await second.begun()
    with own.client() as client:
        assert client.execute_command("SPUBLISH", "a", "1") == 1
        await soon(lambda: heard == [b"1", b"1"])
        second.end()
        client.execute_command("SPUBLISH", "a", "2")
        await soon(lambda: heard == [b"1", b"1", b"2"])
    assert first.count == 3  # it began, and two messages came


async def test_a_channel_that_was_refused_is_heard_as_soon_as_it_is_allowed(
    channels: Channels, own: rig.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presque.store.channels.RETRY_S", 0.1)
    missed: list[str] = []
    hearing = channels.hear("b", lambda _: None, lambda: missed.append("b"))
    with pytest.raises(StoreError):
        await hearing.begun()

    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "resetchannels", "&*")

    await soon(lambda: hearing.on)
    assert missed == ["b"]


async def test_a_hearer_is_told_that_it_may_have_missed_something(channels: Channels, own: rig.Store) -> None:
    told: list[str] = []
    hearing = channels.hear("a", lambda payload: told.append(payload.decode()), lambda: told.append("missed"))
    await hearing.begun()
    with own.client() as client:
        client.execute_command("CLIENT", "KILL", "USER", "app")
        await soon(lambda: told == ["missed"])
        client.execute_command("SPUBLISH", "a", "again")
        await soon(lambda: told == ["missed", "again"])


async def test_channels_that_nobody_hears_are_let_go_and_heard_again_when_wanted(
    channels: Channels, own: rig.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presque.store.channels.LINGER_S", 0.05)
    with own.client() as client:

        def listened() -> list[bytes]:
            found: list[bytes] = client.execute_command("PUBSUB", "SHARDCHANNELS")
            return found

        for _ in range(3):
            hearing = channels.hear("a", lambda _: None)
            await hearing.begun()
            assert listened() == [b"a"]
            hearing.end()
            hearing.end()
            await soon(lambda: listened() == [])


async def test_a_hearer_that_raises_keeps_nothing_from_the_others(
    channels: Channels, own: rig.Store, said: Callable[[str], list[str]]
) -> None:
    heard: list[bytes] = []

    def broken(_payload: bytes) -> None:
        raise KeyError("a bug")

    for hearer in (broken, heard.append):
        await channels.hear("a", hearer).begun()
    with own.client() as client:
        client.execute_command("SPUBLISH", "a", "1")
        await soon(lambda: heard == [b"1"])
    assert said("store.hearer_failed")
    assert channels._wire is not None


# --- calls --------------------------------------------------------------------------------------


async def test_a_receiver_that_raises_harms_its_own_caller_alone(
    store: Store, said: Callable[[str], list[str]]
) -> None:
    wire = store._wire
    found: list[Any] = []

    def broken(reply: Any) -> None:
        found.append(reply)
        if not isinstance(reply, PresqueError):
            raise KeyError("a bug")

    before = [store.ask("q", echo(f"{n}")) for n in range(20)]
    asked = [asyncio.ensure_future(one) for one in before]
    await asyncio.sleep(0)
    store.send("q", echo("odd"), broken)
    after = [asyncio.ensure_future(store.ask("q", echo(f"{n}"))) for n in range(20)]

    assert await asyncio.gather(*asked, *after) == [f"{n % 20}".encode() for n in range(40)]
    assert found[0] == b"odd"
    assert isinstance(found[1], StoreError)
    assert len(said("store.receiver_failed")) == 1
    assert store._wire is wire


async def test_however_many_calls_miss_the_functions_they_are_loaded_once(
    store: Store, own: rig.Store, said: Callable[[str], list[str]]
) -> None:
    with own.client() as client:
        for round_of_calls in (1, 2):
            client.execute_command("CONFIG", "RESETSTAT")
            client.execute_command("FUNCTION", "FLUSH")
            answers = await asyncio.gather(*(store.ask("q", echo(f"{n}")) for n in range(1000)))

            assert answers == [f"{n}".encode() for n in range(1000)]
            stats = client.info("commandstats")
            assert stats["cmdstat_function|load"]["calls"] == 1
            assert store.reloads == round_of_calls


async def test_functions_that_cannot_be_loaded_are_an_error_for_each_caller(
    store: Store, own: rig.Store, said: Callable[[str], list[str]]
) -> None:
    with own.client() as client:
        client.execute_command("FUNCTION", "FLUSH")
        client.execute_command("ACL", "SETUSER", "app", "-function|load")
        try:
            answers = await asyncio.gather(
                *(store.ask("q", echo(f"{n}")) for n in range(10)), return_exceptions=True
            )
        finally:
            client.execute_command("ACL", "SETUSER", "app", "+function|load")
    assert {type(one) for one in answers} == {StoreError}
    assert len(said("store.functions_not_loaded")) == 1
    assert await store.ask("q", echo("again")) == b"again"


async def test_a_call_on_a_lost_connection_is_answered(store: Store) -> None:
    wire = store._wire
    assert wire is not None
    wire.abort("cut by a test")
    found: list[Any] = []

    wire.send(Call(echo("1"), found.append))

    assert [type(one).__name__ for one in found] == ["StoreUnavailable"]


@pytest.mark.parametrize("kind", ["call", "subscription"])
async def test_what_is_asked_after_a_silence_is_waited_for_as_long_as_anything(
    store: Store, channels: Channels, kind: str
) -> None:
    """On a busy machine a store may need most of that time, so none of it may be gone before it is asked."""
    wire = store._wire if kind == "call" else channels._wire
    assert wire is not None
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire._heard = wire._asked = asyncio.get_running_loop().time() - PATIENCE - 1
    if kind == "call":
        wire.send(Call(b"PING\r\n", into(answer)))
    else:
        wire.subscribe(b"a", into(answer))

    wire._judge()

    assert not wire.lost
    await answer


async def test_a_large_call_over_a_slow_link_is_waited_for_while_the_store_reads(
    own: rig.Store, tmp_path: Path
) -> None:
    """It takes longer than a silent store is waited for."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(pause if len(data) > 60_000 else 0)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_store, to_store = await asyncio.open_unix_connection(own.socket)
        await asyncio.gather(carry(reader, to_store, 0.05), carry(from_store, writer, 0))

    slow = tmp_path / "slow"
    server = await asyncio.start_unix_server(relay, slow)
    found = Store(Address(unix=str(slow)), FUNCTIONS, on_connected=lambda: None)
    try:
        await found.connect()
        assert len(await found.ask("q", echo("x" * 6_500_000))) == 6_500_000
    finally:
        await found.close()
        server.close()


@pytest.mark.parametrize(("size", "waited_for"), [(6, False), (64 * 1024 * 1024, True)])
async def test_a_store_that_works_on_a_large_call_may_be_silent_for_longer(
    store: Store, own: rig.Store, size: int, waited_for: bool
) -> None:
    """To copy it and to write it to a slow disk takes seconds."""
    os.kill(own.process.pid, signal.SIGSTOP)
    try:
        asked = asyncio.ensure_future(store.ask("q", echo("x" * size)))
        await asyncio.sleep(PATIENCE + 1.5)  # the silence is what is tested
    finally:
        os.kill(own.process.pid, signal.SIGCONT)
    if waited_for:
        assert len(await asyncio.wait_for(asked, rig.PATIENCE)) == size
    else:
        with pytest.raises(StoreUnavailable, match=r"no answer for \d s"):
            await asyncio.wait_for(asked, rig.PATIENCE)


# --- pauses -------------------------------------------------------------------------------------

ASKER = """
import asyncio, sys, time, uvloop
from presque.store.address import Address
from presque.store.greeting import Functions
from presque.store.store import Store

async def run():
    store = Store(Address(unix=sys.argv[1]), Functions("echo", sys.argv[2]), on_connected=lambda: None)
    await store.connect()
    print("connected", flush=True)
    sys.stdin.readline()
    asked = [asyncio.ensure_future(store.call("q", "ECHO", str(n))) for n in range(100)]
    await asyncio.sleep(0.05)
    print("asked", flush=True)
    time.sleep(float(sys.argv[3]))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    print(sum(answer == str(n).encode() for n, answer in enumerate(answers)), flush=True)

uvloop.run(run())
"""


@pytest.mark.parametrize("how", ["stopped", "blocked"])
@pytest.mark.parametrize("seconds", [1.0, 3.5, 6.0])
def test_a_pause_of_presque_throws_away_no_answer_that_has_arrived(
    own: rig.Store, how: str, seconds: float
) -> None:
    blocked = str(seconds) if how == "blocked" else "0"
    asker = subprocess.Popen(
        [sys.executable, "-c", ASKER, own.socket, FUNCTIONS.source, blocked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert asker.stdout is not None
    assert asker.stdin is not None
    try:
        assert asker.stdout.readline() == "connected\n"
        with own.client() as client:
            client.execute_command("CONFIG", "RESETSTAT")
            os.kill(own.process.pid, signal.SIGSTOP)
            asker.stdin.write("\n")
            asker.stdin.flush()
            assert asker.stdout.readline() == "asked\n"
            if how == "stopped":
                os.kill(asker.pid, signal.SIGSTOP)
            os.kill(own.process.pid, signal.SIGCONT)

            def answered() -> bool:
                stats = client.info("commandstats")
                return bool(stats.get("cmdstat_echo", {}).get("calls", 0) == 100)

            rig.eventually(answered)
        if how == "stopped":
            time.sleep(seconds)  # the pause is what is tested
            os.kill(asker.pid, signal.SIGCONT)
        assert asker.stdout.readline() == "100\n"
    finally:
        os.kill(own.process.pid, signal.SIGCONT)
        asker.kill()
        asker.communicate()
