"""Bulk tasks: something is done to all jobs that match a filter, by whichever server is there.

A task goes through its queues in alphabetical order, state by state. Each step is one function of the store,
which changes some jobs of a queue and, together with them, notes how far the task has come in that queue
(lua/bulk.lua). A step says which one it is, so one that is sent twice, or by two servers, is made once. So a
kill of any server at any moment loses no count and does nothing twice.

To move jobs to a queue that may be on another node, a step takes them off their queue and then puts them on
the other one. What is on its way is in the store, and any server that continues the task finds it there.

A server has a task for CLAIM_S and keeps telling the store that it still works on it (lua/tasks.lua). If it
falls silent another server takes the task over, from the step where it stands.

A task never keeps others waiting for long: a step looks at 100 jobs or 1 MiB, and after each the store has as
much time for others as the step took.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from presque import codec, names
from presque.engine import calls
from presque.engine.access import Access
from presque.engine.background import Background
from presque.engine.finding import ANSWER_BYTES, PIECE_BYTES, PIECE_JOBS, Filter, Finding, Place
from presque.engine.keys import TASKS, Keys
from presque.engine.notes import Notes
from presque.errors import (
    CallerError,
    DiskFull,
    NotFound,
    PresqueError,
    QueueFull,
    StoreFull,
    StoreUnavailable,
    shown,
)
from presque.names import QueueList
from presque.store.disk import Disk
from presque.store.store import Store
from presque.tokens import BadToken, Layer, Outside, Rules

log = logging.getLogger("presque.engine")

LOOK_S = 1.0
CLAIM_S = 5.0
SAVE_S = 0.5
AT_ONCE = 4  # tasks that one server works on
BURST_S = 0.1  # how much of its rate a task may do at once
REST_MOST_S = 0.05
TELLS_NOTHING = {"older", "newer", "priority"}  # filters that say nothing of what is in a job
WAIT_S = 0.5  # while jobs cannot be moved
PROBLEMS_MOST = 10
UNKNOWN = -1  # no step has this number: asked for it, the store says which one is due


class What(codec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is to be done, as the store has it. `filter` is in the words of lua/finding.lua.

    `by` and `name` say who asked for it; if that was the holder of an access token (`token`), the task ends
    when the token is no longer valid. `layers` are the rules that hold for them: (allowed or None, denied) of
    each layer.
    """

    act: str
    queues: str
    states: list[str]
    filter: dict[str, Any]
    to: str | None = None
    rate: float | None = None
    limit: int | None = None
    total: int | None = None
    by: str | None = None
    name: str | None = None
    token: bool = False
    layers: Sequence[tuple[list[str] | None, list[str]]] = ()


class How(codec.Struct, kw_only=True):
    """How far a task has come. The counts are those of the queues that it has done, and with those in `here`
    of all; `queue` is the one that it is in."""

    queue: str | None = None
    after: str = ""
    looked: int = 0
    matched: int = 0
    done: int = 0
    refused: int = 0
    here: tuple[int, int, int, int] = (0, 0, 0, 0)
    waits: str | None = None
    problems: Sequence[str] = ()


class Task(msgspec.Struct):
    """A task as the store has it. Moments are milliseconds since the epoch."""

    id: str
    status: str
    began: int
    ended: int | None
    what: What
    how: How = msgspec.field(default_factory=How)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """How many jobs were looked at, match, had it done, were refused."""
        how = self.how
        looked, matched, done, refused = how.here
        return how.looked + looked, how.matched + matched, how.done + done, how.refused + refused


class Progress(msgspec.Struct, frozen=True):
    """How far a task has come in one queue; see lua/bulk.lua."""

    step: int
    over: bool
    looked: int
    matched: int
    done: int
    refused: int
    state: int
    cursor: str
    top: int


