"""Starts and stops what a worker does in its lease loop's thread.

Four tasks of one event loop, whatever runs the jobs:

- the lease loop asks for jobs (`leasing`);
- the settle loop tells what the lease loop cannot carry (`telling`);
- the tick, four times a second while jobs are held, renews leases after a third of their time and looks after
  time limits. When a job takes longer than expected, those that wait behind it are given back;
- the report says every few seconds what the worker is doing, and hears whether it should be quiet or stop.

A job is held from the answer that brought it until its outcome is in the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from presque.client import calls
from presque.client.async_client import AsyncClient
from presque.client.errors import ClientError
from presque.worker.desk import Desk
from presque.worker.errors import Interrupted, JobKilled, JobStopped
from presque.worker.execution import Outcome
from presque.worker.executors import Executor
from presque.worker.held import Held
from presque.worker.job import Job
from presque.worker.leasing import Leasing
from presque.worker.logger import log
from presque.worker.outbox import Letter
from presque.worker.report import NAMES_MOST, named, report
from presque.worker.signals import Signals
from presque.worker.telling import Telling
from presque.worker.titles import title
from presque.worker.work import Work

STUCK_S = 2.0
SIGNALLED = "the job sent its own worker a signal that stopped it"
TICK_S = 0.25
REPORT_S = 5.0
ANSWER_S = 10.0
LEAVE_S = 2.0
FLUSH_S = 10.0
GIVEN_UP_S = 0.2
"""The executor ends what it can when the grace is over: it is given a moment for that."""


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
        self._desk = Desk(asked, self.client)
        self._telling = Telling(self._desk, self._interrupt)
        self.leasing = Leasing(self._desk, self._telling, executor, self._taken, self._task)
        self._seen: dict[str, None] = {}
        self._holding = asyncio.Event()
        self._stops_by: float | None = None
        self.left: list[Letter] = []
        """What is to be told to the server when the jobs that would not stop run no more."""
        self.signals: Signals | None = None
        self._is_new = True
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
        desk = self._desk
        if what == "kill":
            for held in desk.running():
                self._interrupt(held, JobKilled("killed by an operator"))
            return
        if desk.stopping and what in ("quiet", "resume"):
            return
        log.info("worker.asked what=%s", what)
        if what == "quiet":
            desk.quiet.add("signal")
        elif what == "resume":
            desk.quiet.clear()
        else:
            desk.stopping = True
            if what == "stop" and self._stops_by is None:
                self._stops_by = time.monotonic() + self.settings.grace
            if self._stops_by is not None:
                self._stop_running()
        self._show_idle()
        self._withdraw_if_idle()

    def _show_idle(self) -> None:
        """What `ps` shows while there is no job."""
        if not self._desk.held:
            title("is quiet" if self._desk.quiet else f"waits for {self.settings.queues}")

    def _withdraw_if_idle(self) -> None:
        """Take no jobs from now on, if that is how things are: end the poll, give back what has not begun."""
        if not self._desk.takes_jobs:
            self.leasing.withdraw()
            self._give_back(self.executor.withdraw())
        self._desk.changed.set()

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
        tasks = [self._task(one) for one in (self._telling.settle(), self._tick(), self._report())]
        try:
            await self.leasing.run()
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
                self.settings.worker_id, self._desk.processed, self._desk.failed,
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

    # --- jobs come and go

    def _taken(self, jobs: list[Held]) -> None:
        """The lease loop has got jobs."""
        self._see(one.job.queue for one in jobs)
        self._holding.set()
        if self._desk.takes_jobs:
            self.executor.put(jobs)
        else:
            self._give_back(jobs)

    def _finished(self, done: list[tuple[Held, Outcome]]) -> None:
        """The executor says how jobs went."""
        desk = self._desk
        busy = 0.0
        for held, outcome in done:
            job = held.job
            if desk.held.pop(job.key, None) is None:
                continue  # given back meanwhile
            seconds = held.ended_at - (held.started_at or held.ended_at)
            if outcome.verb == "release" and job.signalled:  # it would stop the next worker, too
                outcome = Outcome("fail", {"error": SIGNALLED}, SIGNALLED)
            busy += seconds
            self._telling.post(outcome.verb, job, outcome.fields)
            if outcome.verb == "ack":
                desk.processed += 1
                log.info(
                    "job.done queue=%s id=%s attempt=%d worker=%s seconds=%.3f",
                    job.queue, job.id, job.attempt, self.settings.worker_id, seconds,
                )  # fmt: skip
            elif outcome.verb == "fail":
                desk.failed += 1
                self._log_failed(job, outcome, seconds)
            else:
                log.info("job.given_back queue=%s id=%s reason=%s", job.queue, job.id, outcome.error)
        if done:
            self.leasing.ahead.learn(busy, len(done))
        if self.settings.max_jobs is not None and desk.processed + desk.failed >= self.settings.max_jobs:
            desk.stopping = True
        if not self._telling.carries and not self.leasing.waits and self.leasing.room():
            self._telling.carries = True  # the lease loop takes them along
        self._telling.send()
        desk.changed.set()

    def _log_failed(self, job: Job, outcome: Outcome, seconds: float) -> None:
        trace = outcome.fields.get("backtrace")
        log.warning(
            "job.failed queue=%s id=%s attempt=%d worker=%s seconds=%.3f error=%s",
            job.queue, job.id, job.attempt, self.settings.worker_id, seconds, outcome.error,
            extra={"trace": trace} if trace else None,
        )  # fmt: skip

    def _give_back(self, jobs: Sequence[Held]) -> None:
        for held in jobs:
            if self._desk.held.pop(held.job.key, None) is not None:
                self._telling.post("release", held.job, {})
        self._telling.send()
        self._desk.changed.set()

    # --- the tick

    async def _tick(self) -> None:
        while True:
            if not self._desk.held:
                self._holding.clear()
                self._show_idle()
                await self._holding.wait()
            await asyncio.sleep(TICK_S)
            self._look_after(time.monotonic())

    def _look_after(self, now: float) -> None:
        running = []
        for held in self._desk.held.values():
            if held.is_due(now):
                self._telling.post("extend", held.job, held.renewal(now))
            if held.started_at is not None and not held.ended_at:
                running.append(held)
        for held in running:
            self.executor.check(held, now)
        if running:
            oldest = min(running, key=lambda held: held.started_at or 0)
            title(f"works on {oldest.job.queue}/{oldest.job.id}, {len(self._desk.held)} held")
            if len(running) == self.executor.slots and now - (oldest.started_at or now) > STUCK_S:
                self.leasing.ahead.forget()
                self._give_back(self.executor.withdraw())
        self._telling.send()

    # --- stopping

    def _interrupt(self, held: Held, reason: Interrupted) -> bool:
        return self.executor.interrupt(held, reason)

    @property
    def left_running(self) -> bool:
        """Whether jobs would not stop: the process has to end under them."""
        return bool(self.left)

    def _stop_running(self) -> None:
        """Ask what runs to stop. A thread cannot be made to: it is held until it ends by itself."""
        for held in self._desk.running():
            self._interrupt(held, JobStopped("the worker was stopped"))

    async def _drain(self) -> None:
        """Wait for the jobs that run, and for the server to have heard of all."""
        desk, telling = self._desk, self._telling
        telling.let_go()
        self._give_back(self.executor.withdraw())
        while desk.held:
            if self._stops_by is not None and time.monotonic() > self._stops_by + GIVEN_UP_S:
                log.error("worker.left_running count=%d", len(desk.held))
                self.left = [
                    Letter("release", held.job.queue, held.job.id, held.job.lease, {})
                    for held in desk.held.values()
                ]
                desk.held.clear()
                break
            telling.let_go()
            await desk.wait(TICK_S)
        deadline = time.monotonic() + FLUSH_S
        telling.let_go()
        while not telling.is_done:
            if time.monotonic() > deadline:
                log.error("worker.left_unsettled count=%d", len(telling))
                break
            telling.let_go()
            await desk.wait(TICK_S)

    # --- the report

    async def _report(self) -> None:
        desk = self._desk
        self._see(named(self.settings.queues))
        while True:
            said = report(
                self.settings, state=self._state(), mode=self.executor.mode, slots=self.executor.slots,
                queues=self._seen, running=desk.running(), held=len(desk.held), processed=desk.processed,
                failed=desk.failed, now=time.monotonic(),
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
        quiet = self._desk.quiet
        if status == "stop" and not self._desk.stopping:
            self._asked("finish")
        elif status == "quiet" and "server" not in quiet:
            log.info("worker.asked what=%s", "quiet")
            quiet.add("server")
            self._show_idle()
            self._withdraw_if_idle()
        elif status == "start" and "server" in quiet:
            log.info("worker.asked what=%s", "resume")
            quiet.discard("server")
            self._show_idle()
            self._desk.changed.set()

    def _state(self) -> str:
        if self._desk.stopping:
            return "stopping"
        if self._desk.quiet:
            return "quiet"
        return "working" if self._desk.running() else "waiting"

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.client.perform(calls.leave(self.settings.worker_id))
        except (ClientError, TimeoutError):
            pass  # it is forgotten in an hour
