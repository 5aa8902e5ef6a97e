"""Recurring jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.client.answers import Cron
from presque.client.call import Answer, Call, answered, ask, id_of, no_content, object_of
from presque.client.errors import ClientError
from presque.client.shapes import shaped

CRONS_MOST = 100_000
"""Recurring jobs in one list of all."""


def crons(cursor: str | None = None, limit: int | None = None) -> Call[tuple[list[Cron], str | None]]:
    """A page of recurring jobs, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[Cron], str | None]:
        page = object_of(answer)
        next = page["cursor"]
        return shaped(list[Cron], page["crons"]), None if next is None else shaped(str, next)

    return ask("crons", meaning, {"limit": limit, "cursor": cursor})


def joined(found: list[Cron], more: list[Cron]) -> list[Cron]:
    """Two pages of recurring jobs. Raises a `ClientError` if the second does not go on from the first.

    Otherwise a server that answers the same page again and again would never be done with.
    """
    if not found or not more or more[0]["name"] <= found[-1]["name"] or len(found) > CRONS_MOST:
        raise ClientError("the pages of recurring jobs do not follow each other", code="unreadable-answer")
    return found + more


def cron(name: str) -> Call[Cron]:
    """One recurring job."""
    return ask("cron", answered(Cron), {"name": name})


def put_cron(name: str, fields: Mapping[str, Any]) -> Call[Cron]:
    """Define a recurring job."""
    return ask("put_cron", answered(Cron), {"name": name, **fields})


def run_cron(name: str) -> Call[str]:
    """Push the job of a recurring job now: its id."""
    return ask("run_cron", id_of, {"name": name})


def pause_cron(name: str) -> Call[Cron]:
    """Pause a recurring job until it is resumed."""
    return ask("pause_cron", answered(Cron), {"name": name})


def resume_cron(name: str) -> Call[Cron]:
    """Go on with a recurring job."""
    return ask("resume_cron", answered(Cron), {"name": name})


def delete_cron(name: str) -> Call[None]:
    """Delete a recurring job."""
    return ask("delete_cron", no_content, {"name": name})
