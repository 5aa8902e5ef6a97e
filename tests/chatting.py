"""A real XMPP server, Prosody, and clients of slixmpp that talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from slixmpp import ClientXMPP
from slixmpp.xmlstream import StanzaBase

from tests import rig

DOMAIN = "presque.test"
SECRET = "between-us"
PASSWORD = "open-sesame"
ACCOUNTS = ("ana", "bob", "eve", "reader", "worker")
OURS = "urn:presque:0"

CONFIG = """
run_as_root = true
pidfile = "{directory}/pid"
data_path = "{directory}/data"
certificates = "{directory}/certs"
log = {{ warn = "{directory}/log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s} }}
c2s_direct_tls_ports = {{ }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {component} }}
http_ports = {{ }}
https_ports = {{ }}
s2s_ports = {{ }}
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
limits = {{ }}
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "presence", "message", "iq", "carbons" }}
modules_disabled = {{ "s2s", "tls", "http" }}
"""
HOSTS = f"""
VirtualHost "localhost"
Component "{DOMAIN}"
    component_secret = "{SECRET}"
Component "rooms.test" "muc"
    restrict_room_creation = false
"""


class Prosody:
    """The server: it can be killed, frozen and started again on the same ports."""

    def __init__(self, directory: Path, hosts: str, accounts: Sequence[str]) -> None:
        self.directory, self.config = directory, directory / "config.lua"
        self.c2s, self.component = rig.free_port(), rig.free_port()
        folder = directory / "data" / "localhost" / "accounts"
        folder.mkdir(parents=True)
        (directory / "certs").mkdir()
        for name in accounts:
            (folder / f"{name}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}" }};\n')
        text = CONFIG.format(directory=directory, c2s=self.c2s, component=self.component)
        self.config.write_text(text + hosts)
        self.process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.component}"

    def start(self) -> None:
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen(
                [rig.require("prosody"), "-F", "--config", str(self.config)],
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        for port in (self.c2s, self.component):
            rig.eventually(functools.partial(_listens, port), say=self.said)

    def said(self) -> str:
        return "".join(
            (self.directory / name).read_text() for name in ("out", "log") if (self.directory / name).exists()
        )

    def stop(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        self.process.wait(rig.PATIENCE)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def prosody(hosts: str = HOSTS, accounts: Sequence[str] = ACCOUNTS) -> Iterator[Prosody]:
    """Run the server."""
    rig.require("prosody")
    directory = Path(tempfile.mkdtemp(prefix="prosody-"))
    found = Prosody(directory, hosts, accounts)
    found.start()
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(directory, ignore_errors=True)


def settings(found: Prosody, **more: Any) -> dict[str, str]:
    """The environment that makes a `presque serve` a component of this server."""
    allow = {
        "ana@localhost": ["*:*"],
        "worker@localhost": ["lease:*", "read:*"],
        "reader@localhost": ["read:q-*"],
        **more.pop("allow", {}),
    }
    return {
        "PRESQUE_XMPP__JID": DOMAIN,
        "PRESQUE_XMPP__SECRET": SECRET,
        "PRESQUE_XMPP__SERVER": found.address,
        "PRESQUE_XMPP__ALLOW": json.dumps(allow),
        **{f"PRESQUE_XMPP__{name.upper()}": str(value) for name, value in more.items()},
    }


class Friend(ClientXMPP):
    """Somebody who chats: what comes is kept, in the order in which it came."""

    def __init__(self, jid: str, port: int) -> None:
        plain = {"feature_mechanisms": {"unencrypted_plain": True, "unencrypted_scram": True}}
        super().__init__(jid, PASSWORD, plugin_config=plain)
        self.enable_direct_tls = self.enable_starttls = False
        self.enable_plaintext = True
        self._port = port
        self._ids = itertools.count(1)
        self._asked: dict[str, asyncio.Future[Element]] = {}
        self.messages: asyncio.Queue[Element] = asyncio.Queue()
        self.presences: asyncio.Queue[Element] = asyncio.Queue()
        self.asks: asyncio.Queue[Element] = asyncio.Queue()
        self.add_filter("in", self._came)
        self._open = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self._opened)

    async def arrive(self) -> None:
        self.connect("127.0.0.1", self._port)
        await asyncio.wait_for(self._open, rig.PATIENCE)

    def _opened(self, _event: Any) -> None:
        if not self._open.done():
            self._open.set_result(None)

    @property
    def full(self) -> str:
        return str(self.boundjid.full)

    def _came(self, stanza: StanzaBase) -> StanzaBase | None:
        element: Element = stanza.xml
        kind = element.tag.rpartition("}")[2]
        if not self._open.done() or kind not in ("message", "presence", "iq"):
            return stanza
        if kind == "message":
            self.messages.put_nowait(element)
        elif kind == "presence":
            self.presences.put_nowait(element)
        elif (future := self._asked.pop(element.get("id", ""), None)) is not None:
            future.set_result(element)
        elif element.get("type") in ("get", "set"):
            self.asks.put_nowait(element)
        return None

    async def appear(self) -> None:
        """Be there for everybody in the roster, as an ordinary client is."""
        await self.ask(self.boundjid.bare, "<query xmlns='jabber:iq:roster'/>")
        self.xml("<presence/>")

    def xml(self, text: str) -> None:
        """Send a stanza as it is."""
        self.send_raw(text)

    def say(self, to: str, body: str, kind: str = "chat", inside: str = "") -> None:
        """Send a message as a person does."""
        said = Element("body")
        said.text = body
        text = ElementTree.tostring(said, encoding="unicode")
        self.xml(f"<message to='{to}' type='{kind}' id='m{next(self._ids)}'>{text}{inside}</message>")

    def command(self, to: str, **command: Any) -> None:
        """Send a command as a program does, in a message."""
        self.xml(f"<message to='{to}' type='chat'>{payload(command)}</message>")

    async def ask(self, to: str, inside: str, kind: str = "get") -> Element:
        """Ask with an iq, and wait for its answer."""
        id = f"iq{next(self._ids)}"
        future = self._asked[id] = asyncio.get_running_loop().create_future()
        self.xml(f"<iq to='{to}' type='{kind}' id='{id}'>{inside}</iq>")
        return await asyncio.wait_for(future, rig.PATIENCE)

    async def do(self, to: str, command: Any, worker: str | None = None) -> Any:
        """Carry out a command in an iq, and return its answer."""
        return answer_of(await self.ask(to, payload(command, worker), "set"))

    async def heard(self) -> Element:
        """The next message."""
        return await asyncio.wait_for(self.messages.get(), rig.PATIENCE)

    async def words(self) -> str:
        """What the next message says to people."""
        return text_of(await self.heard(), "body") or ""

    async def chat(self, to: str, body: str, **more: Any) -> str:
        """Say something and return what is answered."""
        self.say(to, body, **more)
        return await self.words()

    async def told(self) -> Any:
        """What the next message says to programs."""
        return answer_of(await self.heard())

    async def silent(self, seconds: float = 0.2) -> bool:
        """Whether no message comes for so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.messages.get(), seconds)
            return False
        return True

    async def seen(self) -> Element:
        """The next presence that somebody else sends."""
        while True:
            found = await asyncio.wait_for(self.presences.get(), rig.PATIENCE)
            if found.get("from", "").partition("/")[0] != self.boundjid.bare:
                return found


