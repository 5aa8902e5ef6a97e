"""Namespaces as one server keeps them: made on demand, looked after, put away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from presque.commands.call import Inside, Service
from presque.commands.who import ANYBODY, Guard
from presque.engine import namespaces as module
from presque.engine.engine import Engine
from presque.engine.namespaces import Namespace, Namespaces
from presque.engine.quotas import NamespaceRecord, Quotas
from presque.engine.recurring import Cron
from presque.errors import NoNamespace
from presque.job import PLAIN
from presque.store.address import Address
from tests import rig


@pytest.fixture
async def found(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Namespaces:
    """Namespaces that are looked after ten times a second, and soon put away."""
    for name, value in (
        ("TURN_S", 0.05),
        ("REST_MS", 300),
        ("IDLE_S", 0.3),
        ("USED_S", 0.2),
        ("END_S", 0.2),
    ):
        monkeypatch.setattr(module, name, value)
    await engine.access.start()
    made = Namespaces(engine)
    engine.spawn(made.run())
    return made


async def make(found: Namespaces, name: str, **quotas: int) -> Namespace:
    await access_of(found).make_namespace(name, Quotas(**quotas), None)
    return found.get(name)


def access_of(found: Namespaces) -> Any:
    return found.make("any").access


async def until(true: Callable[[], Any]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(rig.PATIENCE):
        while not true():
            await asyncio.sleep(0.02)


async def active(found: Namespaces) -> set[str]:
    """The namespaces that the store says have something to do."""
    names = await found.make("any").store.call("", "ZRANGE", found.make("any").access.keys[5], 0, -1)
    return {name.decode() for name in names}


async def push(engine: Engine, queue: str, body: bytes = b"1") -> Any:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    engine.push(queue, body, PLAIN, done.set_result)
    return await done


async def test_a_namespace_has_no_engine_until_it_is_used_and_none_when_it_is_idle(found: Namespaces) -> None:
    one = await make(found, "acme")
    assert found.awake == {}

    assert await push(one.engine, "mail") == 1
    assert "acme" in found.awake
    assert await active(found) == {"acme"}
    await one.engine.purge("mail")
    await until(lambda: not found.awake)

    assert await active(found) == set()
    assert await push(one.engine, "mail") == 2  # whoever has it still uses the same
    assert found.awake["acme"] is found.get("acme") is one


async def test_one_in_which_jobs_wait_stays_active_and_so_does_one_with_a_recurring_job(
    found: Namespaces,
) -> None:
    waits, recurs, idle = [await make(found, name) for name in ("waits", "recurs", "idle")]
    await push(waits.engine, "mail")
    await recurs.engine.crons.put("c", Cron(queue="mail", schedule="@yearly"), b"1")
    await push(idle.engine, "mail")
    await idle.engine.fetch_many("mail", 1)

    await until(lambda: "idle" not in found.awake)

    assert await active(found) == {"waits", "recurs"}


async def test_one_that_is_lost_among_the_active_ones_is_found_again(found: Namespaces) -> None:
    one = await make(found, "acme")
    await push(one.engine, "mail")
    store = one.engine.store
    await store.call("", "DEL", access_of(found).keys[5])

    async with asyncio.timeout(rig.PATIENCE):
        while await active(found) != {"acme"}:
            await asyncio.sleep(0.02)


async def test_all_share_the_connections_of_the_server(found: Namespaces, engine: Engine) -> None:
    one, other = await make(found, "one"), await make(found, "other")
    assert one.engine.store is other.engine.store is engine.store
    assert one.engine.channels is engine.channels
    assert one.engine.keys.namespace == f"{engine.keys.namespace}:one"


async def test_a_deleted_one_is_gone_at_once_and_its_keys_in_a_moment(found: Namespaces) -> None:
    one, other = await make(found, "acme"), await make(found, "acme.eu")
    await push(one.engine, "mail")
    await push(other.engine, "mail")
    store, prefix = one.engine.store, one.engine.keys.namespace

    await access_of(found).change_namespace("acme", NamespaceRecord.ended)

    with pytest.raises(NoNamespace):
        _ = one.engine
    await until(lambda: "acme" not in access_of(found).namespaces)
    assert await store.call("", "KEYS", f"{prefix}:*") == []
    assert await push(other.engine, "mail") == 2
    again = await make(found, "acme")
    assert again is not one
    assert await push(again.engine, "mail") == 1


async def test_a_server_that_was_stopped_while_it_deleted_is_followed_by_another(
    found: Namespaces, engine: Engine
) -> None:
    one = await make(found, "acme")
    await push(one.engine, "mail")
    record = NamespaceRecord.ended(access_of(found).namespaces["acme"])
    other = Engine(Address(unix=engine.store.address.unix), engine.keys.namespace)
    await other.start()
    await other.access.start()
    await other.access.change_namespace("acme", lambda _: record)  # and that was its last word
    await other.stop()

    await until(lambda: "acme" not in access_of(found).namespaces)


async def test_a_store_that_was_emptied_is_told_the_quotas_again(found: Namespaces, engine: Engine) -> None:
    one = await make(found, "acme", jobs=1)
    await push(one.engine, "mail")
    await engine.store.call("", "DEL", one.engine.keys.usage()[1])
    assert await push(one.engine, "mail") == 2  # nothing is bound

    for told in engine.connected:
        told()

    assert await one.engine.store.call("", "HGET", one.engine.keys.usage()[1], "jobs_most") == b"1"


async def test_what_nobody_uses_any_more_leaves_no_memory(found: Namespaces) -> None:
    async def facts() -> dict[str, Any]:
        return {}

    service = Service(found.make("any"), Guard(access_of(found), found), dict, facts)
    for number in range(20):
        one = await make(found, f"n{number}")
        who = ANYBODY.inside(one)
        assert service.of(who).engine is one.engine
        await push(one.engine, "mail")
        await one.engine.purge("mail")
        del one, who

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, Namespace | Inside) for thing in gc.get_objects())

    await until(lambda: not found.awake)
    await until(lambda: alive() == 0)
