"""The audit: who changed what, and who was refused, when and from where.

Each line is in the store for all servers, and in the log. It never holds a body or a secret. Somebody without
a token can be refused as often as they like, so a second has room for a few refusals and for how many more
there were. Holders of tokens have room of their own, and refusals push no acts out of the store: nobody can
cover up what was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from presque.commands.who import Who
from presque.engine.access import Access
from presque.engine.notes import Notes
from presque.errors import NoNamespace, Refused, TokenMissing, TokenUnknown
from presque.masking import without_tokens

log = logging.getLogger("presque.audit")

REFUSALS_A_SECOND = 10
SAID_MOST = 200
"""Characters of each text of a note: what something was done to, and addresses of XMPP, can be long."""


class Audit:
    """The audit of one server, in one namespace. `of` finds that of another one by its name."""

    def __init__(
        self,
        access: Access,
        notes: Callable[[], Notes],
        of: Callable[[str], Audit] | None = None,
        namespace: str | None = None,
    ) -> None:
        self._access = access
        self._notes = notes
        self._of = of
        self._namespace = namespace
        self._room = {True: REFUSALS_A_SECOND, False: REFUSALS_A_SECOND}  # with a token, without one
        self._more = 0
        self._filling = False

    async def acted(self, verb: str, who: Who, about: str | None, source: str, code: str) -> None:
        """Somebody did something, or tried to: `code` is `done` or that of the error. The store has the note
        when this returns; while the store is away it is in the log alone."""
        if (kept := self.began(verb, who, about, source, code)) is not None:
            await asyncio.wait((kept,))  # which many wait for, so none cancels it

    def began(
        self, verb: str, who: Who, about: str | None, source: str, code: str = "cut-off"
    ) -> asyncio.Future[None] | None:
        """The same, without waiting for the store. `cut-off` says that nobody knows how far it got."""
        about = _shown(about)
        log.info(
            "audit.act verb=%s about=%s token=%s name=%s from=%s outcome=%s namespace=%s",
            verb, about, who.id or None, who.name or None, source, code, self._namespace,
        )  # fmt: skip
        return self._note("act", verb, about, who.id, who.name, source, code)

    def refused(self, error: Refused, source: str) -> None:
        """Somebody was refused. It is kept in the audit of the namespace of their token. A page that is
        opened asks without a token who its viewer is; that is not a refusal.
        """
        if isinstance(error, TokenMissing) and error.verb == "whoami":
            return
        record = self._access.records.get(error.who)
        if record is not None and record.namespace is not None and self._of is not None:
            with contextlib.suppress(NoNamespace):
                self._of(record.namespace).refused(error, source)
                return
        if not self._filling:
            self._filling = True
            asyncio.get_running_loop().call_later(1, self._fill)
        # Who knows what a token is called, and not its secret, is a stranger.
        known = record is not None and not isinstance(error, TokenUnknown)
        if self._room[known] == 0:
            self._more += 1
            return
        self._room[known] -= 1
        name = record.name if record is not None else None
        about = _shown(error.queue)
        log.warning(
            "audit.refused verb=%s about=%s token=%s name=%s from=%s code=%s namespace=%s",
            error.verb or None, about, error.who or None, name, source, error.code, self._namespace,
        )  # fmt: skip
        self._note("refused", error.verb, about, error.who, name, source, error.code)

    def _fill(self) -> None:
        more, self._more, self._filling = self._more, 0, False
        self._room = dict.fromkeys(self._room, REFUSALS_A_SECOND)
        if more:
            log.warning("audit.refused_more count=%d", more)
            self._add({"kind": "refused", "count": more})

    def _note(
        self, kind: str, verb: str, about: str | None, token: str, name: str | None, source: str, code: str
    ) -> asyncio.Future[None] | None:
        said: dict[str, Any] = {"kind": kind, "outcome": code, "verb": verb or None, "about": about}
        by = {"token": _cut(token) or None, "name": _cut(name or "") or None, "from": _cut(source) or None}
        return self._add(said | by)

    def _add(self, what: dict[str, Any]) -> asyncio.Future[None] | None:
        try:
            return self._notes().add(what)
        except NoNamespace:  # it is about to be deleted, and its audit with it
            return None


def _shown(about: str | None) -> str | None:
    """What something was done to, without the secret of a token that somebody took for a name; a queue list
    may be long."""
    if about is None:
        return None
    return _cut(without_tokens(about))


def _cut(text: str) -> str:
    return text if len(text) <= SAID_MOST else text[: SAID_MOST - 1] + "…"
