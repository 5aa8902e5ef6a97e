"""Verbs on single jobs that are in the store, and on the policy of a queue: one call to the store each."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from presque import codec
from presque.engine import calls, replies
from presque.engine.keys import Keys
from presque.engine.records import seal
from presque.engine.sizes import ANSWER_BYTES, JOB_BYTES
from presque.errors import JobGone, NotFound, StoreUnavailable, WrongState
from presque.job import Explained, Job, JobState
from presque.store.channels import Channels, Hearing
from presque.store.disk import OF_A_JOB, Disk
from presque.store.store import Store

LOOK_AGAIN_S = 5.0
RETRY_A_CALL = 250
PAGE_BYTES = 2 * 1024 * 1024  # with all that is known of the jobs, which costs more to write
REJOIN_MOST = 10_000  # calls, of some groups each

MISSING = "there is no such job: it was never pushed, or is finished and was not kept"


class Jobs:
    """The jobs of one namespace, one at a time."""

    def __init__(
        self, store: Store, channels: Channels, keys: Keys, disk: Disk, waits_here: Callable[[str], bool]
    ) -> None:
        self._waits_here = waits_here
        self._disk = disk
        self._store = store
        self._channels = channels
        self._keys = keys
        self._call = calls.OnQueue(store, keys)
        self._ends: dict[str, _Ends] = {}
        self._stopping = False
        self._ahead_s = 0.0  # how far the store's clock was moved for a test
        self._moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop_waiting(self) -> None:
        """Let those who wait for the end of a job see it as it is now, and let nobody wait from now on."""
        self._stopping = True
        for ends in self._ends.values():
            for waiting in ends.waiting.values():
                for heard in waiting:
                    heard.cancel()

    async def show(self, queue: str, job: str) -> Job:
        """What there is to know of a job. Raises `NotFound`."""
        reply = await self._call("show", queue, job, answer=JOB_BYTES)
        if not reply:
            raise NotFound(MISSING)
        return replies.job(queue, reply)

    async def page(self, queue: str, state: JobState, limit: int, cursor: str) -> tuple[list[Job], str]:
        """Some jobs of one state, newest first, and the cursor for the next page ("" after the last).

        A page may hold fewer than `limit` jobs, or none, and still have a next.
        """
        reply = await self._call("list", queue, state.value, limit, cursor, PAGE_BYTES, answer=ANSWER_BYTES)
        return [replies.job(queue, one) for one in reply[1:]], reply[0].decode()

    async def patch(
        self,
        queue: str,
        job: str,
        *,
        priority: int | None,
        delayed: int | None,
        delay: int | None,
        body: bytes | None,
    ) -> None:
        """Change a job that waits. Raises `NotFound`, or `WrongState` for one that does not.

        A new body is refused like a push when memory or the disk is full (`StoreFull`, `DiskFull`).
        """
        numbers = ("" if number is None else number for number in (priority, delayed, delay))
        if body is None:
            reply = await self._call("patch", queue, job, *numbers, b"")
        elif self._disk.full:
            raise self._disk.refusal()
        else:
            self._disk.spend(len(body) + OF_A_JOB)
            reply = await self._call("patch_body", queue, job, *numbers, seal(body))
        if reply == b"missing":
            raise NotFound(MISSING)
        if reply == b"late" or reply.startswith(b"quota "):
            raise replies.refusal(reply)
        if reply == b"moved":
            raise WrongState("the job was moved 255 times, the maximum; delete it and push it again")
        if reply == b"damaged":
            raise WrongState("the stored job is damaged and cannot be changed; delete it")
        if reply != b"ok":
            raise WrongState(
                f"the job is {reply.decode()}; only one that is scheduled or ready can be changed"
            )

    async def remove(self, queue: str, job: str) -> bool:
        """Delete a job. False if it is leased: then its holder is notified, and the job is not retried.

        Raises `NotFound`.
        """
        reply = await self._call("remove", queue, job)
        if reply == b"missing":
            raise NotFound(MISSING)
        return bool(reply == b"deleted")

    async def retry(self, queue: str, job: str) -> None:
        """Retry a dead job; its attempts count from 0. Raises `NotFound` or `WrongState`."""
        reply = await self._call("retry", queue, job, 0, 0, 0)
        if reply == b"missing":
            raise NotFound(MISSING)
        if reply != b"ready":
            raise WrongState(f"the job is {reply.decode()}; only a dead one can be retried")

    async def retry_all(self, queue: str, limit: int | None, rate: float | None) -> int:
        """Let dead jobs be tried again, those that died first, at most `rate` a second. Returns how many."""
        gap = 0.0 if rate is None else 1000 / rate
        done = 0
        while limit is None or done < limit:
            some = RETRY_A_CALL if limit is None else min(RETRY_A_CALL, limit - done)
            found, left = await self._call("retry", queue, "", some, f"{gap:.3f}", int(done * gap))
            done += found
            if limit is None or limit > done + left:
                limit = done + left  # those that die meanwhile do not count
            if not found:
                break
        return done

    async def explain(self, queue: str, job: str) -> Explained:
        """What a job waits for. Raises `NotFound`."""
        reply = await self._call("explain", queue, job)
        if not reply:
            raise NotFound(MISSING)
        by_name, by_pattern = self._keys.wake(queue), self._keys.wake_any()
        # Channels of two hash tags: on several nodes each is to be asked of its own.
        found = await self._store.call(queue, "PUBSUB", "SHARDNUMSUB", by_name, by_pattern)
        elsewhere = found[3] - self._channels.hears(by_pattern)  # who can tell for which patterns
        named = max(0, found[1] - self._channels.lingers(by_name))
        listeners = named + max(0, elsewhere) + self._waits_here(queue)
        return replies.explained(reply, listeners=listeners)

    async def policy(self, queue: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What differs from the defaults in the policy of a queue, after these changes.

        The words are those of lua/policy.lua; False goes back to the default. That of a queue of which
        nothing is stored yet is refused like a push (`NamespaceFull`, `StoreFull`, `DiskFull`).
        """
        packed = codec.pack(dict(changes)) if changes else b""
        reply = await self._call("policy_known", queue, packed, "known")
        if reply == [b"new"]:
            if self._disk.full:
                raise self._disk.refusal()
            reply = await self._call("policy", queue, packed)
        if isinstance(reply, list):  # the namespace may not have another queue
            raise replies.refusal(reply[0])
        if packed:
            await self._rejoin(queue)
        found: dict[str, Any] = codec.unpack(reply) or {}
        return found

    async def _rejoin(self, queue: str) -> None:
        """Let groups that were at their limit have a turn: they may have room now."""
        following = "0"
        for _ in range(REJOIN_MOST):
            following = (await self._call("rejoin", queue, following)).decode()
            if following == "0":
                return

    async def end(self, queue: str, job: str, seconds: float) -> Job:
        """The job once it is done, dead or deleted, or as it is after `seconds`.

        A job that ends and is not kept is returned as last seen, with its final state. Raises
        `NotFound` for a job that is not there, `JobGone` for one whose end nobody heard of.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._ahead_s + seconds
        heard: asyncio.Future[str] = loop.create_future()
        ends = self._wait_for_end(queue, job, heard)
        try:
            with contextlib.suppress(StoreUnavailable):  # then it is looked at now and then
                await ends.hearing.begun()
            found = await self.show(queue, job)
            while found.state not in (JobState.DONE, JobState.DEAD):
                left = deadline - loop.time() - self._ahead_s
                if left <= 0 or self._stopping:
                    break
                # A message may get lost with the connection, so look again now and then.
                waited = (heard, self._moved)
                await asyncio.wait(
                    waited, timeout=min(left, LOOK_AGAIN_S), return_when=asyncio.FIRST_COMPLETED
                )
                try:
                    found = await self.show(queue, job)
                except NotFound:
                    if not heard.done() or heard.cancelled():
                        raise JobGone from None
                    return msgspec.structs.replace(found, state=JobState(heard.result()), lease_until=None)
                if heard.done():
                    break  # it is alive again, or its end is kept
            return found
        finally:
            self._stop_waiting(queue, job, heard)

    def moved(self, seconds: float) -> None:
        """The store's clock was moved for a test: end the waits that would be over by now."""
        self._ahead_s += max(0.0, seconds)
        self._moved.set_result(None)
        self._moved = asyncio.get_running_loop().create_future()

    def _wait_for_end(self, queue: str, job: str, heard: asyncio.Future[str]) -> _Ends:
        ends = self._ends.get(queue)
        if ends is None:
            waiting: dict[str, set[asyncio.Future[str]]] = {}
            ended = functools.partial(_ended, waiting)
            ends = _Ends(self._channels.hear(self._keys.ends(queue), ended), waiting)
            self._ends[queue] = ends
        ends.waiting.setdefault(job, set()).add(heard)
        return ends

    def _stop_waiting(self, queue: str, job: str, heard: asyncio.Future[str]) -> None:
        ends = self._ends[queue]
        ends.waiting[job].discard(heard)
        if not ends.waiting[job]:
            del ends.waiting[job]
        if not ends.waiting:
            del self._ends[queue]
            ends.hearing.end()


class _Ends(NamedTuple):
    """Those who wait for jobs of one queue to end, by job."""

    hearing: Hearing
    waiting: dict[str, set[asyncio.Future[str]]]


def _ended(waiting: dict[str, set[asyncio.Future[str]]], payload: bytes) -> None:
    """A message of an `ends` channel: which jobs ended, and how."""
    parts = payload.decode().split(" ")
    for how, jobs in zip(parts[::2], parts[1::2], strict=True):
        for job in jobs.split(","):
            for future in waiting.get(job, ()):
                if not future.done():
                    future.set_result(how)
