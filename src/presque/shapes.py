"""The shapes of the answers, as JSON Schema (2020-12), by the names that verbs/ uses.

They are the part of the OpenAPI document that says what comes back. Tests compare them with real answers. An
object is open where later versions may add members (`more`), else closed.
"""

from __future__ import annotations

from typing import Any

from presque.verbs.bounds import DELIVERIES, OUTCOMES, STATES

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
    "leased_at": maybe(MOMENT),
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

_SETTLED_OPTIONAL = {
    "state": {"type": "string", "enum": [*STATES, "deleted"]},
    "run_at": MOMENT,
    "lease_until": MOMENT,
    "cancel": FLAG,
    "error": TEXT,
    "code": TEXT,
}

_TOKEN = {
    "id": TEXT,
    "name": TEXT,
    "allow": array(TEXT),
    "deny": array(TEXT),
    "expires": maybe(MOMENT),
    "sources": array(TEXT),
    "rate": maybe(members(count=WHOLE, seconds=NUMBER)),
    "created_at": MOMENT,
    "made_by": maybe(TEXT),
    "namespace": maybe(TEXT),
}

_NAMESPACE = {
    "namespace": TEXT,
    "quotas": members(
        queues=maybe(WHOLE),
        jobs=maybe(WHOLE),
        bytes=maybe(WHOLE),
        connections=maybe(WHOLE),
        requests=maybe(WHOLE),
    ),
    "created_at": MOMENT,
    "made_by": maybe(TEXT),
    "deleting": FLAG,
}

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
    "settled_entry": members({"id": TEXT, "ids": array(TEXT), **_SETTLED_OPTIONAL}, queue=TEXT, status=WHOLE),
    "settled_many": members(settled=array(ref("settled_entry"))),
    "leased_job": members(
        {"traceparent": TEXT, "tracestate": TEXT, "saved": ANYTHING},
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
    "leased": members({"settled": array(ref("settled_entry"))}, jobs=array(ref("leased_job"))),
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
    "metrics": {"type": "string"},
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
    "new_token": members(more=True, token=TEXT, **_TOKEN),
    "tokens": members(tokens=array(members(more=True, **_TOKEN)), cursor=maybe(TEXT)),
    "namespace": members(more=True, **_NAMESPACE),
    "namespaces": members(namespaces=array(members(more=True, **_NAMESPACE)), cursor=maybe(TEXT)),
    "audit": members(audit=array(members(more=True, at=MOMENT, kind=TEXT)), cursor=maybe(TEXT)),
    "link": members(url=TEXT, method=TEXT, allow=TEXT, expires=MOMENT),
    "session": members(name=TEXT, namespace=maybe(TEXT), expires=MOMENT, allow=array(TEXT), deny=array(TEXT)),
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
    "asker": members(
        tokens={"type": "boolean"},
        name=maybe(TEXT),
        namespace=maybe(TEXT),
        expires=maybe(MOMENT),
        rules=array(members(allow=maybe(array(TEXT)), deny=array(TEXT))),
    ),
    "commanded": {
        "anyOf": [{"type": "object"}, array({"type": "object"})],
        "description": "The answer of the command, or the array of answers.",
    },
    "health": members(status=TEXT),
    "clock": members(now=MOMENT, ahead=NUMBER),
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

_A_TOKEN: dict[str, Any] = {
    "id": "k3vq7xw2np",
    "name": "mailer",
    "allow": ["push:mail*", "lease:mail*"],
    "deny": [],
    "expires": None,
    "sources": [],
    "rate": None,
    "created_at": "2031-05-07T09:30:00.000Z",
    "made_by": None,
    "namespace": None,
}

_A_NAMESPACE: dict[str, Any] = {
    "namespace": "acme",
    "quotas": {"queues": 100, "jobs": 100_000, "bytes": None, "connections": 50, "requests": None},
    "created_at": "2031-05-07T09:30:00.000Z",
    "made_by": "k3vq7xw2np",
    "deleting": False,
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
    "settled_entry": {"queue": "mail", "ids": ["42", "43"], "status": 200, "state": "done"},
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
    "found": {"jobs": [_JOB], "looked": {"jobs": 812, "queues": 3}, "spoilt": [], "cursor": None},
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
    "imported": {"imported": 500, "known": 0},
    "task": _A_TASK,
    "tasks": {"tasks": [_A_TASK], "cursor": None},
    "new_task": _A_TASK,
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
    "clock": {"now": "2031-05-07T10:30:00.000Z", "ahead": 3600},
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
    "workers": ["worker-1"],
    "told": {"worker_id": "worker-1", "status": "start"},
    "worker_told": {"worker_id": "worker-1", "response": "updated"},
    "new_token": {"token": "prq_k3vq7xw2np_" + "x" * 43, **_A_TOKEN},
    "tokens": {"tokens": [_A_TOKEN], "cursor": None},
    "namespace": {**_A_NAMESPACE, "usage": {"queues": 3, "jobs": 1200, "bytes": 84000, "connections": 4}},
    "namespaces": {"namespaces": [_A_NAMESPACE], "cursor": None},
    "audit": {
        "audit": [
            {
                "at": "2031-05-07T09:30:00.000Z",
                "kind": "act",
                "outcome": "done",
                "verb": "purge",
                "about": "mail",
                "token": "k3vq7xw2np",
                "name": "mailer",
                "from": "192.0.2.7",
            }
        ],
        "cursor": None,
    },
    "link": {
        "url": "/j/mail/42?link=prq_…",
        "method": "GET",
        "allow": "read",
        "expires": "2031-05-08T09:30:00.000Z",
    },
    "session": {
        "name": "ana",
        "namespace": None,
        "expires": "2031-05-07T21:30:00.000Z",
        "allow": ["read:*"],
        "deny": [],
    },
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
    "asker": {
        "tokens": True,
        "name": "ana",
        "namespace": None,
        "expires": "2031-05-07T21:30:00.000Z",
        "rules": [{"allow": ["read:*"], "deny": []}, {"allow": None, "deny": ["fetch:*", "lease:*"]}],
    },
    "commanded": {"id": "42", "queue": "mail", "ref": 1},
}
"""Examples of the shapes, for people."""