class Bulk:
    """The bulk tasks of one namespace."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        finding: Finding,
        access: Access,
        notes: Notes,
        background: Background,
        register: Callable[[str], None],
        disk: Disk,
    ) -> None:
        self.disk = disk
        self._register = register
        self.on_queue = calls.OnQueue(store, keys)
        self._call = calls.OnKeys(store, TASKS, keys.tasks())
        self._finding = finding
        self._access = access
        self._notes = notes
        self._runs = False
        self._background = background
        self._me = secrets.token_hex(8)
        self._working: set[str] = set()
        self._look = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    # --- what callers ask for

    async def begin(self, what: What) -> Task:
        """Begin a task. Raises `CallerError` if there are too many."""
        put = "task_put_freeing" if what.act == "delete" else "task_put"  # also when the store is full
        reply = await self._call(put, codec.encode(what), codec.encode(How()))
        if reply == b"full":
            raise CallerError("there are 100 tasks that have not ended, the maximum; cancel some")
        self.look_soon()
        return _task(reply)

    async def show(self, id: str) -> Task:
        """One task. Raises `NotFound`."""
        reply = await self._call("task_show", id)
        if not reply:
            raise missing(id)
        return _task(reply)

    async def page(self, before: str, limit: int) -> list[Task]:
        """Tasks before this one, the newest first."""
        reply = await self._call("task_list", before, limit)
        return [_task(reply[at : at + 5]) for at in range(0, len(reply), 5)]

    async def steer(self, id: str, word: str) -> Task:
        """`pause` a task, `resume` or `cancel` it. One that has ended stays as it is. Raises `NotFound`."""
        if not await self._call("task_steer", id, word):
            raise missing(id)
        self.look_soon()
        return await self.show(id)

    # --- the work

    def look_soon(self) -> None:
        """There may be a task that no server works on."""
        if self._runs:
            self._look.set()
        else:
            self._background.spawn(self.look())

    async def look(self) -> None:
        """Begin to work on tasks that no server works on: once, where nothing `run`s."""
        with contextlib.suppress(PresqueError):  # the next server that looks finds them
            await self._claim()

    async def run(self) -> None:
        """Work on tasks that no server works on, until cancelled."""
        said, self._runs = "", True
        while True:
            try:
                await self._claim()
                said = ""
            except StoreUnavailable:
                pass  # it is logged where the connection is kept
            except PresqueError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("task.failed reason=%r", said)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()

    async def _claim(self) -> None:
        room = AT_ONCE - len(self._working)
        if room <= 0:
            return
        reply = await self._call("task_claim", self._me, _ms(CLAIM_S), room)
        for at in range(0, len(reply), 5):
            task = _task(reply[at : at + 5])
            if task.id not in self._working:
                self._working.add(task.id)
                self._background.spawn(self._work(task))

    async def _work(self, task: Task) -> None:
        """Go on with a task until it ends, somebody pauses it, or it is another server's."""
        work = _Work(self, task)
        try:
            await work.go()
        except StoreUnavailable:
            pass  # the next server that reaches the store takes it once the claim has ended
        except Exception as error:
            log.exception("task.broken id=%s reason=%r", task.id, str(error))
        finally:
            self._working.discard(task.id)
            self.look_soon()

    async def save(self, task: Task, ended: str = "") -> str:
        """Note how far it has come, and that it continues here. Returns its status, `lost` if it is another
        server's by now."""
        found = await self._call("task_save", task.id, self._me, codec.encode(task.how), _ms(CLAIM_S), ended)
        return str(found.decode())

    def valid(self, task: Task) -> bool:
        """Whether the access token that the task was asked with is still valid."""
        return not task.what.token or self._access.holds(task.what.by or "")

    def note_end(self, task: Task, status: str) -> None:
        """Tell the log, and the audit if there are access tokens."""
        what, (_, _, done, _) = task.what, task.counts
        log.info(
            "task.ended id=%s act=%s queues=%s status=%s done=%d",
            task.id,
            what.act,
            what.queues,
            status,
            done,
        )
        if what.by:
            said = {"kind": "act", "outcome": status, "verb": "task", "about": f"{what.queues} {what.act}"}
            self._notes.add(
                said | {"token": what.by, "name": what.name, "from": None, "task": task.id, "done": done}
            )

    async def step(self, task: Task, queue: str, number: int, room: int) -> Progress:
        """Make a step in a queue, if it is the one of this number that is due."""
        what = task.what
        asked = {"act": what.act, "states": what.states, "filter": what.filter, "bound": task.began}
        reply = await self.on_queue(
            "bulk_step", queue, task.id, number, PIECE_JOBS, PIECE_BYTES, room, codec.pack(asked)
        )
        return _progress(reply)

    async def left(self, task: Task, queue: str) -> tuple[Progress, bytes]:
        """How far it has come in a queue, and the batch of jobs on its way from there ("" if none)."""
        reply, batch = await self.on_queue("bulk_left", queue, task.id, answer=ANSWER_BYTES)
        return _progress(reply), batch

    async def put(self, task: Task, queue: str, batch: bytes) -> None:
        """Put a batch of jobs of `queue` on the other queue; nothing is done if it is there already."""
        assert task.what.to is not None
        self.disk.spend(len(batch))
        self._register(task.what.to)
        await self.on_queue("bulk_put", task.what.to, task.id, queue, batch)
        await self.on_queue("bulk_drop", queue, task.id, batch.partition(b" ")[0])

    async def take(self, task: Task, queue: str, progress: Progress, room: int) -> tuple[Progress, bytes]:
        """Take the next jobs off a queue, `room` at most: how far it has come then, and the batch."""
        what = task.what
        place = Place(queue, what.states[progress.state - 1], progress.cursor)
        piece = await self._finding.sift(
            place, what.filter, room, room, upward=True, top=progress.top, bound=task.began
        )
        keys = {job.uniq: job.id for job in piece.jobs if job.uniq is not None}
        refused: set[str] = set()
        if keys:
            _, *held = await self._room(task, *keys)
            refused = {id for id, is_held in zip(keys.values(), held, strict=True) if is_held}
        ids = [job.id for job in piece.jobs if job.id not in refused]
        found = {
            "following": piece.following,
            "looked": piece.looked,
            "matched": piece.matched,
            "refused": len(refused),
            "states": len(what.states),
        }
        reply, batch = await self.on_queue(
            "bulk_take", queue, task.id, progress.step, codec.pack(found), *ids, answer=ANSWER_BYTES
        )
        return _progress(reply), batch

    async def room(self, task: Task) -> int:
        """How many jobs the other queue has room for."""
        [room] = await self._room(task)
        return PIECE_JOBS if room < 0 else int(room)

    async def _room(self, task: Task, *keys: str) -> list[int]:
        assert task.what.to is not None
        found: list[int] = await self.on_queue("bulk_room", task.what.to, *keys)
        return found

    async def next_queue(self, task: Task, wanted: QueueList) -> str | None:
        """The queue that comes after those that are done."""
        found = await self._finding.next_queue(wanted, task.what.states, task.how.after)
        if found is not None and found == task.what.to:  # jobs are not moved to where they are
            found = await self._finding.next_queue(wanted, task.what.states, found)
        return found


