"""WebSockets of the websockets library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests import rig


@contextlib.asynccontextmanager
async def speaking(server: rig.Server, path: str = "/ws", **options: Any) -> AsyncIterator[ClientConnection]:
    """A connected socket."""
    async with connect(f"ws://127.0.0.1:{server.port}{path}", compression=None, **options) as found:
        yield found


async def heard(on: ClientConnection) -> Any:
    """The next message."""
    return json.loads(await asyncio.wait_for(on.recv(), rig.PATIENCE))


async def silent(on: ClientConnection, seconds: float = 0.2) -> bool:
    """Whether nothing comes for so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(on.recv(), seconds)
        return False
    return True
