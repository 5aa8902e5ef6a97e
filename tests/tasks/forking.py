"""Tasks that fork, plain and async: `presque worker tests.tasks.forking`."""

from __future__ import annotations

import os

from presque import App, current_job

QUEUE = os.environ.get("QUEUE", "tests")
app = App(queue=QUEUE, keep=60, fork=True, concurrency=2)


@app.task
def where() -> list[int | str]:
    """Which process, and which job."""
    return [os.getpid(), os.getppid(), current_job().id]


@app.task
async def where_async() -> list[int | str]:
    """The same, async."""
    return [os.getpid(), os.getppid(), current_job().id]


@app.task
def crash() -> None:
    """Ends its process."""
    os._exit(3)
