"""A job that this worker holds: when its lease is to be renewed, and for how long."""

from __future__ import annotations

import threading
from asyncio import TimerHandle
from collections.abc import Mapping
from typing import Any

from presque.client.leased import LeasedJob
from presque.worker.errors import Interrupted
from presque.worker.job import LEASE_MOST, Job, Tell

KEPT = ("progress", "saved")
"""What a job tells that is for later."""
_wishing = threading.RLock()  # jobs wish in threads of their own, and in handlers of signals


class Held:
    """A job from the answer that brought it until its outcome is in the outbox. Times are monotonic."""

    # What most jobs never change stands in the class: see `bench/workers.py`.
    renewing = False
    started_at: float | None = None
    ended_at = 0.0
    interruption: Interrupted | None = None
    timer: TimerHandle | None = None
    interrupted_at: float | None = None
    is_to_raise = was_raised = is_settled = False
    wishes: Mapping[str, Any] | None = None
    _sent: Mapping[str, Any] | None = None
    """What was reported and is not answered yet."""
    _saving = 0
    _asked_s: float | None = None
    _wanted_until = 0.0

    def __init__(self, leased: LeasedJob, tell: Tell, now: float, lease_s: float) -> None:
        self.leased = leased
        self.job = Job(leased, tell)
        self.key = (leased.queue, leased.id, leased.lease)
        self.renewed_at = now
        self.lease_s = lease_s

    def wish(self, wish: Mapping[str, Any]) -> None:
        """The job wants more time, or tells something: from its own thread."""
        with _wishing:
            self.wishes = {**(self.wishes or {}), **wish}

    @property
    def hurries(self) -> bool:
        """Whether the job has saved something and may wait until the server has it."""
        return not self.renewing and self.wishes is not None and "saved" in self.wishes

    @property
    def has_told(self) -> bool:
        """Whether the job has reported anything that the server may not have."""
        return self.wishes is not None or self._sent is not None

    @property
    def untold(self) -> dict[str, Any]:
        """What it has reported and was not sent yet: it goes with the end of the lease."""
        told = {**(self._sent or {}), **(self.wishes or {})}
        return {name: told[name] for name in KEPT if name in told}

    def is_due(self, now: float) -> bool:
        """Whether there is something to tell the server: a wish of the job, or that it still runs."""
        if self.renewing:
            return False
        lasts_s = self.lease_s if self._asked_s is None else min(self.lease_s, self._asked_s)
        return self.wishes is not None or now - self.renewed_at > lasts_s / 3

    def renewal(self, now: float) -> dict[str, Any]:
        """The fields that renew the lease.

        It is never made shorter than a whole lease, nor than the job wished when it called `extend`.
        """
        with _wishing:
            fields = dict(self.wishes or {})
            self.wishes, self.renewing = None, True
        self._saving = fields.pop("save", self._saving)
        self._sent = {name: fields[name] for name in KEPT if name in fields}
        wished_s = fields.pop("seconds", None)
        if wished_s is not None:
            self._wanted_until = now + wished_s
        left_s = round(self._wanted_until - now, 3)
        self._asked_s = min(left_s, LEASE_MOST) if left_s > max(self.lease_s, 1) else None
        if self._asked_s is not None:
            fields["seconds"] = self._asked_s
        return fields

    def renewed(self, now: float) -> None:
        """The server has heard it."""
        self.renewing, self.renewed_at = False, now
        self._sent = None
        if self._saving:
            self.job.stored.count, self._saving = self._saving, 0
