"""Tells the server how jobs went, and which ones still run. What there is to tell waits in the outbox. The
lease loop takes it along with its next request where it can: then it *carries* the letters. While it waits
for jobs, has no room or is quiet, the settle loop sends them.

- A letter stays in the outbox until the server has answered it. Settling twice does no harm, so nothing is
  lost by asking again.
- A job whose lease ended before the server could hear that it was done is not done again when it comes back
  to this worker: its ack is repeated for the new lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from presque.client.answers import Settled
from presque.client.calls import taking
from presque.client.errors import ClientError
from presque.client.json_values import encoded
from presque.client.leased import LeasedJob, counts
from presque.worker.ahead import AHEAD_S
from presque.worker.backoff import Backoff
from presque.worker.desk import Desk
from presque.worker.errors import JobCancelled
from presque.worker.held import Held
from presque.worker.logger import log
from presque.worker.outbox import COUNT_MOST, Letter, Outbox, Verb, settlements

DONE_MOST = 10_000


class Telling:
    """The outbox of a worker, and who carries it. `cancel` tells a job that it should stop."""

    def __init__(self, desk: Desk, cancel: Callable[[Held, JobCancelled], object]) -> None:
        self._desk = desk
        self._cancel = cancel
        self._outbox = Outbox()
        self._unsent = asyncio.Event()
        self._done: dict[tuple[str, str, str], Any] = {}
        self.carries = False
        """Whether the lease loop takes the letters along."""
        self._since: float | None = None
        """Since when letters have waited for it."""

    @property
    def is_done(self) -> bool:
        """Whether the server has heard everything."""
        return not self._outbox and not self._unsent.is_set()

    def __len__(self) -> int:
        return len(self._outbox)

    def post(self, verb: Verb, held: Held, fields: Mapping[str, Any]) -> None:
        """Tell with the next request what becomes of a job."""
        size = 160
        if fields:
            size += sum(map(_size, fields.values()))
        # A job that was asked to stop may have returned early, so it does not count as done.
        whole = "" if held.job.cancelled else held.leased.pushed_at
        queue, id, lease = held.key
        self._outbox.put(_letter((verb, queue, id, lease, fields, size, whole)))

    def put(self, letter: Letter) -> None:
        """To be sent with the next request."""
        self._outbox.put(letter)

    def done_before(self, leased: LeasedJob) -> bool:
        """Whether this worker has done the job, and its lease had ended: the ack is repeated then."""
        if not self._done or (known := (leased.queue, leased.id, leased.pushed_at)) not in self._done:
            return False
        log.info("job.done_before queue=%s id=%s attempt=%d", leased.queue, leased.id, leased.attempt)
        fields = self._done.pop(known)
        self.put(Letter("ack", *known[:2], leased.lease, fields, pushed_at=known[2]))
        return True

    # --- who carries

    def carry(self) -> list[Letter]:
        """What the lease loop takes along."""
        self.carries, self._since = True, None
        return self._outbox.take()

    def put_back(self, letters: Sequence[Letter], error: ClientError) -> None:
        """These were sent and not answered, or refused. Raises when the server has refused from the start."""
        self._outbox.put_back(letters)
        self._desk.check(error)
        if error.status in (400, 413) and letters:
            self._split(error, letters)
        else:
            self._desk.waits(error)

    def send(self) -> None:
        """Send what there is, unless the lease loop carries it."""
        if not self._outbox:
            return
        if not self.carries:
            self._unsent.set()
        elif self._since is None:
            self._since = time.monotonic()
            self._desk.changed.set()

    def patience(self) -> float | None:
        """For how long what there is may still wait for the lease loop; None if there is nothing."""
        return None if self._since is None else AHEAD_S + self._since - time.monotonic()

    def let_go(self) -> None:
        """The lease loop carries no letters for now."""
        self.carries, self._since = False, None
        self.send()

    async def settle(self) -> None:
        """The settle loop."""
        backoff = Backoff()
        while True:
            await self._unsent.wait()
            letters = self._outbox.take()
            if not letters:
                self._unsent.clear()
                self._outbox.most = COUNT_MOST
                self._desk.changed.set()
                continue
            try:
                with sayable():
                    call = taking.settle(settlements(letters), self._desk.settings.worker_id)
                settled = await self._desk.client.perform(call)
                check_settled(settled, letters)
            except ClientError as error:
                self.put_back(letters, error)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._desk.answered()
            self.settled(letters, settled)
            self._desk.changed.set()

    # --- what the server said

    def settled(self, letters: Sequence[Letter], settled: Sequence[Settled]) -> None:
        """The server says what became of each lease."""
        for letter, told in zip(letters, _of_each(settled), strict=True):
            status = told["status"]
            if status == 200 and letter.verb == "ack":
                continue  # nearly all of them
            held = self._desk.held.get(letter.key)
            if status == 200:
                if letter.verb == "fail":
                    _log_what_follows(letter, told)
                if held is not None:
                    held.renewed(time.monotonic())
                    if told.get("cancel"):
                        self._cancel(held, JobCancelled("somebody deleted the job"))
                    if held.hurries:
                        self._desk.hasten(held)
                continue
            if letter.verb == "extend":
                if held is not None:
                    log.warning("lease.lost queue=%s id=%s reason=%s", letter.queue, letter.id, told["error"])
                    self._cancel(held, JobCancelled("its lease was lost"))
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
        held = self._desk.held.get(bad.key)
        if held is not None:
            held.renewed(time.monotonic())


def _size(value: Any) -> int:
    """About how long a field is in a request."""
    try:
        return len(str(value))
    except (ValueError, RecursionError):  # it has an integer of more digits than Python writes
        return len(encoded(value))


_letter: Callable[[tuple[Any, ...]], Letter] = functools.partial(tuple.__new__, Letter)


def _of_each(settled: Iterable[Settled]) -> Iterator[Settled]:
    """What became of each lease, where one answer speaks of several."""
    return chain.from_iterable(repeat(one, len(one["ids"]) if "ids" in one else 1) for one in settled)


def _log_what_follows(letter: Letter, told: Settled) -> None:
    """Of a job that failed: when it is retried, or that it is not."""
    queue, id = letter.queue, letter.id
    if told.get("state") == "dead":
        log.warning("job.dead queue=%s id=%s", queue, id)
    elif told.get("state") in ("ready", "scheduled"):
        log.info("job.retried queue=%s id=%s at=%s", queue, id, told.get("run_at", "once"))


@contextlib.contextmanager
def sayable() -> Iterator[None]:
    """What cannot be written as a request is as if the server had refused it: see `Telling.put_back`."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        raise ClientError(f"it cannot be written as JSON: {error}", status=400) from error


def check_settled(settled: Sequence[Settled], letters: Sequence[Letter]) -> None:
    """Raise `ClientError` unless each letter was answered."""
    if (count := counts(settled)) != len(letters):
        raise ClientError(f"the server settled {count} leases where {len(letters)} were told")
