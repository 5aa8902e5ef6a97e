"""Recurring jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.client.answers import Cron
from presque.client.call import Call, answered, ask, id_of, no_content
from presque.client.pages import page_of


def crons(cursor: str | None = None, limit: int | None = None) -> Call[tuple[list[Cron], str | None]]:
    """A page of recurring jobs, and the cursor for the next."""
    return ask("crons", page_of(list[Cron], "crons"), {"limit": limit, "cursor": cursor})


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
