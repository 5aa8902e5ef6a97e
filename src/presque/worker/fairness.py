"""The order of queues for a worker that is to be fair: each time it begins with the next one that holds
jobs."""

from __future__ import annotations

import contextlib
import time

from presque import names
from presque.client.async_client import AsyncClient
from presque.client.calls import queues
from presque.client.errors import ClientError

LOOK_S = 5.0


class Fair:
    """Turns a queue list by one place each time. Which busy queues its patterns stand for is looked up every
    5 s: a page of them, since a request names but a few."""

    def __init__(self, client: AsyncClient, queues: str) -> None:
        self._client = client
        self._text = queues
        self._wanted = names.queue_list(queues)
        self._names = list(self._wanted.expand(()))
        self._looked_at = float("-inf")
        self._turn = 0

    async def order(self) -> str:
        """A queue list for the next request: all known names in turn, then the list as it was given."""
        if self._wanted.globs and time.monotonic() - self._looked_at > LOOK_S:
            self._looked_at = time.monotonic()
            with contextlib.suppress(ClientError):  # the lease itself will say so
                busy, _ = await self._client.perform(queues.queues(self._text, busy=True))
                self._names = self._wanted.expand(busy)
        if not self._names:
            return self._text
        self._turn = (self._turn + 1) % len(self._names)
        turned = self._names[self._turn :] + self._names[: self._turn]
        rest = self._text.split(",") if self._wanted.globs else []
        return ",".join([*turned[: names.LIST_MOST - len(rest)], *rest])
