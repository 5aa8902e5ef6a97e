"""What comes back of queues: counts, policies, recurring jobs, history."""

from __future__ import annotations

from typing import Any

from presque.shapes.schema import (
    ANYTHING,
    COUNT,
    FLAG,
    MOMENT,
    NUMBER,
    TEXT,
    WHOLE,
    Schema,
    array,
    mapping,
    maybe,
    members,
    ref,
)
from presque.verbs.bounds import DELIVERIES, OUTCOMES

_STATS = {
    "ready": COUNT,
    "scheduled": COUNT,
    "leased": COUNT,
    "done": COUNT,
    "dead": COUNT,
    "processed": COUNT,
    "failed": COUNT,
    "expired": COUNT,
    "oldest_seconds": maybe(NUMBER),
    "status": {"type": "integer", "enum": [0, 1]},
    "last_minute": members(pushed=COUNT, processed=COUNT, failed=COUNT),
}

_TIMES = maybe(members(p50=NUMBER, p95=NUMBER, mean=NUMBER))

_HAPPENED = {
    "pushed": COUNT,
    "fetched": COUNT,
    "done": COUNT,
    "failed": COUNT,
    "dead": COUNT,
    "expired": COUNT,
    "depth": members(ready=COUNT, leased=COUNT, scheduled=COUNT, dead=COUNT),
    "wait": _TIMES,
    "run": _TIMES,
}

_CRON: dict[str, Any] = {
    "name": "report",
    "queue": "mail",
    "body": {"report": "daily"},
    "schedule": "0 9 * * mon-fri",
    "words": "at 09:00, Monday to Friday",
    "timezone": "UTC",
    "missed": "once",
    "overlap": "allow",
    "next": ["2031-05-07T09:00:00Z"],
    "last_fired": "2031-05-06T09:00:00.104Z",
    "last_outcome": {"outcome": "done", "id": "41", "at": "2031-05-06T09:00:02.310Z"},
    "paused": False,
    "broken": None,
}

_COUNTS: dict[str, Any] = {
    "ready": 2,
    "scheduled": 0,
    "leased": 1,
    "done": 0,
    "dead": 0,
    "processed": 40,
    "failed": 1,
    "expired": 0,
    "oldest_seconds": 1.5,
    "status": 1,
    "last_minute": {"pushed": 3, "processed": 2, "failed": 0},
}

_HAPPENED_THERE: dict[str, Any] = {
    "pushed": 12,
    "fetched": 0,
    "done": 10,
    "failed": 1,
    "dead": 0,
    "expired": 0,
    "depth": {"ready": 2, "leased": 1, "scheduled": 0, "dead": 0},
    "wait": {"p50": 0.012, "p95": 0.2, "mean": 0.04},
    "run": {"p50": 0.7, "p95": 1.9, "mean": 0.8},
}

SHAPES: dict[str, Schema] = {
    "policy": members(
        more=True,
        queue=TEXT,
        lease=NUMBER,
        max_attempts=WHOLE,
        backoff=members(first=NUMBER, factor=NUMBER, most=NUMBER, jitter=NUMBER),
        ttl=maybe(NUMBER),
        keep=NUMBER,
        dead_most=WHOLE,
        max_length=maybe(WHOLE),
        overflow=TEXT,
        max_leased=maybe(WHOLE),
        group_leased=maybe(WHOLE),
        rate=maybe(members(count=WHOLE, seconds=NUMBER)),
        expires=maybe(NUMBER),
        delivery={"type": "string", "enum": list(DELIVERIES)},
    ),
    "cron": members(
        {"priority": WHOLE, "ttl": NUMBER, "attempts": WHOLE, "keep": WHOLE, "group": TEXT},
        more=True,
        name=TEXT,
        queue=maybe(TEXT),
        body=ANYTHING,
        schedule=maybe(TEXT),
        words=maybe(TEXT),
        timezone=maybe(TEXT),
        missed=maybe(TEXT),
        overlap=maybe(TEXT),
        next=array(MOMENT),
        last_fired=maybe(MOMENT),
        last_outcome=maybe(
            members(
                {"error": TEXT},
                outcome={"type": "string", "enum": list(OUTCOMES)},
                id=TEXT,
                at=MOMENT,
            )
        ),
        paused=FLAG,
        broken=maybe(TEXT),
    ),
    "crons": members(crons=array(ref("cron")), cursor=maybe(TEXT)),
    "ran": members(id=TEXT, queue=TEXT, name=TEXT),
    "info": members(queue_name=TEXT, job_count=COUNT, job_processed=COUNT, job_failed=COUNT),
    "queues": members({"cursor": TEXT}, queues=array(TEXT), size=COUNT),
    "size": members({"jobs": array(TEXT)}, queue=TEXT, size=COUNT),
    "started": members(queue=TEXT, status={"type": "integer", "enum": [0, 1]}),
    "updated": members(queue=TEXT, response={"type": "string", "const": "updated"}),
    "all_stats": members(
        {"cursor": TEXT},
        more=True,
        redis=TEXT,
        durability=TEXT,
        version=TEXT,
        size=COUNT,
        queues=array(TEXT),
        by_queue=mapping(members(more=True, **_STATS)),
    ),
    "stats": members(more=True, queue=TEXT, **_STATS),
    "history": members(
        more=True,
        queue=maybe(TEXT),
        over=TEXT,
        seconds=WHOLE,
        until=MOMENT,
        total=members(more=True, **_HAPPENED),
        buckets=array(members({"oldest_seconds": maybe(NUMBER)}, more=True, at=MOMENT, **_HAPPENED)),
    ),
}

EXAMPLES: dict[str, Any] = {
    "policy": {
        "queue": "mail",
        "lease": 60,
        "max_attempts": 5,
        "backoff": {"first": 15, "factor": 2, "most": 3600, "jitter": 0.1},
        "ttl": None,
        "keep": 0,
        "dead_most": 10000,
        "max_length": None,
        "overflow": "reject",
        "max_leased": None,
        "group_leased": None,
        "rate": None,
        "expires": None,
        "delivery": "queue",
    },
    "cron": _CRON,
    "crons": {"crons": [_CRON], "cursor": None},
    "ran": {"id": "42", "queue": "mail", "name": "report"},
    "info": {"queue_name": "mail", "job_count": 2, "job_processed": 40, "job_failed": 1},
    "queues": {"queues": ["mail"], "size": 1},
    "size": {"queue": "mail", "size": 2},
    "started": {"queue": "mail", "status": 1},
    "updated": {"queue": "mail", "response": "updated"},
    "stats": {"queue": "mail", **_COUNTS},
    "history": {
        "queue": "mail",
        "over": "1h",
        "seconds": 60,
        "until": "2031-05-07T09:30:12.000Z",
        "total": _HAPPENED_THERE,
        "buckets": [{"at": "2031-05-07T09:30:00.000Z", **_HAPPENED_THERE, "oldest_seconds": 1.5}],
    },
}
