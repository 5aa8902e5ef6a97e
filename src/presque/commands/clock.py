"""The clock of a server for tests: look at it, and move it."""

from __future__ import annotations

from presque.commands.call import Call, Reply
from presque.commands.times import moment
from presque.engine.clock import Time
from presque.errors import CallerError, NotPermitted


async def run_clock(call: Call) -> Reply:
    """What the clock shows."""
    return _told(await call.engine.clock.show())


async def run_move_clock(call: Call) -> Reply:
    """Move the clock. What has become due by it is ready when this returns.

    Raises `NotPermitted` for the holder of a token of a namespace: others have the same clock.
    """
    if call.who.namespace is not None:
        raise NotPermitted("the clock belongs to all namespaces: move it with a token that is in none")
    if "at" in call.fields:
        return _told(await call.engine.clock.move(to=call.fields["at"]))
    if "advance" not in call.fields:
        raise CallerError("give `advance`, how far to move the clock, or `at`, the moment to move it to")
    return _told(await call.engine.clock.move(by=call.fields["advance"]))


def _told(time: Time) -> Reply:
    return Reply.of({"now": moment(time.now), "ahead": time.ahead / 1000})
