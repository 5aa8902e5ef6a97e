"""What comes back of workers."""

from __future__ import annotations

from typing import Any

from presque.shapes.schema import ANYTHING, COUNT, MOMENT, NUMBER, TEXT, Schema, array, members

SHAPES: dict[str, Schema] = {
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
}

EXAMPLES: dict[str, Any] = {
    "workers": ["worker-1"],
    "told": {"worker_id": "worker-1", "status": "start"},
    "worker_told": {"worker_id": "worker-1", "response": "updated"},
}
