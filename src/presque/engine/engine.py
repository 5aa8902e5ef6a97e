"""The engine: the queues of one namespace. It names its parts, starts and stops them.

A verb is one method of a part, and one call of a function of the store. Those of the hot path (`push`,
`fetch`, `lease`, `settle`) tell their result to a function instead of returning a future, which would cost
another turn of the event loop for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from presque.engine import keys, library
from presque.engine.access import Access
from presque.engine.alerts import Wanted
from presque.engine.background import Background
from presque.engine.bulk import Bulk
from presque.engine.bulk_steps import Steps
from presque.engine.clock import Clock
from presque.engine.crons import Crons
from presque.engine.deliveries import Deliveries, Listener
from presque.engine.events import Events, Hearer
from presque.engine.finding import Finding
from presque.engine.firing import Firing
from presque.engine.history import Histories
from presque.engine.importing import Importing
from presque.engine.jobs import Jobs
from presque.engine.notes import Notes
from presque.engine.pushing import Pushed, Pushing, pack
from presque.engine.queues import Queues
from presque.engine.settling import Settling
from presque.engine.sweeper import Sweeper
from presque.engine.taking import Taking
from presque.engine.workers import Workers
from presque.errors import PresqueError, SetupError
from presque.job import Fetched
from presque.names import QueueList, has_glob
from presque.store.address import Address
from presque.store.channels import Channels
from presque.store.disk import Disk
from presque.store.greeting import StoreInfo
from presque.store.store import Store

__all__ = ["Engine", "Pushed", "pack"]

WANTED_MOST = 4096  # queues of which is remembered whether somebody watches them


class Engine:
    """The queues of one namespace in one store. One `beside` another shares its connections, its disk and its
    tokens; who makes it sees to what the other does in the background (namespaces.py)."""

    def __init__(
        self,
        address: Address,
        namespace: str = "presque",
        disk: Disk | None = None,
        *,
        test_clock: bool = False,
        beside: Engine | None = None,
    ) -> None:
        self.connected: list[Callable[[], None]] = [self._connected]
        """Called when the store can be called (again)."""
        if beside is None:
            self.disk = Disk(None, 0) if disk is None else disk
            self.keys = keys.Keys(namespace)
            self.store = Store(
                address, library.functions(test_clock=test_clock), on_connected=self._tell_connected
            )
            self.channels = Channels(address)
            self.background = Background()
        else:
            self.disk, self.store, self.channels = beside.disk, beside.store, beside.channels
            self.keys = beside.keys.inside(namespace)
            self.background = beside.background
        self._beside = beside
        self._stopping = False

        self.queues = Queues(self.store, self.channels, self.keys, self.disk)
        self.histories = Histories(self.store, self.keys, self.queues)
        self.pushing = Pushing(self.store, self.keys, self.queues, self.disk)
        self.settling = Settling(self.store, self.keys)
        self.taking = Taking(
            self.store, self.channels, self.keys, self.queues, self.settling, self.background
        )
        self.jobs = Jobs(self.store, self.channels, self.keys, self.disk, self.taking.waits)
        self.workers = Workers(self.store, self.keys)
        self.access: Access = (
            Access(self.store, self.channels, self.keys, self.background) if beside is None else beside.access
        )
        self.notes = Notes(self.store, self.keys)
        self.sweeper = Sweeper(self.store, self.keys, self.queues)
        self.firing = Firing(self.store, self.keys, self.pushing.push)
        self.crons = Crons(self.store, self.keys, self.firing, self.disk)
        self.finding = Finding(self.store, self.keys, self.queues.index)
        self.importing = Importing(self.store, self.keys, self.queues.register, self.disk)
        steps = Steps(
            self.store, self.keys, self.finding, self.access, self.notes, self.queues.register, self.disk
        )
        self.bulk = Bulk(steps, self.background)
        self.wanted = Wanted(self.store, self.keys)
        self.deliveries = Deliveries(self.store, self.channels, self.keys)
        self.events = Events(self.store, self.channels, self.keys, self.queues.index, self.background)
        self.clock: Clock = (
            Clock(self.store, self.access, self, movable=test_clock) if beside is None else beside.clock
        )
        self.queues.on_new += (self.events.new_queue,)
        self.queues.on_forgotten += (self.taking.forget, self.events.forget)

        # The verbs that callers know by the engine alone.
        self.push, self.push_many = self.pushing.push, self.pushing.push_many
        self.prepare_push, self.push_prepared = self.pushing.prepare, self.pushing.push_prepared
        self.fetch, self.fetch_many = self.taking.fetch, self.taking.fetch_many
        self.lease, self.leave, self.give_back = self.taking.lease, self.taking.leave, self.taking.give_back
        self.settle, self.settle_many = self.settling.settle, self.settling.settle_many
        self.settle_all = self.settling.settle_all
        self.count = self.queues.count
        self.stats, self.peek, self.purge = self.queues.stats, self.queues.peek, self.queues.purge
        self.start_queue, self.stop_queue = self.queues.start, self.queues.stop
        self.started, self.stopped = self.queues.started, self.queues.stopped
        self.register_worker, self.unregister_worker = self.workers.register, self.workers.unregister
        self.worker_records = self.workers.records
        self.report_worker, self.leave_worker = self.workers.report, self.workers.leave
        self.tell_worker, self.count_worker = self.workers.tell, self.workers.count

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reach the store and begin to sweep. Raises `SetupError` if the store will not do."""
        try:
            await self.store.connect()
            await self._check_layout()
            await self.channels.connect()
            await self.queues.hear()
        except BaseException:
            await self.stop()
            raise
        self.background.spawn(self.sweeper.run())
        self.background.spawn(self.histories.run())
        self.background.spawn(self.firing.run())
        self.background.spawn(self.bulk.run())
        self.background.spawn(self.disk.watch())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` run until the engine ends."""
        self.background.spawn(work)

    async def _check_layout(self) -> None:
        """Raise `SetupError` for data that another presque wrote in a layout that is not known here."""
        found = await self.queues.layout()
        if found != str(library.LAYOUT):
            raise SetupError(
                f"the data at {self.store.address}, namespace {self.keys.namespace}, has layout {found}, and "
                f"this presque reads layout {library.LAYOUT}: let the presque that wrote it empty its "
                "queues, or use another namespace or data directory"
            )

    def stop_waiting(self) -> None:
        """Answer all waiters with "nothing", and let nobody wait from now on."""
        self._stopping = True
        self.taking.stop()
        self.jobs.stop_waiting()

    async def put_back(self, within: float) -> None:
        """Return when the store has what was given back, or has not answered in time."""
        with contextlib.suppress(PresqueError, TimeoutError):
            async with asyncio.timeout(within):
                while not self.taking.at_rest:
                    await asyncio.sleep(0.005)
                await self.store.call("", "PING")  # replies come in order: what was asked before is answered

    async def stop(self) -> None:
        """End what runs in the background, then the connection."""
        self.stop_waiting()
        await self.background.end()
        await self.channels.close()
        await self.store.close()

    @property
    def stopping(self) -> bool:
        """Whether nobody may wait any more."""
        return self._stopping or (self._beside is not None and self._beside.stopping)

    @property
    def info(self) -> StoreInfo | None:
        """What the store said of itself when it was last reached."""
        return self.store.info

    def _tell_connected(self) -> None:
        for told in list(self.connected):
            told()

    def again(self) -> None:
        """The store can be called again, by the connection that this engine shares."""
        self._connected()

    def _connected(self) -> None:
        """The store can be called (again). It may be another one, or have lost its data."""
        self.clock.connected()
        self.taking.connected()
        self.deliveries.connected()
        self.events.connected()
        self.queues.look()

    # --- what several parts do together ---------------------------------------------------------

    async def listener(self, queue: str, take: Callable[[Fetched], None]) -> Listener | None:
        """Let `take` have the jobs of a queue whose policy `delivery` is for those connected, until
        `deliveries.leave`. None if its jobs are to be fetched or leased, as is usual."""
        delivery = (await self.jobs.policy(queue)).get("delivery", "queue")
        if delivery == "queue":
            return None
        return await self.deliveries.listen(queue, take, turns=delivery == "roundrobin")

    async def watch(self, hearer: Hearer, wanted: Sequence[QueueList]) -> None:
        """Tell `hearer` what happens to jobs of the `wanted` queues, in place of those wanted before: until
        `events.rest`. It is heard once this has returned. Raises `PresqueError`."""

        is_wanted: Callable[[str], bool] = functools.lru_cache(WANTED_MOST)(
            lambda queue: any(one.matches(queue) for one in wanted)
        )
        items = {item for one in wanted for item in one.items}
        named = {item for item in items if not has_glob(item)}
        await self.channels.caught_up()  # a queue that was new before this is not new
        await self.events.watch(hearer, is_wanted, named, patterns=len(named) < len(items))
