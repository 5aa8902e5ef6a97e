"""What a bulk task asks of the store: the steps in a queue, and a note of how far it has come.

Each step is one function of the store, which changes some jobs of a queue and, together with them, notes how
far the task has come in that queue (lua/bulk.lua). A step says which one it is, so one that is sent twice, or
by two servers, is made once.

To move jobs to a queue that may be on another node, a step takes them off their queue and then puts them on
the other one. What is on its way is in the store, and any server that continues the task finds it there.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from presque import codec
from presque.engine import calls
from presque.engine.access import Access
from presque.engine.bulk_task import Progress, Task, read_progress
from presque.engine.finding import ANSWER_BYTES, PIECE_BYTES, PIECE_JOBS, Finding, Place
from presque.engine.keys import TASKS, Keys
from presque.engine.notes import Notes
from presque.names import QueueList
from presque.store.disk import Disk
from presque.store.store import Store

log = logging.getLogger("presque.engine")

CLAIM_MS = 5000
"""How long a server has a task before it must tell the store again that it works on it."""


class Steps:
    """The calls of the store for the tasks that one server works on."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        finding: Finding,
        access: Access,
        notes: Notes,
        register: Callable[[str], None],
        disk: Disk,
    ) -> None:
        self.disk = disk
        self.me = secrets.token_hex(8)  # to the store, which knows who works on what
        self.on_queue = calls.OnQueue(store, keys)
        self.on_tasks = calls.OnKeys(store, TASKS, keys.tasks())
        self._register = register
        self._finding = finding
        self._access = access
        self._notes = notes

    async def save(self, task: Task, ended: str = "") -> str:
        """Note how far it has come, and that it continues here. Returns its status, `lost` if it is another
        server's by now."""
        found = await self.on_tasks("task_save", task.id, self.me, codec.encode(task.how), CLAIM_MS, ended)
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
        return read_progress(reply)

    async def left(self, task: Task, queue: str) -> tuple[Progress, bytes]:
        """How far it has come in a queue, and the batch of jobs on its way from there ("" if none)."""
        reply, batch = await self.on_queue("bulk_left", queue, task.id, answer=ANSWER_BYTES)
        return read_progress(reply), batch

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
        return read_progress(reply), batch

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
