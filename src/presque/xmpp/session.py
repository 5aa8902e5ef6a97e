"""What happens on one connection to an XMPP server: stanzas in, stanzas out, and no socket.

A program sends commands as for a WebSocket, in `<json xmlns='urn:presque:0'/>`, and is answered in the same
way (programs.py); in an `<iq/>` it may send any command of `POST /queue` (queries.py). A person sends JSON
to a queue, which pushes it, or a command in words (people.py). Presence at an address makes a client a
consumer (presence.py, consumers.py).

Who asks is the bare address that the server has stamped. A message that was forwarded, copied or delayed is
ignored, and so is what comes from a room, from ourselves, or as an error.
"""

from __future__ import annotations

from collections.abc import Callable

from presque.commands.call import Service
from presque.errors import BodyTooLarge, PresqueError
from presque.xmpp import stanzas
from presque.xmpp.accounts import Accounts
from presque.xmpp.addresses import domain_of
from presque.xmpp.alerts import Alerts
from presque.xmpp.desk import Desk, Send
from presque.xmpp.parsing import TOO_LARGE, Element
from presque.xmpp.people import People
from presque.xmpp.presence import Presence
from presque.xmpp.programs import Programs
from presque.xmpp.queries import Queries
from presque.xmpp.stanzas import is_second_hand, name_of


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
        send: Send,
        most: int,
        hold: Callable[[int, int], bool] = lambda _size, _before: True,
    ) -> None:
        desk = self._desk = Desk(service, accounts, alerts, domain, send, most, hold)
        self._presence, self._people = Presence(desk), People(desk)
        self._programs, self._queries = Programs(desk), Queries(desk)
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether so much is under way that no more should be read."""
        return self._desk.full

    def receive(self, stanza: Element) -> None:
        """Do what a stanza says. What is wrong with it is answered, never raised."""
        sender, kind = stanza.get("from", ""), name_of(stanza)
        if not sender or domain_of(sender) == self._desk.domain or self._ended:
            return
        if stanza.get("type") == "error":
            self._came_back(stanza, sender)
            return
        try:
            if kind == "message":
                self._message(stanza, sender)
            elif kind == "presence":
                self._presence.receive(stanza, sender)
            elif kind == "iq":
                self._queries.receive(stanza, sender)
        except PresqueError as error:
            self._desk.refuse(stanza, error)
        except Exception:  # noqa: BLE001  (the last resort)
            self._desk.broken(stanza)

    def pause(self) -> None:
        """The server does not read: ask for no more jobs."""
        self._desk.consumers.pause()

    def resume(self) -> None:
        """The server reads again."""
        self._desk.consumers.resume()

    def end(self) -> None:
        """The connection to the server is lost: give back all jobs that are held."""
        self._ended = True
        self._desk.consumers.end()
        self._desk.forget()

    def beat(self) -> None:
        """To be called now and then: asks those who have been silent whether they are there, and lets go of
        those who do not answer."""
        self._presence.beat()

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
                return self._desk.heard(sender)
        self._desk.consumers.gone(sender, lost=False)
        return None

    def _message(self, stanza: Element, sender: str) -> None:
        if stanza.get("type") in ("groupchat", "headline") or is_second_hand(stanza):
            return
        self._desk.heard(sender)
        program = [one for one in stanza if one.tag == stanzas.JSON]
        body = stanzas.own_words(stanza)
        if not program and not (body and body.strip()) and TOO_LARGE not in stanza.attrib:
            return
        who = self._desk.who(sender)
        if TOO_LARGE in stanza.attrib:
            raise BodyTooLarge(
                f"a message should be at most {self._desk.most} bytes: push large jobs over HTTP"
            )
        if program:
            self._programs.receive(stanza, who, program)
        elif stanza.find("{urn:xmpp:message-correct:0}replace") is not None:
            self._people.reply(
                stanza, "this corrects a message that was carried out already: nothing was done"
            )
        elif _is_encrypted(stanza):
            self._people.reply(
                stanza,
                "this message is encrypted, and presque cannot read it: turn encryption (OMEMO) off here",
            )
        elif body is not None:
            self._people.receive(stanza, sender, who, body.strip())


def _is_encrypted(stanza: Element) -> bool:
    return any(one.tag.endswith("}encrypted") or one.tag == "{urn:xmpp:eme:0}encryption" for one in stanza)
