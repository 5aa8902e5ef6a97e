"""How many jobs a second does one XMPP consumer receive and ack, and how do 100 consumers share a queue?

Prosody, one presque as its component, and clients that speak as little XMPP as it takes: they count jobs and
ack each with a command. First one consumer with 100 credits works off a queue that was filled before, then
100 consumers with 10 credits each do. Everything shares the cores: Prosody too, which passes two stanzas for
each job, and is the one that is busy.

Owed: 1,000 jobs a second, through one consumer and through 100; half a core for them.

run:          python bench/xmpp.py
last result:  2026-11-29, 2 cores: 2,990 jobs a second through one consumer, 2,960 through 100; 67 µs of
              presque and 131 µs of Prosody for each job, PASS
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import rig
import uvloop

DOMAIN, SECRET, PASSWORD = "presque.bench", "between-us", "open-sesame"
CONSUMERS = 100
HEAD = (
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' "
    "version='1.0'>"
)
CONFIG = """
run_as_root = true
pidfile = "{directory}/pid"
data_path = "{directory}/data"
certificates = "{directory}/certs"
log = {{ warn = "{directory}/log" }}
interfaces = {{ "127.0.0.1" }}
component_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s} }}
c2s_direct_tls_ports = {{ }}
component_ports = {{ {component} }}
s2s_ports = {{ }}
http_ports = {{ }}
https_ports = {{ }}
authentication = "internal_plain"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
limits = {{ }}
modules_enabled = {{ "saslauth", "presence", "message", "iq" }}
modules_disabled = {{ "s2s", "tls" }}
VirtualHost "localhost"
Component "{domain}"
    component_secret = "{secret}"
"""

_job = re.compile(rb"<json [^>]*>(\{&quot;event|\{\"event)(.*?)</json>", re.DOTALL).finditer


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with prosody(bench.directory) as (pid, c2s, component):
        home = bench.directory / "presque"
        home.mkdir()
        (home / "presque.yaml").write_text(
            f"xmpp: {{jid: {DOMAIN}, secret: {SECRET}, server: '127.0.0.1:{component}', "
            "allow: {worker@localhost: '*:*'}}\n"
        )
        with rig.presque(home) as server:
            count = bench.seconds * 3000
            before = rig.cpu_s(server.pid), rig.cpu_s(pid)
            one = [uvloop.run(drain(server, c2s, 1, 100, count)) for _ in range(bench.rounds)]
            many = [uvloop.run(drain(server, c2s, CONSUMERS, 10, count)) for _ in range(bench.rounds)]
            after = rig.cpu_s(server.pid), rig.cpu_s(pid)
    jobs = count * 2 * bench.rounds
    costs = [(end - start) / jobs * 1e6 for start, end in zip(before, after, strict=True)]
    rig.table("jobs a second", {"one consumer": one, f"{CONSUMERS} consumers": many})
    print(f"\nCPU for each job: {costs[0]:.0f} µs of presque, {costs[1]:.0f} µs of Prosody")
    return [
        rig.at_most("CPU of presque for each job", costs[0], 500, "µs"),
        rig.at_least("one consumer / 1,000", statistics.median(one) / 1000, 1),
        rig.at_least(f"{CONSUMERS} consumers / 1,000", statistics.median(many) / 1000, 1),
    ]


async def drain(server: rig.Program, c2s: int, consumers: int, credit: int, count: int) -> float:
    """Fill a queue, then receive and ack all of it. Returns jobs a second."""
    rig.fill(server, "bench", count)
    left = [count]
    done = asyncio.Event()
    clients = [await Client.login(c2s, f"c{number}") for number in range(consumers)]
    await clients[0].until_there()
    started = time.perf_counter()
    tasks = [asyncio.create_task(one.consume(credit, left, done)) for one in clients]
    await done.wait()
    took = time.perf_counter() - started
    for task in tasks:
        task.cancel()
    for one in clients:
        one.close()
    return count / took


class Client:
    """A client that knows just enough of XMPP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def login(cls, port: int, resource: str) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = HEAD.encode()
        secret = base64.b64encode(f"\0worker\0{PASSWORD}".encode())
        sasl = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%b</auth>" % secret
        bind = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>"
        for said, answer in (
            (head, b"</stream:features>"),
            (sasl, b"<success"),
            (head, b"</stream:features>"),
            (f"<iq type='set' id='b'>{bind}</iq>".encode(), b"</iq>"),
        ):
            writer.write(said)
            await reader.readuntil(answer)
        return cls(reader, writer)

    async def until_there(self) -> None:
        """Wait until presque has connected to the server."""
        while True:
            self._writer.write(
                f"<iq type='get' id='p' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>".encode()
            )
            if b"'result'" in await self._reader.readuntil(b">"):
                return
            await asyncio.sleep(0.1)

    async def consume(self, credit: int, left: list[int], done: asyncio.Event) -> None:
        """Ack what comes, until nothing is left for anybody."""
        to = f"bench@{DOMAIN}"
        asks = f"<consume xmlns='urn:presque:0' count='{credit}' seconds='600'/>"
        self._writer.write(f"<presence to='{to}'>{asks}</presence>".encode())
        rest = b""
        while data := await self._reader.read(1 << 16):
            rest += data
            end, acks = 0, []
            for found in _job(rest):
                end = found.end()
                job = json.loads(html.unescape((found[1] + found[2]).decode()))
                ack = json.dumps({"cmd": "ack", "id": job["id"], "lease": job["lease"]})
                acks.append(f"<message to='{to}'><json xmlns='urn:presque:0'>{ack}</json></message>")
                left[0] -= 1
            rest = rest[end:]
            self._writer.write("".join(acks).encode())
            if left[0] <= 0:
                done.set()

    def close(self) -> None:
        self._writer.write(b"</stream:stream>")
        self._writer.close()


@contextlib.contextmanager
def prosody(directory: Path) -> Iterator[tuple[int, int, int]]:
    """Run a server: its process, its ports for clients and for components."""
    program = shutil.which("prosody")
    if program is None:
        sys.exit("this needs prosody: apt install prosody")
    folder = directory / "prosody"
    accounts = folder / "data" / "localhost" / "accounts"
    accounts.mkdir(parents=True)
    (folder / "certs").mkdir()
    (accounts / "worker.dat").write_text(f'return {{ ["password"] = "{PASSWORD}" }};\n')
    c2s, component = (_free_port() for _ in range(2))
    config = folder / "config.lua"
    config.write_text(
        CONFIG.format(directory=folder, c2s=c2s, component=component, domain=DOMAIN, secret=SECRET)
    )
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([program, "-F", "--config", str(config)], stdout=out, stderr=out)
    try:
        for port in (c2s, component):
            while not _listens(port):
                time.sleep(0.05)
        yield process.pid, c2s, component
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


SCRIPT = rig.Script(measure, __doc__, rounds=2, seconds=2)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
