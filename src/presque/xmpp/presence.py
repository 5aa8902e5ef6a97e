"""Who is present: presence at the address of a queue makes a client a consumer of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.commands import leases
from presque.commands.carrying import admit
from presque.verbs import CONSUME
from presque.xmpp import stanzas, words
from presque.xmpp.accounts import Account
from presque.xmpp.addresses import bare, queue_of
from presque.xmpp.consumers import Seat
from presque.xmpp.desk import Desk
from presque.xmpp.parsing import Element
from presque.xmpp.stanzas import is_second_hand, tag

SILENT_BEATS = 2


class Presence:
    """Knows who is present in one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def receive(self, stanza: Element, sender: str) -> None:
        """A client is there or not, or asks for our presence."""
        kind, at = stanza.get("type"), bare(stanza.get("to", ""))
        if kind == "unavailable":
            # Servers send the same for a client that died as for one that said goodbye. So only this
            # counts as a goodbye; otherwise a job that kills its consumers would live forever.
            polite = stanza.find(stanzas.CONSUME) is not None
            self._desk.consumers.leave(sender, at, lost=not polite)
            self._desk.forget(sender)
            return
        if is_second_hand(stanza):
            return
        who, queue = self._desk.accounts.who(sender), queue_of(at)
        if kind in ("subscribe", "probe", "unsubscribe"):
            allowed = who is not None and (queue is None or who.sees(queue))
            answer = {"subscribe": "subscribed", "probe": None, "unsubscribe": "unsubscribed"}[kind]
            if kind == "unsubscribe" or not allowed:
                if kind != "probe":
                    self._tell(at, bare(sender), "unsubscribed")
                self._tell(at, sender, "unavailable")
                return
            if answer:
                self._tell(at, bare(sender), answer)
            self._desk.keep(stanza, self._show(at, sender, queue))
        elif kind is None:
            self._present(stanza, sender, at, queue, who)

    def _present(self, stanza: Element, sender: str, at: str, queue: str | None, who: Account | None) -> None:
        """A client is there, and wants jobs of the queue."""
        asked = stanza.find(stanzas.CONSUME)
        if who is None or (queue is not None and not who.allows("lease", queue)):
            if asked is not None:
                self._desk.who(sender).may("lease", queue)
            return  # its server tells everybody that it is there
        given = {} if asked is None else dict(asked.attrib)
        fields = words.fields_of(CONSUME, given, queue or "*")
        seat = self._desk.consumers.sit(sender, at)
        if queue is not None:
            admitted = admit(self._desk.service, CONSUME, who, fields)
            self._desk.keep(stanza, self._grant(seat, admitted))
        self._desk.keep(stanza, self._show(at, sender, queue))

    async def _grant(self, seat: Seat, admitted: Mapping[str, Any]) -> None:
        ask = leases.lease_ask(admitted, None)
        await seat.consumer.listen_or_grant(admitted["queues"], ask.count, ask.ms)

    def _tell(self, at: str, to: str, kind: str | None, *inside: str) -> None:
        self._desk.send(tag("presence", *inside, **{"from": at}, to=to, type=kind))

    async def _show(self, at: str, to: str, queue: str | None) -> None:
        """How a queue looks in a list of contacts."""
        status = ()
        if queue is not None:
            [found] = await self._desk.service.engine.stats([queue])
            said = f"{found.ready} ready, {found.leased} leased, {found.dead} dead"
            status = (
                *(() if found.started else (tag("show", "dnd"),)),
                tag("status", said if found.started else f"stopped; {said}"),
            )
        self._tell(at, to, None, *status)

    def beat(self) -> None:
        """To be called now and then: asks those who have been silent whether they are there, and lets go of
        those who do not answer."""
        for seat in self._desk.consumers.all():
            seat.silent += 1
            if seat.silent > SILENT_BEATS + 1:
                self._desk.consumers.leave(seat.client, seat.at, lost=True)
            elif seat.silent > SILENT_BEATS:
                ping = tag("ping", xmlns=stanzas.PING)
                self._desk.send(
                    tag("iq", ping, **{"from": seat.at}, to=seat.client, id="presque-ping", type="get")
                )
