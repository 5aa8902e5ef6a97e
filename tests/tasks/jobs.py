"""Tasks, a worker class and a recurring job for the tests: `presque worker tests.tasks.jobs`.

Their queues begin with what the variable QUEUE says, so that tests that run at once do not meet.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

from presque import App, Worker, current_job
from tests.worker.jobs import Plain, note

QUEUE = os.environ.get("QUEUE", "tests")

app = App(queue=QUEUE, keep=60, attempts=2)
assert Plain.__module__ != __name__  # a worker class that is imported only is not this module's to run


def seen(what: str, **fields: Any) -> None:
    """Write down which job runs, and where."""
    job = current_job()
    note(what, queue=job.queue, id=job.id, thread=threading.current_thread().name, **fields)


@app.task
def add(a: int, b: int = 1) -> int:
    """A plain one, in the common queue."""
    seen("add")
    return a + b


@app.task(queue=f"{QUEUE}.slow", concurrency=2)
def slow(seconds: float) -> None:
    """Two at once."""
    seen("slow began", at=time.monotonic())
    time.sleep(seconds)
    seen("slow ended", at=time.monotonic())


@app.task(queue=f"{QUEUE}.both")
def plain(number: int) -> str:
    """Shares its queue with an async one."""
    seen("plain")
    return f"plain {number}"


@app.task(queue=f"{QUEUE}.both")
async def later(number: int) -> str:
    """Shares its queue with a plain one."""
    await asyncio.sleep(0)
    seen("later", loop=id(asyncio.get_running_loop()))
    return f"later {number}"


@app.task(queue=f"{QUEUE}.both", fork=True)
def apart(number: int) -> str:
    """Shares it, too, and has a process of its own."""
    current_job().progress({"number": number})
    seen("apart", parent_of=os.getppid())
    return f"apart {number}"


@app.task(queue=f"{QUEUE}.forks", fork=True, concurrency=2)
def crash(how: str) -> None:
    """Ends its process, or goes on until it is ended."""
    seen("crash")
    if how == "exit":
        os._exit(3)
    if how == "raise":
        raise ValueError("no")
    time.sleep(600)


@app.task(queue=f"{QUEUE}.net")
async def net(number: int) -> int:
    """Async, in a queue of its own."""
    await asyncio.sleep(0)
    seen("net", loop=id(asyncio.get_running_loop()))
    await asyncio.to_thread(seen, "net in a thread")
    return number


@app.task(queue=f"{QUEUE}.chain")
def chain(left: int) -> None:
    """Pushes for another lane of this worker, which may have found its queue empty already."""
    seen("chain", left=left)
    if left:
        (hop if left % 2 else chain).push(left - 1)


@app.task(queue=f"{QUEUE}.hop", concurrency=1)
def hop(left: int) -> None:
    """The same."""
    seen("hop", left=left)
    if left:
        chain.push(left - 1)


@app.task(name=f"{QUEUE}.versioned")
def versioned_once(a: int) -> str:
    """What it was."""
    return f"1 {a}"


@app.task(name=f"{QUEUE}.versioned", version=2)
def versioned(a: int, b: int) -> str:
    """What it is."""
    return f"2 {a} {b}"


@app.task(aliases=["long.ago.moved"])
def moved() -> str:
    """Lived in another module once."""
    return "moved"


@app.cron(
    "0 3 * * *", name=f"{QUEUE}.nightly", timezone="Europe/Paris", overlap="skip", kwargs={"a": 1, "b": 2}
)
@app.task
def report(a: int, b: int) -> int:
    """Recurs."""
    return a + b


class Base(Worker):
    """Not to be run by itself: another class derives from it."""

    queue = "nobody"

    def work(self, job: Any) -> None:
        seen("class", job=job)


class Old(Base):
    """A worker class beside the tasks."""

    queue = f"{QUEUE}.old"
