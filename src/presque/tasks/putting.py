"""Puts the recurring jobs that the code declares on the server, and tells of those that it no longer does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from presque.client.async_client import AsyncClient
from presque.client.errors import ClientError, ServerNotReached, Unavailable
from presque.tasks.recurring import Recurring

if TYPE_CHECKING:
    from presque.client.answers import Cron

log = logging.getLogger("presque.tasks")

AGAIN_S = 5.0


class Declared:
    """What the code of one worker declares. `modules` are its own, with all that is below them."""

    def __init__(self, recurring: Iterable[Recurring], modules: Iterable[str]) -> None:
        self.recurring: Sequence[Recurring] = list(recurring)
        self.modules = frozenset(modules)

    async def put(self, client: AsyncClient) -> None:
        """Define each on the server, then tell of orphans. Waits for a server that is away."""
        for one in self.recurring:
            await self._put(client, one)
        try:
            found = await client.crons()
        except ClientError:
            return  # it may not look, or the server has just gone: this is only for people
        for orphan in self.orphans(found):
            log.warning("cron.orphaned name=%s queue=%s", orphan["name"], orphan["queue"])

    def orphans(self, found: Iterable[Cron]) -> list[Cron]:
        """The recurring jobs that this code has declared once, and does so no more."""
        names = {one.name for one in self.recurring}
        return [one for one in found if one["name"] not in names and self._is_ours(one.get("body"))]

    def _is_ours(self, body: object) -> bool:
        module = body.get("cron") if isinstance(body, dict) else None
        return isinstance(module, str) and any(
            module == own or module.startswith(f"{own}.") for own in self.modules
        )

    async def _put(self, client: AsyncClient, one: Recurring) -> None:
        while True:
            try:
                await client.put_cron(one.name, one.task.queue, one.body, one.schedule, **one.options)
            except (ServerNotReached, Unavailable):
                await asyncio.sleep(AGAIN_S)
                continue
            except (ClientError, ValueError, TypeError) as error:
                log.error("cron.not_put name=%s reason=%s", one.name, error)
            return
