"""A store of one's own is looked at again and again: somebody may set it up worse while it runs."""

from __future__ import annotations

import asyncio

import pytest

from presque.engine.engine import Engine
from presque.store.address import Address
from tests import rig
from tests.asking import soon


@pytest.mark.parametrize("kind", sorted(rig.STORES))
async def test_a_store_that_begins_to_evict_or_stops_to_persist_is_told(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with rig.store(kind, "--appendonly", "yes") as store:
        engine = Engine(Address(unix=store.socket))
        await engine.start()
        watcher = asyncio.create_task(engine.store.watch_setup(every_s=0.02))
        try:
            with store.client() as client:
                client.config_set("maxmemory-policy", "allkeys-lru")
                await soon(lambda: "store.evicts" in caplog.text)
                assert engine.info is not None
                assert engine.info.eviction == "allkeys-lru"
                client.config_set("appendonly", "no")
                await soon(lambda: "store.not_persistent" in caplog.text)
                client.config_set("maxmemory-policy", "noeviction")
                await soon(lambda: engine.info is not None and engine.info.eviction == "noeviction")
            assert caplog.text.count("store.evicts") == 1
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            await engine.stop()
