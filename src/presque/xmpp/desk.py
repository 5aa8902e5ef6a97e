"""What the parts of a session share: the callers, what is under way for them, and what only this door has."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from presque.commands import leases
from presque.commands.call import Service, Undo
from presque.commands.carrying import admit, decide
from presque.commands.messages import Asker
from presque.commands.who import Who
from presque.errors import NotPermitted, OurFault, PresqueError, Refused
from presque.job import Settle, Settled
from presque.verbs import COMMANDS, CONSUME, VERBS
from presque.verbs.verb import Verb
from presque.xmpp import stanzas
from presque.xmpp.accounts import Account, Accounts
from presque.xmpp.addresses import bare, queue_of
from presque.xmpp.alerts import OF_ALERTS, Alerts
from presque.xmpp.consumers import Consumers, NotPresent
from presque.xmpp.parsing import Element
from presque.xmpp.stanzas import TooMany, name_of, tag

log = logging.getLogger("presque.xmpp")

PENDING_MOST = 100  # of one account
PENDING_MOST_OF_ALL = 1000
ANSWER_TOO_LARGE = "the answer is too large for XMPP: ask for less, or over HTTP"
BY_MESSAGE: dict[str, Verb] = {**COMMANDS, "lease": CONSUME, **OF_ALERTS}
OF_A_CONNECTION = (CONSUME, *OF_ALERTS.values())
"""The verbs that only this door has, or that mean something else here."""


class Send(Protocol):
    """Sends a stanza; `undo` is called if the connection ends before the server has taken that."""

    def __call__(self, stanza: str, undo: Undo | None = None) -> None: ...


class Desk:
    """What the parts of one session share."""

    def __init__(
        self,
        service: Service,
        accounts: Accounts,
        alerts: Alerts,
        domain: str,
        send: Send,
        most: int,
        hold: Callable[[int, int], bool],
    ) -> None:
        self.service = service
        self.accounts = accounts
        self.alerts = alerts
        self.domain = domain
        self.send = send
        self.most = most
        self.consumers = Consumers(service, domain, send, most)
        self._loop = asyncio.get_running_loop()
        self._hold = hold
        # -> the full address, bytes, whether it ends when that client leaves
        self._under_way: dict[asyncio.Task[None], tuple[str, int, bool]] = {}
        self._pending: dict[str, int] = {}  # by account

    @property
    def full(self) -> bool:
        """Whether so much is under way that no more should be read."""
        return len(self._under_way) >= PENDING_MOST_OF_ALL

    def who(self, sender: str) -> Account:
        """The caller. Raises the refusal for strangers."""
        who = self.accounts.who(sender)
        if who is None:
            raise NotPermitted(
                f"{bare(sender)} may not use this presque: its operator can allow that in `xmpp.allow`"
            )
        return who

    def asker(self, stanza: Element, who: Account, commands: dict[str, Verb]) -> Asker:
        """The client as commands know it; at the address of a queue it need not name the queue."""
        found = stanza.find(stanzas.JSON)
        worker = None if found is None else found.get("worker")
        if worker is not None:
            VERBS["workers"].fields["worker_id"].read(worker)
        queue = queue_of(stanza.get("to", ""))
        return Asker(self.service, who, worker, queue, commands, stanza.get("from", ""))

    def keep(self, stanza: Element, work: Coroutine[Any, Any, None], verb: Verb | None = None) -> None:
        """Let some work go on. Raises `TooMany`.

        It ends when its client leaves, unless it is a `verb` that neither waits nor takes jobs: many send a
        job and leave at once.
        """
        sender = stanza.get("from", "")
        account = bare(sender)
        if self._pending.get(account, 0) >= PENDING_MOST:
            work.close()
            raise TooMany(f"{PENDING_MOST} of your requests are under way: wait for their answers")
        size = stanzas.size_of(stanza)
        if not self._hold(size, 0):
            self._hold(0, size)
            work.close()
            raise TooMany("too many bytes of requests are under way: send this again later, or less at once")
        self._pending[account] = self._pending.get(account, 0) + 1
        task = self._loop.create_task(self._guarded(stanza, work))
        self._under_way[task] = sender, size, verb is None or verb.waits or verb.takes
        task.add_done_callback(self._done)
        task.add_done_callback(lambda _task: work.close())  # it has not begun if the client left at once

    async def _guarded(self, stanza: Element, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PresqueError as error:
            self.refuse(stanza, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self.broken(stanza)

    def _done(self, task: asyncio.Task[None]) -> None:
        sender, size, _ = self._under_way.pop(task)
        self._hold(0, size)
        account = bare(sender)
        self._pending[account] -= 1
        if not self._pending[account]:
            del self._pending[account]

    def forget(self, sender: str | None = None) -> None:
        """A client has disconnected, or all have: cancel what it still waits for."""
        for task, (asked_by, _, ends) in list(self._under_way.items()):
            if sender is None or (asked_by == sender and ends):
                task.cancel()

    def note(self, stanza: Element, error: PresqueError) -> None:
        """Note in the audit that somebody may not do what a stanza asks for, if that is what is wrong."""
        if isinstance(error, Refused):
            error.who = error.who or bare(stanza.get("from", ""))
            self.service.audit.refused(error, stanza.get("from", ""))

    def refuse(self, stanza: Element, error: PresqueError) -> None:
        """Answer a stanza with what is wrong with it."""
        self.note(stanza, error)
        if name_of(stanza) != "iq" or stanza.get("type") in ("get", "set"):
            self.send(stanzas.refusal(stanza, error))

    def broken(self, stanza: Element) -> None:
        """An unexpected error. Call this where the error is caught, for the log."""
        log.exception("xmpp.broken kind=%s", name_of(stanza))
        self.refuse(stanza, OurFault("internal error; see the server log"))

    def heard(self, sender: str) -> None:
        """A client has shown that it is there."""
        for seat in self.consumers.of(sender):
            seat.silent = 0

    def receipt(self, stanza: Element) -> None:
        """Tell that a message has done what it was sent for (XEP-0184)."""
        id = stanza.get("id")
        if id and stanza.find(f"{{{stanzas.RECEIPTS}}}request") is not None:
            received = tag("received", xmlns=stanzas.RECEIPTS, id=id)
            self.send(stanzas.answer(stanza, received, type_=stanza.get("type"), id=f"rc-{id}"))

    def send_bounded(self, stanza: str, undo: Undo | None = None) -> None:
        """Send an answer. Raises `OurFault` if it is too large: then nobody gets the jobs in it."""
        if len(stanza.encode()) > self.most:
            if undo is not None:
                undo()
            raise OurFault(ANSWER_TOO_LARGE)
        self.send(stanza, undo)

    async def here(self, stanza: Element, who: Who, verb: Verb, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out what only this door has. Returns what to answer. Raises `PresqueError`."""
        if verb is CONSUME:
            return await self._lease(stanza, who, fields)
        return await self.alerts.do(who, verb, decide(verb, who, fields))

    async def _lease(self, stanza: Element, who: Who, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Grant credits, or let a client listen. Raises `PresqueError`."""
        sender = stanza.get("from", "")
        seat = self.consumers.seat(sender, bare(stanza.get("to", "")))
        admitted = admit(self.service, CONSUME, who, fields)
        if seat is None:
            raise NotPresent
        ask = leases.lease_ask(admitted, None)
        return await seat.consumer.listen_or_grant(admitted["queues"], ask.count, ask.ms)

    def settle(
        self,
        sender: str,
        who: Who,
        verb: Verb,
        fields: Mapping[str, Any],
        done: Callable[[Settle, Settled | PresqueError], None],
    ) -> None:
        """End or extend a lease, through the place that holds the job, so that its credit comes back."""
        admit(self.service, verb, who, fields)
        lease = leases.settle_of(verb.name, fields)
        key = (lease.queue, lease.id, lease.token)
        holder = next((seat for seat in self.consumers.of(sender) if key in seat.consumer.held), None)
        answer = functools.partial(done, lease)
        if holder is not None:
            holder.consumer.settle(lease, answer)
        else:
            self.service.engine.settle(lease, answer)
