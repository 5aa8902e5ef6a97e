"""What happens on one connection to an XMPP server: stanzas in, stanzas out, and no socket.

A program sends commands as for a WebSocket, in `<json xmlns='urn:presque:0'/>`, and is answered in the same
way; in an `<iq/>` it may send any command of `POST /queue`. A person sends JSON to a queue, which pushes it,
or a command in words. Presence at an address makes a client a consumer; see consumers.py.

Who asks is the bare address that the server has stamped. A message that was forwarded, copied or delayed is
ignored, and so is what comes from a room, from ourselves, or as an error.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

from presque import codec
from presque.commands import leases, messages
from presque.commands.call import Call, Service
from presque.commands.carrying import Ended, admit, begun, carry_out, decide, untraced
from presque.commands.messages import Asker, Message
from presque.errors import (
    BodyTooLarge,
    CallerError,
    NotFound,
    NotPermitted,
    OurFault,
    PresqueError,
    Refused,
    nearest,
    shown,
)
from presque.job import Settle, Settled
from presque.verbs import COMMANDS, CONSUME, VERBS
from presque.verbs.verb import Verb
from presque.xmpp import discovery, forms, stanzas, words
from presque.xmpp.accounts import Account, Accounts
from presque.xmpp.addresses import bare, domain_of, queue_of
from presque.xmpp.alerts import OF_ALERTS, Alerts
from presque.xmpp.consumers import OF_JOB, Consumers, NotPresent
from presque.xmpp.parsing import TOO_LARGE, Element
from presque.xmpp.stanzas import OURS, TooMany, Unsupported, child, is_second_hand, name_of, tag, text_of

log = logging.getLogger("presque.xmpp")

PENDING_MOST = 100  # of one account
PENDING_MOST_OF_ALL = 1000
SILENT_BEATS = 2
WORKING, CONSUME_ELEMENT = f"{{{OURS}}}json", f"{{{OURS}}}consume"
BY_MESSAGE: dict[str, Verb] = {**COMMANDS, "lease": CONSUME, **OF_ALERTS}
OF_A_CONNECTION = (CONSUME, *OF_ALERTS.values())
"""The verbs that only this door has, or that mean something else here."""
_json_like = re.compile(r"""\s*([\[{"]|-?[0-9]|(true|false|null)\s*\Z)""").match


class Session:
    """One connection to a server. `send` takes a stanza as text; `most` is how large one may be, in bytes.
    `hold` counts the bytes of a request that is under way, and those before, and says whether that is not too
    many of all."""

    def __init__(
        self,
        service: Service,
        accounts: Accounts,
        alerts: Alerts,
        domain: str,
        send: Callable[[str], None],
        most: int,
        hold: Callable[[int, int], bool] = lambda _size, _before: True,
    ) -> None:
        self._service = service
        self._accounts = accounts
        self._alerts = alerts
        self._domain = domain
        self._send = send
        self._most = most
        self._consumers = Consumers(service, domain, send, most)
        self._loop = asyncio.get_running_loop()
        self._hold = hold
        self._under_way: dict[asyncio.Task[None], tuple[str, int]] = {}  # -> the full address, bytes
        self._pending: dict[str, int] = {}  # by account
        self._began = time.monotonic()
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether so much is under way that no more should be read."""
        return len(self._under_way) >= PENDING_MOST_OF_ALL

    def receive(self, stanza: Element) -> None:
        """Do what a stanza says. What is wrong with it is answered, never raised."""
        sender, kind = stanza.get("from", ""), name_of(stanza)
        if not sender or domain_of(sender) == self._domain or self._ended:
            return
        if stanza.get("type") == "error":
            self._came_back(stanza, sender)
            return
        try:
            if kind == "message":
                self._message(stanza, sender)
            elif kind == "presence":
                self._presence(stanza, sender)
            elif kind == "iq":
                self._iq(stanza, sender)
        except PresqueError as error:
            self._refuse(stanza, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._broken(stanza)

    def pause(self) -> None:
        """The server does not read: ask for no more jobs."""
        self._consumers.pause()

    def resume(self) -> None:
        """The server reads again."""
        self._consumers.resume()

    def end(self) -> None:
        """The connection to the server is lost: give back all jobs that are held."""
        self._ended = True
        self._consumers.end()
        for task in list(self._under_way):
            task.cancel()

    def beat(self) -> None:
        """To be called now and then: asks those who have been silent whether they are there, and lets go of
        those who do not answer."""
        for seat in self._consumers.all():
            seat.silent += 1
            if seat.silent > SILENT_BEATS + 1:
                self._consumers.leave(seat.client, seat.at, lost=True)
            elif seat.silent > SILENT_BEATS:
                ping = tag("ping", xmlns=stanzas.PING)
                self._send(
                    tag("iq", ping, **{"from": seat.at}, to=seat.client, id="presque-ping", type="get")
                )

    # --- errors ---------------------------------------------------------------------------------

    def _refuse(self, stanza: Element, error: PresqueError) -> None:
        if isinstance(error, Refused):
            error.who = error.who or bare(stanza.get("from", ""))
            self._service.audit.refused(error, stanza.get("from", ""))
        if name_of(stanza) != "iq" or stanza.get("type") in ("get", "set"):
            self._send(stanzas.refusal(stanza, error))

    def _broken(self, stanza: Element) -> None:
        log.exception("xmpp.broken kind=%s", name_of(stanza))
        self._refuse(stanza, OurFault("internal error; see the server log"))

    def _came_back(self, stanza: Element, sender: str) -> None:
        """Something that we sent did not reach somebody. An error is never answered."""
        if name_of(stanza) == "iq":  # our ping: any answer of a client shows that it is there
            conditions = {one.tag.rpartition("}")[2] for error in stanza for one in error}
            if not conditions & {
                "recipient-unavailable",
                "remote-server-not-found",
                "remote-server-timeout",
                "gone",
                "item-not-found",
            }:
                return self._heard(sender)
        self._consumers.gone(sender, lost=False)
        return None

    def _heard(self, sender: str) -> None:
        for seat in self._consumers.of(sender):
            seat.silent = 0

    # --- who ------------------------------------------------------------------------------------

    def _who(self, sender: str) -> Account:
        """The caller. Raises the refusal for strangers."""
        who = self._accounts.who(sender)
        if who is None:
            raise NotPermitted(
                f"{bare(sender)} may not use this presque: its operator can allow that in `xmpp.allow`"
            )
        return who

    def _asker(self, stanza: Element, who: Account, commands: dict[str, Verb]) -> Asker:
        """The client as commands know it; at the address of a queue it need not name the queue."""
        found = stanza.find(WORKING)
        worker = None if found is None else found.get("worker")
        if worker is not None:
            VERBS["workers"].fields["worker_id"].read(worker)
        queue = queue_of(stanza.get("to", ""))
        return Asker(self._service, who, worker, queue, commands, stanza.get("from", ""))

    # --- work -----------------------------------------------------------------------------------

    def _keep(self, stanza: Element, work: Coroutine[Any, Any, None]) -> None:
        """Let some work go on. Raises `TooMany`."""
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
        self._under_way[task] = sender, size
        task.add_done_callback(self._done)

    async def _guarded(self, stanza: Element, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PresqueError as error:
            self._refuse(stanza, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._broken(stanza)

    def _done(self, task: asyncio.Task[None]) -> None:
        sender, size = self._under_way.pop(task)
        self._hold(0, size)
        account = bare(sender)
        self._pending[account] -= 1
        if not self._pending[account]:
            del self._pending[account]

    def _forget(self, sender: str) -> None:
        """A client has disconnected: cancel what it still waits for."""
        for task, (asked_by, _) in list(self._under_way.items()):
            if asked_by == sender:
                task.cancel()

    # --- presence -------------------------------------------------------------------------------

    def _presence(self, stanza: Element, sender: str) -> None:
        kind, at = stanza.get("type"), bare(stanza.get("to", ""))
        if kind == "unavailable":
            # Servers send the same for a client that died as for one that said goodbye. So only this
            # counts as a goodbye; otherwise a job that kills its consumers would live forever.
            polite = stanza.find(CONSUME_ELEMENT) is not None
            self._consumers.leave(sender, at, lost=not polite)
            self._forget(sender)
            return
        if is_second_hand(stanza):
            return
        who, queue = self._accounts.who(sender), queue_of(at)
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
            self._keep(stanza, self._show(at, sender, queue))
        elif kind is None:
            self._present(stanza, sender, at, queue, who)

    def _present(self, stanza: Element, sender: str, at: str, queue: str | None, who: Account | None) -> None:
        """A client is there, and wants jobs of the queue."""
        asked = stanza.find(CONSUME_ELEMENT)
        if who is None or (queue is not None and not who.allows("lease", queue)):
            if asked is not None:
                self._who(sender).may("lease", queue)
            return  # its server tells everybody that it is there
        given = {} if asked is None else dict(asked.attrib)
        fields = words.fields_of(CONSUME, given, queue or "*")
        seat = self._consumers.sit(sender, at)
        if queue is not None:
            admitted = admit(self._service, CONSUME, who, fields)
            ask = leases.lease_ask(admitted, None)
            self._keep(
                stanza, self._granted(seat.consumer.listen_or_grant(admitted["queues"], ask.count, ask.ms))
            )
        self._keep(stanza, self._show(at, sender, queue))

    async def _granted(self, grant: Coroutine[Any, Any, dict[str, Any]]) -> None:
        await grant

    def _tell(self, at: str, to: str, kind: str | None, *inside: str) -> None:
        self._send(tag("presence", *inside, **{"from": at}, to=to, type=kind))

    async def _show(self, at: str, to: str, queue: str | None) -> None:
        """How a queue looks in a list of contacts."""
        status = ()
        if queue is not None:
            [found] = await self._service.engine.stats([queue])
            said = f"{found.ready} ready, {found.leased} leased, {found.dead} dead"
            status = (
                *(() if found.started else (tag("show", "dnd"),)),
                tag("status", said if found.started else f"stopped; {said}"),
            )
        self._tell(at, to, None, *status)

    # --- messages -------------------------------------------------------------------------------

    def _message(self, stanza: Element, sender: str) -> None:
        if stanza.get("type") in ("groupchat", "headline") or is_second_hand(stanza):
            return
        self._heard(sender)
        program = [one for one in stanza if one.tag == WORKING]
        body = stanzas.own_words(stanza)
        if not program and not (body and body.strip()) and TOO_LARGE not in stanza.attrib:
            return
        who = self._who(sender)
        if TOO_LARGE in stanza.attrib:
            raise BodyTooLarge(f"a message should be at most {self._most} bytes: push large jobs over HTTP")
        if program:
            self._commands(stanza, who, program)
        elif stanza.find("{urn:xmpp:message-correct:0}replace") is not None:
            self._reply(stanza, "this corrects a message that was carried out already: nothing was done")
        elif _is_encrypted(stanza):
            self._reply(
                stanza,
                "this message is encrypted, and presque cannot read it: turn encryption (OMEMO) off here",
            )
        elif body is not None:
            self._in_words(stanza, sender, who, body.strip())

    def _reply(self, stanza: Element, said: str) -> None:
        """Answer a person."""
        if len(said.encode()) > self._most // 2:
            said = (
                said.encode()[: self._most // 2].decode(errors="ignore")
                + "…\n(the rest is too long: ask for less)"
            )
        kind = stanza.get("type")
        thread = text_of(child(stanza, "thread"))
        inside = [stanzas.body(said), *([] if thread is None else [tag("thread", stanzas.text(thread))])]
        self._send(stanzas.answer(stanza, *inside, type_=kind, id=f"re-{stanza.get('id', '')}"))

    def _receipt(self, stanza: Element) -> None:
        """Tell that a message has done what it was sent for (XEP-0184)."""
        id = stanza.get("id")
        if id and stanza.find(f"{{{stanzas.RECEIPTS}}}request") is not None:
            received = tag("received", xmlns=stanzas.RECEIPTS, id=id)
            self._send(stanzas.answer(stanza, received, type_=stanza.get("type"), id=f"rc-{id}"))

    # --- messages of people ---------------------------------------------------------------------

    def _in_words(self, stanza: Element, sender: str, who: Account, said: str) -> None:
        try:
            queue = queue_of(stanza.get("to", ""))
            if _json_like(said):
                if queue is None:
                    asker = self._asker(stanza, who, BY_MESSAGE)
                    self._keep(stanza, self._command_typed(stanza, asker, said.encode()))
                else:
                    self._keep(stanza, self._say(stanza, who, "push", {"job": said}, queue))
                return
            word = said.split(None, 1)[0].lower()
            if word in words.HELP:
                self._reply(stanza, self._help(who, queue, said))
                self._receipt(stanza)
            elif word in words.OF_A_JOB_HELD:
                self._settle_in_words(stanza, sender, who, queue, said)
            else:
                asked = words.read(said, queue)
                self._keep(stanza, self._say(stanza, who, asked.verb.name, asked.given, queue))
        except (CallerError, TooMany) as error:
            self._not_done(stanza, error)

    def _not_done(self, stanza: Element, error: PresqueError, more: str = "") -> None:
        if isinstance(error, Refused):
            self._service.audit.refused(error, stanza.get("from", ""))
        self._reply(stanza, f"not done: {error}{more}")

    def _help(self, who: Account, queue: str | None, said: str) -> str:
        verbs = [one for one in words.IN_WORDS.values() if discovery.may(who, one, queue)]
        _, *about = said.split()
        if about and about[0].lower() in words.IN_WORDS:
            return words.help_about(words.IN_WORDS[about[0].lower()], queue)
        if about:
            return f"there is no command `{about[0][:64]}`: {nearest(about[0], words.IN_WORDS)}"
        return words.help_of(verbs, queue)

    async def _say(
        self, stanza: Element, who: Account, name: str, given: dict[str, str], queue: str | None
    ) -> None:
        """Carry out a command of a person."""
        verb = words.IN_WORDS[name]
        try:
            fields = words.fields_of(verb, given, queue)
            if name == "lease":
                told = await self._here(stanza, who, verb, fields)
                self._reply(stanza, f"up to {told.get('count', 'all')} jobs of {told['queue']} at a time")
                return
            if verb in OF_A_CONNECTION:
                told = await self._here(stanza, who, verb, fields)
                self._reply(stanza, words.readable(name, codec.encode(told)))
                return
            if name == "push" and (key := _key_of(stanza, who)) is not None:
                fields.setdefault("idempotency_key", key)
            call = Call(self._service, verb, fields, b"", None, who, stanza.get("from", ""))
            reply = (await carry_out(call)).object
        except CallerError as error:
            more = f"; {words.usage(verb, queue)}" if str(error).startswith("`") else ""
            self._not_done(stanza, error, more)
        except PresqueError as error:
            self._not_done(stanza, error)
        else:
            self._reply(stanza, words.readable(name, reply))
            self._receipt(stanza)

    async def _command_typed(self, stanza: Element, asker: Asker, said: bytes) -> None:
        """Carry out JSON that was sent to presque itself: commands as for `POST /queue`."""
        try:
            self._reply(stanza, (await messages.run_all(asker, said)).decode())
        except PresqueError as error:
            self._not_done(stanza, error)
        else:
            self._receipt(stanza)

    def _settle_in_words(
        self, stanza: Element, sender: str, who: Account, queue: str | None, said: str
    ) -> None:
        """`ack`, `fail the disk is full`, `release 42`, of a job that this client holds."""
        asked = words.read(said, queue)
        given = dict(asked.given)
        reply = stanza.find("{urn:xmpp:reply:0}reply")
        if reply is not None and reply.get("id", "").startswith(OF_JOB):
            given.setdefault("id", reply.get("id", "").removeprefix(OF_JOB))
        _, queue, id, token = self._consumers.holder(sender, given.get("queue", queue), given.get("id"))
        fields = words.fields_of(asked.verb, given | {"queue": queue, "id": id, "lease": token}, queue)

        def done(lease: Settle, result: Settled | PresqueError) -> None:
            if isinstance(result, PresqueError):
                self._reply(stanza, f"not done: {result}")
            else:
                self._reply(stanza, _settled_in_words(lease, result))
                self._receipt(stanza)

        self._settle(sender, who, asked.verb, fields, done)

    # --- messages of programs -------------------------------------------------------------------

    def _commands(self, stanza: Element, who: Account, program: list[Element]) -> None:
        asker = self._asker(stanza, who, BY_MESSAGE)
        for one in program:
            document = text_of(one)
            if document is None:
                raise CallerError("`json` should hold JSON alone, and no elements")
            said = document.encode()
            if said.lstrip()[:1] == b"[":
                codec.check(said)
                for command in messages.split(said):
                    self._command(stanza, asker, command)
            else:
                self._command(stanza, asker, said)

    def _command(self, stanza: Element, asker: Asker, said: bytes) -> None:
        """Carry out one command; its answer comes as a message of its own."""
        sender = stanza.get("from", "")
        try:
            codec.check(said)
            message = messages.read(asker, said)
            verb = message.call.verb
            if verb.name in words.OF_A_JOB_HELD:
                end = begun(message.call) or untraced
                answer = functools.partial(self._settled, stanza, message, end)
                try:
                    self._settle(sender, message.call.who, verb, message.call.fields, answer)
                except PresqueError as error:
                    end(error)
                    raise
            elif verb in OF_A_CONNECTION:
                self._keep(stanza, self._here_by_message(stanza, message, said))
            else:
                self._keep(stanza, self._run(stanza, message, said))
        except PresqueError as error:
            self._answer_refused(stanza, said, error)

    def _answer(self, stanza: Element, document: bytes) -> None:
        """Answer a program."""
        said = stanzas.answer(stanza, stanzas.payload(document), stanzas.not_kept, type_=stanza.get("type"))
        if len(said.encode()) > self._most:
            error = OurFault("the answer is too large for XMPP: ask for less, or over HTTP")
            document = codec.encode({"error": str(error), "code": "answer-too-large"})
            said = stanzas.answer(stanza, stanzas.payload(document), type_=stanza.get("type"))
        self._send(said)

    def _answer_refused(self, stanza: Element, said: bytes, error: PresqueError) -> None:
        if isinstance(error, Refused):
            self._service.audit.refused(error, stanza.get("from", ""))
        self._answer(stanza, messages.refusal(said, error))

    async def _run(self, stanza: Element, message: Message, said: bytes) -> None:
        try:
            reply = (await carry_out(message.call)).object
        except PresqueError as error:
            self._answer_refused(stanza, said, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._answer(stanza, messages.broken(said))
        else:
            self._answer(stanza, messages.with_ref(reply, message.ref))
            self._receipt(stanza)

    async def _here_by_message(self, stanza: Element, message: Message, said: bytes) -> None:
        end = begun(message.call) or untraced
        try:
            told = await self._here(stanza, message.call.who, message.call.verb, message.call.fields)
        except PresqueError as error:
            end(error)
            self._answer_refused(stanza, said, error)
        else:
            end(None)
            self._answer(stanza, messages.with_ref(codec.encode(told), message.ref))

    async def _here(self, stanza: Element, who: Any, verb: Verb, fields: Any) -> dict[str, Any]:
        """Carry out what only this door has. Returns what to answer. Raises `PresqueError`."""
        if verb is CONSUME:
            return await self._lease(stanza, who, fields)
        return await self._alerts.do(who, verb, decide(verb, who, fields))

    async def _lease(self, stanza: Element, who: Any, fields: Any) -> dict[str, Any]:
        """Grant credits, or let a client listen. Raises `PresqueError`."""
        sender = stanza.get("from", "")
        seat = self._consumers.seat(sender, bare(stanza.get("to", "")))
        admitted = admit(self._service, CONSUME, who, fields)
        if seat is None:
            raise NotPresent
        ask = leases.lease_ask(admitted, None)
        return await seat.consumer.listen_or_grant(admitted["queues"], ask.count, ask.ms)

    def _settle(
        self,
        sender: str,
        who: Any,
        verb: Verb,
        fields: Any,
        done: Callable[[Settle, Settled | PresqueError], None],
    ) -> None:
        """End or extend a lease, through the place that holds the job, so that its credit comes back."""
        admit(self._service, verb, who, fields)
        lease = leases.settle_of(verb.name, fields)
        key = (lease.queue, lease.id, lease.token)
        holder = next((seat for seat in self._consumers.of(sender) if key in seat.consumer.held), None)
        answer = functools.partial(done, lease)
        if holder is not None:
            holder.consumer.settle(lease, answer)
        else:
            self._service.engine.settle(lease, answer)

    def _settled(
        self, stanza: Element, message: Message, end: Ended, lease: Settle, result: Settled | PresqueError
    ) -> None:
        end(result if isinstance(result, PresqueError) else leases.refused(lease.queue, result))
        if isinstance(result, PresqueError):
            told = {"queue": lease.queue, "id": lease.id, "error": str(result), "code": result.code}
            self._answer(stanza, messages.with_ref(codec.encode(told), message.ref))
        elif message.ref or result.status != 200 or result.state == "cancel":
            told = leases.told(lease, result)
            self._answer(stanza, messages.with_ref(codec.encode(told), message.ref))

    # --- iq -------------------------------------------------------------------------------------

    def _iq(self, stanza: Element, sender: str) -> None:
        kind = stanza.get("type")
        if kind == "result":
            return self._heard(sender)
        if kind not in ("get", "set"):
            return None
        if TOO_LARGE in stanza.attrib:
            raise BodyTooLarge(f"a stanza should be at most {self._most} bytes")
        if len(stanza) != 1:
            raise CallerError("an iq holds exactly one element")
        [asked] = stanza
        if asked.tag == f"{{{stanzas.PING}}}ping" and kind == "get":
            return self._send(stanzas.iq_result(stanza))
        queue = queue_of(stanza.get("to", ""))
        if asked.tag == f"{{{stanzas.INFO}}}query" and queue is None and self._accounts.who(sender) is None:
            return self._send(stanzas.iq_result(stanza, discovery.to_strangers()))
        who = self._who(sender)
        if asked.tag == WORKING:
            document = text_of(asked)
            if document is None:
                raise CallerError("`json` should hold JSON alone, and no elements")
            return self._keep(stanza, self._iq_commands(stanza, self._asker(stanza, who, COMMANDS), document))
        if asked.tag == f"{{{stanzas.COMMANDS}}}command" and kind == "set":
            return self._keep(stanza, self._by_form(stanza, who, queue, asked))
        answer = discovery.ANSWERS.get((kind, asked.tag))
        if answer is None:
            raise Unsupported("this is not supported here")
        up = int(time.monotonic() - self._began)
        context = discovery.Asked(self._service, who, queue, asked, self._domain, up)
        return self._keep(stanza, self._iq_answer(stanza, answer(context)))

    async def _iq_answer(self, stanza: Element, answer: Coroutine[Any, Any, str]) -> None:
        self._send(stanzas.iq_result(stanza, await answer))

    async def _by_form(self, stanza: Element, who: Account, queue: str | None, asked: Element) -> None:
        """Show the form of a command, or carry out what it says."""
        verb = words.IN_WORDS.get(asked.get("node", ""))
        if verb is None:
            raise NotFound(f"there is no command `{shown(asked.get('node', ''))}` here")
        if not discovery.may(who, verb, queue):
            who.may(verb.scope, queue, verb.over)
        session, action = forms.session_of(asked, secrets.token_hex(8)), asked.get("action", "execute")
        if action == "cancel":
            return self._send(stanzas.iq_result(stanza, forms.canceled(verb, session)))
        if action not in ("execute", "complete", "next"):
            raise CallerError(
                f"a command takes the actions execute, complete and cancel, not `{shown(action)}`"
            )
        given, error = forms.filled_in(asked, verb, queue), None
        if given is None and not forms.is_needed(verb, queue):
            given = {}
        if given is not None:
            try:
                reply = await self._filled_in(stanza, who, verb, queue, given)
            except Refused:
                raise
            except CallerError as wrong:
                error = wrong
            else:
                told = stanzas.iq_result(stanza, forms.completed(verb, session, reply))
                return self._send_bounded(told)
        known = given if given is not None else await self._known(who, verb, queue)
        form = forms.form(verb, queue, known)
        return self._send(stanzas.iq_result(stanza, forms.asks(verb, session, form, error)))

    async def _known(self, who: Account, verb: Verb, queue: str | None) -> dict[str, str]:
        """What the form of a verb shows before anybody has filled it in: of a policy, what it is now."""
        if verb.name != "change_policy" or queue is None or not who.sees(queue):
            return {}
        call = Call(self._service, VERBS["policy"], {"queue": queue}, b"", None, who)
        found = forms.flat(words.opened((await carry_out(call)).object))
        return {name: value for name, value in found if name != "queue" and isinstance(value, str)}

    async def _filled_in(
        self, stanza: Element, who: Account, verb: Verb, queue: str | None, given: dict[str, str]
    ) -> bytes:
        """Carry out what a form says. Raises `PresqueError`."""
        sender = stanza.get("from", "")
        if verb.name in words.OF_A_JOB_HELD:
            _, queue, id, token = self._consumers.holder(sender, given.get("queue", queue), given.get("id"))
            given = given | {"queue": queue, "id": id, "lease": token}
        if (
            verb.without is not None
            and verb.without[0] not in given
            and (queue is None or verb.name == "retry")
        ):
            verb = words.IN_WORDS[verb.without[1]]
        fields = words.fields_of(verb, given, queue)
        if verb in OF_A_CONNECTION:
            return codec.encode(await self._here(stanza, who, verb, fields))
        if verb.name not in words.OF_A_JOB_HELD:
            return (await carry_out(Call(self._service, verb, fields, b"", None, who, sender))).object
        settled: asyncio.Future[bytes] = self._loop.create_future()

        def done(lease: Settle, result: Settled | PresqueError) -> None:
            if settled.done():
                return
            if isinstance(result, PresqueError):
                settled.set_exception(result)
            else:
                settled.set_result(codec.encode(leases.told(lease, result)))

        self._settle(sender, who, verb, fields, done)
        return await settled

    def _send_bounded(self, stanza: str) -> None:
        if len(stanza.encode()) > self._most:
            raise OurFault("the answer is too large for XMPP: ask for less, or over HTTP")
        self._send(stanza)

    async def _iq_commands(self, stanza: Element, asker: Asker, document: str) -> None:
        """Carry out commands as `POST /queue` does. A single one that cannot be is answered with an error."""
        said = document.encode()
        try:
            reply = await messages.run_all(asker, said)
        except PresqueError as error:
            if isinstance(error, Refused):
                self._service.audit.refused(error, stanza.get("from", ""))
            told = stanzas.payload(messages.refusal(said, error))
            self._send(stanzas.answer(stanza, told, stanzas.error_of(error), type_="error"))
            return
        self._send_bounded(stanzas.iq_result(stanza, stanzas.payload(reply)))


def _is_encrypted(stanza: Element) -> bool:
    return any(one.tag.endswith("}encrypted") or one.tag == "{urn:xmpp:eme:0}encryption" for one in stanza)


def _key_of(stanza: Element, who: Account) -> str | None:
    """What makes a push that is sent again the same push: the id that its sender vouches for (XEP-0359)."""
    found = stanza.find("{urn:xmpp:sid:0}origin-id")
    id = "" if found is None else found.get("id", "")
    key = f"xmpp:{who.name}:{id}"
    return key if id and len(key.encode()) <= 255 else None


def _settled_in_words(lease: Settle, result: Settled) -> str:
    if result.status == 200:
        if result.state == "cancel":
            return f"{lease.id}: somebody has deleted the job, stop working on it"
        return f"{lease.id}: {'extended' if lease.verb == 'extend' else result.state}"
    return f"not done: {leases.told(lease, result).get('error', result.status)}"