class _Work:
    """One server's work on one task."""

    def __init__(self, bulk: Bulk, task: Task) -> None:
        self._bulk = bulk
        self._task = task
        self._clock = asyncio.get_running_loop().time
        self._saved_at = self._clock()
        self._allowed_at = self._clock()
        self._allowed = 0.0

    async def go(self) -> None:
        """Work until the end, or until it is not ours any more."""
        task = self._task
        if task.status == "running" and not await self._through():
            task.status = await self._bulk.save(task)
            if task.status == "running":
                return  # it waits
        if task.status == "paused":
            await self._bulk.save(task)
        if task.status == "cancelling":
            await self._end("cancelled")

    async def _through(self) -> bool:
        """Go through the queues. False if somebody wants it to stop."""
        task, how = self._task, self._task.how
        try:
            wanted = _wanted(task.what)
        except (PresqueError, BadToken) as error:
            how.problems = (str(error),)
            await self._end("failed")
            return True
        while True:
            if not self._bulk.valid(task):
                how.problems = [
                    *how.problems,
                    "the access token that began it is no longer valid",
                ]
                await self._end("failed")
                return True
            if how.queue is None:
                how.queue = await self._bulk.next_queue(task, wanted)
                if how.queue is None or self._left() <= 0:
                    await self._end("done")
                    return True
            try:
                if not await self._queue(how.queue):
                    return False
            except StoreUnavailable:
                raise
            except PresqueError as error:
                self._problem(how.queue, str(error))
            if not await self._leave_queue():
                return False

    async def _queue(self, queue: str) -> bool:
        """Do a queue. False if somebody wants it to stop."""
        progress = await self._begin(queue)
        while True:
            self._here(progress)
            if progress.over or self._left() <= 0:
                return True
            if not await self._alive():
                return False
            room = await self._room()
            if room > 0:
                began = self._clock()
                before = progress
                progress = await self._step(queue, before, room)
                self._allowed -= progress.done - before.done
                await asyncio.sleep(min(self._clock() - began, REST_MOST_S))

    async def _begin(self, queue: str) -> Progress:
        """How far it has come in a queue, once all that is on its way from there has arrived."""
        if self._task.what.act != "move":
            return await self._bulk.step(self._task, queue, UNKNOWN, 0)
        progress, batch = await self._bulk.left(self._task, queue)
        if batch:
            await self._bulk.put(self._task, queue, batch)
        return progress

    async def _step(self, queue: str, before: Progress, room: int) -> Progress:
        """Make the next step in a queue, if nothing stands in the way: how far it has come then."""
        task, bulk = self._task, self._bulk
        if task.what.act != "move":
            return await bulk.step(task, queue, before.step, room)
        try:
            room = min(room, await bulk.room(task))
            if room == 0 or bulk.disk.full:
                reason = str(bulk.disk.refusal() if bulk.disk.full else QueueFull())
                return await self._wait(before, reason)
            progress, batch = await bulk.take(task, queue, before, room)
            if batch:
                await bulk.put(task, queue, batch)
            elif progress.step == before.step:
                return await self._begin(queue)  # another server has begun with it
        except (StoreFull, DiskFull) as error:
            await self._wait(before, str(error))
            return await self._begin(queue)
        task.how.waits = None
        return progress

    async def _wait(self, progress: Progress, reason: str) -> Progress:
        self._task.how.waits = reason
        await asyncio.sleep(WAIT_S)
        return progress

    async def _leave_queue(self) -> bool:
        """Count what was done in a queue and go on to the next. False if somebody wants it to stop."""
        how = self._task.how
        queue, (looked, matched, done, refused) = how.queue, how.here
        how.looked, how.matched = how.looked + looked, how.matched + matched
        how.done, how.refused = how.done + done, how.refused + refused
        how.here, how.after, how.queue = (0, 0, 0, 0), queue or "", None
        going = await self._alive(now=True)
        if queue is not None and self._task.status != "lost":
            await self._forget(queue)
        return going

    async def _forget(self, queue: str) -> None:
        try:
            await self._bulk.on_queue("bulk_forget", queue, self._task.id)
        except StoreUnavailable:
            raise
        except PresqueError:
            pass  # a queue that is spoilt: it has been reported

    def _here(self, progress: Progress) -> None:
        self._task.how.here = (progress.looked, progress.matched, progress.done, progress.refused)

    def _left(self) -> int:
        """To how many jobs it may still be done."""
        limit = self._task.what.limit
        return PIECE_JOBS if limit is None else limit - self._task.counts[2]

    async def _room(self) -> int:
        """To how many jobs it may be done now. Waits for a moment if the rate allows none."""
        rate, most = self._task.what.rate, min(PIECE_JOBS, self._left())
        if rate is None:
            return most
        now = self._clock()
        burst = max(1.0, rate * BURST_S)
        self._allowed = min(burst, self._allowed + (now - self._allowed_at) * rate)
        self._allowed_at = now
        if self._allowed >= 1:
            return min(most, int(self._allowed))
        await asyncio.sleep(min((1 - self._allowed) / rate, SAVE_S))
        return 0

    async def _alive(self, *, now: bool = False) -> bool:
        """Whether to go on: now and then it is noted how far it has come, and asked."""
        if not now and self._clock() - self._saved_at < SAVE_S:
            return True
        self._task.status = await self._bulk.save(self._task)
        self._saved_at = self._clock()
        return self._task.status == "running" and self._bulk.valid(self._task)

    async def _end(self, status: str) -> None:
        """It is over: leave nothing of it in the queue that it is in."""
        task = self._task
        queue = task.how.queue
        task.how.waits = None
        if queue is not None:
            self._here(await self._begin(queue))
        if await self._bulk.save(task, status) != status:
            return  # another server ends it
        for one in (queue, task.what.to):
            if one is not None:
                await self._forget(one)
        self._bulk.note_end(task, status)

    def _problem(self, queue: str, reason: str) -> None:
        how = self._task.how
        log.warning("task.problem id=%s queue=%s reason=%r", self._task.id, queue, reason)
        if len(how.problems) < PROBLEMS_MOST:
            how.problems = (*how.problems, f"{queue}: {reason}")


