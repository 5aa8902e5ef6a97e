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
    "cron": members(more=True, name=TEXT),
    "crons": members(more=True, crons=array(ref("cron"))),
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
