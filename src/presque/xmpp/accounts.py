"""Who an XMPP address is, and what it may do: the same rules that an access token has.

Only the bare address counts that the server has stamped on a stanza. An address that is not in the map may do
nothing. An account with an entry of its own has that entry alone, and not the domain's as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from presque.commands.who import Record, Who
from presque.errors import NotPermitted
from presque.names import QueueList
from presque.tokens import Layer, Rules
from presque.verbs.verb import Over, Scope
from presque.xmpp.addresses import bare, domain_of

KNOWN_MOST = 10_000


class Account(Who):
    """An account that asks over XMPP. Refusals name its address."""

    __slots__ = ()

    def may(self, scope: Scope, queues: str | QueueList | None, over: Over = "") -> None:
        """As for everybody."""
        try:
            super().may(scope, queues, over)
        except NotPermitted as error:
            raise NotPermitted(
                str(error).replace("this access token does not allow", f"{self.name} is not allowed to")
            ) from None


class Accounts:
    """The addresses that may ask, with their rules. A key is `ana@example.org`, or a domain: then it is meant
    for every account there."""

    def __init__(self, allow: Mapping[str, Sequence[str]], deny: Mapping[str, Sequence[str]]) -> None:
        self._layers = {key: Layer(allow=Rules(allow[key]), deny=Rules(deny.get(key, ()))) for key in allow}
        self._known: dict[str, Account | None] = {}
        self._seal = secrets.token_bytes(32)

    def who(self, jid: str) -> Account | None:
        """The account with this address; None for an unknown one."""
        name = bare(jid)
        if name in self._known:
            return self._known[name]
        layer = self._layers.get(name) or self._layers.get(domain_of(jid))
        if len(self._known) >= KNOWN_MOST:
            self._known.clear()
        found = self._known[name] = None if layer is None else self._account(name, layer)
        return found

    def _account(self, name: str, layer: Layer) -> Account:
        record = Record(
            id=name, name=name, key=self._seal, layer=layer, namespace=None, rate=None, created_at=0,
            made_by=None,
        )  # fmt: skip
        return Account(name, name, (layer,), record=record)
