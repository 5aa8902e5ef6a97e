"""What comes back of many jobs: search, failures, import, bulk tasks."""

from __future__ import annotations

from typing import Any

from presque.shapes.jobs import A_DEAD_JOB
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

_TASK = {
    "id": TEXT,
    "act": TEXT,
    "queues": TEXT,
    "state": TEXT,
    "filter": mapping(ANYTHING),
    "to": maybe(TEXT),
    "rate": maybe(NUMBER),
    "limit": maybe(WHOLE),
    "status": TEXT,
    "looked": COUNT,
    "matched": COUNT,
    "done": COUNT,
    "refused": COUNT,
    "total": maybe(COUNT),
    "queue": maybe(TEXT),
    "waits": maybe(TEXT),
    "problems": array(TEXT),
    "began_at": MOMENT,
    "ended_at": maybe(MOMENT),
    "by": maybe(TEXT),
    "name": maybe(TEXT),
}

_A_TASK: dict[str, Any] = {
    "id": "7",
    "act": "retry",
    "queues": "mail*",
    "state": "dead",
    "filter": {"like": "timeout after # s"},
    "to": None,
    "rate": 50,
    "limit": None,
    "status": "running",
    "looked": 1200,
    "matched": 300,
    "done": 300,
    "refused": 0,
    "total": 5000,
    "queue": "mail",
    "waits": None,
    "problems": [],
    "began_at": "2031-05-07T09:30:00.000Z",
    "ended_at": None,
    "by": None,
    "name": None,
}

SHAPES: dict[str, Schema] = {
    "found": members(
        jobs=array(ref("job")),
        looked=members(jobs=COUNT, queues=COUNT),
        spoilt=array(TEXT),
        cursor=maybe(TEXT),
    ),
    "imported": members(imported=COUNT, known=COUNT),
    "failures": members(
        failures=array(
            members(
                more=True,
                like=TEXT,
                error=TEXT,
                count=COUNT,
                first_at=MOMENT,
                last_at=MOMENT,
                queues=mapping(COUNT),
                more_queues=COUNT,
                sample=members(queue=TEXT, id=TEXT),
            )
        ),
        looked=members(jobs=COUNT, queues=COUNT),
        spoilt=array(TEXT),
        cursor=maybe(TEXT),
    ),
    "task": members(more=True, **_TASK),
    "tasks": members(tasks=array(ref("task")), cursor=maybe(TEXT)),
    "new_task": {
        "anyOf": [
            ref("task"),
            members(  # of a dry run
                act=TEXT,
                queues=TEXT,
                dry_run=FLAG,
                matched=COUNT,
                looked=members(jobs=COUNT, queues=COUNT),
                complete=FLAG,
                sample=array(ref("job")),
            ),
        ]
    },
}

EXAMPLES: dict[str, Any] = {
    "found": {
        "jobs": [A_DEAD_JOB],
        "looked": {"jobs": 812, "queues": 3},
        "spoilt": [],
        "cursor": None,
    },
    "imported": {"imported": 500, "known": 0},
    "failures": {
        "failures": [
            {
                "like": "timeout after # s",
                "error": "timeout after 30 s",
                "count": 12,
                "first_at": "2031-05-07T09:30:00.000Z",
                "last_at": "2031-05-07T09:41:00.000Z",
                "queues": {"mail": 12},
                "more_queues": 0,
                "sample": {"queue": "mail", "id": "42"},
            }
        ],
        "looked": {"jobs": 812, "queues": 3},
        "spoilt": [],
        "cursor": None,
    },
    "task": _A_TASK,
    "tasks": {"tasks": [_A_TASK], "cursor": None},
    "new_task": _A_TASK,
}
