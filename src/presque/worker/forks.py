"""A forked child for each job, as resque does: whatever the job does, the worker goes on.

The child tells its parent through a pipe, one JSON document a line: `{"wish": …}` while it works and
`{"outcome": …}` at its end. The parent has one thread and never waits for a child: it reads what
comes, hears of a child's end by SIGCHLD, and what was not said it makes out from how the child ended.

A child has a process group of its own, so that a Ctrl-C at the terminal reaches the worker alone, and what
the job itself started goes with it. It dies with its parent (Linux), so that no job goes on unwatched while
somebody else does it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import mmap
import os
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from presque.client.async_client import AsyncClient
from presque.client.json_values import integer
from presque.worker import execution, forked, loops, signals, surroundings
from presque.worker.errors import Interrupted, JobCancelled, JobKilled, JobStopped, JobTimeout
from presque.worker.execution import Outcome
from presque.worker.executors import Finished, begin, log_start
from presque.worker.guard import guard
from presque.worker.held import Held
from presque.worker.interrupts import theirs
from presque.worker.job import Job, Stored
from presque.worker.logger import log
from presque.worker.results import ran
from presque.worker.signals import Signals
from presque.worker.titles import title
from presque.worker.work import Work

FAIL_WITHIN_S = 30.0
SAID_MOST = 1 << 20
DONE_UNSAID, FAILED_UNSAID = 117, 118
"""The exit codes of a child that could not say how its job went, its pipe being closed by the job."""
_CODES: dict[type[Interrupted], int] = {JobTimeout: forked.LATE, JobStopped: forked.STOPPED}


_COUNT = struct.Struct("=Q")
_COUNT_AT, _SHARED_BYTES = 8, 16


class StoredShared(Stored):
    """The same for a job in a child: the parent writes it into the memory that they share."""

    __slots__ = ("_shared",)

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared

    @property
    def count(self) -> int:
        """How many."""
        found: int = _COUNT.unpack_from(self._shared, _COUNT_AT)[0]
        return found

    @count.setter
    def count(self, count: int) -> None:
        _COUNT.pack_into(self._shared, _COUNT_AT, count)


class Groups(Protocol):
    """Hears which process groups there are, to end them when the worker is killed: the guard."""

    def add(self, group: int) -> None:
        """A job runs in this process group."""

    def remove(self, group: int) -> None:
        """It has ended."""


class Child:
    """One forked process and what it has said. `held` is None for one that only tells of a failure."""

    def __init__(self, pid: int, pipe: int, job: Job, held: Held | None) -> None:
        self.pid, self.pipe, self.job, self.held = pid, pipe, job, held
        self.said = b""
        self.outcome: Outcome | None = None
        self.reason: Interrupted | None = None
        self.give_up_at: float | None = None
        self.told: mmap.mmap | None = None
        self.words = -1
        """A pipe for what a program tells, beside what it writes to standard error."""
        self.words_said = b""
        self.told_so_far: dict[str, Any] = {}


class Forks:
    """Runs each job in a child of its own, `slots` at once."""

    mode = "fork"
    wants_texts = False

    def __init__(
        self, work: Work, slots: int, *, groups: Groups = guard, private: Sequence[int] = ()
    ) -> None:
        self.slots = self.ahead_most = slots  # so that no process waits for the answer of the server
        self.client: AsyncClient | None = None
        self._groups, self._private = groups, private
        self._work = work
        self._timeout = work.settings.timeout
        self._late = f"took longer than its time limit of {self._timeout or 0:g} s"
        self._memory = work.settings.max_memory
        self._grace_s = work.settings.grace
        self.signals: Signals | None = None
        self._children: dict[int, Child] = {}
        self._waiting: list[Held] = []
        self._frozen = False

    def attach(self, loop: asyncio.AbstractEventLoop, finished: Finished) -> None:
        self._loop, self._finished = loop, finished

    def put(self, jobs: Sequence[Held]) -> None:
        self._waiting.extend(jobs)
        self._fill()

    def withdraw(self) -> list[Held]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def interrupt(self, held: Held, reason: Interrupted) -> bool:
        for child in self._children.values():
            if child.held is held:
                self._stop(child, reason)
                return True
        return False

    def check(self, held: Held, now: float) -> None:
        """End jobs that have run too long, and those that were asked to end and have not."""
        for child in list(self._children.values()):
            if child.held is not held:
                continue
            late = self._timeout and held.started_at and now - held.started_at > self._timeout
            if late and child.reason is None and child.outcome is None:
                self._stop(child, JobTimeout(self._late))
            if child.give_up_at is not None and now > child.give_up_at:
                if child.outcome is not None:
                    log.warning(
                        "job.exit_cut_off queue=%s id=%s pid=%d", held.job.queue, held.job.id, child.pid
                    )
                kill_group(child.pid)
            elif child.told is not None and child.told[0]:
                self.ask(child)  # it came at a bad moment

    def kill(self) -> None:
        for pid in self._children:
            kill_group(pid)

    def close(self) -> None:
        """Children that only tell of failures end by themselves, or with this process."""

    def reap(self) -> None:
        """A child has ended: called in the loop after each SIGCHLD."""
        for child in list(self._children.values()):
            try:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                pid, status, usage = child.pid, 0, None
            if pid:
                self._ended(child, status, usage)

    # --- in the parent

    def _fill(self) -> None:
        running = sum(1 for child in self._children.values() if child.held is not None)
        while self._waiting and running < self.slots:
            held = self._waiting.pop(0)
            begin(held, self._work.settings.worker_id)
            outcome = contextvars.copy_context().run(self._begin, held)
            if outcome is None:
                running += 1
            else:
                held.ended_at = time.monotonic()
                self._loop.call_soon(self._finished, [(held, outcome)])

    def _begin(self, held: Held) -> Outcome | None:
        """Fork for a job, or say what becomes of it when that does not work. In a context of its own."""
        try:
            if self._work.before_fork is not None:
                ran(self._work.before_fork(held.job), "before_fork")
        except BaseException as error:  # noqa: BLE001  (a hook may raise anything)
            return execution.failed(self._work, held.job, error)
        try:
            self._fork(held.job, held)
        except OSError as error:  # no process to be had: that is not the job's fault
            return Outcome("release", {"delay": 1}, f"cannot fork: {error}")
        return None

    def _fork(self, job: Job, held: Held | None, error: BaseException | None = None) -> None:
        if not self._frozen:  # what exists now is shared with the children and never looked through again
            self._frozen = True
            surroundings.guard()
            gc.collect()
            gc.freeze()
        forked.flush()
        told = None
        if held is not None:
            told = mmap.mmap(-1, _SHARED_BYTES)
            job.stored = StoredShared(told)
        reading, writing = os.pipe()
        words = self.pipe_for_words()
        parent = os.getpid()
        try:
            pid = signals.fork()
        except BaseException:
            for one in (reading, writing, *words):
                os.close(one)
            raise
        if pid == 0:
            os.close(reading)
            self._be_child(job, writing, parent, error, told)
        os.close(writing)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # the child does the same, and either may come first
        os.set_blocking(reading, False)
        child = self._children[pid] = Child(pid, reading, job, held)
        child.told = told
        self.hear_words(child, words)
        self._groups.add(pid)
        if held is not None:
            log_start(held, pid)
        else:
            child.give_up_at = time.monotonic() + FAIL_WITHIN_S
            self._loop.call_later(FAIL_WITHIN_S, kill_group_if, self._children, pid)
        self._loop.add_reader(reading, self._hear, child)

    def pipe_for_words(self) -> tuple[int, ...]:
        """A further pipe to the child, if it needs one: where it is read, and where it is written to."""
        return ()

    def hear_words(self, child: Child, words: tuple[int, ...]) -> None:
        """Hear what comes through it, in the parent."""

    def hear_the_last_words(self, child: Child) -> None:
        """Hear what is left in it, and close it: the child has ended."""

    def _hear(self, child: Child) -> None:
        """Read what the child has written so far."""
        while child.pipe >= 0:
            try:
                data = os.read(child.pipe, 1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._deafen(child)
                return
            self.heard(child, data)

    def heard(self, child: Child, data: bytes) -> None:
        """The child has written something."""
        child.said += data
        *lines, child.said = child.said.split(b"\n")
        for line in lines:
            if line:
                self._understand(child, line)
        if len(child.said) > SAID_MOST:  # the job itself writes to our pipe
            child.said = b""

    def _understand(self, child: Child, line: bytes) -> None:
        try:
            said = json.loads(line, parse_constant=no_constant, parse_int=integer)
            if "wish" in said:
                if child.held is not None:
                    child.job.tell(child.job, dict(said["wish"]))
            else:
                verb, fields, error, raised = said["outcome"]
                if verb in ("ack", "fail", "release"):
                    child.outcome = Outcome(verb, dict(fields), str(error), raised=str(raised))
                    child.give_up_at = time.monotonic() + self._grace_s  # for its exit handlers and threads
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("job.said_nonsense queue=%s id=%s", child.job.queue, child.job.id)

    def _deafen(self, child: Child) -> None:
        if child.pipe >= 0:
            self._loop.remove_reader(child.pipe)
            os.close(child.pipe)
            child.pipe = -1

    def _stop(self, child: Child, reason: Interrupted) -> None:
        """Let a job clean up, and end it when the grace is over. A job to be killed ends at once."""
        held = child.held
        if held is not None:
            held.job.cancelled = True
        if child.reason is None or isinstance(reason, JobStopped):
            child.reason = reason
        if child.give_up_at is None:
            child.give_up_at = time.monotonic() + self._grace_s
        if type(reason) is JobKilled:
            kill_group(child.pid)
        elif child.outcome is None:
            if child.told is not None:
                child.told[0] = _CODES.get(type(reason), forked.CANCELLED)
            self.ask(child)

    def ask(self, child: Child) -> None:
        """Make the job in a child stop."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGURG)

    def _ended(self, child: Child, status: int, usage: Any) -> None:
        """The child has ended: hear its last words, and settle its job."""
        self._hear(child)
        self._deafen(child)
        self.hear_the_last_words(child)
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)  # what it left behind
        del self._children[child.pid]
        self._groups.remove(child.pid)
        held = child.held
        if child.told is not None:
            child.job.stored = Stored()
            child.told.close()
        if held is None:
            return
        held.ended_at = time.monotonic()
        outcome = child.outcome
        if isinstance(child.reason, JobStopped) and outcome is None:
            outcome = Outcome("release", {}, str(child.reason))
        if outcome is None:
            outcome = self.verdict(child, status)
        log.debug(
            "job.process_ended queue=%s id=%s pid=%d status=%d max_rss_kb=%d",
            child.job.queue, child.job.id, child.pid, status, usage.ru_maxrss if usage else 0,
        )  # fmt: skip
        self._finished([(held, outcome)])
        self._fill()

    def verdict(self, child: Child, status: int) -> Outcome:
        """What becomes of a job whose process ended without a word."""
        if self.exit_code(status) == DONE_UNSAID:
            return execution.DONE
        return self.blamed(child, child.reason or JobKilled(self.how(status)))

    def blamed(self, child: Child, error: Interrupted) -> Outcome:
        """What becomes of a job whose process was ended for this reason."""
        if isinstance(error, JobCancelled | JobStopped):
            return execution.given_back(error)
        if self._work.listeners:
            try:
                self._fork(child.job, None, error)  # in a child again: it is the user's code
            except OSError:
                log.warning("job.fail_not_called queue=%s id=%s", child.job.queue, child.job.id)
        return execution.outcome_of(error)

    def how(self, status: int) -> str:
        """How a process ended, in words."""
        if self.exit_code(status) == FAILED_UNSAID:
            return "the job failed and could not say why, since it has closed its files"
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            try:
                name = signal.Signals(number).name
            except ValueError:
                name = "unknown"
            more = "; perhaps the system was out of memory" if number == signal.SIGKILL else ""
            return f"its process was killed by signal {number} ({name}){more}"
        return f"its process ended with exit status {self.exit_code(status)} before the job was done"

    @staticmethod
    def exit_code(status: int) -> int:
        """The exit code in what `wait` says, -1 after a signal."""
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1

    # --- in the child

    def _be_child(
        self, job: Job, writing: int, parent: int, error: BaseException | None, told: mmap.mmap | None
    ) -> NoReturn:
        code = 1
        own = os.getpid()
        try:
            forked.settle_in(parent, self._ours())
            title(f"works on {job.queue}/{job.id}")
            code = self._tell_failure(job, error) if told is None else self.live(job, writing, told)
        except BaseException:  # noqa: BLE001  (logged; the child ends here)
            log.exception("job.child_broke queue=%s id=%s", job.queue, job.id)
        finally:
            if os.getpid() == own:
                forked.wind_up()
                forked.flush()
            os._exit(code)

    def _ours(self) -> list[int]:
        """The descriptors that are for the parent alone."""
        own = [] if self.client is None else self.client.transport.sockets()
        pipes = [pipe for child in self._children.values() for pipe in (child.pipe, child.words)]
        return [*own, *self._private, *(pipe for pipe in pipes if pipe >= 0)]

    def live(self, job: Job, writing: int, told: mmap.mmap) -> int:
        """Do the job and say how it went. Returns the exit code."""
        pipe, own = forked.identity(writing), os.getpid()

        def tell(message: Mapping[str, Any]) -> bool:
            """The job may have closed the pipe, and opened something else under its number."""
            return forked.identity(writing) == pipe and forked.say(writing, message)

        def wish(_job: Job, wishes: Mapping[str, Any]) -> None:
            tell({"wish": dict(wishes)})

        job.tell = wish
        interrupting = forked.Interrupting(told, job, self._late)
        self.limit_memory()
        outcome = self._perform(job, interrupting)
        interrupting.end()
        if os.getpid() != own:
            os._exit(0)  # a child that the job has forked, and that came back from it
        if interrupting.raised is not None:
            counts = execution.overruled(outcome, interrupting.raised)
            outcome = counts or self._failed(job, interrupting.raised)
        if tell({"outcome": [outcome.verb, outcome.fields, outcome.error, outcome.raised]}):
            return 0
        return DONE_UNSAID if outcome.verb == "ack" else FAILED_UNSAID

    def limit_memory(self) -> None:
        """From here on the process gets no more memory than the limit says."""
        if self._memory is not None:
            import resource  # Unix has it, and elsewhere nothing forks

            resource.setrlimit(resource.RLIMIT_DATA, (self._memory, self._memory))

    def _perform(self, job: Job, interrupting: forked.Interrupting) -> Outcome:
        work = self._work
        try:
            if work.after_fork is not None:
                ran(theirs(work.after_fork, job), "after_fork")
        except BaseException as error:  # noqa: BLE001  (a hook may raise anything)
            return self._failed(job, error)
        if work.awaits(job):
            try:
                outcome = loops.run_alone(work, job, interrupting.on_task, lambda: interrupting.raised)
            except BaseException as error:  # noqa: BLE001  (it has closed the descriptors of its loop)
                outcome = self._failed(job, error)
        else:
            outcome = execution.perform(work, job)
        if self._memory is not None and outcome.out_of_memory:
            text = f"over its memory limit of {self._memory >> 20} MiB (MemoryError)"
            return Outcome("fail", {**outcome.fields, "error": text}, text, raised=outcome.raised)
        return outcome

    def _failed(self, job: Job, error: BaseException) -> Outcome:
        if self._work.awaits(job):
            return loops.run(execution.failed_async(self._work, job, error))
        return execution.failed(self._work, job, error)

    def _tell_failure(self, job: Job, error: BaseException | None) -> int:
        if error is not None:
            self._failed(job, error)
        return 0


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise ValueError(name)


def kill_group(pid: int) -> None:
    """End a child and all that it started."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
            return


def kill_group_if(children: Mapping[int, Child], pid: int) -> None:
    """End a child that is still there."""
    if pid in children:
        kill_group(pid)
