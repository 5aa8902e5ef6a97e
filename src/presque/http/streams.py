"""Answers that go on: jobs as lines of JSON, and server-sent events.

A proxy should pass each part on as it comes and gather none: nginx does so when it reads `X-Accel-Buffering`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from presque.http.answers import Answer

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
UNBUFFERED = {"X-Accel-Buffering": "no"}


def lines(parts: AsyncIterator[bytes], undo: Callable[[], object]) -> Answer:
    """One job a line (NDJSON)."""
    return Answer(parts, headers=UNBUFFERED, kind=LINES, sparing=True, undo=undo)


def exported(parts: AsyncIterator[bytes]) -> Answer:
    """Jobs that are shown and not taken, one a line (NDJSON)."""
    return Answer(parts, headers=UNBUFFERED, kind=LINES)


async def events(parts: AsyncGenerator[bytes, None]) -> Answer:
    """Server-sent events, as `EventSource` reads them.

    The first part, which is empty, is awaited here: it comes once the server listens, so a client that has
    the head of the answer misses nothing of what happens from then on.
    """
    await anext(parts)
    return Answer(parts, headers=UNBUFFERED, kind=EVENTS)
