"""Workers for the tests of traces: `presque worker tests.traces.jobs:Plain`."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from presque import Client, Dead, Worker


def do(job: Any) -> None:
    """What a job says, with a span of its own around it."""
    from opentelemetry import trace

    with trace.get_tracer("shop").start_as_current_span("charge the card"):
        if job == "fail":
            raise ValueError("no such card")
        if job == "dead":
            raise Dead("stolen card")
        if job == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "sleep":
            time.sleep(30)
        if isinstance(job, dict):
            with Client() as client:
                client.push(job["then"], "ok")


class Plain(Worker):
    """Without async."""

    def work(self, job: Any) -> None:
        do(job)


class Async(Worker):
    """As tasks of one loop."""

    async def work(self, job: Any) -> None:
        do(job)