def payload(document: Any, worker: str | None = None) -> str:
    """JSON for the other side's program."""
    said = Element("json", {"xmlns": OURS, **({} if worker is None else {"worker": worker})})
    said.text = document if isinstance(document, str) else json.dumps(document)
    return ElementTree.tostring(said, encoding="unicode")


def answer_of(stanza: Element) -> Any:
    """The JSON in a stanza."""
    found = stanza.find(f"{{{OURS}}}json")
    assert found is not None, ElementTree.tostring(stanza)
    return json.loads(found.text or "")


def text_of(stanza: Element, name: str) -> str | None:
    """The text of a child in the namespace of clients."""
    found = stanza.find(f"{{jabber:client}}{name}")
    return None if found is None else found.text


def condition_of(stanza: Element) -> tuple[str, str, str]:
    """Type, condition and text of the error in a stanza."""
    error = stanza.find("{jabber:client}error")
    assert error is not None, ElementTree.tostring(stanza)
    named = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
    words = error.find(f"{named}text")
    condition = next(one.tag.removeprefix(named) for one in error if one.tag.startswith(named))
    return error.get("type", ""), condition, "" if words is None else words.text or ""


@contextlib.asynccontextmanager
async def friend(found: Prosody, name: str = "ana", resource: str | None = None) -> AsyncIterator[Friend]:
    """A connected client."""
    one = Friend(f"{name}@localhost/{resource or uuid4().hex[:8]}", found.c2s)
    try:
        await one.arrive()
        yield one
    finally:
        one.cancel_connection_attempt()
        if one.transport is not None:
            one.transport.write(b"</stream:stream>")
            await asyncio.wait_for(one.disconnected, rig.PATIENCE)
        if one._run_out_filters is not None:
            one._run_out_filters.cancel()


def at(queue: str) -> str:
    """The address of a queue."""
    return f"{queue}@{DOMAIN}"
