"""XMPP servers that die, freeze, lie or say nothing: nothing is lost or stays held; presque comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presque.commands.call import Service
from presque.commands.who import Guard
from presque.config.settings import XmppSettings
from presque.engine.engine import Engine
from presque.engine.namespaces import Namespaces
from presque.job import QueueStats
from presque.xmpp import component
from presque.xmpp.component import Component
from tests import chatting, rig
from tests.asking import push, soon
from tests.chatting import DOMAIN, OURS, Friend, at, friend

HEAD = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' "
    f"xmlns:stream='http://etherx.jabber.org/streams' id='7' from='{DOMAIN}'>"
)
CLIENT = "jabber:client"
WORKER = "worker@localhost/1"
CONSUME = f"<consume xmlns='{OURS}' count='1000' seconds='600'/>"
PRESENCE = f"<presence from='{WORKER}' to='{at('mail')}'>{CONSUME}</presence>"


# --- a server that does as it is told


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeServer:
    """Takes components; `serve` is what happens on each connection, and `count` how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self.serve: Serve = self.accept
        self.received = bytearray()
        self.stop: Callable[[], Awaitable[None]]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        with contextlib.suppress(ConnectionError):
            await self.serve(reader, writer)
        writer.close()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Shake hands, then read for ever."""
        await self.greet(reader, writer)
        while data := await reader.read(65536):
            self.received += data

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b">")
        writer.write(HEAD.encode())
        await reader.readuntil(b"</handshake>")
        writer.write(b"<handshake/>")


@pytest.fixture(scope="module")
def store() -> Iterator[rig.Store]:
    """One is enough: these tests are not about stores."""
    with rig.store("valkey") as found:
        yield found


@pytest.fixture
async def fake(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServer]:
    """A server, and presque as its component, which is quick to try again."""
    monkeypatch.setattr(component, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(component, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(component, "OPEN_WITHIN_S", 0.3)
    found = FakeServer()
    listening = await asyncio.start_server(found.connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    settings = XmppSettings(
        jid=DOMAIN, secret="s", server=f"127.0.0.1:{port}", allow={"worker@localhost": ("*:*",)}
    )

    async def facts() -> dict[str, object]:
        return {}

    service = Service(engine, Guard(engine.access, Namespaces(engine)), dict, facts)
    door = Component(service, settings, lambda _size, _before: True)
    found.stop = door.stop
    door.start()
    yield found
    await door.stop()
    listening.close()


async def leased(engine: Engine) -> int:
    [found] = await engine.stats(["mail"])
    return found.leased


async def soon_of(engine: Engine, wanted: Callable[[QueueStats], bool]) -> None:
    """Wait until the counts of the queue are as wanted."""
    deadline = asyncio.get_running_loop().time() + rig.PATIENCE
    while not wanted((found := await engine.stats(["mail"]))[0]):
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.01)


async def until_leased(engine: Engine, wanted: Callable[[int], bool]) -> int:
    deadline = asyncio.get_running_loop().time() + rig.PATIENCE
    while not wanted(found := await leased(engine)):
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.01)
    return found


async def again(fake: FakeServer) -> None:
    """Wait until the server was left, and tried again."""
    seen = fake.count
    await soon(lambda: fake.count > seen + 1)


GARBAGE = (
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><stream:stream>&b;",
    HEAD.encode() + b"<message>",
    HEAD.encode() + b"<handshake/><message></iq>",
    HEAD.encode() + b"<handshake/>\xff\xff",
    HEAD.encode() + b"<handshake/></stream:stream>",
    HEAD.encode()
    + b"<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    b"",
)


async def test_a_server_that_sends_nonsense_is_left_and_tried_again_for_ever(
    engine: Engine, fake: FakeServer
) -> None:
    for data in GARBAGE:

        async def nonsense(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = data
        ) -> None:
            await reader.readuntil(b">")
            writer.write(data)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 1)

        fake.serve = nonsense
        await again(fake)


async def test_a_server_that_takes_the_connection_and_says_nothing_is_left(
    engine: Engine, fake: FakeServer
) -> None:
    async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    fake.serve = silence
    await again(fake)


async def test_a_server_that_falls_silent_is_left_and_its_consumers_hold_nothing(
    engine: Engine, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component, "HEARTBEAT_S", 0.3)

    async def falls_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.greet(reader, writer)
        writer.write(PRESENCE.encode())
        fake.serve = fake.accept
        while data := await reader.read(65536):
            fake.received += data

    fake.serve = falls_silent
    await push(engine, "mail")
    await soon(lambda: b'"event":"job"' in fake.received)
    await until_leased(engine, lambda count: count == 0)
    [found] = await engine.stats(["mail"])
    assert (found.ready, found.failed) == (1, 0)


async def test_a_server_that_does_not_read_is_sent_no_more_jobs_and_all_of_them_later(
    engine: Engine, fake: FakeServer
) -> None:
    reads = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.greet(reader, writer)
        writer.write(PRESENCE.encode())
        await reads.wait()
        while data := await reader.read(1 << 20):
            fake.received += data

    fake.serve = stuck
    for _ in range(200):
        await push(engine, "mail", b'"%b"' % (b"x" * 100_000))
    await until_leased(engine, lambda count: count > 0)
    await asyncio.sleep(0.5)
    assert await leased(engine) < 200
    reads.set()
    await soon(lambda: len(fake.received) > 200 * 200_000)  # each has it twice
    assert fake.received.count(b'id="job-') == 200


FETCH = f"<message from='{WORKER}' to='{at('mail')}'>{chatting.payload({'cmd': 'fetch'})}</message>".encode()


async def test_answers_that_a_server_has_not_taken_when_it_breaks_go_back(
    engine: Engine, fake: FakeServer
) -> None:
    pushed, breaks = asyncio.Event(), asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.greet(reader, writer)
        await pushed.wait()
        writer.write(FETCH * 100)
        await breaks.wait()
        fake.serve = fake.accept
        while b"</message>" not in fake.received:
            fake.received += await reader.read(1 << 20)
        writer.transport.abort()

    fake.serve = stuck
    for _ in range(100):
        await push(engine, "mail", b'"%b"' % (b"x" * 200_000))
    pushed.set()
    await soon_of(engine, lambda found: found.ready == 0)
    breaks.set()
    await soon_of(engine, lambda found: found.ready > 30)  # what the sockets held is gone
    [found] = await engine.stats(["mail"])
    assert found.processed + found.ready == 100
    assert [job.id for job in await engine.fetch_many("mail", 10)] == [
        str(number) for number in range(found.processed + 1, found.processed + 11)
    ]


async def test_when_presque_stops_its_answers_come_before_its_goodbye(
    engine: Engine, fake: FakeServer
) -> None:
    pushed, asked = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.greet(reader, writer)
        await pushed.wait()
        writer.write(FETCH * 10)
        await asked.wait()
        while data := await reader.read(65536):
            fake.received += data

    fake.serve = serve
    for _ in range(10):
        await push(engine, "mail", b'"%b"' % (b"x" * 50_000))
    pushed.set()
    await soon_of(engine, lambda found: found.ready == 0)
    asked.set()
    await fake.stop()
    await soon(lambda: fake.received.endswith(b"</stream:stream>"))
    assert fake.received.count(b"<message") == 10


async def test_what_comes_byte_by_byte_is_understood(engine: Engine, fake: FakeServer) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.greet(reader, writer)
        for byte in PRESENCE.encode():
            writer.write(bytes([byte]))
            await writer.drain()
        while data := await reader.read(65536):
            fake.received += data

    fake.serve = slowly
    await push(engine, "mail")
    await soon(lambda: b'"event":"job"' in fake.received)


async def test_stanzas_that_are_too_large_or_wrong_cost_their_sender_an_error_and_not_the_connection(
    engine: Engine, fake: FakeServer
) -> None:
    stanzas = [
        f"<message from='{WORKER}' to='{at('mail')}' id='1'><body>{'x' * 500_000}</body></message>",
        f"<iq from='{WORKER}' to='{at('mail')}' type='set' id='2'>{'<a/>' * 5000}</iq>",
        f"<iq from='{WORKER}' to='{at('mail')}' type='set' id='3'>{'<a>' * 50}{'</a>' * 50}</iq>",
        f"<iq from='{WORKER}' to='{at('mail')}' type='set' id='4'/>",
        f"<iq from='{WORKER}' type='get' id='5'><query xmlns='jabber:iq:version'/></iq>",
        f"<iq from='{WORKER}' to='{at('mail')}' type='nonsense' id='6'><a/></iq>",
        f"<message from='{WORKER}' to='{at('mail')}'><body>1<b/></body></message>",
        f"<message to='{at('mail')}'><body>1</body></message>",
        f"<message from='{DOMAIN}' to='{at('mail')}'><body>1</body></message>",
        f"<message from='{at('mail')}' to='{at('mail')}'><body>1</body></message>",
        f"<message xmlns='other' from='{WORKER}' to='{at('mail')}'><body xmlns='{CLIENT}'>1</body></message>",
        "<nonsense/>",
        f"<message from='{WORKER}' to='{at('mail')}' type='chat' id='7'><body>push 42</body></message>",
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.greet(reader, writer)
        writer.write("".join(stanzas).encode())
        while data := await reader.read(65536):
            fake.received += data

    fake.serve = serve
    await soon(lambda: b"<body>1</body>" in fake.received)
    text = fake.received.decode()
    for id in ("1", "2", "3", "4"):
        assert f'id="{id}" type="error"' in text
    assert "policy-violation" in text
    assert fake.count == 1
    [found] = await engine.stats(["mail"])
    assert found.ready == 1


# --- Prosody that dies and freezes


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[chatting.Prosody, rig.Server]]:
    """A server of XMPP that may be killed, and a presque at it."""
    data = str(tmp_path_factory.mktemp("shaken") / "presque")
    with chatting.prosody() as prosody, rig.server("--data", data, **chatting.settings(prosody)) as server:
        rig.eventually(lambda: connections(server))
        yield prosody, server


def connections(server: rig.Server) -> int:
    return sum("xmpp.connected" in line for line in server.everything)


def stats(server: rig.Server, queue: str) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("GET", f"/stats/{queue}").json
    return found


async def consume(worker: Friend, queue: str, seen: list[int], seconds: int = 600) -> None:
    """Take jobs and ack them, until the connection is lost."""
    worker.xml(
        f"<presence to='{at(queue)}'><consume xmlns='{OURS}' count='20' seconds='{seconds}'/></presence>"
    )
    while True:
        job = await worker.told()
        if job.get("event") == "job":
            seen.append(job["body"])
            worker.command(at(queue), cmd="ack", id=job["id"], lease=job["lease"])


async def test_a_server_that_is_killed_in_mid_delivery_loses_nothing_and_holds_nothing(
    shaken: tuple[chatting.Prosody, rig.Server], queue_name: str
) -> None:
    prosody, server = shaken
    total = 400
    server.ask("POST", f"/qb/{queue_name}", json.dumps({"jobs": list(range(total))}))
    seen: list[int] = []
    kills = 0
    while stats(server, queue_name)["processed"] < total:
        before = connections(server)
        one = Friend("worker@localhost/w", prosody.c2s)
        await one.arrive()
        task = asyncio.create_task(consume(one, queue_name, seen))
        if kills < 2:
            mark = len(seen) + 50
            await soon(lambda mark=mark: len(seen) > mark)  # type: ignore[misc]
            await asyncio.to_thread(prosody.stop)
            kills += 1
            await soon(lambda: stats(server, queue_name)["leased"] == 0)
            await asyncio.to_thread(prosody.start)
            await soon(lambda before=before: connections(server) > before)  # type: ignore[misc]
        else:
            await soon(lambda: stats(server, queue_name)["processed"] == total)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
        one.cancel_connection_attempt()
        one.abort()
        if one._run_out_filters is not None:
            one._run_out_filters.cancel()
    assert set(seen) == set(range(total))
    found = stats(server, queue_name)
    assert (found["ready"], found["leased"], found["dead"], found["processed"]) == (0, 0, 0, total)
    assert len(seen) - total <= 20 * kills  # a job comes again only if its ack was under way


async def test_a_server_that_freezes_in_mid_delivery_holds_nobody_up_for_longer_than_the_leases(
    shaken: tuple[chatting.Prosody, rig.Server], queue_name: str
) -> None:
    prosody, server = shaken
    server.ask("PATCH", f"/p/{queue_name}", '{"backoff": {"first": 0, "jitter": 0}}')
    async with friend(prosody, "worker") as worker:
        task = asyncio.create_task(consume(worker, queue_name, [], seconds=1))
        await soon(lambda: "xmpp" in str(server.everything))
        await worker.ask(DOMAIN, "<ping xmlns='urn:xmpp:ping'/>")
        prosody.process.send_signal(signal.SIGSTOP)
        try:
            server.ask("POST", f"/qb/{queue_name}", json.dumps({"jobs": list(range(50))}))
            bodies: list[int] = []
            while len(bodies) < 50:
                leased = await asyncio.to_thread(
                    server.ask, "POST", f"/q/{queue_name}/lease", '{"count": 50, "seconds": 600, "wait": 25}'
                )
                assert leased.status == 200, stats(server, queue_name)
                bodies += [job["body"] for job in leased.json["jobs"]]
                settle = [
                    {name: job[name] for name in ("queue", "id", "lease")} for job in leased.json["jobs"]
                ]
                server.ask("POST", "/settle", json.dumps({"ack": settle}))
        finally:
            prosody.process.send_signal(signal.SIGCONT)
        assert sorted(bodies) == list(range(50))
        await worker.ask(DOMAIN, "<ping xmlns='urn:xmpp:ping'/>")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await task
    found = stats(server, queue_name)
    assert (found["ready"], found["leased"], found["dead"], found["processed"]) == (0, 0, 0, 50)


async def test_presque_that_stops_gives_back_what_consumers_hold(
    shaken: tuple[chatting.Prosody, rig.Server], tmp_path: Path
) -> None:
    """And an error in the secret, or another presque in the same place, is said in the log."""
    prosody, _ = shaken
    wrong = {**chatting.settings(prosody), "PRESQUE_XMPP__SECRET": "wrong"}
    with rig.server("--memory", **wrong) as server:
        rig.eventually(lambda: "component_secret" in server.said())
        assert "not-authorized" in server.said()
    second = chatting.settings(prosody)
    with rig.server("--memory", **second) as server:
        rig.eventually(lambda: "conflict" in server.said())


def test_of_several_server_processes_one_is_at_the_xmpp_server(tmp_path: Path) -> None:
    with chatting.prosody() as prosody:
        data = str(tmp_path / "data")
        with rig.server("--data", data, "--workers", "3", **chatting.settings(prosody)) as server:
            rig.eventually(lambda: connections(server))
            for _ in range(6):  # whichever answers, the store is one
                server.ask("POST", "/q/mail", "1")
            assert "conflict" not in server.said()
            assert connections(server) == 1


# --- presque xmpp


def test_presque_xmpp_serves_the_store_of_a_server_that_runs(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with chatting.prosody() as prosody, rig.server("--data", data) as server:
        secret = tmp_path / "secret"
        secret.write_text(f"{chatting.SECRET}\n")
        secret.chmod(0o600)
        command = [
            sys.executable, "-m", "presque", "xmpp", "--data", data, "--jid", DOMAIN, "--log-format", "plain",
            "--server", prosody.address, "--secret-file", str(secret),
            "--allow", "ana@localhost=push:*", "--allow", "ana@localhost=lease:*",
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            while "xmpp.connected" not in (line := process.stdout.readline()):
                assert line, "it ended"

            async def chat() -> None:
                async with friend(prosody) as ana:
                    assert await ana.chat(at("mail"), "42") == "1"
                    assert stats(server, "mail")["ready"] == 1
                    ana.xml(f"<presence to='{at('mail')}'/>")
                    assert (await ana.told())["body"] == 42
                    process.terminate()
                    await asyncio.to_thread(process.wait, rig.PATIENCE)
                    found = stats(server, "mail")
                    assert (found["ready"], found["leased"], found["failed"]) == (1, 0, 0)

            asyncio.run(chat())
            process.stdout.read()
        assert process.returncode == 0


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = ["-c", f"{code}\nfrom presque.cli.main import main\nmain()"] if code else ["-m", "presque"]
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_presque_xmpp_says_what_is_missing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    nothing = run("xmpp")
    assert (nothing.returncode, nothing.stderr) == (
        2, "presque: say which domain presque has at the XMPP server: `xmpp.jid`, or --jid\n",
    )  # fmt: skip
    half = run("xmpp", "--jid", DOMAIN)
    assert half.returncode == 2
    assert "`xmpp.secret` is not" in half.stderr
    options = ("--jid", DOMAIN, "--secret-file", str(secret), "--data", str(tmp_path / "nowhere"))
    alone = run("xmpp", *options)
    assert alone.returncode == 1
    assert "no store runs on the data in" in alone.stderr
    assert "start `presque serve` first" in alone.stderr
    wrong = run("xmpp", *options, "--allow", "ana@localhost")
    assert wrong.returncode == 2
    assert "an account and a rule" in wrong.stderr


def test_without_its_library_presque_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "presque.yaml").write_text(f"xmpp: {{jid: {DOMAIN}, secret: s}}\n")
    config = str(tmp_path / "presque.yaml")
    done = run(
        "serve",
        "--memory",
        "--port",
        "0",
        "--config",
        config,
        code="import sys; sys.modules['slixmpp'] = None",
    )
    assert done.returncode == 1
    assert "pip install 'presque[xmpp]'" in done.stderr
