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

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

from presque.client import calls
from presque.client.call import Call
from presque.client.calls.taking import Job
from presque.client.exchange import ANSWER_MOST
from presque.client.json_values import checked, encoded
from presque.client.leased import Holder, Leased, LeasedJob
from presque.client.options import (
    BatchOptions,
    Changes,
    CronOptions,
    Duration,
    Filter,
    PolicyOptions,
    PushOptions,
    Settlements,
    TaskOptions,
)
from presque.client.pages import Row, joined
from presque.client.transport import CONNECTIONS_MOST, Transport
from presque.traces import tracing

if TYPE_CHECKING:
    from presque.client.answers import (
        AccessToken,
        Clock,
        Cron,
        DryRun,
        Failures,
        FoundJobs,
        History,
        JobPage,
        JobRecord,
        Link,
        NamespaceInfo,
        Policy,
        QueueInfo,
        QueueStats,
        QueueWorkers,
        Reason,
        Rights,
        ServerFacts,
        Settled,
        State,
        Stats,
        Task,
        WorkerInfo,
        WorkerRecord,
    )

T = TypeVar("T")


class Client:
    """Talks to one server. Any number of threads may share it, and a forked child may use it.

    Without a `base_url` the environment says where the server is (`PRESQUE_URL`), else it is the one on this
    machine; without a `token`, `PRESQUE_TOKEN` is sent if it is set. `timeout` is how long a request may take
    in all; what the server is asked to wait comes on top. `worker` says who you are: it is sent with each
    fetch, lease and settlement, and shown to people who look. Durations are seconds, a `timedelta` or a text
    such as "1h30m" wherever one is given; moments are epoch seconds, an RFC 3339 text or a `datetime` that
    has a time zone.

    An answer may have `max_answer` bytes, 64 MiB by default. `connections` requests are on their way at
    once, 100 by default; further ones wait for their turn, within their `timeout`.
    Raises `ValueError` for a wrong address, a wrong token, or a value out of bounds.
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
        if call.pushes is None or (traced := tracing()) is None:
            return self.transport.perform(call)
        what, server = call.pushes, self.transport.address
        with traced.pushing(what.queue, what.count, what.traceparent, server.host, server.port) as told:
            result = self.transport.perform(call)
            if what.count is None:
                told(result)
        return result

    def _all(
        self, page: Callable[[str | None], Call[tuple[list[Row], str | None]]], by: str, what: str
    ) -> list[Row]:
        """All rows of a list that comes in pages, in the order of the field `by`."""
        found, cursor = self.perform(page(None))
        while cursor is not None:
            more, cursor = self.perform(page(cursor))
            found = joined(found, more, by, what)
        return found

    # --- pushing and fetching

    def push(self, queue: str, job: Any, **options: Unpack[PushOptions]) -> str:
        """Put a JSON value on a queue and return its id. When this returns, the server has stored it.

        Raises `Conflict` while another job has its `uniq` key, and `Full` when there is no room for it.
        """
        return self.push_text(queue, encoded(job), **options)

    def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Put a JSON document on a queue, byte for byte as given, and return its id. Raises as `push`."""
        body = text.encode() if isinstance(text, str) else text
        return self.perform(calls.pushing.push(queue, body, options))

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Put all of `jobs`, 1000 at most, on a queue, or none: their ids in this order. Raises `Full`."""
        return self.perform(calls.pushing.push_many(queue, [encoded(job) for job in jobs], options))

    def push_texts(self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[str]:
        """Put JSON documents on a queue, all or none. Raises `ValueError` if a text is not one document."""
        return self.perform(calls.pushing.push_many(queue, [checked(text) for text in texts], options))

    def fetch(self, queues: str, wait: Duration | None = None) -> Job | None:
        """Take a job for good, waiting up to `wait` seconds (60 at most); None when there is none.

        Raises `QueueClosed` when the one queue named is stopped. A job whose answer is lost on the way
        is lost: fetch is at most once.
        """
        return self.perform(calls.taking.fetch(queues, wait, self.worker))

    def fetch_many(self, queue: str, count: int = 10) -> list[str]:
        """Take up to `count` jobs (1000 at most) of one queue for good: their texts, as they were pushed.

        An empty list when there is none. Raises `QueueClosed` when the queue is stopped.
        """
        return self.perform(calls.taking.fetch_many(queue, count, self.worker))

    def put_back(
        self, queue: str, job: Any, worker: str | None = None, **options: Unpack[PushOptions]
    ) -> str:
        """Put a job that failed back and count the failure, for `worker` too. Returns the new id."""
        return self.perform(
            calls.pushing.put_back(queue, encoded(job).encode(), options, worker or self.worker)
        )

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

        Waits up to `wait` seconds (60 at most) for the first; an empty list when there is none. Each is yours
        until you settle it or its lease ends; then it goes to somebody else. The same `attempt_id` again,
        within a minute, gets the same jobs.
        """
        call = calls.taking.lease(
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
            calls.taking.lease(
                queues, count=count, seconds=seconds, wait=wait, attempt_id=attempt_id,
                worker=self.worker, settlements=settlements,
            )
        )  # fmt: skip

    def settle(self, settlements: Settlements) -> list[Settled]:
        """Settle up to 1000 leases: what became of each, acks first, then fails, releases, extensions.

        A lease that was lost raises nothing: each answer has the `status` that its own call would have.
        """
        return self.perform(calls.taking.settle(settlements, self.worker))

    def ack(self, job: Holder, result: Any = None, progress: Any = None) -> Settled:
        """The job is done. Repeated within a minute it answers the same, so it may be sent again.

        Raises `Conflict` when the lease was lost, `Gone` when the job is finished, and `NotFound` when there
        never was one.
        """
        fields = {"result": result, "progress": progress}
        return self.perform(calls.taking.settle_one("ack", job, fields, self.worker))

    def fail(
        self,
        job: Holder,
        error: str = "",
        *,
        backtrace: str | None = None,
        retry: bool | None = None,
        retry_in: Duration | None = None,
        progress: Any = None,
        saved: Any = None,
    ) -> Settled:
        """The job failed: it is retried, after `retry_in` seconds if given, or dead at its last attempt.

        `saved` is for the next attempt, which gets it with its lease; a dead job that is retried, too.
        Raises as `ack` does.
        """
        fields = {
            "error": error, "backtrace": backtrace, "retry": retry, "retry_in": retry_in,
            "progress": progress, "saved": saved,
        }  # fmt: skip
        return self.perform(calls.taking.settle_one("fail", job, fields, self.worker))

    def release(
        self, job: Holder, delay: Duration | None = None, *, progress: Any = None, saved: Any = None
    ) -> Settled:
        """Give the job back, to be ready again after `delay`. This is not a failure, and the attempt does not
        count. Raises as `ack` does."""
        fields = {"delay": delay, "progress": progress, "saved": saved}
        return self.perform(calls.taking.settle_one("release", job, fields, self.worker))

    def extend(
        self, job: Holder, seconds: Duration | None = None, progress: Any = None, saved: Any = None
    ) -> Settled:
        """Extend the lease to `seconds` from now, by default to its first length. If `cancel` in the answer
        is true, the job should stop.

        `progress` is for people who look at the job. `saved` is for the next attempt if this one does not end
        well. Raises as `ack` does.
        """
        fields = {"seconds": seconds, "progress": progress, "saved": saved}
        return self.perform(calls.taking.settle_one("extend", job, fields, self.worker))

    # --- single jobs

    def job(self, queue: str, id: str, wait: Duration | None = None) -> JobRecord:
        """All that is known of a job. With `wait`, as soon as it is done or dead, or after so many seconds.

        Raises `NotFound` if it was never pushed, or is finished and was not kept.
        """
        return self.perform(calls.jobs.job(queue, id, wait))

    def jobs(self, queue: str, state: State, limit: int | None = None, cursor: str | None = None) -> JobPage:
        """A page of the jobs in one state: ready ones as they will be handed out, others newest first.

        A page may be short and still have a `cursor`.
        """
        return self.perform(calls.jobs.jobs(queue, state, limit, cursor))

    def change(self, queue: str, id: str, **changes: Unpack[Changes]) -> JobRecord:
        """Change `priority`, `delay`, `delayed` or `body` of a waiting job.

        Raises `NotFound`, and `Conflict` if it is leased, done or dead.
        """
        return self.perform(calls.jobs.change(queue, id, changes))

    def delete(self, queue: str, id: str) -> bool:
        """Delete a job. False: it is leased; its holder is notified, and the job goes when the lease ends.

        Raises `NotFound`.
        """
        return self.perform(calls.jobs.delete(queue, id))

    def retry(self, queue: str, id: str) -> JobRecord:
        """Retry a dead job; its attempts count from 0. Raises `NotFound`, `Conflict` if it is not dead."""
        return self.perform(calls.jobs.retry(queue, id))

    def retry_all(self, queue: str, limit: int | None = None, rate: float | None = None) -> int:
        """Retry all dead jobs of a queue: those that died first, at most `limit`, at most `rate` a second.
        Returns how many."""
        return self.perform(calls.jobs.retry_all(queue, limit, rate))

    def explain(self, queue: str, id: str) -> list[Reason]:
        """Why the job does not run: the reasons in order. Raises `NotFound`."""
        return self.perform(calls.jobs.explain(queue, id))

    # --- many jobs

    def search(
        self,
        queues: str | None = None,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **only: Unpack[Filter],
    ) -> FoundJobs:
        """A page of the jobs that match, of all queues or of a queue list.

        One answer looks at a bounded number of jobs, and says how far it came; as long as there is a `cursor`
        there is more to look at, though a page may hold no job.
        """
        return self.perform(calls.many_jobs.search(queues, limit, cursor, only))

    def failures(
        self,
        queues: str | None = None,
        *,
        state: Literal["dead", "scheduled"] | None = None,
        cursor: str | None = None,
    ) -> Failures:
        """The errors of dead jobs, or of those scheduled for a retry, grouped by their kind."""
        return self.perform(calls.many_jobs.failures(queues, state, cursor))

    def import_lines(self, lines: bytes, import_name: str | None = None, batch: int | None = None) -> int:
        """Store jobs, 1000 at most, that were exported: a JSON object a line. Returns how many were stored.

        With a name and a number a batch is stored once, however often it is sent; the next one has a larger
        number.
        """
        return self.perform(calls.many_jobs.import_lines(lines, import_name, batch))

    def new_task(
        self, act: Literal["retry", "delete", "move"], queues: str, **options: Unpack[TaskOptions]
    ) -> Task:
        """Begin a bulk task: something is done to all jobs that match, in the background, whether the client
        stays or not."""
        return self.perform(calls.many_jobs.new_task(act, queues, options))

    def dry_run(
        self, act: Literal["retry", "delete", "move"], queues: str, **options: Unpack[TaskOptions]
    ) -> DryRun:
        """How many jobs `new_task` would find, and some of them. Nothing is changed."""
        return self.perform(calls.many_jobs.dry_run(act, queues, options))

    def tasks(self, limit: int | None = None, cursor: str | None = None) -> tuple[list[Task], str | None]:
        """A page of bulk tasks, the newest first, and the cursor for the next page, if any."""
        return self.perform(calls.many_jobs.tasks(limit, cursor))

    def task(self, id: str) -> Task:
        """One bulk task, and how far it has come. Raises `NotFound`."""
        return self.perform(calls.many_jobs.task("task", id))

    def pause_task(self, id: str) -> Task:
        """Pause a bulk task until it is resumed. Raises `NotFound`."""
        return self.perform(calls.many_jobs.task("pause_task", id))

    def resume_task(self, id: str) -> Task:
        """Resume a bulk task where it was paused. Raises `NotFound`."""
        return self.perform(calls.many_jobs.task("resume_task", id))

    def cancel_task(self, id: str) -> Task:
        """Cancel a bulk task. What it has done stays done. Raises `NotFound`."""
        return self.perform(calls.many_jobs.task("cancel_task", id))

    # --- queues

    def purge(self, queue: str, *, forget: bool | None = None) -> None:
        """Delete all that the queue holds: jobs of every state, counters, unique keys.

        With `forget` the queue itself goes too: its name, policy and sequence of ids.
        """
        self.perform(calls.queues.purge(queue, forget))

    def info(self, queue: str) -> QueueInfo:
        """`queue_name`, `job_count`, `job_processed` and `job_failed`."""
        return self.perform(calls.queues.info(queue))

    def queues(self, queues: str | None = None, *, busy: bool | None = None) -> list[str]:
        """The names of all queues, or of those of a queue list; with `busy` of those that hold jobs which are
        not dead."""
        found, cursor = self.perform(calls.queues.queues(queues, busy))
        while cursor is not None:
            more, following = self.perform(calls.queues.queues(queues, busy, cursor))
            cursor = calls.queues.onward(cursor, following)
            found += more
        return found

    def size(self, queue: str) -> int:
        """How many jobs of a queue are ready."""
        return self.perform(calls.queues.size(queue))

    def peek(self, queue: str) -> list[str]:
        """The texts of the next jobs, 1000 at most, without taking them."""
        return self.perform(calls.queues.peek(queue))

    def start(self, queue: str) -> None:
        """Let a stopped queue hand out jobs again."""
        self.perform(calls.queues.control(queue, "start"))

    def stop(self, queue: str) -> None:
        """Stop a queue from handing out jobs. It still accepts pushes."""
        self.perform(calls.queues.control(queue, "stop"))

    def started(self, queue: str) -> bool:
        """Whether the queue is started. One that was never seen is."""
        return self.perform(calls.queues.started(queue))

    def all_stats(
        self,
        queues: str | None = None,
        *,
        busy: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Stats:
        """All that the dashboard shows, with a page of at most 1000 queues: of all, of a queue list, or of
        those that are `busy`. If there are more the answer has a `cursor`."""
        return self.perform(calls.queues.all_stats(queues, busy, limit, cursor))

    def stats(self, queue: str) -> QueueStats:
        """All that the dashboard shows of one queue."""
        return self.perform(calls.queues.stats(queue))

    def history(self, queue: str | None = None, *, over: str | None = None) -> History:
        """What happened over `5m`, `1h`, `1d` or `7d` (an hour by default), in buckets, the oldest first: to
        a queue, or to all queues that the caller may read."""
        return self.perform(calls.queues.history(queue, over))

    def policy(self, queue: str) -> Policy:
        """The policy of the queue."""
        return self.perform(calls.queues.policy(queue))

    def change_policy(self, queue: str, **changes: Unpack[PolicyOptions]) -> Policy:
        """Change the fields that are given; None restores the default. Returns the whole policy."""
        return self.perform(calls.queues.change_policy(queue, changes))

    # --- recurring jobs

    def crons(self) -> list[Cron]:
        """All recurring jobs, by name."""
        return self._all(calls.crons.crons, "name", "recurring jobs")

    def cron(self, name: str) -> Cron:
        """One recurring job. Raises `NotFound`."""
        return self.perform(calls.crons.cron(name))

    def put_cron(
        self, name: str, queue: str, body: Any, schedule: str, **options: Unpack[CronOptions]
    ) -> Cron:
        """Push `body` on a schedule: `schedule` is five fields of cron, `@daily` or `@every 5m`."""
        fields = {"queue": queue, "body": body, "schedule": schedule, **options}
        return self.perform(calls.crons.put_cron(name, fields))

    def run_cron(self, name: str) -> str:
        """Push the job of a recurring job now, in addition to its moments. Returns the id of the job. Raises
        `NotFound`."""
        return self.perform(calls.crons.run_cron(name))

    def pause_cron(self, name: str) -> Cron:
        """Pause a recurring job until it is resumed. Raises `NotFound`."""
        return self.perform(calls.crons.pause_cron(name))

    def resume_cron(self, name: str) -> Cron:
        """Resume a recurring job, from its next moment on. Raises `NotFound`, `Conflict` if it is broken."""
        return self.perform(calls.crons.resume_cron(name))

    def delete_cron(self, name: str) -> None:
        """Delete a recurring job. The jobs that it has pushed stay. Raises `NotFound`."""
        self.perform(calls.crons.delete_cron(name))

    # --- the clock of a server for tests

    def clock(self) -> Clock:
        """What the clock of a server for tests (`--test-clock`) shows, and by how many seconds it is ahead.
        Raises `NotFound` (`no-test-clock`) of any other server."""
        return self.perform(calls.server.clock())

    def move_clock(self, advance: Duration | None = None, *, at: datetime | float | None = None) -> Clock:
        """Move the clock of such a server: forward by `advance`, or to the moment `at`.

        When this returns, what has become due is ready. Raises as `clock` does.
        """
        return self.perform(calls.server.move_clock(advance, at))

    # --- access tokens

    def new_token(
        self,
        name: str,
        *,
        allow: Iterable[str],
        deny: Iterable[str] = (),
        expires: datetime | float | None = None,
        sources: Iterable[str] = (),
        rate: Mapping[str, float] | None = None,
        namespace: str | None = None,
    ) -> AccessToken:
        """Make an access token: its text is in `token`, this once.

        A rule is `class:pattern`, such as `push:mail*`; what `deny` matches is denied whatever `allow` says.
        Needs a token that allows `admin:*`. The new one is valid in `namespace`, else where this client's own
        is.
        """
        fields = {
            "name": name, "allow": list(allow), "deny": list(deny), "sources": list(sources),
            "expires": expires, "rate": rate, "namespace": namespace,
        }  # fmt: skip
        return self.perform(calls.access.new_token(fields))

    def tokens(self) -> list[AccessToken]:
        """All access tokens, without their secrets."""
        return self._all(calls.access.tokens, "id", "access tokens")

    def revoke_token(self, id: str) -> None:
        """Make an access token invalid, and everything that was made from it. Raises `NotFound`."""
        self.perform(calls.access.revoke_token(id))

    def new_namespace(self, name: str, quotas: Mapping[str, int | None] | None = None) -> NamespaceInfo:
        """Make a namespace: a separate set of queues, for the holders of its tokens.

        `quotas` bound its `queues`, `jobs`, `bytes`, `connections`, and `requests` a second. Needs a token
        that allows `admin:*` and is of no namespace. Raises `Conflict` if there is one.
        """
        return self.perform(calls.access.new_namespace(name, dict(quotas or {})))

    def namespaces(self) -> list[NamespaceInfo]:
        """All namespaces that the token may see, and their quotas."""
        return self._all(calls.access.namespaces, "namespace", "namespaces")

    def namespace(self, name: str) -> NamespaceInfo:
        """One namespace: its quotas, and in `usage` what there is in it. Raises `NotFound`."""
        return self.perform(calls.access.namespace(name))

    def change_namespace(self, name: str, quotas: Mapping[str, int | None]) -> NamespaceInfo:
        """Change these quotas of a namespace, on every server at once; None removes one. Raises
        `NotFound`."""
        return self.perform(calls.access.change_namespace(name, dict(quotas)))

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace with all that is in it, and its tokens. Raises `NotFound`."""
        self.perform(calls.access.delete_namespace(name))

    def audit(self, limit: int = 100, cursor: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """A page of what was changed and what was refused, newest first, and the cursor for the next page, if
        any."""
        return self.perform(calls.access.audit(limit, cursor))

    def link(
        self, queue: str, id: str, allow: Literal["read", "cancel"], expires: datetime | float | None = None
    ) -> Link:
        """Make a URL with which anyone who has it can read or cancel one job, until a moment; by default, for
        a day. Raises `NotFound`."""
        return self.perform(calls.access.link(queue, id, allow, expires))

    def server(self) -> ServerFacts:
        """The current state of the server process that answers, and of its store. `settings` are None unless
        the caller may do everything."""
        return self.perform(calls.server.server())

    def whoami(self) -> Rights:
        """Who this client is to the server, and what it may do."""
        return self.perform(calls.access.whoami())

    # --- workers

    def workers(self) -> list[str]:
        """The ids of the workers that are registered."""
        return self.perform(calls.workers.workers())

    def worker_records(self) -> list[WorkerRecord]:
        """The workers, and what each of them is doing."""
        return self.perform(calls.workers.worker_records())

    def tell_worker(self, worker: str, status: str) -> None:
        """Ask a worker to be `quiet`, to `stop`, or to `start` again. The worker learns of it within
        seconds."""
        self.perform(calls.workers.tell_worker(worker, status))

    def worker_info(self, worker: str) -> WorkerInfo:
        """When a worker was registered, and how many jobs it did. Raises `NotFound`."""
        return self.perform(calls.workers.worker_info(worker))

    def queue_workers(self, queue: str) -> QueueWorkers:
        """The workers that are registered for a queue."""
        return self.perform(calls.workers.queue_workers(queue))

    def register(self, queue: str, worker: str | None = None) -> None:
        """Note that a worker, this client's unless another is named, takes jobs of the queue."""
        self.perform(calls.workers.register(queue, worker or self.worker))

    def unregister(self, queue: str, worker: str | None = None) -> None:
        """Note that it no longer takes jobs of the queue. Without a queue left it is forgotten."""
        self.perform(calls.workers.unregister(queue, worker or self.worker))
