"""What a job raises to say how it went, and what is raised in a job to stop it."""

from __future__ import annotations

from typing import ClassVar

from presque.client.calls import seconds_within
from presque.client.options import Duration

RETRY_MOST = 10 * 365 * 86_400


class Retry(Exception):
    """Raise it in `work`: try this job again, after `in_` seconds, else as the queue's policy says.

    It counts as a failed attempt, so a job that has none left is dead. `in_` is seconds, a `timedelta` or a
    text such as "5m". Raises `ValueError` when it is less than 0 or more than ten years.
    """

    MOST_S: ClassVar[float] = RETRY_MOST

    def __init__(self, reason: str = "", *, in_: Duration | None = None) -> None:
        self.in_ = seconds_within(0, RETRY_MOST, "a job is tried again after", in_)
        super().__init__(reason)


class Dead(Exception):
    """Raise it in `work`: this job can never succeed, do not try it again."""


class NotDone(Exception):
    """What ran has returned the promise of work, such as a coroutine, and not done it. The job has failed."""


class Interrupted(BaseException):
    """Raised in a job that should stop now. Not an `Exception`, so that no `except Exception` catches it."""


class JobCancelled(Interrupted):
    """Somebody deleted the job, or its lease was lost: whatever it does now is in vain."""


class JobStopped(Interrupted):
    """The worker ends at once: the job is given back, and this attempt does not count."""


class JobKilled(Interrupted):
    """The job was killed: by an operator, by a signal, or because its process ended. It counts as failed."""


class JobTimeout(JobKilled):
    """The job took longer than its time limit. It counts as failed."""
