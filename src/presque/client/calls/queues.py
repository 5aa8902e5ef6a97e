"""Queues, their counts, their history and their policies."""

from __future__ import annotations

from presque.client.answers import History, Policy, QueueInfo, QueueStats, Stats
from presque.client.call import Answer, Call, answered, ask, no_content, object_of
from presque.client.errors import ClientError
from presque.client.json_values import encoded
from presque.client.options import PolicyOptions
from presque.client.shapes import shaped


def purge(queue: str, forget: bool | None = None) -> Call[None]:
    """Delete all that a queue holds, and the queue itself if it is to be forgotten."""
    return ask("purge", no_content, {"queue": queue, "forget": forget})


def info(queue: str) -> Call[QueueInfo]:
    """The classic counts of a queue."""
    return ask("info", answered(QueueInfo), {"queue": queue})


def queues(
    queues: str | None = None, busy: bool | None = None, cursor: str | None = None, limit: int | None = None
) -> Call[tuple[list[str], str | None]]:
    """A page of the names of queues, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[str], str | None]:
        page = object_of(answer)
        next = page.get("cursor")
        return shaped(list[str], page["queues"]), None if next is None else shaped(str, next)

    return ask("queues", meaning, {"queues": queues, "busy": busy, "limit": limit, "cursor": cursor})


def onward(cursor: str, following: str | None) -> str | None:
    """The cursor behind the page of `cursor`. Raises a `ClientError` if it does not lead further, since a
    server that answers the same page again and again would never be done with."""
    if following is not None and following <= cursor:
        raise ClientError("the pages of queues do not follow each other", code="unreadable-answer")
    return following


def size(queue: str) -> Call[int]:
    """How many jobs of a queue are ready."""
    return ask("size", lambda a: shaped(int, object_of(a)["size"]), {"queue": queue})


def peek(queue: str) -> Call[list[str]]:
    """The texts of the next jobs."""
    return ask("size", lambda a: shaped(list[str], object_of(a)["jobs"]), {"queue": queue, "with_desc": True})


def control(queue: str, status: str) -> Call[None]:
    """Start or stop a queue."""
    return ask("control", no_content, {"queue": queue}, body=encoded({"status": status}).encode())


def started(queue: str) -> Call[bool]:
    """Whether a queue is started."""
    return ask("started", lambda a: shaped(int, object_of(a)["status"]) == 1, {"queue": queue})


def all_stats(
    queues: str | None = None, busy: bool | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[Stats]:
    """All that the dashboard shows, and a page of the queues."""
    fields = {"queues": queues, "busy": busy, "limit": limit, "cursor": cursor}
    return ask("all_stats", answered(Stats), fields)


def stats(queue: str) -> Call[QueueStats]:
    """All that the dashboard shows of one queue."""
    return ask("stats", answered(QueueStats), {"queue": queue})


def history(queue: str | None, over: str | None) -> Call[History]:
    """What happened in a period."""
    return ask("history", answered(History), {"queue": queue, "over": over})


def policy(queue: str) -> Call[Policy]:
    """What holds for all jobs of a queue."""
    return ask("policy", answered(Policy), {"queue": queue})


def change_policy(queue: str, changes: PolicyOptions) -> Call[Policy]:
    """Change the fields that are given."""
    return ask("change_policy", answered(Policy), {"queue": queue, **changes})
