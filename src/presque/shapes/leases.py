"""What comes back when jobs are leased and settled."""

from __future__ import annotations

from typing import Any

from presque.shapes.schema import ANYTHING, FLAG, MOMENT, TEXT, WHOLE, Schema, array, members, ref
from presque.verbs.bounds import STATES

_SETTLED_OPTIONAL = {
    "state": {"type": "string", "enum": [*STATES, "deleted"]},
    "run_at": MOMENT,
    "lease_until": MOMENT,
    "cancel": FLAG,
    "error": TEXT,
    "code": TEXT,
}

SHAPES: dict[str, Schema] = {
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
}

EXAMPLES: dict[str, Any] = {
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
}
