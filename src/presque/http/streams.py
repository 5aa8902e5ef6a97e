"""Answers that go on: jobs as lines of JSON, and server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from presque.http.answers import Answer

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"


def lines(parts: AsyncIterator[bytes]) -> Answer:
    """One job a line (NDJSON)."""
    return Answer(parts, kind=LINES)


def events(parts: AsyncIterator[bytes]) -> Answer:
    """Server-sent events, as `EventSource` reads them."""
    return Answer(parts, kind=EVENTS)
