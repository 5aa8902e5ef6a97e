"""What comes back of the server itself, and of many commands at once."""

from __future__ import annotations

from typing import Any

from presque.shapes.schema import COUNT, MOMENT, NUMBER, TEXT, Schema, array, maybe, members

SHAPES: dict[str, Schema] = {
    "metrics": {"type": "string"},
    "server": members(
        more=True,
        pid=COUNT,
        started_at=MOMENT,
        now=MOMENT,
        connections=COUNT,
        store=members(
            more=True,
            now=MOMENT,
            answered_in=NUMBER,
            uptime_seconds=COUNT,
            memory=members(used=COUNT, limit=maybe(COUNT)),
            clients=COUNT,
            commands_per_second=COUNT,
            fsyncs_pending=COUNT,
            fsyncs_delayed=COUNT,
            last_write=TEXT,
        ),
        settings=maybe(array({"type": "object"})),
    ),
    "commanded": {
        "anyOf": [{"type": "object"}, array({"type": "object"})],
        "description": "The answer of the command, or the array of answers.",
    },
    "health": members(status=TEXT),
    "clock": members(now=MOMENT, ahead=NUMBER),
    "openapi": {"type": "object"},
}

EXAMPLES: dict[str, Any] = {
    "server": {
        "pid": 4711,
        "started_at": "2031-05-07T09:30:00.000Z",
        "now": "2031-05-08T09:30:00.000Z",
        "connections": 12,
        "store": {
            "now": "2031-05-08T09:30:00.000Z",
            "answered_in": 0.0004,
            "uptime_seconds": 86400,
            "memory": {"used": 10485760, "limit": None},
            "clients": 3,
            "commands_per_second": 1200,
            "fsyncs_pending": 0,
            "fsyncs_delayed": 0,
            "last_write": "ok",
        },
        "settings": [{"setting": "fsync", "value": "always", "from": "default"}],
    },
    "commanded": {"id": "42", "queue": "mail", "ref": 1},
    "clock": {"now": "2031-05-07T10:30:00.000Z", "ahead": 3600},
}
