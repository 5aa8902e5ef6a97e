"""Single jobs."""

from __future__ import annotations

from presque.client.answers import JobPage, JobRecord, Reason, State
from presque.client.call import Answer, Call, accepted, answered, ask, object_of
from presque.client.options import Changes, Duration
from presque.client.shapes import shaped


def job(queue: str, id: str, wait: Duration | None) -> Call[JobRecord]:
    """All that is known of a job, after waiting for its end if asked to."""
    return ask("job", _record, {"queue": queue, "id": id, "wait": wait})


def jobs(queue: str, state: State, limit: int | None, cursor: str | None) -> Call[JobPage]:
    """A page of the jobs in one state."""
    return ask("jobs", answered(JobPage), {"queue": queue, "state": state, "limit": limit, "cursor": cursor})


def change(queue: str, id: str, changes: Changes) -> Call[JobRecord]:
    """Change a job that waits."""
    return ask("change", _record, {"queue": queue, "id": id, **changes})


def delete(queue: str, id: str) -> Call[bool]:
    """Take a job away: True, or False if it is leased and goes when its holder lets go."""
    return ask("delete", lambda a: accepted(a).status == 204, {"queue": queue, "id": id})


def retry(queue: str, id: str) -> Call[JobRecord]:
    """Let a dead job be tried again."""
    return ask("retry", _record, {"queue": queue, "id": id})


def retry_all(queue: str, limit: int | None, rate: float | None) -> Call[int]:
    """Let dead jobs be tried again: how many."""
    return ask(
        "retry_all",
        lambda a: shaped(int, object_of(a)["retried"]),
        {"queue": queue, "limit": limit, "rate": rate},
    )


def explain(queue: str, id: str) -> Call[list[Reason]]:
    """Why a job does not run."""
    return ask("explain", lambda a: shaped(list[Reason], object_of(a)["reasons"]), {"queue": queue, "id": id})


def _record(answer: Answer) -> JobRecord:
    found = shaped(JobRecord, object_of(answer))
    if not {"queue", "id", "state"} <= found.keys():
        raise ValueError("it is not a job")
    return found
