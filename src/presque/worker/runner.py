"""Takes the jobs of some queues and has them done, within one limit. A process may have several: see `crew`.

Three tasks of the lease loop, whatever runs the jobs:

- the lease loop asks for jobs (`leasing`);
- the settle loop tells what the lease loop cannot carry (`telling`);
- the tick, four times a second while jobs are held, renews leases after a third of their time and looks after
  time limits. When a job takes longer than expected, those that wait behind it are given back;
- the report says every few seconds what the worker is doing, and hears whether it should be quiet or stop.

A job is held from the answer that brought it until its outcome is in the outbox.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from presque.client.async_client import AsyncClient
from presque.worker.desk import Desk
from presque.worker.errors import Interrupted, JobKilled, JobStopped
from presque.worker.execution import Outcome
from presque.worker.executors import Executor, end_span
from presque.worker.held import Held
from presque.worker.job import Job
from presque.worker.leasing import Leasing
from presque.worker.logger import log
from presque.worker.outbox import Letter
from presque.worker.report import NAMES_MOST, named
from presque.worker.telling import Telling
from presque.worker.titles import title
from presque.worker.work import Work

STUCK_S = 2.0
SIGNALLED = "the job sent its own worker a signal that stopped it"
TICK_S = 0.25
FLUSH_S = 10.0
GIVEN_UP_S = 1.0
"""The executor ends what it can at the first tick after the grace: it is given a moment for that."""


class Runner:
    """Runs the jobs of some queues until it is asked to stop. `mates` are all desks of this process."""

    def __init__(self, work: Work, executor: Executor, client: AsyncClient, mates: list[Desk]) -> None:
        self.settings = work.settings
        self.executor = executor
        self.desk = Desk(work.settings, client, mates)
        self.desk.hasten = self._hasten
        self._telling = Telling(self.desk, self._interrupt)
        self.leasing = Leasing(self.desk, self._telling, executor, self._taken, self._task)
        self._holding = asyncio.Event()
        self._stops_by: float | None = None
        self.left: list[Letter] = []
        """What to tell the server once the jobs that would not stop have ended."""
        self._crash: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what it is asked to do

    def ask(self, what: str) -> None:
        """`finish`, `stop`, `kill`, `quiet` or `resume`: in the lease loop, or before and after the run."""
        desk = self.desk
        if what == "kill":
            for held in desk.running():
                self._interrupt(held, JobKilled("killed by an operator"))
            return
        if desk.stopping and what in ("quiet", "resume"):
            return
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
        """What `ps` shows while no job runs."""
        if not any(one.held for one in self.desk.mates):
            lists = dict.fromkeys(one.settings.queues for one in self.desk.mates)
            title("is quiet" if self.desk.quiet else f"waits for {','.join(lists)}")

    def _withdraw_if_idle(self) -> None:
        """Take no jobs from now on, if that is how things are: end the poll, give back what has not begun."""
        if not self.desk.takes_jobs:
            self.leasing.withdraw()
            self._give_back(self.executor.withdraw())
        self.desk.changed.set()

    # --- the whole run

    async def run(self) -> None:
        """Work until told to stop. Raises a `ClientError` when the server refuses from the start."""
        self._loop = asyncio.get_running_loop()
        self.executor.attach(self._loop, self._finished)
        self._see(named(self.settings.queues))
        log.info(
            "worker.started worker=%s queues=%s mode=%s concurrency=%d url=%s",
            self.settings.worker_id, self.settings.queues, self.executor.mode, self.executor.slots,
            self.settings.base_uri,
        )  # fmt: skip
        tasks = [self._task(one) for one in (self._telling.settle(), self._tick())]
        try:
            await self.leasing.run()
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.executor.close()
            log.info(
                "worker.stopped worker=%s processed=%d failed=%d",
                self.settings.worker_id, self.desk.processed, self.desk.failed,
            )  # fmt: skip
        if self._crash is not None:
            raise self._crash

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task beside the lease loop. If it breaks, the worker ends: it must not go on half alive."""
        task = asyncio.get_running_loop().create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._crash = error
                self.ask("finish")

        task.add_done_callback(ended)
        return task

    # --- jobs come and go

    def _taken(self, jobs: list[Held]) -> None:
        """The lease loop has got jobs."""
        self._see({one.key[0] for one in jobs})
        self._holding.set()
        if self.desk.takes_jobs:
            self.executor.put(jobs)
        else:
            self._give_back(jobs)

    def _finished(self, done: list[tuple[Held, Outcome]]) -> None:
        """The executor says how jobs went."""
        desk = self.desk
        chatty = log.is_enabled_for(logging.INFO)
        busy = 0.0
        for held, outcome in done:
            try:
                job = held.job
                if outcome.verb == "release" and job.signalled:  # it would stop the next worker, too
                    outcome = Outcome("fail", {"error": SIGNALLED}, SIGNALLED)
                if job.span is not None:
                    end_span(held, outcome)
                if desk.held.pop(held.key, None) is None:
                    continue  # given back meanwhile
                seconds = held.ended_at - (held.started_at or held.ended_at)
                busy += seconds
                fields = _with_the_last_words(held, outcome) if held.has_told else outcome.fields
                self._telling.post(outcome.verb, held, fields)
                if outcome.verb == "ack":
                    desk.processed += 1
                    if chatty:
                        log.info(
                            "job.done queue=%s id=%s attempt=%d worker=%s seconds=%.3f",
                            job.queue, job.id, job.attempt, self.settings.worker_id, seconds,
                        )  # fmt: skip
                elif outcome.verb == "fail":
                    desk.failed += 1
                    self._log_failed(job, outcome, seconds)
                else:
                    log.info("job.given_back queue=%s id=%s reason=%s", job.queue, job.id, outcome.error)
            except Exception:  # noqa: BLE001  (the others are not to be held forever because of one)
                log.exception("job.not_told queue=%s id=%s", held.job.queue, held.job.id)
                desk.held.pop(held.key, None)  # its lease runs out
        if done:
            self.leasing.ahead.learn(busy, len(done))
        if not desk.held:
            desk.emptied_at = time.monotonic()
        most = self.settings.max_jobs
        if most is not None and sum(one.processed + one.failed for one in desk.mates) >= most:
            for one in desk.mates:
                one.stopping = True
                one.changed.set()
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
            if self.desk.held.pop(held.key, None) is not None:
                self._telling.post("release", held, {})
        self._telling.send()
        self.desk.changed.set()

    # --- the tick

    async def _tick(self) -> None:
        while True:
            if not self.desk.held:
                self._holding.clear()
                self._show_idle()
                await self._holding.wait()
            await asyncio.sleep(TICK_S)
            self._look_after(time.monotonic())

    def _look_after(self, now: float) -> None:
        running = []
        for held in self.desk.held.values():
            if held.is_due(now):
                self._telling.post("extend", held, held.renewal(now))
            if held.started_at is not None and not held.ended_at:
                running.append(held)
        for held in running:
            self.executor.check(held, now)
        if running:
            oldest = min(running, key=lambda held: held.started_at or 0)
            title(f"works on {oldest.job.queue}/{oldest.job.id}, {len(self.desk.held)} held")
            if len(running) == self.executor.slots and now - (oldest.started_at or now) > STUCK_S:
                self.leasing.ahead.forget()
                self._give_back(self.executor.withdraw())
        self._telling.send()

    def _hasten(self, held: Held) -> None:
        """A job has saved something: tell it now, and not at the next tick."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell_saved, held)

    def _tell_saved(self, held: Held) -> None:
        if held.hurries and held.key in self.desk.held:
            self._telling.post("extend", held, held.renewal(time.monotonic()))
            self._telling.let_go()

    # --- stopping

    def _interrupt(self, held: Held, reason: Interrupted) -> bool:
        return self.executor.interrupt(held, reason)

    @property
    def was_stopped(self) -> bool:
        """Whether it was asked to stop its jobs instead of finishing them."""
        return self._stops_by is not None

    def broke(self, text: str) -> None:
        """What runs the jobs has ended with an error, and they with it: one of them may be the reason, so the
        attempt counts. A thread runs on, and its job is held until it ends."""
        if self.executor.mode == "threads":
            return
        now = time.monotonic()
        for held in self.desk.running():
            held.ended_at = now
            self._finished([(held, Outcome("fail", {"error": text}, text))])

    def _stop_running(self) -> None:
        """Ask what runs to stop. A thread cannot be made to: it is held until it ends by itself."""
        for held in self.desk.running():
            self._interrupt(held, JobStopped("the worker was stopped"))

    async def _drain(self) -> None:
        """Wait for the jobs that run, and for the server to have heard of all."""
        desk, telling = self.desk, self._telling
        telling.let_go()
        self._give_back(self.executor.withdraw())
        while desk.held:
            if self._stops_by is not None and time.monotonic() > self._stops_by + GIVEN_UP_S:
                log.error("worker.left_running count=%d", len(desk.held))
                self.left = [
                    Letter("release", held.job.queue, held.job.id, held.job.lease, held.untold)
                    for held in desk.held.values()
                ]
                for held in desk.held.values():
                    end_span(held, Outcome("release", {}, "the worker ended while it ran"))
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

    # --- what others see of it

    def _see(self, queues: Iterable[str]) -> None:
        """Remember that the worker has to do with these queues, as far as a report can say so."""
        for queue in queues:
            if queue in self.desk.seen or len(self.desk.seen) < NAMES_MOST:
                self.desk.seen[queue] = None

    def told(self, status: str) -> bool:
        """What somebody has asked of this worker over HTTP: `quiet` or `start`. Whether that is new."""
        quiet = self.desk.quiet
        if status == "quiet" and "server" not in quiet:
            quiet.add("server")
            self._show_idle()
            self._withdraw_if_idle()
            return True
        if status == "start" and "server" in quiet:
            quiet.discard("server")
            self._show_idle()
            self.desk.changed.set()
            return True
        return False


def _with_the_last_words(held: Held, outcome: Outcome) -> Mapping[str, Any]:
    """The fields that settle a job, and what it has reported that the server may not have yet."""
    untold = held.untold
    if outcome.verb == "ack":
        untold.pop("saved", None)
    return {**outcome.fields, **untold}
