"""The lease loop: keeps the executor in jobs, holds their leases, and tells the server how they went.

Four tasks of one event loop, whatever runs the jobs:

- the lease loop asks for jobs. What is to be settled travels with it, in the same request. A request that
  waits for jobs carries nothing, since its answer may take long.
- the settle loop sends what the lease loop cannot carry: because it waits, has no room, or is quiet.
- the tick, four times a second while jobs are held, renews leases after a third of their time and looks
  after time limits.
- the report says every few seconds what the worker is doing, and hears whether it should be quiet or stop.

Rules:

- A job is held from the answer that brought it until its outcome is in the outbox; a letter stays in the
  outbox until the server has answered it. Settling twice does no harm, so nothing is lost by asking again.
- A request for jobs whose answer was lost is repeated with its `attempt_id`, and gets the same jobs.
- Jobs that are held ahead are bounded by time, see `ahead`. When one of them takes longer after all, those
  behind it are given back.
- A job whose lease ended before the server could hear that it was done is not done again when it comes back
  to this worker: its ack is repeated for the new lease.
- No request is waited for longer than its own wait and `ANSWER_S`: a connection that died without a word
  costs at most twice the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from presque.client import calls
from presque.client.answers import Leased, LeasedJob, Settled
from presque.client.async_client import AsyncClient
from presque.client.errors import ClientError, ServerNotReached
from presque.worker.ahead import Ahead
from presque.worker.backoff import Backoff
from presque.worker.errors import Interrupted, JobCancelled, JobKilled, JobStopped
from presque.worker.execution import Outcome
from presque.worker.executors import Executor
from presque.worker.fairness import Fair
from presque.worker.held import Held
from presque.worker.job import Job
from presque.worker.leftover import Left, left_in
from presque.worker.logger import log
from presque.worker.outbox import COUNT_MOST, Letter, Outbox, Verb, settlements
from presque.worker.report import NAMES_MOST, named, report
from presque.worker.signals import Signals
from presque.worker.titles import title
from presque.worker.work import Work

STUCK_S = 2.0
SIGNALLED = "the job sent its own worker a signal that stopped it"
TICK_S = 0.25
LIMITED_S = 2.0
"""How long a worker that is to end when the queues are empty waits for a limit, before it looks again."""
REPORT_S = 5.0
ANSWER_S = 10.0
REPEATS_FOR_S = 50.0
UNKNOWN_LEASE_S = 1.0
POLICY_S = 60.0
LOOK_BEHIND_S = 5.0
LEAVE_S = 2.0
DONE_MOST = 10_000
FLUSH_S = 10.0
GIVEN_UP_S = 0.2
"""The executor ends what it can when the grace is over: it is given a moment for that."""
_PASSING = (408, 429, 500, 502, 503, 504, 507)


class Runner:
    """Runs the jobs of one worker until it is told to stop."""

    def __init__(self, work: Work, executor: Executor) -> None:
        asked = work.settings
        self.settings = asked
        self.executor = executor
        answer_s = max(1.0, min(ANSWER_S, asked.interval))
        self.client = AsyncClient(
            asked.base_uri, asked.token, answer_s, asked.worker_id, max_answer=asked.max_answer
        )
        self.held: dict[tuple[str, str, str], Held] = {}
        self.processed = self.failed = 0
        self._fair = Fair(self.client, asked.queues) if asked.fair else None
        self._outbox = Outbox()
        self._ahead = Ahead(executor.slots, asked.prefetch if executor.leads else 0)
        self._done: dict[tuple[str, str, str], Any] = {}
        self._leases: dict[str, tuple[float, float]] = {}
        self._seen: dict[str, None] = {}
        self._attempt: _Attempt | None = None
        self._poll: asyncio.Future[Leased] | None = None
        self._carries = False
        self._changed = asyncio.Event()
        self._unsent = asyncio.Event()
        self._holding = asyncio.Event()
        self._quiet: set[str] = set()
        self._stopping = False
        self._stops_by: float | None = None
        self.left: list[Letter] = []
        """What is to be told to the server when the jobs that would not stop run no more."""
        self.signals: Signals | None = None
        self._reached = False
        self._is_new = True
        self._limited = False
        self._trouble = ""
        self._crash: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- from other threads and from signal handlers

    def ask(self, what: str) -> None:
        """`finish`, `stop`, `kill`, `quiet` or `resume`: from any thread, also before and after the run."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._asked, what)
        else:
            self._asked(what)

    def _asked(self, what: str) -> None:
        if what == "kill":
            for held in self._running():
                self._interrupt(held, JobKilled("killed by an operator"))
            return
        if self._stopping and what in ("quiet", "resume"):
            return
        log.info("worker.asked what=%s", what)
        if what == "quiet":
            self._quiet.add("signal")
        elif what == "resume":
            self._quiet.clear()
        else:
            self._stopping = True
            if what == "stop" and self._stops_by is None:
                self._stops_by = time.monotonic() + self.settings.grace
            if self._stops_by is not None:
                self._stop_running()
        self._show_idle()
        self._withdraw_if_idle()

    def _show_idle(self) -> None:
        """What `ps` shows while there is no job."""
        if not self.held:
            title("is quiet" if self._quiet else f"waits for {self.settings.queues}")

    def _withdraw_if_idle(self) -> None:
        """Take no jobs from now on, if that is how things are: end the poll, give back what has not begun."""
        if self._stopping or self._quiet:
            if self._poll is not None:
                self._poll.cancel()
            self._give_back(self.executor.withdraw())
        self._changed.set()

    # --- the whole run

    async def run(self) -> None:
        """Work until told to stop. Raises a `ClientError` when the server refuses from the start."""
        self._loop = asyncio.get_running_loop()
        self.executor.attach(self._loop, self._finished)
        if self.signals is not None:
            self._loop.add_reader(self.signals.fileno(), self.signals.hear)
        log.info(
            "worker.started worker=%s queues=%s mode=%s concurrency=%d url=%s",
            self.settings.worker_id, self.settings.queues, self.executor.mode, self.executor.slots,
            self.settings.base_uri,
        )  # fmt: skip
        tasks = [self._task(one) for one in (self._settle(), self._tick(), self._report())]
        try:
            await self._lease()
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave()
            self.client.close()
            self.executor.close()
            log.info(
                "worker.stopped worker=%s processed=%d failed=%d",
                self.settings.worker_id, self.processed, self.failed,
            )  # fmt: skip
        if self._crash is not None:
            raise self._crash

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task beside the lease loop. If it breaks, the worker ends: it must not go on half alive."""
        task = asyncio.get_running_loop().create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._crash = error
                self._asked("finish")

        task.add_done_callback(ended)
        return task

    # --- the lease loop

    async def _lease(self) -> None:
        backoff = Backoff()
        while not self._stopping:
            room = self._attempt.count if self._attempt is not None else self._room()
            if room == 0 or self._quiet:
                await self._idle()
                continue
            self._carries = True
            letters = self._outbox.take()
            wait = self._wait_s(letters)
            if self._attempt is None:
                queues = await self._fair.order() if self._fair is not None else self.settings.queues
                self._attempt = _Attempt(queues, room)
            asked_at = time.monotonic()
            try:
                answer = await self._request(letters, wait)
            except ClientError as error:
                self._outbox.put_back(letters)
                self._refused(error, letters)
                await self._rest(backoff.next())
                continue
            if answer is None:  # told to stop or to be quiet
                await self._look_behind()
                continue
            backoff.reset()
            self._answered()
            self._attempt = None
            self._settled(letters, answer.settled)
            self._take(answer.jobs)
            if not answer.jobs and self.settings.burst and not letters:
                if self.held or self._outbox:
                    await self._idle(within=1.0)
                elif not await self._is_limited():
                    self._stopping = True
                elif time.monotonic() - asked_at < LIMITED_S / 2:
                    await self._rest(0.1)
            elif not answer.jobs and wait and time.monotonic() - asked_at < min(0.5, wait / 2):
                # The server did not wait: it is stopping, or something in between has no patience.
                await self._rest(backoff.next())

    def _wait_s(self, letters: Sequence[Letter]) -> float:
        """How long the next request may wait for a job: it carries no letters then."""
        if letters:
            return 0.0
        if self.settings.burst:
            return min(LIMITED_S, self.settings.interval) if self._limited and not self.held else 0.0
        return self.settings.interval

    async def _is_limited(self) -> bool:
        """Whether jobs are ready that a limit or a rate holds back. If not, says what else is left.

        Stopped queues are not waited for, nor jobs that are scheduled or held by others.
        """
        try:
            left = await left_in(self.client, self.settings.queues)
        except ClientError:
            left = Left()
        self._limited = left.ready > 0
        if not self._limited and (left.stopped or left.scheduled or left.leased):
            log.info(
                "worker.left_waiting worker=%s stopped=%d scheduled=%d leased=%d",
                self.settings.worker_id, left.stopped, left.scheduled, left.leased,
            )  # fmt: skip
        return self._limited

    async def _request(self, letters: Sequence[Letter], wait: float) -> Leased | None:
        """Ask for jobs. None: it was interrupted, and what the server did is not known."""
        attempt = self._attempt
        assert attempt is not None
        call = calls.lease(
            attempt.queues, count=attempt.count, seconds=self.settings.lease, wait=wait or None,
            attempt_id=attempt.id, worker=self.settings.worker_id, settlements=settlements(letters),
            texts=self.executor.wants_texts,
        )  # fmt: skip
        if not wait:
            return checked(await self.client.perform(call), attempt.count, letters)
        self._lets_go()
        self._poll = asyncio.ensure_future(self.client.perform(call))
        try:
            return checked(await self._poll, attempt.count, letters)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None  # the poll alone was cancelled, by `_withdraw_if_idle`
        finally:
            self._poll = None

    async def _look_behind(self) -> None:
        """After a poll that was cut off, an answer may have been on its way: give its jobs back."""
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        call = calls.lease(attempt.queues, count=1, attempt_id=attempt.id, worker=self.settings.worker_id)
        try:
            async with asyncio.timeout(LOOK_BEHIND_S):
                found = await self.client.perform(call)
        except (ClientError, TimeoutError):
            return  # their leases run out
        for job in found.jobs:
            self._outbox.put(Letter("release", job.queue, job.id, job.lease, {}))
        self._lets_go()

    def _room(self) -> int:
        """How many jobs to ask for now."""
        held = len(self.held)
        room = self._ahead.room(held)
        if self.settings.max_jobs is not None:
            room = min(room, self.settings.max_jobs - self.processed - self.failed - held)
        return max(0, room)

    def _take(self, jobs: Sequence[LeasedJob]) -> None:
        now = time.monotonic()
        taken = []
        for leased in jobs:
            known = (leased.queue, leased.id, leased.pushed_at)
            if known in self._done:
                log.info("job.done_before queue=%s id=%s attempt=%d", leased.queue, leased.id, leased.attempt)
                fields = self._done.pop(known)
                self._outbox.put(Letter("ack", *known[:2], leased.lease, fields, pushed_at=known[2]))
                continue
            lease_s = self.settings.lease or self._lease_of(leased.queue, now)
            held = Held(leased, self._wish, now, lease_s)
            self.held[held.job.key] = held
            taken.append(held)
        if taken:
            self._see(one.job.queue for one in taken)
            self._holding.set()
            if self._stopping or self._quiet:
                self._give_back(taken)
            else:
                self.executor.put(taken)

    def _lease_of(self, queue: str, now: float) -> float:
        """How long jobs of this queue are leased for. Short until its policy is known: early is harmless."""
        lease_s, asked_at = self._leases.get(queue, (UNKNOWN_LEASE_S, -POLICY_S))
        if now - asked_at >= POLICY_S:
            self._leases[queue] = lease_s, now
            self._task(self._ask_policy(queue))
        return lease_s

    async def _ask_policy(self, queue: str) -> None:
        try:
            policy = await self.client.policy(queue)
        except ClientError:
            return
        self._leases[queue] = float(policy["lease"]), time.monotonic()
        for held in self.held.values():
            if held.job.queue == queue:
                held.lease_s = float(policy["lease"])

    # --- outcomes

    def _finished(self, done: list[tuple[Held, Outcome]]) -> None:
        """The executor says how jobs went."""
        busy = 0.0
        for held, outcome in done:
            job = held.job
            if self.held.pop(job.key, None) is None:
                continue  # given back meanwhile
            seconds = held.ended_at - (held.started_at or held.ended_at)
            if outcome.verb == "release" and job.signalled:  # it would stop the next worker, too
                outcome = Outcome("fail", {"error": SIGNALLED}, SIGNALLED)
            busy += seconds
            self._post(outcome.verb, job, outcome.fields)
            if outcome.verb == "ack":
                self.processed += 1
                log.info(
                    "job.done queue=%s id=%s attempt=%d worker=%s seconds=%.3f",
                    job.queue, job.id, job.attempt, self.settings.worker_id, seconds,
                )  # fmt: skip
            elif outcome.verb == "fail":
                self.failed += 1
                self._log_failed(job, outcome, seconds)
            else:
                log.info("job.given_back queue=%s id=%s reason=%s", job.queue, job.id, outcome.error)
        if done:
            self._ahead.learn(busy, len(done))
        if self.settings.max_jobs is not None and self.processed + self.failed >= self.settings.max_jobs:
            self._stopping = True
        if self._room() and not self._carries and self._poll is None:
            self._carries = True  # the lease loop takes them along
        self._send()
        self._changed.set()

    def _log_failed(self, job: Job, outcome: Outcome, seconds: float) -> None:
        trace = outcome.fields.get("backtrace")
        log.warning(
            "job.failed queue=%s id=%s attempt=%d worker=%s seconds=%.3f error=%s",
            job.queue, job.id, job.attempt, self.settings.worker_id, seconds, outcome.error,
            extra={"trace": trace} if trace else None,
        )  # fmt: skip

    def _give_back(self, jobs: Sequence[Held]) -> None:
        for held in jobs:
            if self.held.pop(held.job.key, None) is not None:
                self._post("release", held.job, {})
        self._send()
        self._changed.set()

    def _post(self, verb: Verb, job: Job, fields: Any) -> None:
        size = 160 + len(job.lease) + sum(len(str(value)) for value in fields.values()) if fields else 160
        # A job that was told to stop may have returned early: that is not done.
        whole = "" if job.cancelled else job.pushed_at
        self._outbox.put(Letter(verb, job.queue, job.id, job.lease, fields, size, whole))

    # --- the settle loop

    def _send(self) -> None:
        if self._outbox and not self._carries:
            self._unsent.set()

    def _lets_go(self) -> None:
        """The lease loop carries no letters for now."""
        self._carries = False
        self._send()

    async def _settle(self) -> None:
        backoff = Backoff()
        while True:
            await self._unsent.wait()
            letters = self._outbox.take()
            if not letters:
                self._unsent.clear()
                self._outbox.most = COUNT_MOST
                self._changed.set()
                continue
            try:
                settled = await self.client.settle(settlements(letters))
                check_settled(settled, letters)
            except ClientError as error:
                self._outbox.put_back(letters)
                self._refused(error, letters)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._answered()
            self._settled(letters, settled)
            self._changed.set()

    def _settled(self, letters: Sequence[Letter], settled: Sequence[Settled]) -> None:
        """The server says what became of each lease."""
        for letter, told in zip(letters, settled, strict=True):
            held = self.held.get(letter.key)
            status = told["status"]
            if status == 200:
                if held is not None:
                    held.renewed(time.monotonic())
                    if told.get("cancel"):
                        self._interrupt(held, JobCancelled("somebody deleted the job"))
                continue
            if letter.verb == "extend":
                if held is not None:
                    log.warning("lease.lost queue=%s id=%s reason=%s", letter.queue, letter.id, told["error"])
                    self._interrupt(held, JobCancelled("its lease was lost"))
            elif letter.verb != "release":
                log.warning(
                    "job.not_settled queue=%s id=%s verb=%s reason=%s",
                    letter.queue, letter.id, letter.verb, told["error"],
                )  # fmt: skip
                if letter.verb == "ack" and status == 409 and letter.pushed_at:
                    self._remember_done(letter)

    def _remember_done(self, letter: Letter) -> None:
        """It was done, and the server will hand it out again: perhaps to us."""
        while len(self._done) >= DONE_MOST:
            del self._done[next(iter(self._done))]
        self._done[letter.queue, letter.id, letter.pushed_at] = letter.fields

    # --- the tick

    async def _tick(self) -> None:
        while True:
            if not self.held:
                self._holding.clear()
                self._show_idle()
                await self._holding.wait()
            await asyncio.sleep(TICK_S)
            self._look_after(time.monotonic())

    def _look_after(self, now: float) -> None:
        running = []
        for held in self.held.values():
            if held.is_due(now):
                self._post("extend", held.job, held.renewal(now))
            if held.started_at is not None and not held.ended_at:
                running.append(held)
        for held in running:
            self.executor.check(held, now)
        if running:
            oldest = min(running, key=lambda held: held.started_at or 0)
            title(f"works on {oldest.job.queue}/{oldest.job.id}, {len(self.held)} held")
            if len(running) == self.executor.slots and now - (oldest.started_at or now) > STUCK_S:
                self._ahead.forget()
                self._give_back(self.executor.withdraw())
        self._send()

    def _wish(self, job: Job, wish: Any) -> None:
        """A job wants more time, or shows its progress: from its own thread."""
        held = self.held.get(job.key)
        if held is not None:
            held.wishes = {**(held.wishes or {}), **wish}

    # --- stopping

    def _running(self) -> list[Held]:
        return [held for held in self.held.values() if held.started_at is not None and not held.ended_at]

    def _interrupt(self, held: Held, reason: Interrupted) -> bool:
        return self.executor.interrupt(held, reason)

    @property
    def left_running(self) -> bool:
        """Whether jobs would not stop: the process has to end under them."""
        return bool(self.left)

    def _stop_running(self) -> None:
        """Ask what runs to stop. A thread cannot be made to: it is held until it ends by itself."""
        for held in self._running():
            self._interrupt(held, JobStopped("the worker was stopped"))

    async def _drain(self) -> None:
        """Wait for the jobs that run, and for the server to have heard of all."""
        self._lets_go()
        self._give_back(self.executor.withdraw())
        while self.held:
            if self._stops_by is not None and time.monotonic() > self._stops_by + GIVEN_UP_S:
                log.error("worker.left_running count=%d", len(self.held))
                self.left = [
                    Letter("release", held.job.queue, held.job.id, held.job.lease, {})
                    for held in self.held.values()
                ]
                self.held.clear()
                break
            await self._idle(within=TICK_S)
        self._lets_go()
        deadline = time.monotonic() + FLUSH_S
        while self._outbox or self._unsent.is_set():
            if time.monotonic() > deadline:
                log.error("worker.left_unsettled count=%d", len(self._outbox))
                break
            await self._idle(within=TICK_S)

    # --- the report

    async def _report(self) -> None:
        self._see(named(self.settings.queues))
        while True:
            said = report(
                self.settings, state=self._state(), mode=self.executor.mode, slots=self.executor.slots,
                queues=self._seen, running=self._running(), held=len(self.held), processed=self.processed,
                failed=self.failed, now=time.monotonic(),
            )  # fmt: skip
            with contextlib.suppress(ClientError):  # the lease loop tells of a server that is away
                await self._forget_a_namesake()
                self._told(await self.client.perform(calls.report(self.settings.worker_id, said)))
            await asyncio.sleep(REPORT_S * random.uniform(0.9, 1.1))  # noqa: S311

    async def _forget_a_namesake(self) -> None:
        """What somebody asked of a worker of this name that is no more is not for this one."""
        if self._is_new:
            try:
                await self.client.tell_worker(self.settings.worker_id, "start")
            except ClientError as error:
                if error.status != 404:
                    raise
            self._is_new = False

    def _see(self, queues: Iterable[str]) -> None:
        """Remember that the worker has to do with these queues, as far as a report can say so."""
        for queue in queues:
            if queue in self._seen or len(self._seen) < NAMES_MOST:
                self._seen[queue] = None

    def _told(self, status: str) -> None:
        if status == "stop" and not self._stopping:
            self._asked("finish")
        elif status == "quiet" and "server" not in self._quiet:
            log.info("worker.asked what=%s", "quiet")
            self._quiet.add("server")
            self._show_idle()
            self._withdraw_if_idle()
        elif status == "start" and "server" in self._quiet:
            log.info("worker.asked what=%s", "resume")
            self._quiet.discard("server")
            self._show_idle()
            self._changed.set()

    def _state(self) -> str:
        if self._stopping:
            return "stopping"
        if self._quiet:
            return "quiet"
        return "working" if self._running() else "waiting"

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.client.perform(calls.leave(self.settings.worker_id))
        except (ClientError, TimeoutError):
            pass  # it is forgotten in an hour

    # --- trouble

    def _refused(self, error: ClientError, letters: Sequence[Letter]) -> None:
        """The server is away, or refuses. Raises when it has refused from the start."""
        if self._attempt is not None and time.monotonic() - self._attempt.since > REPEATS_FOR_S:
            self._attempt = None
        passing = isinstance(error, ServerNotReached) or error.status in _PASSING
        if not passing and not self._reached:
            raise error
        if error.status in (400, 413) and letters:
            self._split(error, letters)
            return
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("worker.waits_for_server reason=%s", error)

    def _split(self, error: ClientError, letters: Sequence[Letter]) -> None:
        """The request itself was refused: send its letters one by one, the bad one without fields."""
        self._outbox.most = 1
        if len(letters) > 1:
            return
        [bad] = self._outbox.take()
        bare = bad.bare()
        if bad.fields != bare.fields:
            log.error("job.told_in_part queue=%s id=%s verb=%s reason=%s", bad.queue, bad.id, bad.verb, error)
            self._outbox.put_back([bare])
            return
        log.error("job.not_settled queue=%s id=%s verb=%s reason=%s", bad.queue, bad.id, bad.verb, error)
        held = self.held.get(bad.key)
        if held is not None:
            held.renewed(time.monotonic())

    def _answered(self) -> None:
        self._reached = True
        if self._trouble:
            self._trouble = ""
            log.info("worker.server_is_back url=%s", self.settings.base_uri)

    async def _idle(self, within: float | None = None) -> None:
        """Wait until something has changed, `within` seconds at most."""
        self._lets_go()
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until told to stop."""
        self._lets_go()
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            await self._idle(within=left)


def checked(answer: Leased, count: int, letters: Sequence[Letter]) -> Leased:
    """An answer that fits what was asked. Raises `ClientError` for one that does not."""
    if len(answer.jobs) > count:
        raise ClientError(f"the server handed out {len(answer.jobs)} jobs where {count} were asked for")
    check_settled(answer.settled, letters)
    return answer


def check_settled(settled: Sequence[Settled], letters: Sequence[Letter]) -> None:
    """Raise `ClientError` unless each letter was answered."""
    if len(settled) != len(letters):
        raise ClientError(f"the server settled {len(settled)} leases where {len(letters)} were told")


class _Attempt:
    """A request for jobs that may have to be repeated."""

    def __init__(self, queues: str, count: int) -> None:
        self.id = secrets.token_hex(12)
        self.queues = queues
        self.count = count
        self.since = time.monotonic()