def shows(act: str, only: Filter) -> bool:
    """Whether a task tells what is in jobs, by moving them or by which of them match."""
    return act == "move" or not only.keys() <= TELLS_NOTHING


def _wanted(what: What) -> QueueList:
    """The queues of a task, without those that its token does not allow. Raises `PresqueError`."""
    queues = names.queue_list(what.queues)
    excluded = queues.excluded
    if what.layers:
        layers = tuple(
            Layer(allow=None if allow is None else Rules(allow), deny=Rules(deny))
            for allow, deny in what.layers
        )
        scopes = ("control", "read") if shows(what.act, what.filter) else ("control",)
        excluded += tuple(Outside(scope, layers) for scope in scopes)
    return replace(queues, excluded=excluded)


def _task(parts: Sequence[Any]) -> Task:
    id, status, what, how, ended = parts
    began, _, packed = what.partition(b" ")
    try:
        found, come = codec.decode_stored(packed, What), codec.decode_stored(how, How)
    except ValueError as error:
        found = What(act="unknown", queues="*", states=[], filter={})
        come = How(problems=(f"it was written by another version of presque: {error}",))
    return Task(
        id.decode(), status.decode(), int(began or 0), int(float(ended)) if ended else None, found, come
    )


def _progress(reply: Sequence[Any]) -> Progress:
    step, over, looked, matched, done, refused, state, cursor, top = reply
    return Progress(step, over == 1, looked, matched, done, refused, state, cursor.decode(), top)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def missing(id: str) -> NotFound:
    """There is none."""
    return NotFound(f"there is no task `{shown(id)}`: it never existed, or ended long ago")
