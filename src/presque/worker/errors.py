"""What a job raises to say how it went, and what is raised in a job to stop it."""

from __future__ import annotations

from typing import Any, ClassVar

from presque.client.call import seconds_within
from presque.client.options import Duration

RETRY_MOST = 10 * 365 * 86_400


class Retry(Exception):
    """Raise it in `work`: retry this job, after `in_` seconds, else as the queue's policy says.

    It counts as a failed attempt, so a job that has none left is dead. `in_` is seconds, a `timedelta` or a
    text such as "5m". Raises `ValueError` when it is less than 0 or more than ten years.
    """

    MOST_S: ClassVar[float] = RETRY_MOST

    def __init__(self, reason: str = "", *, in_: Duration | None = None) -> None:
        self.in_ = seconds_within(0, RETRY_MOST, "a job is retried after", in_)
        super().__init__(reason)


class Snooze(Exception):
    """Raise it in `work`: not now, do this job again after `in_`. The attempt does not count, nothing has
    failed.

    `in_` is seconds, a `timedelta` or a text such as "5m". Raises `ValueError` when it is less than 0 or more
    than ten years.
    """

    def __init__(self, in_: Duration, reason: str = "") -> None:
        seconds = seconds_within(0, RETRY_MOST, "a job can be put off for", in_)
        if seconds is None:
            raise ValueError("give how long the job is put off, such as 300 or `5m`")
        self.in_ = seconds
        self.reason = reason
        super().__init__(reason)

    def __reduce__(self) -> tuple[Any, ...]:
        """As a pool of processes sends it."""
        return type(self), (self.in_, self.reason)


class Dead(Exception):
    """Raise it in `work`: this job can never succeed, do not retry it."""


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
