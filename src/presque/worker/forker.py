"""A process that forks for jobs, beside a worker that runs others in threads or in a loop.

A process with threads should not fork: a lock that another thread holds stays locked in the child forever.
So a worker that has jobs of both kinds forks this process before it has threads. It runs an executor of forks
for each limit. It leases nothing and settles nothing: the worker tells it through a socket which jobs to do,
and hears how they went. It ends when the worker does, and its jobs with it.

A message is its length in four bytes, and JSON:

    to the forker     ["put", lane, number, lease_s, job, trace]  ["stop", lane, number, why, text]
                      ["stored", lane, number, count]
    from the forker   ["wish", number, wish]  ["done", number, verb, fields, error, raised, ended_at]
                      ["group", pid]  ["gone", pid]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from presque.client.json_values import decoded, encoded
from presque.client.leased import LeasedJob
from presque.traces import tracing
from presque.worker import forked
from presque.worker.errors import Interrupted, JobCancelled, JobKilled, JobStopped, JobTimeout
from presque.worker.execution import Outcome
from presque.worker.executors import Finished, begin
from presque.worker.forks import Forks
from presque.worker.guard import guard
from presque.worker.held import Held
from presque.worker.job import Job, Stored
from presque.worker.logger import log
from presque.worker.signals import Signals, watch_forks
from presque.worker.titles import title
from presque.worker.watch import watch
from presque.worker.work import Work

TICK_S = 0.25
END_S = 5.0
_LENGTH = struct.Struct("!I")
_REASONS: dict[str, type[Interrupted]] = {
    one.__name__: one for one in (JobCancelled, JobKilled, JobStopped, JobTimeout)
}
LOST = "the process that forks for jobs has ended"


class Forker:
    """The worker's side: starts the process, and carries messages."""

    def __init__(self) -> None:
        self._lanes: list[Apart] = []
        self._works: list[tuple[Work, int]] = []
        self._running: dict[int, tuple[Apart, Held]] = {}
        self._own, self._other = socket.socketpair()
        self._link: _Link | None = None
        self._unsent: list[bytes] = []
        self._opening: asyncio.Task[None] | None = None
        self._pid = 0
        self._over: set[Apart] = set()
        self._closing = False
        self.lost = False
        """Whether the process has ended before its time."""
        self.on_lost: Callable[[], object] = bool

    def lane(self, work: Work, slots: int) -> Apart:
        """An executor whose jobs the process runs."""
        found = Apart(self, len(self._lanes), slots, work.settings.worker_id)
        self._lanes.append(found)
        self._works.append((work, slots))
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the process for as long as the block lasts. Enter it while there are no other threads."""
        parent = os.getpid()
        watch_forks()
        self._pid = os.fork()
        if self._pid == 0:
            self._own.close()
            _be_forker(self._other, self._works, parent)
        self._other.close()
        watch.workers.add(self._pid)  # without it the worker ends
        try:
            yield
        finally:
            watch.workers.discard(self._pid)
            self._closing = True
            self._own.close()
            self._end()

    def _end(self) -> None:
        until = time.monotonic() + END_S
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > until:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    return
                time.sleep(0.01)

    def kill(self) -> None:
        """End the process and its jobs at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    # --- in the lease loop

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear the process in this loop."""
        if self._opening is None:
            self._opening = loop.create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        link = _Link(self._heard, self._on_lost)
        await loop.create_connection(lambda: link, sock=self._own)
        self._link = link
        for one in self._unsent:
            link.write(one)
        self._unsent.clear()

    def send(self, *message: Any) -> None:
        """Tell the process something."""
        data = _frame(message)
        if self._link is None:
            self._unsent.append(data)
        else:
            self._link.write(data)

    def over(self, lane: Apart) -> None:
        """An executor has no more jobs."""
        self._over.add(lane)
        if len(self._over) == len(self._lanes) and self._link is not None:
            self._closing = True
            self._link.close()

    def begin(self, number: int, lane: Apart, held: Held) -> None:
        """The process is to do a job."""
        self._running[number] = lane, held

    def _heard(self, message: Sequence[Any]) -> None:
        what, *rest = message
        if what == "group":
            guard.add(rest[0])
        elif what == "gone":
            guard.remove(rest[0])
        elif what == "wish":
            number, wish = rest
            if number in self._running:
                job = self._running[number][1].job
                job.tell(job, wish)
        else:
            number, verb, fields, error, raised, ended_at = rest
            self._running[number][1].ended_at = ended_at
            self.end(number, Outcome(verb, fields, error, raised=raised))

    def end(self, number: int, outcome: Outcome) -> None:
        """A job is over."""
        lane, held = self._running.pop(number)
        lane.ended(held, outcome)

    def _on_lost(self) -> None:
        if self._closing:
            return
        self.lost = True
        log.error("worker.forker_lost pid=%d", self._pid)
        running, self._running = self._running, {}
        for lane, held in running.values():
            held.ended_at = time.monotonic()
            lane.ended(held, Outcome("release", {}, LOST))
        self.on_lost()


class Apart:
    """Runs each job in a process of its own, `slots` at once, forked by the process beside this one."""

    mode = "fork"
    wants_texts = True  # what is passed on is read there, however deep it is nested

    def __init__(self, forker: Forker, number: int, slots: int, worker: str) -> None:
        self.slots = self.ahead_most = slots
        self.forker = forker
        self.signals: Signals | None = None
        self._number, self._worker = number, worker
        self._waiting: deque[Held] = deque()
        self._running: dict[Held, int] = {}
        self._last = 0

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._loop, self._finished = loop, finished
        self.forker.attach(loop)

    def put(self, jobs: Sequence[Held]) -> None:
        self._waiting.extend(jobs)
        self._fill()

    def withdraw(self) -> list[Held]:
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def interrupt(self, held: Held, reason: Interrupted) -> bool:
        number = self._running.get(held)
        if number is None:
            return False
        held.job.cancelled = True
        self.forker.send("stop", self._number, number, type(reason).__name__, str(reason))
        return True

    def check(self, held: Held, now: float) -> None:
        """The process looks after its jobs itself."""

    def kill(self) -> None:
        self.forker.kill()

    def close(self) -> None:
        """The process ends when none of its executors has more jobs."""
        self.forker.over(self)

    def ended(self, held: Held, outcome: Outcome) -> None:
        """A job is over."""
        self._running.pop(held, None)
        held.job.stored = Stored()
        self._finished([(held, outcome)])
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            held = self._waiting.popleft()
            self._last += 1
            number = self._running[held] = self._last * 1000 + self._number
            begin(held, self._worker)
            held.job.stored = _StoredThere(self.forker, self._number, number)
            self.forker.begin(number, self, held)
            traced = tracing()
            trace = None if traced is None or held.job.span is None else traced.text_of_span(held.job.span)
            leased = held.leased if held.leased.text is None else held.leased._replace(value=None)
            try:
                self.forker.send("put", self._number, number, held.lease_s, leased, trace)
            except ValueError as error:  # it is nested too deep to be passed on
                held.ended_at = time.monotonic()
                outcome = Outcome("fail", {"error": str(error)}, str(error))
                self._loop.call_soon(self.forker.end, number, outcome)


class _StoredThere(Stored):
    """What the server has stored of a job's states: told to the process that runs the job."""

    __slots__ = ("_count", "_forker", "_lane", "_number")

    def __init__(self, forker: Forker, lane: int, number: int) -> None:
        self._forker, self._lane, self._number, self._count = forker, lane, number, 0

    @property
    def count(self) -> int:
        """How many."""
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        self._count = count
        self._forker.send("stored", self._lane, self._number, count)


