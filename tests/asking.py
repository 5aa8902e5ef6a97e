"""Asks an engine the way a door does, with futures where the engine wants functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from presque import names
from presque.commands.call import Service
from presque.commands.who import Guard
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.engine.namespaces import Namespaces
from presque.errors import PresqueError
from presque.job import PLAIN, Fetched, PushOptions
from tests import rig

Found = Fetched | PresqueError | None


def serving(engine: Engine) -> Service:
    """What verbs are carried out on, without a server."""

    async def facts() -> dict[str, object]:
        return {}

    return Service(engine, Guard(engine.access, Namespaces(engine)), lambda: {"found_at_start": {}}, facts)


def pushing(
    engine: Engine, queue: str, body: bytes | str = b"1", **options: Any
) -> asyncio.Future[int | PresqueError]:
    """Push without waiting for the result, which may be an error."""
    result: asyncio.Future[int | PresqueError] = asyncio.get_running_loop().create_future()
    data = body.encode() if isinstance(body, str) else body
    engine.push(queue, data, PushOptions(**options) if options else PLAIN, result.set_result)
    return result


async def push(engine: Engine, queue: str, body: bytes | str = b"1", **options: Any) -> int:
    """Push one job and return its id, or raise why not."""
    result = await pushing(engine, queue, body, **options)
    if isinstance(result, PresqueError):
        raise result
    return result


class Fetching:
    """A fetch under way: who asked, and what came. With `here=False` nobody is there to take it."""

    def __init__(self, engine: Engine, queues: str, wait: float = 0, *, here: bool = True) -> None:
        self.engine = engine
        self.here = here
        self.offered = 0
        self.found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.waiter: Waiter | None = engine.fetch(names.queue_list(queues), wait, self._take)

    def _take(self, found: Found) -> bool:
        self.offered += 1
        if self.here:
            self.found.set_result(found)
        return self.here

    def leave(self) -> None:
        assert self.waiter is not None
        self.engine.leave(self.waiter)

    async def result(self) -> Found:
        """What it brought in the end."""
        return await asyncio.wait_for(asyncio.shield(self.found), rig.PATIENCE)

    async def body(self) -> bytes | None:
        """The body of the job that it brought, None for no job. Raises the error that it brought."""
        found = await self.result()
        if isinstance(found, PresqueError):
            raise found
        return None if found is None else found.body


async def fetch(engine: Engine, queues: str, wait: float = 0) -> bytes | None:
    """Fetch one job and return its body, None for no job, or raise why not."""
    return await Fetching(engine, queues, wait).body()


async def in_line(engine: Engine, fetches: Iterable[Fetching]) -> None:
    """Return when each of these has looked and found nothing, so that it now waits."""

    def waits() -> bool:
        everybody = set(engine.taking.waiting())
        return all(one.waiter in everybody for one in fetches) and at_rest(engine)

    await soon(waits)


def at_rest(engine: Engine) -> bool:
    """Whether no look for a job is under way and none is on its way back to the store."""
    return engine.taking.at_rest


async def soon(condition: Callable[[], Any], within: float = rig.PATIENCE) -> Any:
    """`rig.eventually` for tests whose own event loop has to go on."""
    deadline = asyncio.get_running_loop().time() + within
    while not (answer := condition()):
        assert asyncio.get_running_loop().time() < deadline, f"did not happen within {within} s"
        await asyncio.sleep(0.005)
    return answer
