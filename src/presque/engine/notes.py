"""The audit of one namespace in the store: what was done and refused, for all servers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from presque import codec
from presque.engine import calls
from presque.engine.keys import ACCESS, Keys
from presque.store.store import Store

NOTES_MOST = 10_000
"""Of each kind: what was done, what was refused."""


class Note(msgspec.Struct, frozen=True):
    """One line of the audit. `number` grows, and is the cursor for those before it."""

    number: int
    at: int
    what: Mapping[str, Any]


class Notes:
    """The notes of one namespace."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys.access()
        self._notes: list[bytes] = []
        self._kept: asyncio.Future[None] | None = None

    def add(self, what: Mapping[str, Any]) -> asyncio.Future[None]:
        """Write a note, a moment later. The future, which many share, is done when the store has it or cannot
        be asked: then it is in the log only."""
        if self._kept is None:
            loop = asyncio.get_running_loop()
            self._kept = loop.create_future()
            loop.call_soon(self._send)
        self._notes += [b"1" if what["kind"] == "refused" else b"", codec.encode(what)]
        return self._kept

    async def page(self, before: int | None, most: int) -> list[Note]:
        """Notes, newest first."""
        call = calls.encode("access_notes", self._keys, "" if before is None else before, most)
        notes = []
        for line in await self._store.ask(ACCESS, call):
            number, at, what = line.split(b" ", 2)
            notes.append(Note(int(number), int(at), codec.decode(what)))
        return sorted(notes, key=lambda note: -note.number)[:most]

    def _send(self) -> None:
        notes, self._notes = self._notes, []
        kept, self._kept = self._kept, None
        assert kept is not None
        call = calls.encode("access_note", self._keys, NOTES_MOST, *notes)
        self._store.send(ACCESS, call, lambda _: kept.set_result(None))
