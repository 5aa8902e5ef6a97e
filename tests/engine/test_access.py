"""Access tokens and namespaces are read in pieces, however many there are."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from presque.engine.access import TOKENS_MOST, NewToken
from presque.engine.engine import Engine
from presque.engine.quotas import NamespaceRecord, Quotas

MANY = 1000


async def test_ten_thousand_tokens_and_namespaces_come_in_pieces(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = engine.access
    packed = NewToken(name="t", allow=["push:*"]).packed(b"k" * 32, 1, None)
    spaces = [NamespaceRecord.new(f"n{number}", Quotas(), 1, None) for number in range(MANY)]
    await asyncio.gather(
        *(access._call("access_put", f"t{number}", packed, TOKENS_MOST, "", "") for number in range(MANY)),
        *(access._call("namespace_put", one.name, one.packed, MANY, "") for one in spaces),
    )
    call, sizes = access._call, []

    async def measured(name: str, *args: str | bytes | int) -> Any:
        reply = await call(name, *args)
        sizes.append(len(reply))
        return reply

    monkeypatch.setattr(access, "_call", measured)
    access._version = b""
    gc.collect()
    before = len(gc.get_objects())
    await access.look()
    looked_through = len(gc.get_objects()) - before

    assert len(access.records) == len(access.namespaces) == MANY
    assert max(sizes) < MANY / 2
    assert looked_through < MANY, "Python looks through all that is kept whenever it looks for garbage"
