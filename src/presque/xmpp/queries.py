"""Queries (`<iq/>`): commands as JSON or by forms, and what clients ask about presque and its queues."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from presque import codec
from presque.commands import leases, messages
from presque.commands.call import Call
from presque.commands.carrying import carry_out
from presque.commands.messages import Asker, Said
from presque.errors import BodyTooLarge, CallerError, NotFound, PresqueError, Refused, shown
from presque.job import Settle, Settled
from presque.verbs import COMMANDS, VERBS
from presque.verbs.verb import Verb
from presque.xmpp import discovery, forms, stanzas, words
from presque.xmpp.accounts import Account
from presque.xmpp.addresses import queue_of
from presque.xmpp.desk import OF_A_CONNECTION, Desk
from presque.xmpp.parsing import TOO_LARGE, Element
from presque.xmpp.stanzas import Unsupported, text_of


class Queries:
    """Answers the queries of one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._began = time.monotonic()

    def receive(self, stanza: Element, sender: str) -> None:
        """Answer a query."""
        kind = stanza.get("type")
        if kind == "result":
            return self._desk.heard(sender)
        if kind not in ("get", "set"):
            return None
        if TOO_LARGE in stanza.attrib:
            raise BodyTooLarge(f"a stanza should be at most {self._desk.most} bytes")
        if len(stanza) != 1:
            raise CallerError("an iq holds exactly one element")
        [asked] = stanza
        if asked.tag == f"{{{stanzas.PING}}}ping" and kind == "get":
            return self._desk.send(stanzas.iq_result(stanza))
        desk, queue = self._desk, queue_of(stanza.get("to", ""))
        if asked.tag == f"{{{stanzas.INFO}}}query" and queue is None and desk.accounts.who(sender) is None:
            return desk.send(stanzas.iq_result(stanza, discovery.to_strangers()))
        who = desk.who(sender)
        if asked.tag == stanzas.JSON:
            document = text_of(asked)
            if document is None:
                raise CallerError("`json` should hold JSON alone, and no elements")
            return desk.keep(stanza, self._commands(stanza, desk.asker(stanza, who, COMMANDS), document))
        if asked.tag == f"{{{stanzas.COMMANDS}}}command" and kind == "set":
            return desk.keep(stanza, self._by_form(stanza, who, queue, asked))
        answer = discovery.ANSWERS.get((kind, asked.tag))
        if answer is None:
            raise Unsupported("this is not supported here")
        up = int(time.monotonic() - self._began)
        context = discovery.Asked(desk.service, who, queue, asked, desk.domain, up)
        return desk.keep(stanza, self._answer(stanza, answer, context))

    async def _answer(
        self, stanza: Element, answer: Callable[[discovery.Asked], Awaitable[str]], context: discovery.Asked
    ) -> None:
        self._desk.send(stanzas.iq_result(stanza, await answer(context)))

    async def _by_form(self, stanza: Element, who: Account, queue: str | None, asked: Element) -> None:
        """Show the form of a command, or carry out what it says."""
        verb = words.IN_WORDS.get(asked.get("node", ""))
        if verb is None:
            raise NotFound(f"there is no command `{shown(asked.get('node', ''))}` here")
        if not discovery.may(who, verb, queue):
            who.may(verb.scope, queue, verb.over)
        session, action = forms.session_of(asked, secrets.token_hex(8)), asked.get("action", "execute")
        if action == "cancel":
            return self._desk.send(stanzas.iq_result(stanza, forms.canceled(verb, session)))
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
                told = stanzas.iq_result(stanza, forms.completed(verb, session, reply.text))
                return self._desk.send_bounded(told, reply.undo)
        known = given if given is not None else await self._known(who, verb, queue)
        form = forms.form(verb, queue, known)
        return self._desk.send(stanzas.iq_result(stanza, forms.asks(verb, session, form, error)))

    async def _known(self, who: Account, verb: Verb, queue: str | None) -> dict[str, str]:
        """What the form of a verb shows before anybody has filled it in: of a policy, what it is now."""
        if verb.name != "change_policy" or queue is None or not who.sees(queue):
            return {}
        call = Call(self._desk.service, VERBS["policy"], {"queue": queue}, b"", None, who)
        found = forms.flat(words.opened((await carry_out(call)).object))
        return {name: value for name, value in found if name != "queue" and isinstance(value, str)}

    async def _filled_in(
        self, stanza: Element, who: Account, verb: Verb, queue: str | None, given: dict[str, str]
    ) -> Said:
        """Carry out what a form says. Raises `PresqueError`."""
        sender = stanza.get("from", "")
        if verb.name in words.OF_A_JOB_HELD:
            _, queue, id, token = self._desk.consumers.holder(
                sender, given.get("queue", queue), given.get("id")
            )
            given = given | {"queue": queue, "id": id, "lease": token}
        if (
            verb.without is not None
            and verb.without[0] not in given
            and (queue is None or verb.name == "retry")
        ):
            verb = words.IN_WORDS[verb.without[1]]
        fields = words.fields_of(verb, given, queue)
        if verb in OF_A_CONNECTION:
            return Said(codec.encode(await self._desk.here(stanza, who, verb, fields)))
        if verb.name not in words.OF_A_JOB_HELD:
            reply = await carry_out(Call(self._desk.service, verb, fields, b"", None, who, sender))
            return Said(reply.object, reply.undo)
        settled: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(lease: Settle, result: Settled | PresqueError) -> None:
            if settled.done():
                return
            if isinstance(result, PresqueError):
                settled.set_exception(result)
            else:
                settled.set_result(codec.encode(leases.told(lease, result)))

        self._desk.settle(sender, who, verb, fields, done)
        return Said(await settled)

    async def _commands(self, stanza: Element, asker: Asker, document: str) -> None:
        """Carry out commands as `POST /queue` does. A single one that cannot be is answered with an error."""
        said = document.encode()
        try:
            reply = await messages.run_all(asker, said)
        except PresqueError as error:
            self._desk.note(stanza, error)
            told = stanzas.payload(messages.refusal(said, error))
            self._desk.send(stanzas.answer(stanza, told, stanzas.error_of(error), type_="error"))
            return
        self._desk.send_bounded(stanzas.iq_result(stanza, stanzas.payload(reply.text)), reply.undo)
