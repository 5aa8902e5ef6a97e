"""Workers for the tests, run as processes of their own: `presque worker tests.worker.jobs:Plain`.

A job is an object that says what to do; what was done is a line in the file that the variable DIARY names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from presque import Dead, Retry, Worker
from presque.worker import Job, JobCancelled


def note(what: str, **fields: Any) -> None:
    """Write a line that survives whatever comes next."""
    about = {"what": what, "at": time.time(), "pid": os.getpid(), "parent": os.getppid()}
    line = json.dumps({**about, **fields}) + "\n"
    file = os.open(os.environ["DIARY"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


def is_there(file: str) -> bool:
    """Whether the test has made this file."""
    return Path(file).exists()


class Plain(Worker):
    """Does what the job says, without async."""

    def work(self, job: Any) -> Any:
        id = self.job.id
        note("began", id=id, attempt=self.job.attempt)
        try:
            self.do(job)
        except JobCancelled as error:
            note("cancelled", id=id, error=str(error))
            raise
        note("ended", id=id, cancelled=self.job.cancelled)
        return "x" * job["words"] if "words" in job else job.get("return")

    def do(self, job: Any) -> None:
        """The ways of a job."""
        if "close" in job:
            os.closerange(0, 1000)
        if "reopen" in job:
            for _ in range(64):
                os.open(os.devnull, os.O_RDWR)
        if "extend" in job:
            self.job.extend(job["extend"])
        if "sleep" in job:
            time.sleep(job["sleep"])
        if "until" in job:
            while not is_there(job["until"]):
                time.sleep(0.02)
        while "deaf" in job:
            with contextlib.suppress(BaseException):
                time.sleep(10)
        if "until_cancelled" in job:
            deadline = time.monotonic() + 60
            while not self.job.cancelled and time.monotonic() < deadline:
                time.sleep(0.02)
        if "raise" in job:
            raise ValueError(job["raise"])
        if "raise_words" in job:
            raise ValueError("x" * job["raise_words"])
        if "retry_in" in job and self.job.attempt == 1:
            raise Retry("busy", in_=job["retry_in"])
        if "dead" in job:
            raise Dead(job["dead"])
        if "signal" in job:
            os.kill(os.getpid(), job["signal"])
        if "exit" in job:
            os._exit(job["exit"])
        if "spin" in job:
            while True:
                pass
        if "bytes" in job:
            bytearray(job["bytes"])
        if "say" in job:
            sys.stdout.write("x" * job["say"])
            sys.stdout.flush()
        if "stubborn" in job:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            time.sleep(60)
        if "progress" in job:
            self.job.progress(job["progress"])
            self.job.extend(500)
            time.sleep(60)
        if "grandchild" in job and os.fork() == 0:
            time.sleep(60)
            os._exit(0)

    def fail(self, job: Any, error: BaseException) -> None:
        note("failed", id=self.job.id, error=str(error))


class Async(Worker):
    """The same on one event loop."""

    async def work(self, job: Any) -> Any:
        note("began", id=self.job.id, attempt=self.job.attempt)
        try:
            if "sleep" in job:
                await asyncio.sleep(job["sleep"])
            if "until" in job:
                while not is_there(job["until"]):
                    await asyncio.sleep(0.02)
            if "until_cancelled" in job:
                await asyncio.sleep(60)
            while "deaf" in job:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(10)
            if "raise" in job:
                raise ValueError(job["raise"])
        except BaseException:
            note("left", id=self.job.id)
            raise
        note("ended", id=self.job.id, cancelled=self.job.cancelled)
        return job.get("return")

    def fail(self, job: Any, error: BaseException) -> None:
        note("failed", id=self.job.id, error=str(error))


class Hooked(Plain):
    """Tells when it is called."""

    def before_fork(self, job: Job) -> None:
        note("before_fork", id=job.id)

    def after_fork(self, job: Job) -> None:
        note("after_fork", id=job.id)


class Quick(Worker):
    """Does nothing, at once."""

    def work(self, job: Any) -> None:
        pass


class NoWork(Worker):
    """Forgot something."""


def function(job: Any) -> None:
    """A worker may be a function."""
    note("ended", id=job["n"])
