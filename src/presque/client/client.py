# Made by tools/unasync.py of async_client.py: change that file, and run the tool again.
"""Client: one method per verb.

    client = Client()
    client.push("mail", {"to": "ana"}, delay=60)
    for job in client.lease("critical,*", count=10, wait=20):
        work(job.value)
        client.ack(job)

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
from presque.client.calls import Call, Holder, Job
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
from presque.client.transport import CONNECTIONS_MOST, Transport

T = TypeVar("T")


class Client:
    """Talks to one server. Any number of threads may share it, and a forked child may use it.

    Without a `base_url` the environment says where the server is (`PRESQUE_URL`), else it is the one on this
    machine; without a `token`, `PRESQUE_TOKEN` is sent if it is set. `timeout` is how long a request may take
    in all; what the server is asked to wait comes on top. `worker` says who you are: it is sent with each
    fetch, lease and settlement, and shown to people who look. Durations are seconds, a `timedelta` or a text
    such as "1h30m" wherever one is given; moments are epoch seconds, an RFC 3339 text or a `datetime` that
    has a time zone.

    An answer may have `max_answer` bytes, 64 MiB unless given. `connections` requests are on their way at
    once, 100 unless given; further ones wait for their turn, within their `timeout`.
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
        self.transport = Transport(base_url, token, timeout, max_answer=max_answer, connections=connections)
        self.worker = worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client stays usable."""
        self.transport.close()

    def perform(self, call: Call[T]) -> T:
        """Carry out a call of `presque.client.calls`. The methods below do nothing else."""
        return self.transport.perform(call)

    # --- pushing and fetching

    def push(self, queue: str, job: Any, **options: Unpack[PushOptions]) -> str:
        """Put a JSON value on a queue and return its id. When this returns, the server has stored it."""
        return self.push_text(queue, encoded(job), **options)

    def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Put a JSON document on a queue, byte for byte as given, and return its id."""
        body = text.encode() if isinstance(text, str) else text
        return self.perform(calls.push(queue, body, options))

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Put all of `jobs` on a queue, or none, and return their ids in the same order."""
        return self.perform(calls.push_many(queue, [encoded(job) for job in jobs], options))

    def push_texts(self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[str]:
        """Put JSON documents on a queue, all or none. Raises `ValueError` if a text is not one document."""
        return self.perform(calls.push_many(queue, [checked(text) for text in texts], options))

    def fetch(self, queues: str, wait: Duration | None = None) -> Job | None:
        """Take a job for good, waiting up to `wait` seconds (60 at most); None when there is none.

        Raises `QueueClosed` when the one queue named is stopped. A job whose answer is lost on the way
        is lost: fetch is at most once.
        """
        return self.perform(calls.fetch(queues, wait, self.worker))

    def fetch_many(self, queue: str, count: int = 10) -> list[str]:
        """Take up to `count` jobs (1000 at most) of one queue for good: their texts, as they were pushed."""
        return self.perform(calls.fetch_many(queue, count, self.worker))

    def put_back(
        self, queue: str, job: Any, worker: str | None = None, **options: Unpack[PushOptions]
    ) -> str:
        """Put a job that failed back and count the failure, for `worker` too. Returns the new id."""
        return self.perform(calls.put_back(queue, encoded(job).encode(), options, worker or self.worker))

    # --- leases

    def lease(
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
        return self.perform(call).jobs

    def settle_and_lease(
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
        return self.perform(
            calls.lease(
                queues, count=count, seconds=seconds, wait=wait, attempt_id=attempt_id,
                worker=self.worker, settlements=settlements,
            )
        )  # fmt: skip

    def settle(self, settlements: Settlements) -> list[Settled]:
        """Settle up to 1000 leases: what became of each, acks first, then fails, releases, extensions."""
        return self.perform(calls.settle(settlements, self.worker))

    def ack(self, job: Holder, result: Any = None) -> Settled:
        """The job is done. Raises `Conflict` when the lease was lost and `Gone` when the job is finished.

        Repeated within a minute it answers the same, so it may be sent again after a lost answer.
        """
        return self.perform(calls.settle_one("ack", job, {"result": result}, self.worker))

    def fail(
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
        return self.perform(calls.settle_one("fail", job, fields, self.worker))

    def release(self, job: Holder, delay: Duration | None = None) -> Settled:
        """Give the job back. That is no failure, and the attempt does not count."""
        return self.perform(calls.settle_one("release", job, {"delay": delay}, self.worker))

    def extend(self, job: Holder, seconds: Duration | None = None, progress: Any = None) -> Settled:
        """Hold the job for `seconds` from now, else as long as at first. `cancel` says: better stop."""
        fields = {"seconds": seconds, "progress": progress}
        return self.perform(calls.settle_one("extend", job, fields, self.worker))

    # --- single jobs

    def job(self, queue: str, id: str, wait: Duration | None = None) -> JobRecord:
        """All that is known of a job. With `wait`, as soon as it is done or dead. Raises `NotFound`."""
        return self.perform(calls.job(queue, id, wait))

    def jobs(self, queue: str, state: State, limit: int | None = None, cursor: str | None = None) -> JobPage:
        """A page of the jobs in one state, newest first. A page may be short and still have a `cursor`."""
        return self.perform(calls.jobs(queue, state, limit, cursor))

    def change(self, queue: str, id: str, **changes: Unpack[Changes]) -> JobRecord:
        """Change `priority`, `delay`, `delayed` or `body` of a job that waits. Raises `Conflict`."""
        return self.perform(calls.change(queue, id, changes))

    def delete(self, queue: str, id: str) -> bool:
        """Take a job away. False: it is leased, its holder is told, and it goes when that lets go."""
        return self.perform(calls.delete(queue, id))

    def retry(self, queue: str, id: str) -> JobRecord:
        """Let a dead job be tried again, its attempts counted anew. Raises `Conflict` if it is not dead."""
        return self.perform(calls.retry(queue, id))

    def retry_all(self, queue: str, limit: int | None = None, rate: float | None = None) -> int:
        """Let all dead jobs be tried again, `limit` at most, `rate` a second at most: how many."""
        return self.perform(calls.retry_all(queue, limit, rate))

    def explain(self, queue: str, id: str) -> list[Reason]:
        """Why the job does not run."""
        return self.perform(calls.explain(queue, id))

    # --- queues

    def purge(self, queue: str, *, forget: bool | None = None) -> None:
        """Delete all that the queue holds: jobs of every state, counters, unique keys.

        With `forget` the queue itself goes too: its name, policy and sequence of ids.
        """
        self.perform(calls.purge(queue, forget))

    def info(self, queue: str) -> QueueInfo:
        """`queue_name`, `job_count`, `job_processed` and `job_failed`."""
        return self.perform(calls.info(queue))

    def queues(self) -> list[str]:
        """The names of all queues."""
        return self.perform(calls.queues())

    def size(self, queue: str) -> int:
        """How many jobs of a queue are ready."""
        return self.perform(calls.size(queue))

    def peek(self, queue: str) -> list[str]:
        """The texts of the next jobs, 1000 at most, without taking them."""
        return self.perform(calls.peek(queue))

    def start(self, queue: str) -> None:
        """Let a stopped queue hand out jobs again."""
        self.perform(calls.control(queue, "start"))

    def stop(self, queue: str) -> None:
        """Let a queue hand out nothing. It still takes pushes."""
        self.perform(calls.control(queue, "stop"))

    def started(self, queue: str) -> bool:
        """Whether the queue is started. One that was never seen is."""
        return self.perform(calls.started(queue))

    def all_stats(self) -> Stats:
        """All that the dashboard shows."""
        return self.perform(calls.all_stats())

    def stats(self, queue: str) -> QueueStats:
        """All that the dashboard shows of one queue."""
        return self.perform(calls.stats(queue))

    def policy(self, queue: str) -> Policy:
        """What holds for all jobs of the queue."""
        return self.perform(calls.policy(queue))

    def change_policy(self, queue: str, **changes: Unpack[PolicyOptions]) -> Policy:
        """Change the fields that are given; None goes back to the default. Returns the whole policy."""
        return self.perform(calls.change_policy(queue, changes))

    # --- recurring jobs

    def crons(self) -> list[Cron]:
        """All recurring jobs, by name."""
        found, cursor = self.perform(calls.crons())
        while cursor is not None:
            more, cursor = self.perform(calls.crons(cursor))
            found = calls.joined(found, more)
        return found

    def cron(self, name: str) -> Cron:
        """One recurring job. Raises `NotFound`."""
        return self.perform(calls.cron(name))

    def put_cron(
        self, name: str, queue: str, body: Any, schedule: str, **options: Unpack[CronOptions]
    ) -> Cron:
        """Push `body` again and again: `schedule` is five fields of cron, `@daily` or `@every 5m`."""
        fields = {"queue": queue, "body": body, "schedule": schedule, **options}
        return self.perform(calls.put_cron(name, fields))

    def run_cron(self, name: str) -> str:
        """Push the job of a recurring job now, beside its moments. Returns the id of the job."""
        return self.perform(calls.run_cron(name))

    def pause_cron(self, name: str) -> Cron:
        """Push no more of a recurring job until it is resumed."""
        return self.perform(calls.pause_cron(name))

    def resume_cron(self, name: str) -> Cron:
        """Go on with a recurring job, from its next moment on."""
        return self.perform(calls.resume_cron(name))

    def delete_cron(self, name: str) -> None:
        """Push no more of a recurring job. The jobs that are in the queue stay."""
        self.perform(calls.delete_cron(name))

    # --- workers

    def workers(self) -> list[str]:
        """The ids of the workers that are registered."""
        return self.perform(calls.workers())

    def worker_records(self) -> list[WorkerRecord]:
        """The workers, and what each of them is doing."""
        return self.perform(calls.worker_records())

    def tell_worker(self, worker: str, status: str) -> None:
        """Ask a worker to be `quiet`, to `stop`, or to `start` again. It hears of it within seconds."""
        self.perform(calls.tell_worker(worker, status))

    def worker_info(self, worker: str) -> WorkerInfo:
        """When a worker was registered, and how many jobs it did. Raises `NotFound`."""
        return self.perform(calls.worker_info(worker))

    def queue_workers(self, queue: str) -> QueueWorkers:
        """The workers that are registered for a queue."""
        return self.perform(calls.queue_workers(queue))

    def register(self, queue: str, worker: str | None = None) -> None:
        """Note that a worker, this client's unless another is named, takes jobs of the queue."""
        self.perform(calls.register(queue, worker or self.worker))

    def unregister(self, queue: str, worker: str | None = None) -> None:
        """Note that it takes jobs of the queue no longer. Without a queue left it is forgotten."""
        self.perform(calls.unregister(queue, worker or self.worker))
