"""The alerts that people asked for, as the store keeps them: texts with a value that nobody here looks
into."""

from __future__ import annotations

from presque.engine import calls
from presque.engine.keys import ALERTS, Keys
from presque.store.store import Store


class Wanted:
    """The wishes of everybody, by an id. Every method raises `PresqueError` without a store."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._call = calls.OnKeys(store, ALERTS, keys.alerts())

    async def put(self, id: str, value: bytes, most: int) -> bool:
        """Keep one, in place of what had this id. False if there are `most` already."""
        return bool(await self._call("alerts_put", id, value, most))

    async def remove(self, id: str) -> bool:
        """Forget one. False if there is none."""
        return bool(await self._call("alerts_remove", id))

    async def all(self) -> dict[str, bytes]:
        """All of them."""
        reply = await self._call("alerts_all")
        return {id.decode(): value for id, value in zip(reply[::2], reply[1::2], strict=True)}
