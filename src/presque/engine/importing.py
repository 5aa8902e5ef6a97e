"""Puts jobs on queues as they were when they were exported, whatever state they were in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from presque.engine import calls, replies
from presque.engine.keys import Keys
from presque.engine.records import Run, packed_run, record_of
from presque.job import Failure
from presque.store.disk import OF_A_JOB, Disk
from presque.store.store import Store


class Arriving(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is to be. Moments are milliseconds since the epoch; None means that nothing was said.

    One that was leased becomes ready: its holder does not hold it here.
    """

    body: bytes
    state: str
    priority: int
    pushed_at: int | None
    run_at: int | None
    expires_at: int | None
    finished_at: int | None
    kept_until: int | None
    leased_at: int | None
    attempt: int
    attempts: int | None
    keep: int | None
    group: str | None
    uniq: str | None
    until_done: bool
    traceparent: str | None
    tracestate: str | None
    cron: str | None
    worker: str
    progress: bytes | None
    saved: bytes | None
    result: bytes | None
    reason: str | None
    errors: tuple[Failure, ...]

    def packed(self, now: int) -> tuple[bytes, bytes, str, int, int | str, str]:
        """As the store wants it: record, run, state, its moment, the end of its ttl, whether it holds its
        uniq key."""
        waits = self.state not in ("done", "dead")
        state = "ready" if self.state == "leased" else self.state
        moment = 0
        extras: dict[str, Any] = {
            "attempts": self.attempts,
            "keep": self.keep,
            "group": self.group,
            "uniq": self.uniq,
            "until_done": self.until_done or None,
            "trace": self.traceparent,
            "tracestate": self.tracestate,
            "cron": self.cron,
            "run_at": self.run_at,
        }
        if state == "scheduled":
            moment = now if self.run_at is None else self.run_at
            extras |= {"run_at": moment, "named": True}
        elif state == "done":
            moment = now if self.kept_until is None else self.kept_until
        elif state == "dead":
            moment = now if self.finished_at is None else self.finished_at
        extras = {name: value for name, value in extras.items() if value is not None}
        plain = not extras and self.expires_at is None
        record = record_of(self.body, self.priority, self.pushed_at or now, extras)
        run = b"" if waits and not self.attempt and not self.errors else self._run(moment, waits, plain)
        holds = self.uniq is not None and waits and (self.until_done or not self.attempt)
        ends = "" if self.expires_at is None else self.expires_at
        return record, run, state, moment, ends, "1" if holds else ""

    def _run(self, moment: int, waits: bool, plain: bool) -> bytes:
        more: dict[str, Any] = {
            "errors": [
                {"at": one.at, "worker": one.worker, "error": one.error}
                | ({} if one.backtrace is None else {"backtrace": one.backtrace})
                for one in self.errors
            ]
            or None,
            "progress": _text(self.progress),
            "saved": _text(self.saved),
            "result": _text(self.result),
            "reason": self.reason,
            "finished": None if waits else self.finished_at or moment,
        }
        more = {name: value for name, value in more.items() if value is not None}
        run = Run(self.attempt, self.leased_at or 0, self.worker, more)
        return packed_run(run, self.priority, plain=plain)


class Importing:
    """Imports into the queues of one namespace."""

    def __init__(self, store: Store, keys: Keys, register: Callable[[str], None], disk: Disk) -> None:
        self._store = store
        self._keys = keys
        self._register = register
        self._disk = disk

    async def put(self, queue: str, jobs: Sequence[Arriving], name: str | None, number: int | None) -> int:
        """Put jobs on a queue, all or none: how many. With a name and a number, only if no batch of this name
        with this number or a larger one was put there before.

        Raises `QueueFull`, `NamespaceFull`, `StoreFull` or `DiskFull` like a push.
        """
        if self._disk.full:
            raise self._disk.refusal()
        now = int(time.time() * 1000)
        parts: list[bytes | str | int] = [f"import:{name or secrets.token_hex(8)}", number or 1]
        for job in jobs:
            parts += job.packed(now)
            self._disk.spend(len(job.body) + OF_A_JOB)
        self._register(queue)
        call = calls.encode("import", self._keys.of(queue), *parts)
        reply = await self._store.ask(queue, call)
        if type(reply) is not int:
            raise replies.refusal(reply)
        return reply


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode()
