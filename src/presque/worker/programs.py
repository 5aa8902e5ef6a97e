"""Any program as a worker: the job on its standard input, its exit status is how it went.

0 acks the job, 65 (EX_DATAERR) makes it dead, 75 (EX_TEMPFAIL) and every other one fail it, so that it is
tried again as its queue's policy says, until its attempts are used up. What the program writes to standard
error is passed on, and its end is kept with the failed job. The environment says which job it is:
PRESQUE_JOB_QUEUE, PRESQUE_JOB_ID, PRESQUE_JOB_ATTEMPT, PRESQUE_JOB_MAX_ATTEMPTS and PRESQUE_JOB_LEASE.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import tempfile
from typing import Any

from presque.worker.execution import DONE, Outcome
from presque.worker.forks import Child, Forks
from presque.worker.job import Job
from presque.worker.reasons import BACKTRACE_MOST, ERROR_MOST

DATA_ERROR = 65
SHELL = "/bin/sh"
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
"""A program expects to be ended by these, and would inherit that they are ignored."""


class Programs(Forks):
    """Runs a command for each job, several at once. Its standard error is our pipe."""

    mode = "exec"
    wants_texts = True

    def heard(self, child: Child, data: bytes) -> None:
        """Pass on what the command says, and remember the end of it."""
        with contextlib.suppress(OSError, AttributeError):  # there may be no standard error
            os.write(sys.stderr.fileno(), data)
        child.said = (child.said + data)[-BACKTRACE_MOST:]

    def verdict(self, child: Child, status: int) -> Outcome:
        """What the exit status says."""
        code = self.exit_code(status)
        if child.reason is not None:
            return self.blamed(child, child.reason)
        if code == 0:
            return DONE
        said = child.said.decode(errors="replace").strip()
        last = said.rpartition("\n")[2].strip()
        text = f"exit status {code}" if code > 0 else self.how(status)
        text = f"{text}: {last}"[:ERROR_MOST] if last else text
        fields: dict[str, Any] = {"error": text}
        if said:
            fields["backtrace"] = said
        if code == DATA_ERROR:
            fields["retry"] = False
        return Outcome("fail", fields, text)

    def ask(self, child: Child) -> None:
        """As any program is asked to end, with all that it has started."""
        if child.told is not None:
            child.told[0] = 0
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGTERM)

    def live(self, job: Job, writing: int, _told: mmap.mmap) -> int:
        """Become the command."""
        with tempfile.TemporaryFile() as file:
            file.write((job.text or "").encode())
            file.flush()
            file.seek(0)
            os.dup2(file.fileno(), 0)
        os.dup2(writing, 2)
        about = {
            "PRESQUE_JOB_QUEUE": job.queue,
            "PRESQUE_JOB_ID": job.id,
            "PRESQUE_JOB_ATTEMPT": str(job.attempt),
            "PRESQUE_JOB_MAX_ATTEMPTS": str(job.max_attempts),
            "PRESQUE_JOB_LEASE": job.lease,
        }
        for ignored in IGNORED_BY_PYTHON:
            signal.signal(signal.Signals[ignored], signal.SIG_DFL)
        self.limit_memory()
        os.execve(SHELL, [SHELL, "-c", self._work.command or ""], {**os.environ, **about})  # noqa: S606
