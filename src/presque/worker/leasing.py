"""The lease loop: asks for jobs, as many as there is room for.

- What is to be settled travels with a request for jobs. A request that waits for jobs carries nothing, since
  its answer may take long.
- A request whose answer was lost is repeated with its `attempt_id`, and gets the same jobs.
- Jobs that are held ahead are bounded by time, see `ahead`.
- No request is waited for longer than its own wait and the client's time-out: a connection that died without
  a word costs at most twice the wait.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from presque.client.calls import taking
from presque.client.errors import ClientError
from presque.client.leased import Leased, LeasedJob
from presque.worker.ahead import Ahead
from presque.worker.backoff import Backoff
from presque.worker.desk import Desk
from presque.worker.executors import Executor
from presque.worker.fairness import Fair
from presque.worker.held import Held
from presque.worker.leftover import Left, left_in
from presque.worker.logger import log
from presque.worker.outbox import Letter, settlements
from presque.worker.telling import Telling, check_settled, sayable

REPEATS_FOR_S = 50.0
UNKNOWN_LEASE_S = 1.0
POLICY_S = 60.0
LOOK_BEHIND_S = 5.0
LIMITED_S = 2.0
"""How long a worker that is to end when the queues are empty waits for a limit, before it looks again."""
OTHERS_S = 0.1
"""How long it waits for the other runners of its process, whose jobs may push some for it."""

Taken = Callable[[list[Held]], None]
Begin = Callable[[Coroutine[Any, Any, None]], object]


class Leasing:
    """Asks for jobs until the worker stops. `taken` gets them, `begin` runs something beside the loop."""

    def __init__(self, desk: Desk, telling: Telling, executor: Executor, taken: Taken, begin: Begin) -> None:
        self._desk, self._telling, self._taken, self._begin = desk, telling, taken, begin
        self._settings, self._client = desk.settings, desk.client
        self._wants_texts = executor.wants_texts
        self._fair = Fair(desk.client, desk.settings.queues) if desk.settings.fair else None
        self.ahead = Ahead(executor.slots, min(desk.settings.prefetch, executor.ahead_most))
        self._leases: dict[str, tuple[float, float]] = {}
        self._attempt: _Attempt | None = None
        self._poll: asyncio.Future[Leased] | None = None
        self._limited = False

    @property
    def waits(self) -> bool:
        """Whether a request waits for jobs at the server."""
        return self._poll is not None

    def room(self) -> int:
        """How many jobs to ask for now."""
        desk = self._desk
        held = len(desk.held)
        room = self.ahead.room(held)
        if self._settings.max_jobs is not None:
            room = min(room, self._settings.max_jobs - desk.processed - desk.failed - held)
        return max(0, room)

    def withdraw(self) -> None:
        """Wait for no further jobs."""
        if self._poll is not None:
            self._poll.cancel()

    async def run(self) -> None:
        """The lease loop. Raises a `ClientError` when the server refuses from the start."""
        desk, telling, backoff = self._desk, self._telling, Backoff()
        while not desk.stopping:
            room = self._attempt.count if self._attempt is not None else self.room()
            if room == 0 or desk.quiet:
                await self._wait_for_room()
                continue
            letters = telling.carry()
            wait = self._wait_s(letters)
            if self._attempt is None:
                queues = await self._fair.order() if self._fair is not None else self._settings.queues
                self._attempt = _Attempt(queues, room)
            asked_at = time.monotonic()
            try:
                answer = await self._request(letters, wait)
            except ClientError as error:
                if self._attempt is not None and time.monotonic() - self._attempt.since > REPEATS_FOR_S:
                    self._attempt = None
                telling.put_back(letters, error)
                await self._rest(backoff.next())
                continue
            if answer is None:  # told to stop or to be quiet
                await self._look_behind()
                continue
            backoff.reset()
            desk.answered()
            self._attempt = None
            telling.settled(letters, answer.settled)
            self._take(answer.jobs)
            if not answer.jobs and self._settings.burst and not letters:
                if desk.held or len(telling):
                    await self._idle(within=1.0)
                    continue
                desk.found_empty_at = asked_at
                if not desk.all_empty:
                    await self._rest(OTHERS_S)
                elif not await self._is_limited():
                    desk.stopping = True
                elif time.monotonic() - asked_at < LIMITED_S / 2:
                    await self._rest(0.1)
            elif not answer.jobs and wait and time.monotonic() - asked_at < min(0.5, wait / 2):
                # The server did not wait: it is stopping, or something in between has no patience.
                await self._rest(backoff.next())

    def _wait_s(self, letters: Sequence[Letter]) -> float:
        """How long the next request may wait for a job: it carries no letters then."""
        if letters:
            return 0.0
        if self._settings.burst:
            limited = self._limited and not self._desk.held
            return min(LIMITED_S, self._settings.interval) if limited else 0.0
        return self._settings.interval

    async def _is_limited(self) -> bool:
        """Whether jobs are ready that a limit or a rate holds back. If not, says what else is left.

        Stopped queues are not waited for, nor jobs that are scheduled or held by others.
        """
        try:
            left = await left_in(self._client, self._settings.queues)
        except ClientError:
            left = Left()
        self._limited = left.ready > 0
        if not self._limited and (left.stopped or left.scheduled or left.leased):
            log.info(
                "worker.left_waiting worker=%s stopped=%d scheduled=%d leased=%d",
                self._settings.worker_id, left.stopped, left.scheduled, left.leased,
            )  # fmt: skip
        return self._limited

    async def _request(self, letters: Sequence[Letter], wait: float) -> Leased | None:
        """Ask for jobs. None: it was interrupted, and what the server did is not known."""
        attempt = self._attempt
        assert attempt is not None
        with sayable():
            call = taking.lease(
                attempt.queues, count=attempt.count, seconds=self._settings.lease, wait=wait or None,
                attempt_id=attempt.id, worker=self._settings.worker_id, settlements=settlements(letters),
                texts=self._wants_texts,
            )  # fmt: skip
        if not wait:
            return checked(await self._client.perform(call), attempt.count, letters)
        self._telling.let_go()
        self._poll = asyncio.ensure_future(self._client.perform(call))
        try:
            return checked(await self._poll, attempt.count, letters)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None  # the poll alone was cancelled, by `withdraw`
        finally:
            self._poll = None

    async def _look_behind(self) -> None:
        """After a poll that was cut off, an answer may have been on its way: give its jobs back."""
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        call = taking.lease(attempt.queues, count=1, attempt_id=attempt.id, worker=self._settings.worker_id)
        try:
            async with asyncio.timeout(LOOK_BEHIND_S):
                found = await self._client.perform(call)
        except (ClientError, TimeoutError):
            return  # their leases run out
        for job in found.jobs:
            self._telling.put(Letter("release", job.queue, job.id, job.lease, {}))
        self._telling.let_go()

    def _take(self, jobs: Sequence[LeasedJob]) -> None:
        desk, now = self._desk, time.monotonic()
        queues = dict.fromkeys([one.queue for one in jobs])
        lease_s = {queue: self._settings.lease or self._lease_of(queue, now) for queue in queues}
        taken = []
        for leased in jobs:
            if self._telling.done_before(leased):
                continue
            held = Held(leased, desk.wish, now, lease_s[leased.queue])
            desk.held[held.key] = held
            taken.append(held)
        if taken:
            self._desk.found_empty_at = -1.0
            self._taken(taken)

    def _lease_of(self, queue: str, now: float) -> float:
        """How long jobs of this queue are leased for. Short until its policy is known: early is harmless."""
        lease_s, asked_at = self._leases.get(queue, (UNKNOWN_LEASE_S, -POLICY_S))
        if now - asked_at >= POLICY_S:
            self._leases[queue] = lease_s, now
            self._begin(self._ask_policy(queue))
        return lease_s

    async def _ask_policy(self, queue: str) -> None:
        try:
            policy = await self._client.policy(queue)
        except ClientError:
            return
        self._leases[queue] = float(policy["lease"]), time.monotonic()
        for held in self._desk.held.values():
            if held.job.queue == queue:
                held.lease_s = float(policy["lease"])

    async def _wait_for_room(self) -> None:
        """While quick jobs are held ahead there is room in a moment: the letters go with that request."""
        patience = self._telling.patience()
        if (patience is None or patience > 0) and self.ahead.some and not self._desk.quiet:
            self._telling.carries = True
            await self._desk.wait(patience)
        else:
            await self._idle()

    async def _idle(self, within: float | None = None) -> None:
        """Wait until something has changed; others carry the letters meanwhile."""
        self._telling.let_go()
        await self._desk.wait(within)

    async def _rest(self, seconds: float) -> None:
        """Wait this long, or until told to stop."""
        self._telling.let_go()
        until = time.monotonic() + seconds
        while not self._desk.stopping and (left := until - time.monotonic()) > 0:
            await self._idle(within=left)


def checked(answer: Leased, count: int, letters: Sequence[Letter]) -> Leased:
    """An answer that fits what was asked. Raises `ClientError` for one that does not."""
    if len(answer.jobs) > count:
        raise ClientError(f"the server handed out {len(answer.jobs)} jobs where {count} were asked for")
    check_settled(answer.settled, letters)
    return answer


class _Attempt:
    """A request for jobs that may have to be repeated."""

    def __init__(self, queues: str, count: int) -> None:
        self.id = secrets.token_hex(12)
        self.queues = queues
        self.count = count
        self.since = time.monotonic()
