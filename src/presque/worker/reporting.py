"""Says every few seconds what the worker of this process is doing, and hears what is asked of it.

However many runners a process has, people see it as one worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence

from presque.client.async_client import AsyncClient
from presque.client.calls import workers
from presque.client.errors import ClientError
from presque.worker.memory import resident
from presque.worker.report import report
from presque.worker.runner import Runner
from presque.worker.settings import Settings

REPORT_S = 5.0
LEAVE_S = 2.0


class Reporting:
    """`told` gets what the server says somebody has asked of this worker: `start`, `quiet` or `stop`."""

    def __init__(
        self,
        settings: Settings,
        client: AsyncClient,
        runners: Sequence[Runner],
        told: Callable[[str], None],
    ) -> None:
        self._settings, self._client, self._runners, self._told = settings, client, runners, told
        self._is_new = True

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            with contextlib.suppress(ClientError):  # the lease loop tells of a server that is away
                await self._forget_a_namesake()
                self._told(await self._client.perform(workers.report(self._settings.worker_id, self._said())))
            await asyncio.sleep(REPORT_S * random.uniform(0.9, 1.1))  # noqa: S311  # nosec B311

    async def leave(self) -> None:
        """The worker has ended."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._client.perform(workers.leave(self._settings.worker_id))
        except (ClientError, TimeoutError):
            pass  # it is forgotten in an hour

    async def _forget_a_namesake(self) -> None:
        """What somebody asked of an earlier worker of this name is not for this one."""
        if self._is_new:
            try:
                await self._client.tell_worker(self._settings.worker_id, "start")
            except ClientError as error:
                if error.status != 404:
                    raise
            self._is_new = False

    def _said(self) -> dict[str, object]:
        desks = [one.desk for one in self._runners]
        executors = [one.executor for one in self._runners]
        return report(
            lists=[one.settings.queues for one in desks],
            state=self._state(),
            mode="+".join(dict.fromkeys(one.mode for one in executors)),
            slots=sum(one.slots for one in executors),
            queues=dict.fromkeys(name for one in desks for name in one.seen),
            running=[held for one in desks for held in one.running()],
            held=sum(len(one.held) for one in desks),
            processed=sum(one.processed for one in desks),
            failed=sum(one.failed for one in desks),
            memory=resident(),
            now=time.monotonic(),
        )

    def _state(self) -> str:
        desks = [one.desk for one in self._runners]
        if all(one.stopping for one in desks):
            return "stopping"
        if all(one.quiet for one in desks):
            return "quiet"
        return "working" if any(one.running() for one in desks) else "waiting"
