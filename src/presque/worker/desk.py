"""What the parts of a runner share: what is held, how the worker stands, and how the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from presque.client.async_client import AsyncClient
from presque.client.errors import ClientError, ServerNotReached
from presque.worker.held import Held
from presque.worker.job import Job
from presque.worker.logger import log
from presque.worker.settings import Settings

_PASSING = (408, 429, 500, 502, 503, 504, 507)


class Desk:
    """Read and changed in the thread of the lease loop alone, except `wish`."""

    def __init__(self, settings: Settings, client: AsyncClient, mates: list[Desk] | None = None) -> None:
        self.settings, self.client = settings, client
        self.mates: list[Desk] = [] if mates is None else mates
        """The desks of all runners in this process, this one among them."""
        self.mates.append(self)
        self.held: dict[tuple[str, str, str], Held] = {}
        self.processed = self.failed = 0
        self.stopping = False
        self.quiet: set[str] = set()
        """What has asked for it: a signal, the server."""
        self.changed = asyncio.Event()
        """Set whenever something has changed that the lease loop may wait for."""
        self.hasten: Callable[[Held], object] = bool
        """Tells the server at once what a job has saved: from any thread."""
        self.emptied_at = self.found_empty_at = -1.0
        """When the last job that was held had ended, and when the request was sent that found no other."""
        self.seen: dict[str, None] = {}
        """The queues that it has to do with."""
        self._reached = False
        self._trouble = ""

    @property
    def takes_jobs(self) -> bool:
        """Whether jobs may begin."""
        return not self.stopping and not self.quiet

    def running(self) -> list[Held]:
        """The jobs that are being done."""
        return [held for held in self.held.values() if held.started_at is not None and not held.ended_at]

    @property
    def all_empty(self) -> bool:
        """Whether no runner of this process has jobs, nor could one have got some from the others since."""
        last = max(one.emptied_at for one in self.mates)
        return all(not one.held and one.found_empty_at > last for one in self.mates)

    def wish(self, job: Job, wish: Any) -> None:
        """A job wants more time, or tells something: from its own thread."""
        held = self.held.get(job.key)
        if held is not None:
            held.wish(wish)
            if "saved" in wish:
                self.hasten(held)

    async def wait(self, within: float | None) -> None:
        """Wait until something has changed, `within` seconds at most."""
        try:
            async with asyncio.timeout(within):
                await self.changed.wait()
        except TimeoutError:
            pass
        self.changed.clear()

    # --- the server

    def check(self, error: ClientError) -> None:
        """Raise the error when the server has refused from the start: that does not pass by itself."""
        passing = isinstance(error, ServerNotReached) or error.status in _PASSING
        if not passing and not self._reached:
            raise error

    def waits(self, error: ClientError) -> None:
        """The server is away, or refuses. Each reason is logged once."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("worker.waits_for_server reason=%s", error)

    def answered(self) -> None:
        """The server has answered as it should."""
        self._reached = True
        if self._trouble:
            self._trouble = ""
            log.info("worker.server_is_back url=%s", self.settings.base_uri)
