"""The engine: the queues of one namespace. It names its parts, starts and stops them.

A verb is one method of a part, and one call of a function of the store. Those of the hot path (`push`,
`fetch`, `lease`, `settle`) tell their result to a function instead of returning a future, which would cost
another turn of the event loop for each request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from presque.engine import keys, library
from presque.engine.background import Background
from presque.engine.crons import Crons
from presque.engine.deliveries import Deliveries, Listener
from presque.engine.events import Events, Hearer
from presque.engine.jobs import Jobs
from presque.engine.pushing import Pushed, Pushing, pack
from presque.engine.queues import Queues
from presque.engine.settling import Settling
from presque.engine.sweeper import sweep
from presque.engine.taking import Taking
from presque.engine.workers import Workers
from presque.errors import SetupError
from presque.job import Fetched
from presque.names import QueueList, has_glob
from presque.store.address import Address
from presque.store.channels import Channels
from presque.store.disk import Disk
from presque.store.greeting import StoreInfo
from presque.store.store import Store

__all__ = ["Engine", "Pushed", "pack"]


class Engine:
    """The queues of one namespace in one store."""

    def __init__(self, address: Address, namespace: str = "presque", disk: Disk | None = None) -> None:
        self.disk = Disk(None, 0) if disk is None else disk
        self.keys = keys.Keys(namespace)
        self.store = Store(address, library.functions(), on_connected=self._connected)
        self.channels = Channels(address)
        self._background = Background()
        self._stopping = False

        self.queues = Queues(self.store, self.channels, self.keys, self._background)
        self.pushing = Pushing(self.store, self.keys, self.queues, self.disk)
        self.settling = Settling(self.store, self.keys)
        self.taking = Taking(
            self.store, self.channels, self.keys, self.queues, self.settling, self._background
        )
        self.jobs = Jobs(self.store, self.channels, self.keys, self.disk)
        self.workers = Workers(self.store, self.keys)
        self.crons = Crons(self.store, self.keys, self.pushing.push, self.disk)
        self.deliveries = Deliveries(self.store, self.channels, self.keys)
        self.events = Events(self.store, self.channels, self.keys)
        self.queues.told += (self.taking.new_queue, self.events.new_queue)
        self.queues.told_forgotten += (self.taking.forget, self.events.forget)

        # The verbs that callers know by the engine alone.
        self.push, self.push_many = self.pushing.push, self.pushing.push_many
        self.fetch, self.fetch_many = self.taking.fetch, self.taking.fetch_many
        self.lease, self.leave, self.give_back = self.taking.lease, self.taking.leave, self.taking.give_back
        self.settle, self.settle_many = self.settling.settle, self.settling.settle_many
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
        self._background.spawn(sweep(self.store, self.keys, self.queues.known, self.queues.forget))
        self._background.spawn(self.crons.run())
        self._background.spawn(self.disk.watch())

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
        """Answer everybody who waits with "nothing", and let nobody wait from now on."""
        self._stopping = True
        self.taking.stop()
        self.jobs.stop_waiting()

    async def stop(self) -> None:
        """End what runs in the background, then the connection."""
        self.stop_waiting()
        await self._background.end()
        await self.channels.close()
        await self.store.close()

    @property
    def stopping(self) -> bool:
        """Whether nobody may wait any more."""
        return self._stopping

    @property
    def info(self) -> StoreInfo | None:
        """What the store said of itself when it was last reached."""
        return self.store.info

    def _connected(self) -> None:
        """The store can be called (again). It may be another one, or have lost its data."""
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

        def is_wanted(queue: str) -> bool:
            return any(one.matches(queue) for one in wanted)

        named = {item for one in wanted for item in one.items if not has_glob(item)}
        await self.channels.caught_up()  # a queue that was new before this is not new
        await self.events.watch(hearer, is_wanted, self.queues.known, named)
