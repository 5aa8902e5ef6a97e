"""Messages of programs: commands as JSON, each answered by a message of its own."""

from __future__ import annotations

import functools

from presque import codec
from presque.commands import leases, messages
from presque.commands.call import Undo
from presque.commands.carrying import Ended, begun, carry_out, untraced
from presque.commands.messages import Asker, Message
from presque.errors import CallerError, PresqueError
from presque.job import Settle, Settled
from presque.xmpp import stanzas, words
from presque.xmpp.accounts import Account
from presque.xmpp.desk import ANSWER_TOO_LARGE, BY_MESSAGE, OF_A_CONNECTION, Desk
from presque.xmpp.parsing import Element
from presque.xmpp.stanzas import text_of


class Programs:
    """Answers the programs of one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def receive(self, stanza: Element, who: Account, program: list[Element]) -> None:
        """Carry out the commands that a message holds."""
        asker = self._desk.asker(stanza, who, BY_MESSAGE)
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
                    self._desk.settle(sender, message.call.who, verb, message.call.fields, answer)
                except PresqueError as error:
                    end(error)
                    raise
            elif verb in OF_A_CONNECTION:
                self._desk.keep(stanza, self._here_by_message(stanza, message, said))
            else:
                self._desk.keep(stanza, self._run(stanza, message, said), verb)
        except PresqueError as error:
            self._answer_refused(stanza, said, error)

    def _answer(self, stanza: Element, document: bytes, undo: Undo | None = None) -> None:
        """Answer a program. `undo` puts back the jobs in the answer."""
        said = stanzas.answer(stanza, stanzas.payload(document), stanzas.not_kept, type_=stanza.get("type"))
        if len(said.encode()) > self._desk.most:
            if undo is not None:
                undo()
            document, undo = codec.encode({"error": ANSWER_TOO_LARGE, "code": "answer-too-large"}), None
            said = stanzas.answer(stanza, stanzas.payload(document), type_=stanza.get("type"))
        self._desk.send(said, undo)

    def _answer_refused(self, stanza: Element, said: bytes, error: PresqueError) -> None:
        self._desk.note(stanza, error)
        self._answer(stanza, messages.refusal(said, error))

    async def _run(self, stanza: Element, message: Message, said: bytes) -> None:
        try:
            reply = await carry_out(message.call)
        except PresqueError as error:
            self._answer_refused(stanza, said, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._answer(stanza, messages.broken(said))
        else:
            self._answer(stanza, messages.with_ref(reply.object, message.ref), reply.undo)
            self._desk.receipt(stanza)

    async def _here_by_message(self, stanza: Element, message: Message, said: bytes) -> None:
        end = begun(message.call) or untraced
        try:
            told = await self._desk.here(stanza, message.call.who, message.call.verb, message.call.fields)
        except PresqueError as error:
            end(error)
            self._answer_refused(stanza, said, error)
        else:
            end(None)
            self._answer(stanza, messages.with_ref(codec.encode(told), message.ref))

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
