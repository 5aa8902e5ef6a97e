"""Several tenants at the live doors, with queues of the same names: what one pushes reaches nobody else.

Every tenant listens at every door at once, and an operator with them who looks into one of the namespaces. A
body says who has pushed it. The ids of jobs do so too, since events have no bodies: each tenant's begin at
another hundred.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import chatting, rig
from tests.asking import soon
from tests.chatting import OURS, Friend, Prosody, at, friend
from tests.doors.sockets import speaking
from tests.doors.test_namespaces import namespace
from tests.doors.tokens import Guarded, guarded

PUSHED = 6


@dataclass
class Tenant:
    """Whose jobs bear this name, and what says in a request that one is of them."""

    name: str
    headers: dict[str, str]
    first: int
    """The id of its first job."""

    def may_hear(self, id: int) -> bool:
        return self.first <= id < self.first + 100


@dataclass
class World:
    guarded: Guarded
    prosody: Prosody
    tenants: list[Tenant]
    operator: Tenant

    def ask(self, tenant: Tenant, method: str, path: str, body: Any = None) -> rig.Answer:
        headers = {name.replace("-", "_"): value for name, value in tenant.headers.items()}
        sent = None if body is None else json.dumps(body)
        answer = self.guarded.server.ask(method, path, sent, 30, **headers)
        assert answer.status < 300, answer
        return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        chatting.prosody() as prosody,
        guarded(tmp_path_factory.mktemp("live"), **chatting.settings(prosody)) as found,
    ):
        rig.eventually(lambda: any("xmpp.connected" in line for line in found.server.everything))
        own = {"Authorization": f"Bearer {found.admin}"}
        tenants = [Tenant("own", own, 1)]
        for number, name in enumerate(("acme", "other"), 1):
            token = namespace(found, name)
            tenants.append(Tenant(name, {"Authorization": f"Bearer {token}"}, 100 * number + 1))
        yield World(found, prosody, tenants, Tenant("acme", {**own, "Presque-Namespace": "acme"}, 101))


@dataclass
class Ear:
    """Somebody who listens at a door, and what came."""

    tenant: Tenant
    door: str
    said: str = ""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def events(self) -> Iterator[Any]:
        """What a stream of events said, as far as it is whole."""
        for line in self.said.rpartition("\n")[0].splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


@contextlib.asynccontextmanager
async def listening(ear: Ear, lines: AsyncIterator[str]) -> AsyncIterator[Ear]:
    async def listen() -> None:
        async for one in lines:
            ear.said += one

    task = asyncio.create_task(listen())
    try:
        yield ear
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def at_http(world: World, tenant: Tenant, method: str, path: str, body: str = "") -> AsyncIterator[Ear]:
    """A request that is answered bit by bit, or late."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.guarded.server.port)
    head = {"Host": "localhost", "Content-Length": str(len(body)), **tenant.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body}".encode())

    async def parts() -> AsyncIterator[str]:
        while part := await reader.read(65536):
            yield part.decode()

    try:
        async with listening(Ear(tenant, f"{method} {path}"), parts()) as ear:
            if "wait" not in path + body:
                await soon(lambda: "200 OK" in ear.said)
            yield ear
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def at_a_socket(world: World, tenant: Tenant, queues: str) -> AsyncIterator[Ear]:
    async with speaking(world.guarded.server, additional_headers=tenant.headers) as on:
        await on.send(json.dumps({"cmd": "lease", "queue": queues, "count": 3, "ref": "granted"}))

        async def messages() -> AsyncIterator[str]:
            async for message in on:
                yield str(message) + "\n"
                said = json.loads(message)
                if "lease" in said:
                    await on.send(
                        json.dumps({"cmd": "ack", **{name: said[name] for name in ("queue", "id", "lease")}})
                    )

        async with listening(Ear(tenant, f"/ws {queues}"), messages()) as ear:
            await soon(lambda: "granted" in ear.said)
            yield ear


@contextlib.asynccontextmanager
async def in_a_chat(world: World, queue: str) -> AsyncIterator[Ear]:
    """An account: of the server's own namespace, as all are."""
    async with friend(world.prosody) as ana:
        ana.xml(f"<presence to='{at(queue)}'><consume xmlns='{OURS}' count='3'/></presence>")
        await ana.seen()
        async with listening(Ear(world.tenants[0], "XMPP"), heard_by(ana)) as ear:
            yield ear


async def heard_by(ana: Friend) -> AsyncIterator[str]:
    while True:
        yield "".join((await ana.messages.get()).itertext()) + "\n"


