"""What is left in the queues of a worker that is to end when they are empty."""

from __future__ import annotations

from dataclasses import dataclass

from presque import names
from presque.client.answers import QueueCounts
from presque.client.async_client import AsyncClient

ONE_BY_ONE_MOST = 16


@dataclass(slots=True)
class Left:
    """Numbers of jobs: ready in queues that hand out jobs, ready in stopped ones, scheduled, held."""

    ready: int = 0
    stopped: int = 0
    scheduled: int = 0
    leased: int = 0

    def add(self, counts: QueueCounts) -> None:
        """The counts of one more queue."""
        if counts["status"]:
            self.ready += counts["ready"]
        else:
            self.stopped += counts["ready"]
        self.scheduled += counts["scheduled"]
        self.leased += counts["leased"]


async def left_in(client: AsyncClient, queues: str) -> Left:
    """Count what is left in all queues of a list. Raises a `ClientError`."""
    wanted = names.queue_list(queues)
    left = Left()
    known = wanted.expand(())
    if not wanted.globs and len(known) <= ONE_BY_ONE_MOST:
        for name in known:
            left.add(await client.stats(name))
        return left
    page = await client.all_stats(queues, busy=True)
    while True:
        for counts in page["by_queue"].values():
            left.add(counts)
        if "cursor" not in page:
            return left
        page = await client.all_stats(queues, busy=True, cursor=page["cursor"])
