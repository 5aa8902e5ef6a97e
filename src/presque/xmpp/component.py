"""The socket around a session: connects to an XMPP server as a component (XEP-0114), and stays connected.

slixmpp makes the connection, greets and shows the secret. Our parser reads what comes (parsing.py), and every
stanza goes to the session: the handlers of slixmpp, which would answer strangers by themselves, see none.

When the connection ends, everybody's jobs are given back, and another one is made after a moment, for ever.
A server that takes the connection and says nothing is noticed by a ping that goes through it to ourselves.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any, cast

from slixmpp import ComponentXMPP
from slixmpp.xmlstream import StanzaBase, tostring

from presque.commands.call import Service, Undo
from presque.commands.outgoing import Outgoing
from presque.config.settings import XmppSettings
from presque.xmpp import stanzas
from presque.xmpp.accounts import Accounts
from presque.xmpp.alerts import Alerts
from presque.xmpp.desk import Send
from presque.xmpp.parsing import BadStream, Element, Parser
from presque.xmpp.session import Session
from presque.xmpp.stanzas import name_of, tag

log = logging.getLogger("presque.xmpp")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
OPEN_WITHIN_S = 10.0
HEARTBEAT_S = 20.0
JUDGE_S = 0.1
UNREAD_MOST = 1024 * 1024  # bytes that the server has not taken, beyond which no more jobs are asked for
SPARE = 64 * 1024  # what a stanza may have around a job of the largest size
LINGER_S = 2.0


class Component:
    """presque at one XMPP server. `hold` is as in `Session`."""

    def __init__(self, service: Service, settings: XmppSettings, hold: Callable[[int, int], bool]) -> None:
        self._service = service
        self._settings = settings
        self._hold = hold
        self._accounts = Accounts(settings.allow, settings.deny)
        self._alerts = Alerts(service, self._accounts, settings.jid)
        self._tasks: list[asyncio.Task[None]] = []
        self._stream: Stream | None = None
        self._stopping = False

    def start(self) -> None:
        """Connect, and stay so until `stop`."""
        # It logs what comes and goes, with the jobs in it.
        logging.getLogger("slixmpp").setLevel(logging.CRITICAL + 1)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._alerts.run())]

    async def stop(self) -> None:
        """Give back what consumers hold, and say goodbye."""
        self._stopping = True
        if self._stream is not None:
            await self._stream.goodbye()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        stream = self._stream = Stream(self._settings, self._session)
        wait = FIRST_WAIT_S
        while True:
            reason = await stream.live()
            self._alerts.send = None
            if self._stopping:
                return
            if stream.was_open:
                wait = FIRST_WAIT_S
            delay = wait * (0.75 + secrets.randbelow(500) / 1000)  # so that many do not come at once
            log.warning(
                "xmpp.disconnected server=%s domain=%s reason=%s retry_in_s=%.1f",
                self._settings.server, self._settings.jid, reason, delay,
            )  # fmt: skip
            await asyncio.sleep(delay)
            wait = min(LONGEST_WAIT_S, wait * 2)

    def _session(self, send: Send) -> Session:
        self._alerts.send = send
        settings = self._settings
        most = settings.max_stanza
        return Session(self._service, self._accounts, self._alerts, settings.jid, send, most, self._hold)


class Stream(ComponentXMPP):
    """One connection after the other. `begin` makes the session of each."""

    def __init__(self, settings: XmppSettings, begin: Callable[[Send], Session]) -> None:
        super().__init__(settings.jid, settings.secret)  # type: ignore[no-untyped-call]
        self._settings = settings
        self._begin = begin
        self._session: Session | None = None
        self._ended: asyncio.Future[str] = self.loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._out: Outgoing | None = None
        self._heard = True
        self._why = ""
        self.was_open = False
        self.add_filter("in", self._came)
        self.add_event_handler("session_start", self._opened)
        self.add_event_handler("stream_error", self._stream_error)
        self.add_event_handler("connection_failed", self._failed)
        self.add_event_handler("disconnected", self._closed)

    async def live(self) -> str:
        """Connect, and return why it is over once it is."""
        self._ended = self.loop.create_future()
        self._why, self.was_open = "", False
        host, _, port = self._settings.server.rpartition(":")
        self.connect(host.strip("[]"), int(port))
        self._timer = self.loop.call_later(OPEN_WITHIN_S, self._too_late)
        try:
            return await self._ended
        finally:
            self.cancel_connection_attempt()
            self._timer.cancel()
            self._end_session()
            self.abort()

    async def goodbye(self) -> None:
        """End the connection politely; it may be over already. What was answered is sent before."""
        if self._session is None or self._out is None or self.transport is None:
            return
        self._out.flush()
        self._end_session()
        if not self.transport.is_closing():
            self.transport.write(self.stream_footer.encode())
            self.transport.close()
            await asyncio.wait((self._ended,), timeout=LINGER_S)

    # --- what slixmpp calls ---------------------------------------------------------------------

    async def run_filters(self) -> None:
        """Nothing waits to be sent: we write at once."""

    def send(self, data: StanzaBase | str, use_filters: bool = True) -> None:  # noqa: ARG002  (the signature is slixmpp's)
        """Write what slixmpp itself has to say: who we are."""
        if self.transport is not None:
            self.send_raw(
                data
                if isinstance(data, str)
                else tostring(data.xml, xmlns=self.default_ns, stream=self, top_level=True)
            )

    def init_parser(self) -> None:
        """Read with our parser, which has bounds."""
        super().init_parser()
        self.parser = cast(Any, Parser(self._settings.max_stanza + SPARE))
        assert self.transport is not None
        self.transport.set_write_buffer_limits(UNREAD_MOST)

    def data_received(self, data: bytes | str) -> None:
        """Something has come."""
        self._heard = True
        try:
            super().data_received(data)
        except BadStream as error:
            self._over(f"the server sent what is not XMPP: {error}")
            return
        if self._session is not None and self._session.full and self.transport is not None:
            self.transport.pause_reading()
            self.loop.call_later(0.005, self._read_again)

    def _read_again(self) -> None:
        if self._session is not None and self._session.full:
            self.loop.call_later(0.005, self._read_again)
        elif self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The server does not read."""
        if self._session is not None and self._out is not None:
            self._out.stick()
            self._session.pause()

    def resume_writing(self) -> None:
        """The server reads again."""
        if self._session is not None and self._out is not None:
            self._out.unstick()
            self._session.resume()

    # --- the life of a connection ---------------------------------------------------------------

    def _came(self, stanza: StanzaBase) -> StanzaBase | None:
        """A stanza has come: it is for the session alone."""
        element: Element = stanza.xml
        if name_of(element) not in ("message", "presence", "iq"):
            return stanza
        if self._session is not None:
            self._session.receive(element)
        return None

    def _opened(self, _event: Any) -> None:
        log.info("xmpp.connected server=%s domain=%s", self._settings.server, self._settings.jid)
        assert self.transport is not None
        self.was_open = True
        self._out = Outgoing(self.transport.write, self.transport.is_closing)
        self._session = self._begin(self._write)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEARTBEAT_S, self._beat)

    def _too_late(self) -> None:
        self._over("the server did not take the connection in time")

    def _beat(self) -> None:
        """Every HEARTBEAT_S: if nothing has come since the last one, not even our ping to ourselves, the
        server has gone."""
        if not self._heard:  # timers may come before the socket: if presque did not run, read first
            self._timer = self.loop.call_later(JUDGE_S, self._judge)
            return
        self._heard = False
        domain = self._settings.jid
        ping = tag("ping", xmlns=stanzas.PING)
        self._write(tag("iq", ping, **{"from": domain}, to=domain, id="presque-beat", type="get"))
        if self._session is not None:
            self._session.beat()
        self._timer = self.loop.call_later(HEARTBEAT_S, self._beat)

    def _judge(self) -> None:
        if self._heard:
            self._beat()
        else:
            self._over("the server does not answer")

    def _stream_error(self, error: Any) -> None:
        condition, words = error["condition"], error["text"]
        self._why = f"the server says {condition}" + (f": {words}" if words else "")
        if condition == "not-authorized":
            self._why += "; `xmpp.secret` should be the `component_secret` of the server"

    def _failed(self, error: Any) -> None:
        self._over(f"cannot connect: {str(error).lower() or 'no answer'}")

    def _closed(self, reason: Any) -> None:
        self._over(self._why or str(reason or "the server has closed the connection"))

    def _over(self, reason: str) -> None:
        self._end_session()
        if not self._ended.done():
            self._ended.set_result(self._why or reason)

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._out is not None:
            session.end()
            self._out.end()

    # --- writing --------------------------------------------------------------------------------

    def _write(self, stanza: str, undo: Undo | None = None) -> None:
        """Write a stanza at the end of this turn. `undo` puts back the jobs in it."""
        if self._session is not None and self._out is not None:
            self._out.send(stanza.encode(), undo)
        elif undo is not None:
            undo()