async def everywhere(world: World, stack: contextlib.AsyncExitStack, queue: str, delivery: str) -> list[Ear]:
    """A listener at each door for each tenant."""
    ears = [await stack.enter_async_context(in_a_chat(world, queue))]
    paths = ("/events", "/events?jobs=1", f"/events?jobs=1&queues={queue}", f"/c/{queue}", "/c/*")
    for tenant in (*world.tenants, world.operator):
        doors = [at_http(world, tenant, "GET", path) for path in paths]
        doors += [at_a_socket(world, tenant, queues) for queues in (queue, "*")]
        if delivery == "queue":
            doors.append(at_http(world, tenant, "GET", f"/q/{queue}?wait=60"))
            doors.append(at_http(world, tenant, "POST", f"/q/{queue}/lease", '{"wait":60}'))
        ears += [await stack.enter_async_context(door) for door in doors]
    return ears


def begin(world: World, tenant: Tenant, queue: str, delivery: str) -> None:
    """Let the next id of the tenant's queue be its first one."""
    if tenant.first > 1:
        world.ask(tenant, "POST", f"/qb/{queue}", {"jobs": [0] * (tenant.first - 1)})
        world.ask(tenant, "DELETE", f"/q/{queue}")
    if delivery != "queue":
        world.ask(tenant, "PATCH", f"/p/{queue}", {"delivery": delivery})


def push(world: World, tenant: Tenant, queue: str, round_: int) -> list[str]:
    """Push some jobs, and one on a queue of which the name says whose it is. Returns their bodies."""
    bodies = [f"mark-{tenant.name}-{round_}-{number}" for number in range(PUSHED)]
    for body in bodies:
        id = int(world.ask(tenant, "POST", f"/q/{queue}", body).json["id"])
        assert tenant.may_hear(id)
    world.ask(tenant, "POST", f"/q/only-{tenant.name}-{queue}", f"mark-{tenant.name}-{round_}-alone")
    return [*bodies, f"mark-{tenant.name}-{round_}-alone"]


def strange_to(ear: Ear, queue: str) -> list[str]:
    """What came of somebody else."""
    named = re.findall(rf"mark-\w+-\d|only-\w+-{queue}", ear.said)
    strange = [one for one in named if one.split("-")[1] != ear.tenant.name]
    if ear.door.startswith("GET /events"):
        told = [one for one in ear.events() if one.get("queue") == queue and "id" in one]
        strange += [str(one) for one in told if not ear.tenant.may_hear(int(one["id"]))]
    return strange


def told_of_a_push(ear: Ear, queue: str) -> bool:
    """Whether a stream of the events of jobs has told of the tenant's last push."""
    last = {f"only-{ear.tenant.name}-{queue}", queue} if "queues=" not in ear.door else {queue}
    return {one["queue"] for one in ear.events() if one.get("what") == "pushed"} >= last


@pytest.mark.parametrize("delivery", ["queue", "broadcast", "roundrobin"])
async def test_nothing_of_one_tenant_arrives_at_another(world: World, queue_name: str, delivery: str) -> None:
    for tenant in world.tenants:
        begin(world, tenant, queue_name, delivery)
    async with contextlib.AsyncExitStack() as stack:
        ears = await everywhere(world, stack, queue_name, delivery)
        world.guarded.catch_up()
        for round_ in range(2):
            for tenant in world.tenants:
                bodies = push(world, tenant, queue_name, round_)
                mine = [ear for ear in ears if ear.tenant.name == tenant.name]

                def arrived(bodies: list[str] = bodies, mine: list[Ear] = mine) -> bool:
                    said = "".join(ear.said for ear in mine)
                    return all(body in said for body in bodies)

                await soon(arrived)
        for ear in ears:
            if "jobs=1" in ear.door:
                await soon(lambda ear=ear: told_of_a_push(ear, queue_name))  # type: ignore[misc]
        assert {ear.door: found for ear in ears if (found := strange_to(ear, queue_name))} == {}
        takes = [ear for ear in ears if not ear.door.startswith("GET /events")]
        assert sum("mark-" in ear.said for ear in takes) >= len(world.tenants)


async def test_an_account_is_alerted_of_nothing_in_another_namespace(world: World, queue_name: str) -> None:
    own, *others = world.tenants
    async with friend(world.prosody) as ana:
        await ana.appear()
        for queue in queue_name, f"{queue_name}-last":
            assert "stopped" in await ana.chat(at(queue), "alert stopped")
        for tenant in others:
            world.ask(tenant, "POST", f"/q/{queue_name}", 1)
            world.ask(tenant, "POST", f"/control/{queue_name}", {"status": "stop"})
        world.ask(own, "POST", f"/control/{queue_name}-last", {"status": "stop"})
        told = await ana.words()
        assert f"{queue_name}-last is stopped" in told
        assert f"{queue_name} is stopped" not in told
