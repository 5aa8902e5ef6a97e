"""Messages of people: JSON, which is pushed, or a command in words. They are answered in words."""

from __future__ import annotations

import re

from presque import codec
from presque.commands import leases, messages
from presque.commands.call import Call, Undo
from presque.commands.carrying import carry_out
from presque.commands.messages import Asker
from presque.errors import CallerError, PresqueError, nearest
from presque.job import Settle, Settled
from presque.verbs import CONSUME
from presque.xmpp import discovery, stanzas, words
from presque.xmpp.accounts import Account
from presque.xmpp.addresses import queue_of
from presque.xmpp.consumers import OF_JOB
from presque.xmpp.desk import ANSWER_TOO_LARGE, BY_MESSAGE, OF_A_CONNECTION, Desk
from presque.xmpp.parsing import Element
from presque.xmpp.stanzas import TooMany, child, tag, text_of

_json_like = re.compile(r"""\s*([\[{"]|-?[0-9]|(true|false|null)\s*\Z)""").match


class People:
    """Talks with the people of one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def receive(self, stanza: Element, sender: str, who: Account, said: str) -> None:
        """Do what a message in words says, or push the JSON that it holds."""
        try:
            queue = queue_of(stanza.get("to", ""))
            if _json_like(said):
                if queue is None:
                    asker = self._desk.asker(stanza, who, BY_MESSAGE)
                    self._desk.keep(stanza, self._command_typed(stanza, asker, said.encode()))
                else:
                    work = self._say(stanza, who, "push", {"job": said}, queue)
                    self._desk.keep(stanza, work, words.IN_WORDS["push"])
                return
            word = said.split(None, 1)[0].lower()
            if word in words.HELP:
                self.reply(stanza, self._help(who, queue, said))
                self._desk.receipt(stanza)
            elif word in words.OF_A_JOB_HELD:
                self._settle_in_words(stanza, sender, who, queue, said)
            else:
                asked = words.read(said, queue)
                work = self._say(stanza, who, asked.verb.name, asked.given, queue)
                self._desk.keep(stanza, work, asked.verb)
        except (CallerError, TooMany) as error:
            self._not_done(stanza, error)

    def reply(self, stanza: Element, said: str, undo: Undo | None = None) -> None:
        """Answer a person. `undo` puts back the jobs in the answer, of which no part is left out."""
        if len(said.encode()) > self._desk.most // 2 and undo is not None:
            undo()
            said, undo = f"not done: {ANSWER_TOO_LARGE}", None
        elif len(said.encode()) > self._desk.most // 2:
            said = (
                said.encode()[: self._desk.most // 2].decode(errors="ignore")
                + "…\n(the rest is too long: ask for less)"
            )
        kind = stanza.get("type")
        thread = text_of(child(stanza, "thread"))
        inside = [stanzas.body(said), *([] if thread is None else [tag("thread", stanzas.text(thread))])]
        self._desk.send(stanzas.answer(stanza, *inside, type_=kind, id=f"re-{stanza.get('id', '')}"), undo)

    def _not_done(self, stanza: Element, error: PresqueError, more: str = "") -> None:
        self._desk.note(stanza, error)
        self.reply(stanza, f"not done: {error}{more}")

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
            if verb in OF_A_CONNECTION:
                told = await self._desk.here(stanza, who, verb, fields)
                if verb is CONSUME:
                    said = f"up to {told.get('count', 'all')} jobs of {told['queue']} at a time"
                else:
                    said = words.readable(name, codec.encode(told))
                self.reply(stanza, said)
                return
            if name == "push" and (key := _key_of(stanza, who)) is not None:
                fields.setdefault("idempotency_key", key)
            call = Call(self._desk.service, verb, fields, b"", None, who, stanza.get("from", ""))
            reply = await carry_out(call)
        except CallerError as error:
            more = f"; {words.usage(verb, queue)}" if str(error).startswith("`") else ""
            self._not_done(stanza, error, more)
        except PresqueError as error:
            self._not_done(stanza, error)
        else:
            self.reply(stanza, words.readable(name, reply.object), reply.undo)
            self._desk.receipt(stanza)

    async def _command_typed(self, stanza: Element, asker: Asker, said: bytes) -> None:
        """Carry out JSON that was sent to presque itself: commands as for `POST /queue`."""
        try:
            told = await messages.run_all(asker, said)
            self.reply(stanza, told.text.decode(), told.undo)
        except PresqueError as error:
            self._not_done(stanza, error)
        else:
            self._desk.receipt(stanza)

    def _settle_in_words(
        self, stanza: Element, sender: str, who: Account, queue: str | None, said: str
    ) -> None:
        """`ack`, `fail the disk is full`, `release 42`, of a job that this client holds."""
        asked = words.read(said, queue)
        given = dict(asked.given)
        reply = stanza.find("{urn:xmpp:reply:0}reply")
        if reply is not None and reply.get("id", "").startswith(OF_JOB):
            given.setdefault("id", reply.get("id", "").removeprefix(OF_JOB))
        _, queue, id, token = self._desk.consumers.holder(sender, given.get("queue", queue), given.get("id"))
        fields = words.fields_of(asked.verb, given | {"queue": queue, "id": id, "lease": token}, queue)

        def done(lease: Settle, result: Settled | PresqueError) -> None:
            if isinstance(result, PresqueError):
                self.reply(stanza, f"not done: {result}")
            else:
                self.reply(stanza, _settled_in_words(lease, result))
                self._desk.receipt(stanza)

        self._desk.settle(sender, who, asked.verb, fields, done)


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
