"""A job that this worker holds: when its lease is to be renewed, and for how long."""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Mapping
from typing import Any

from presque.client.answers import LeasedJob
from presque.worker.errors import Interrupted
from presque.worker.job import LEASE_MOST, Job, Tell


class Held:
    """A job from the answer that brought it until its outcome is in the outbox. Times are monotonic."""

    __slots__ = (
        "_asked_s",
        "_wanted_until",
        "ended_at",
        "interrupted_at",
        "interruption",
        "is_settled",
        "is_to_raise",
        "job",
        "lease_s",
        "renewed_at",
        "renewing",
        "started_at",
        "taken_at",
        "timer",
        "was_raised",
        "wishes",
    )

    def __init__(self, leased: LeasedJob, tell: Tell, now: float, lease_s: float) -> None:
        self.job = Job(leased, tell)
        self.taken_at = self.renewed_at = now
        self.lease_s = lease_s
        self.renewing = False
        self.started_at: float | None = None
        self.ended_at = 0.0
        self.interruption: Interrupted | None = None
        self.timer: TimerHandle | None = None
        self.interrupted_at: float | None = None
        self.is_to_raise = self.was_raised = self.is_settled = False
        self.wishes: Mapping[str, Any] | None = None
        self._asked_s: float | None = None
        self._wanted_until = 0.0

    def is_due(self, now: float) -> bool:
        """Whether something is to be told to the server: a wish of the job, or that it goes on."""
        if self.renewing:
            return False
        lasts_s = self.lease_s if self._asked_s is None else min(self.lease_s, self._asked_s)
        return self.wishes is not None or now - self.renewed_at > lasts_s / 3

    def renewal(self, now: float) -> dict[str, Any]:
        """The fields that renew the lease.

        It is never made shorter than a whole lease, nor than the job wished when it called `extend`.
        """
        fields = dict(self.wishes or {})
        self.wishes, self.renewing = None, True
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