class _Link(asyncio.Protocol):
    """One end of the socket: whole messages."""

    def __init__(self, heard: Callable[[Sequence[Any]], None], lost: Callable[[], None]) -> None:
        self._heard, self._lost = heard, lost
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._data)[0]
            if len(self._data) < end:
                return
            message = decoded(bytes(self._data[_LENGTH.size : end]))
            del self._data[:end]
            self._heard(message)

    def write(self, data: bytes) -> None:
        """Send a message; never waits."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is left, then no more. May be called from any thread, and again."""
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the signature is asyncio's)
        self._lost()


def _frame(message: Sequence[Any]) -> bytes:
    data = encoded(message).encode()
    return _LENGTH.pack(len(data)) + data


# --- in the process


def _be_forker(channel: socket.socket, works: Sequence[tuple[Work, int]], parent: int) -> NoReturn:
    code = 1
    try:
        watch.workers.add(parent)
        forked.settle_in(parent, [])
        title("forks for jobs")
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
            loop.run(_Process(channel, works).run())
        code = 0
    except BaseException:  # noqa: BLE001  (logged; the process ends here)
        log.exception("worker.broke worker=%s", "forker")
    finally:
        forked.flush()
        os._exit(code)


class _Process:
    """Does what the worker says, until it says no more."""

    def __init__(self, channel: socket.socket, works: Sequence[tuple[Work, int]]) -> None:
        self._channel = channel
        groups = _Groups(self._send)
        self._forks = [Forks(work, slots, groups=groups, private=[channel.fileno()]) for work, slots in works]
        self._jobs: dict[int, tuple[Forks, Held]] = {}
        self._numbers: dict[Held, int] = {}
        self._over = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGTERM, self._over.set)
        for one in self._forks:
            one.attach(loop, self._finished)
        self._link = _Link(self._heard, self._over.set)
        await loop.create_connection(lambda: self._link, sock=self._channel)
        ticking = loop.create_task(self._tick())
        await self._over.wait()
        ticking.cancel()
        for one in self._forks:
            one.kill()

    def _send(self, *message: Any) -> None:
        self._link.write(_frame(message))

    def _heard(self, message: Sequence[Any]) -> None:
        what, lane, number, *rest = message
        forks = self._forks[lane]
        if what == "put":
            lease_s, job, trace = rest
            leased = LeasedJob(*job)
            if leased.text is not None:
                leased = leased._replace(value=decoded(leased.text))
            held = Held(leased, self._wish, time.monotonic(), lease_s)
            held.job.span = trace
            self._jobs[number] = forks, held
            self._numbers[held] = number
            forks.put([held])
        elif number in self._jobs:
            held = self._jobs[number][1]
            if what == "stop":
                kind, text = rest
                forks.interrupt(held, _REASONS.get(kind, JobCancelled)(text))
            else:
                held.job.stored.count = rest[0]

    def _wish(self, job: Job, wish: Mapping[str, Any]) -> None:
        for number, (_, held) in self._jobs.items():
            if held.job is job:
                self._send("wish", number, dict(wish))
                return

    def _finished(self, done: list[tuple[Held, Outcome]]) -> None:
        for held, outcome in done:
            number = self._numbers.pop(held)
            del self._jobs[number]
            fields = dict(outcome.fields)
            self._send("done", number, outcome.verb, fields, outcome.error, outcome.raised, held.ended_at)

    def _reap(self) -> None:
        for one in self._forks:
            one.reap()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for forks, held in list(self._jobs.values()):
                forks.check(held, now)


class _Groups:
    """The process groups of jobs, which are reported to the worker's guard."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def add(self, group: int) -> None:
        """A job runs in this process group."""
        self._send("group", group)

    def remove(self, group: int) -> None:
        """It has ended."""
        self._send("gone", group)
