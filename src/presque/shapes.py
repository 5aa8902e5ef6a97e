"""The shapes of the answers, as JSON Schema (2020-12), by the names that verbs.py uses.

They are the part of the OpenAPI document that says what comes back. Tests compare them with real answers. An
object is open where later versions may add members (`more`), else closed.
"""

from __future__ import annotations

from typing import Any

from presque.verbs import DELIVERIES, STATES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
ANYTHING: Schema = {}


def ref(name: str) -> Schema:
    """What another shape says."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(of: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": of}


def maybe(of: Schema) -> Schema:
    """A value or null."""
    return {"anyOf": [of, {"type": "null"}]}


def members(optional: dict[str, Schema] | None = None, *, more: bool = False, **required: Schema) -> Schema:
    """An object that has the `required` members, may have the `optional` ones, and `more` only if said."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": more,
    }


def mapping(of: Schema) -> Schema:
    """An object whose members are called anything."""
    return {"type": "object", "additionalProperties": of}


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
    "lease_until": maybe(MOMENT),
    "worker": maybe(TEXT),
    "progress": ANYTHING,
    "result": ANYTHING,
    "errors": array(members(at=MOMENT, worker=maybe(TEXT), error=TEXT, backtrace=maybe(TEXT))),
    "finished_at": maybe(MOMENT),
}

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

_SETTLED_OPTIONAL = {
    "state": {"type": "string", "enum": [*STATES, "deleted"]},
    "run_at": MOMENT,
    "lease_until": MOMENT,
    "cancel": FLAG,
    "error": TEXT,
    "code": TEXT,
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
    "settled": members(_SETTLED_OPTIONAL, queue=TEXT, id=TEXT, status=WHOLE),
    "settled_many": members(settled=array(ref("settled"))),
    "leased_job": members(
        {"traceparent": TEXT},
        more=True,
        queue=TEXT,
        id=TEXT,
        body=ANYTHING,
        attempt=WHOLE,
        max_attempts=WHOLE,
        priority=WHOLE,
        pushed_at=MOMENT,
        lease=TEXT,
        lease_until=MOMENT,
    ),
    "leased": members({"settled": array(ref("settled"))}, jobs=array(ref("leased_job"))),
    "job": members(
        {
            "group": TEXT,
            "uniq": TEXT,
            "traceparent": TEXT,
            "expires_at": MOMENT,
            "kept_until": MOMENT,
            "reason": TEXT,
            "cancel": FLAG,
        },
        more=True,
        **_A_JOB,
    ),
    "jobs": members(jobs=array(ref("job")), cursor=maybe(TEXT)),
    "retried": members(queue=TEXT, retried=COUNT),
    "explained": members(queue=TEXT, id=TEXT, state=_STATE, reasons=array(members(code=TEXT, text=TEXT))),
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
        paused=FLAG,
        broken=maybe(TEXT),
    ),
    "crons": members(crons=array(ref("cron")), cursor=maybe(TEXT)),
    "ran": members(id=TEXT, queue=TEXT, name=TEXT),
    "info": members(queue_name=TEXT, job_count=COUNT, job_processed=COUNT, job_failed=COUNT),
    "queues": members(queues=array(TEXT), size=COUNT),
    "size": members({"jobs": array(TEXT)}, queue=TEXT, size=COUNT),
    "started": members(queue=TEXT, status={"type": "integer", "enum": [0, 1]}),
    "updated": members(queue=TEXT, response={"type": "string", "const": "updated"}),
    "all_stats": members(
        more=True,
        redis=TEXT,
        durability=TEXT,
        version=TEXT,
        size=COUNT,
        queues=array(TEXT),
        by_queue=mapping(members(more=True, **_STATS)),
    ),
    "stats": members(more=True, queue=TEXT, **_STATS),
    "workers": {
        "anyOf": [
            array(TEXT),
            members(worker_id=TEXT, started_at=MOMENT, processed=COUNT, failed=COUNT),
            members(queue_name=TEXT, workers_list=array(TEXT), processed=COUNT, failed=COUNT),
            members(
                workers=array(
                    members(
                        more=True,
                        worker_id=TEXT,
                        queues=array(TEXT),
                        started_at=MOMENT,
                        seen_at=MOMENT,
                        silent_seconds=NUMBER,
                        processed=COUNT,
                        failed=COUNT,
                        status=TEXT,
                        report=ANYTHING,
                    )
                )
            ),
        ]
    },
    "told": members(worker_id=TEXT, status=TEXT),
    "worker_told": members(worker_id=TEXT, response={"type": "string", "const": "updated"}),
    "commanded": {
        "anyOf": [{"type": "object"}, array({"type": "object"})],
        "description": "The answer of the command, or the array of answers.",
    },
    "openapi": {"type": "object"},
}
"""Every shape by its name. Streams and answers without a body have none."""

_JOB: dict[str, Any] = {
    "queue": "mail",
    "id": "42",
    "state": "dead",
    "body": {"to": "ana@example.org"},
    "priority": 5,
    "attempt": 5,
    "max_attempts": 5,
    "pushed_at": "2031-05-07T09:30:00.000Z",
    "run_at": None,
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
    "last_fired": None,
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
    "settled": {"queue": "mail", "id": "42", "status": 200, "state": "done"},
    "settled_many": {"settled": [{"queue": "mail", "id": "42", "status": 200, "state": "done"}]},
    "leased": {
        "jobs": [
            {
                "queue": "mail",
                "id": "42",
                "body": {"to": "ana@example.org"},
                "attempt": 1,
                "max_attempts": 5,
                "priority": 5,
                "pushed_at": "2031-05-07T09:30:00.000Z",
                "lease": "1-7f3a",
                "lease_until": "2031-05-07T09:31:00.000Z",
            }
        ]
    },
    "job": _JOB,
    "jobs": {"jobs": [_JOB], "cursor": None},
    "retried": {"queue": "mail", "retried": 12},
    "explained": {
        "queue": "mail",
        "id": "42",
        "state": "ready",
        "reasons": [{"code": "ahead", "text": "12 jobs are ahead of it"}],
    },
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
    "workers": ["worker-1"],
    "told": {"worker_id": "worker-1", "status": "start"},
    "worker_told": {"worker_id": "worker-1", "response": "updated"},
    "commanded": {"id": "42", "queue": "mail", "ref": 1},
}
"""Examples of the shapes, for people."""
