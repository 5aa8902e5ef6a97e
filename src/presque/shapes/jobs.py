"""What comes back when jobs are pushed or fetched, and of one job that is in the store."""

from __future__ import annotations

from typing import Any

from presque.shapes.schema import (
    ANYTHING,
    COUNT,
    FLAG,
    MOMENT,
    TEXT,
    WHOLE,
    Schema,
    array,
    maybe,
    members,
    ref,
)
from presque.verbs.bounds import STATES

_STATE = {"type": "string", "enum": list(STATES)}

_A_JOB = {
    "queue": TEXT,
    "id": TEXT,
    "state": {"type": "string", "enum": [*STATES, "deleted"]},
    "body": ANYTHING,
    "priority": WHOLE,
    "attempt": COUNT,
    "max_attempts": WHOLE,
    "pushed_at": MOMENT,
    "run_at": maybe(MOMENT),
    "leased_at": maybe(MOMENT),
    "lease_until": maybe(MOMENT),
    "worker": maybe(TEXT),
    "progress": ANYTHING,
    "result": ANYTHING,
    "errors": array(members(at=MOMENT, worker=maybe(TEXT), error=TEXT, backtrace=maybe(TEXT))),
    "finished_at": maybe(MOMENT),
}

A_DEAD_JOB: dict[str, Any] = {
    "queue": "mail",
    "id": "42",
    "state": "dead",
    "body": {"to": "ana@example.org"},
    "priority": 5,
    "attempt": 5,
    "max_attempts": 5,
    "pushed_at": "2031-05-07T09:30:00.000Z",
    "run_at": None,
    "leased_at": None,
    "lease_until": None,
    "worker": "worker-1",
    "progress": None,
    "result": None,
    "errors": [
        {"at": "2031-05-07T09:31:00.000Z", "worker": "worker-1", "error": "no such host", "backtrace": None}
    ],
    "finished_at": "2031-05-07T09:31:00.000Z",
    "reason": "no such host",
}

SHAPES: dict[str, Schema] = {
    "error": members(error=TEXT),
    "problem": members(type=TEXT, title=TEXT, status=WHOLE, detail=TEXT, error=TEXT, code=TEXT),
    "pushed": members(id=TEXT, queue=TEXT),
    "pushed_many": {
        "anyOf": [
            members(ids=array(TEXT), queue=TEXT),
            members(pushed=COUNT, first=TEXT, last=TEXT, queue=TEXT),  # of a push by lines
        ]
    },
    "fetched": {"description": "The job, as it was pushed."},
    "fetched_many": array(TEXT),
    "job": members(
        {
            "group": TEXT,
            "uniq": TEXT,
            "traceparent": TEXT,
            "tracestate": TEXT,
            "cron": TEXT,
            "expires_at": MOMENT,
            "kept_until": MOMENT,
            "reason": TEXT,
            "cancel": FLAG,
            "saved": ANYTHING,
        },
        more=True,
        **_A_JOB,
    ),
    "jobs": members(jobs=array(ref("job")), cursor=maybe(TEXT)),
    "retried": members(queue=TEXT, retried=COUNT),
    "explained": members(queue=TEXT, id=TEXT, state=_STATE, reasons=array(members(code=TEXT, text=TEXT))),
}

EXAMPLES: dict[str, Any] = {
    "error": {"error": "no job"},
    "problem": {
        "type": "urn:presque:problem:lease-lost",
        "title": "Conflict",
        "status": 409,
        "detail": "the lease has ended",
        "error": "the lease has ended",
        "code": "lease-lost",
    },
    "pushed": {"id": "42", "queue": "mail"},
    "pushed_many": {"ids": ["42", "43"], "queue": "mail"},
    "fetched": {"to": "ana@example.org"},
    "fetched_many": ['{"to":"ana@example.org"}'],
    "job": A_DEAD_JOB,
    "jobs": {"jobs": [A_DEAD_JOB], "cursor": None},
    "retried": {"queue": "mail", "retried": 12},
    "explained": {
        "queue": "mail",
        "id": "42",
        "state": "ready",
        "reasons": [{"code": "ahead", "text": "12 jobs are ahead of it"}],
    },
}
