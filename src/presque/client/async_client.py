"""AsyncClient: one coroutine per verb, on asyncio.

    client = AsyncClient()
    await client.push("mail", {"to": "ana"}, delay=60)
    for job in await client.lease("critical,*", count=10, wait=20):
        await work(job.value)
        await client.ack(job)

Every method raises a `ClientError`: `ServerNotReached` when no answer came that can be read, otherwise what
the server said. Nothing is sent twice behind your back, except what only reads, once, when the server closed
a connection that was kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, TypeVar, Unpack

from presque.client import calls
from presque.client.answers import (
    Cron,
    JobPage,
    JobRecord,
    Leased,
    LeasedJob,
    Policy,
    QueueInfo,
    QueueStats,
    QueueWorkers,
    Reason,
    Settled,
    State,
    Stats,
    WorkerInfo,
    WorkerRecord,
)
from presque.client.async_transport import AsyncTransport
from presque.client.calls import Call, Holder, Job
from presque.client.consume import Consumer, consume  # async only
from presque.client.exchange import ANSWER_MOST
from presque.client.json_values import checked, encoded
from presque.client.options import (
    BatchOptions,
    Changes,
    CronOptions,
    Duration,
    PolicyOptions,
    PushOptions,
    Settlements,
)
from presque.client.transport import CONNECTIONS_MOST

T = TypeVar("T")


class AsyncClient:
    """Talks to one server, from any event loop, and from several at once. Any number of tasks may share it.

    Without a `base_url` the environment says where the server is (`PRESQUE_URL`), else it is the one on this
    machine; without a `token`, `PRESQUE_TOKEN` is sent if it is set. `timeout` is how long a request may take
    in all; what the server is asked to wait comes on top. `worker` says who you are: it is sent with each
    fetch, lease and settlement, and shown to people who look. Durations are seconds, a `timedelta` or a text
    such as "1h30m" wherever one is given; moments are epoch seconds, an RFC 3339 text or a `datetime` that
    has a time zone.

    An answer may have `max_answer` bytes, 64 MiB unless given. `connections` requests are on their way at
    once, 100 unless given, in each event loop; further ones wait for their turn, within their `timeout`.
    Raises `ValueError` for what is no server, no token, or out of bounds.
    """

    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        timeout: Duration = 30,
        worker: str | None = None,
        *,
        max_answer: int | str = ANSWER_MOST,
        connections: int = CONNECTIONS_MOST,
    ) -> None:
        self.transport = AsyncTransport(
            base_url, token, timeout, max_answer=max_answer, connections=connections
        )
        self.worker = worker

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client stays usable."""
        self.transport.close()

    async def perform(self, call: Call[T]) -> T:
        """Carry out a call of `presque.client.calls`. The methods below do nothing else."""
        return await self.transport.perform(call)

    # --- pushing and fetching

    async def push(self, queue: str, job: Any, **options: Unpack[PushOptions]) -> str:
        """Put a JSON value on a queue and return its id. When this returns, the server has stored it."""
        return await self.push_text(queue, encoded(job), **options)

    async def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Put a JSON document on a queue, byte for byte as given, and return its id."""
        body = text.encode() if isinstance(text, str) else text
        return await self.perform(calls.push(queue, body, options))

    async def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Put all of `jobs` on a queue, or none, and return their ids in the same order."""
        return await self.perform(calls.push_many(queue, [encoded(job) for job in jobs], options))

    async def push_texts(
        self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]
    ) -> list[str]:
        """Put JSON documents on a queue, all or none. Raises `ValueError` if a text is not one document."""
        return await self.perform(calls.push_many(queue, [checked(text) for text in texts], options))

    async def fetch(self, queues: str, wait: Duration | None = None) -> Job | None:
        """Take a job for good, waiting up to `wait` seconds (60 at most); None when there is none.

        Raises `QueueClosed` when the one queue named is stopped. A job whose answer is lost on the way
        is lost: fetch is at most once.
        """
        return await self.perform(calls.fetch(queues, wait, self.worker))

    async def fetch_many(self, queue: str, count: int = 10) -> list[str]:
        """Take up to `count` jobs (1000 at most) of one queue for good: their texts, as they were pushed."""
        return await self.perform(calls.fetch_many(queue, count, self.worker))

    async def put_back(
        self, queue: str, job: Any, worker: str | None = None, **options: Unpack[PushOptions]
    ) -> str:
        """Put a job that failed back and count the failure, for `worker` too. Returns the new id."""
        return await self.perform(
            calls.put_back(queue, encoded(job).encode(), options, worker or self.worker)
        )

    # --- leases

    async def lease(
        self,
        queues: str,
        count: int = 1,
        *,
        seconds: Duration | None = None,
        wait: Duration | None = None,
        attempt_id: str | None = None,
    ) -> list[LeasedJob]:
        """Take up to `count` jobs for `seconds`, else for as long as the policy of their queue says.

        Waits up to `wait` seconds for the first. Each is yours until you settle it or its lease ends; then
        it goes to somebody else. The same `attempt_id` again, within a minute, gets the same jobs.
        """
        call = calls.lease(
            queues, count=count, seconds=seconds, wait=wait, attempt_id=attempt_id, worker=self.worker
        )
        return (await self.perform(call)).jobs

    # async only: begin

    def consume(self, queues: str, *, credit: int = 1, seconds: Duration | None = None) -> Consumer:
        """Jobs over one WebSocket as they come, `credit` of them at most: see `presque.client.consume`."""
        return consume(
            self.transport.base_url,
            queues,
            credit=credit,
            seconds=seconds,
            worker=self.worker,
            token=self.transport.token,
        )

    # async only: end

    async def settle_and_lease(
        self,
        settlements: Settlements,
        queues: str,
        count: int = 1,
        *,
        seconds: Duration | None = None,
        wait: Duration | None = None,
        attempt_id: str | None = None,
    ) -> Leased:
        """Settle leases, then take jobs, in one request: what a quick worker does again and again."""
        return await self.perform(
            calls.lease(
                queues, count=count, seconds=seconds, wait=wait, attempt_id=attempt_id,
                worker=self.worker, settlements=settlements,
            )
        )  # fmt: skip

    async def settle(self, settlements: Settlements) -> list[Settled]:
        """Settle up to 1000 leases: what became of each, acks first, then fails, releases, extensions."""
        return await self.perform(calls.settle(settlements, self.worker))

    async def ack(self, job: Holder, result: Any = None) -> Settled:
        """The job is done. Raises `Conflict` when the lease was lost and `Gone` when the job is finished.

        Repeated within a minute it answers the same, so it may be sent again after a lost answer.
        """
        return await self.perform(calls.settle_one("ack", job, {"result": result}, self.worker))

    async def fail(
        self,
        job: Holder,
        error: str = "",
        *,
        backtrace: str | None = None,
        retry: bool | None = None,
        retry_in: Duration | None = None,
    ) -> Settled:
        """The job did not work: it is tried again, after `retry_in` seconds if given; else it is dead."""
        fields = {"error": error, "backtrace": backtrace, "retry": retry, "retry_in": retry_in}
        return await self.perform(calls.settle_one("fail", job, fields, self.worker))

    async def release(self, job: Holder, delay: Duration | None = None) -> Settled:
        """Give the job back. That is no failure, and the attempt does not count."""
        return await self.perform(calls.settle_one("release", job, {"delay": delay}, self.worker))

    async def extend(self, job: Holder, seconds: Duration | None = None, progress: Any = None) -> Settled:
        """Hold the job for `seconds` from now, else as long as at first. `cancel` says: better stop."""
        fields = {"seconds": seconds, "progress": progress}
        return await self.perform(calls.settle_one("extend", job, fields, self.worker))

    # --- single jobs

    async def job(self, queue: str, id: str, wait: Duration | None = None) -> JobRecord:
        """All that is known of a job. With `wait`, as soon as it is done or dead. Raises `NotFound`."""
        return await self.perform(calls.job(queue, id, wait))

    async def jobs(
        self, queue: str, state: State, limit: int | None = None, cursor: str | None = None
    ) -> JobPage:
        """A page of the jobs in one state, newest first. A page may be short and still have a `cursor`."""
        return await self.perform(calls.jobs(queue, state, limit, cursor))

    async def change(self, queue: str, id: str, **changes: Unpack[Changes]) -> JobRecord:
        """Change `priority`, `delay`, `delayed` or `body` of a job that waits. Raises `Conflict`."""
        return await self.perform(calls.change(queue, id, changes))

    async def delete(self, queue: str, id: str) -> bool:
        """Take a job away. False: it is leased, its holder is told, and it goes when that lets go."""
        return await self.perform(calls.delete(queue, id))

    async def retry(self, queue: str, id: str) -> JobRecord:
        """Let a dead job be tried again, its attempts counted anew. Raises `Conflict` if it is not dead."""
        return await self.perform(calls.retry(queue, id))

    async def retry_all(self, queue: str, limit: int | None = None, rate: float | None = None) -> int:
        """Let all dead jobs be tried again, `limit` at most, `rate` a second at most: how many."""
        return await self.perform(calls.retry_all(queue, limit, rate))

    async def explain(self, queue: str, id: str) -> list[Reason]:
        """Why the job does not run."""
        return await self.perform(calls.explain(queue, id))

    # --- queues

    async def purge(self, queue: str, *, forget: bool | None = None) -> None:
        """Delete all that the queue holds: jobs of every state, counters, unique keys.

        With `forget` the queue itself goes too: its name, policy and sequence of ids.
        """
        await self.perform(calls.purge(queue, forget))

    async def info(self, queue: str) -> QueueInfo:
        """`queue_name`, `job_count`, `job_processed` and `job_failed`."""
        return await self.perform(calls.info(queue))

    async def queues(self) -> list[str]:
        """The names of all queues."""
        return await self.perform(calls.queues())

    async def size(self, queue: str) -> int:
        """How many jobs of a queue are ready."""
        return await self.perform(calls.size(queue))

    async def peek(self, queue: str) -> list[str]:
        """The texts of the next jobs, 1000 at most, without taking them."""
        return await self.perform(calls.peek(queue))

    async def start(self, queue: str) -> None:
        """Let a stopped queue hand out jobs again."""
        await self.perform(calls.control(queue, "start"))

    async def stop(self, queue: str) -> None:
        """Let a queue hand out nothing. It still takes pushes."""
        await self.perform(calls.control(queue, "stop"))

    async def started(self, queue: str) -> bool:
        """Whether the queue is started. One that was never seen is."""
        return await self.perform(calls.started(queue))

    async def all_stats(self) -> Stats:
        """All that the dashboard shows."""
        return await self.perform(calls.all_stats())

    async def stats(self, queue: str) -> QueueStats:
        """All that the dashboard shows of one queue."""
        return await self.perform(calls.stats(queue))

    async def policy(self, queue: str) -> Policy:
        """What holds for all jobs of the queue."""
        return await self.perform(calls.policy(queue))

    async def change_policy(self, queue: str, **changes: Unpack[PolicyOptions]) -> Policy:
        """Change the fields that are given; None goes back to the default. Returns the whole policy."""
        return await self.perform(calls.change_policy(queue, changes))

    # --- recurring jobs

    async def crons(self) -> list[Cron]:
        """All recurring jobs, by name."""
        found, cursor = await self.perform(calls.crons())
        while cursor is not None:
            more, cursor = await self.perform(calls.crons(cursor))
            found = calls.joined(found, more)
        return found

    async def cron(self, name: str) -> Cron:
        """One recurring job. Raises `NotFound`."""
        return await self.perform(calls.cron(name))

    async def put_cron(
        self, name: str, queue: str, body: Any, schedule: str, **options: Unpack[CronOptions]
    ) -> Cron:
        """Push `body` again and again: `schedule` is five fields of cron, `@daily` or `@every 5m`."""
        fields = {"queue": queue, "body": body, "schedule": schedule, **options}
        return await self.perform(calls.put_cron(name, fields))

    async def run_cron(self, name: str) -> str:
        """Push the job of a recurring job now, beside its moments. Returns the id of the job."""
        return await self.perform(calls.run_cron(name))

    async def pause_cron(self, name: str) -> Cron:
        """Push no more of a recurring job until it is resumed."""
        return await self.perform(calls.pause_cron(name))

    async def resume_cron(self, name: str) -> Cron:
        """Go on with a recurring job, from its next moment on."""
        return await self.perform(calls.resume_cron(name))

    async def delete_cron(self, name: str) -> None:
        """Push no more of a recurring job. The jobs that are in the queue stay."""
        await self.perform(calls.delete_cron(name))

    # --- workers

    async def workers(self) -> list[str]:
        """The ids of the workers that are registered."""
        return await self.perform(calls.workers())

    async def worker_records(self) -> list[WorkerRecord]:
        """The workers, and what each of them is doing."""
        return await self.perform(calls.worker_records())

    async def tell_worker(self, worker: str, status: str) -> None:
        """Ask a worker to be `quiet`, to `stop`, or to `start` again. It hears of it within seconds."""
        await self.perform(calls.tell_worker(worker, status))

    async def worker_info(self, worker: str) -> WorkerInfo:
        """When a worker was registered, and how many jobs it did. Raises `NotFound`."""
        return await self.perform(calls.worker_info(worker))

    async def queue_workers(self, queue: str) -> QueueWorkers:
        """The workers that are registered for a queue."""
        return await self.perform(calls.queue_workers(queue))

    async def register(self, queue: str, worker: str | None = None) -> None:
        """Note that a worker, this client's unless another is named, takes jobs of the queue."""
        await self.perform(calls.register(queue, worker or self.worker))

    async def unregister(self, queue: str, worker: str | None = None) -> None:
        """Note that it takes jobs of the queue no longer. Without a queue left it is forgotten."""
        await self.perform(calls.unregister(queue, worker or self.worker))
