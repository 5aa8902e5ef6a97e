"""The server, and the clock of one for tests."""

from __future__ import annotations

from datetime import datetime

from presque.client.answers import Clock, ServerFacts
from presque.client.call import Call, answered, ask
from presque.client.options import Duration


def clock() -> Call[Clock]:
    """What the clock shows."""
    return ask("clock", answered(Clock), {})


def move_clock(advance: Duration | None, at: datetime | float | None) -> Call[Clock]:
    """Move the clock."""
    return ask("move_clock", answered(Clock), {"advance": advance, "at": at})


def server() -> Call[ServerFacts]:
    """How the server and its store are."""
    return ask("server", answered(ServerFacts), {})
