"""Any program as a worker: it gets the job on its standard input, and its exit status says how the job went.

0 acks the job, 65 (EX_DATAERR) makes it dead, 75 (EX_TEMPFAIL) and every other one fail it, so that it is
tried again as its queue's policy says, until its attempts are used up. What the program writes to standard
error is passed on, and its end is kept with the failed job. The environment says which job it is:
PRESQUE_JOB_QUEUE, PRESQUE_JOB_ID, PRESQUE_JOB_ATTEMPT, PRESQUE_JOB_MAX_ATTEMPTS and PRESQUE_JOB_LEASE, and
PRESQUE_JOB_SAVED if an earlier attempt has saved something: its JSON. TRACEPARENT is the trace that it
belongs to, if any: of this attempt where the worker makes traces, else the one that the job was pushed in.

A program tells more through its file descriptor 3, one JSON object a line: `progress` is shown to whoever
looks, `saved` is for the next attempt, `result` is kept with a job that is done, and `snooze` (seconds, or a
text such as "5m") makes a program that ends with 0 come again later instead, without using up an attempt.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import sys
import tempfile
from typing import Any

from presque.client.json_values import encoded, integer
from presque.traces import tracing
from presque.worker import execution
from presque.worker.errors import Snooze
from presque.worker.execution import DONE, Outcome
from presque.worker.forks import SAID_MOST, Child, Forks, no_constant
from presque.worker.job import Job, unkept
from presque.worker.logger import log
from presque.worker.reasons import BACKTRACE_MOST, ERROR_MOST

DATA_ERROR = 65
SHELL = "/bin/sh"
DESCRIPTOR = 3
TOLD = ("progress", "saved", "result", "snooze")
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
        if code == 0 and "snooze" in child.told_so_far:
            return execution.outcome_of(child.told_so_far["snooze"])
        if code == 0:
            return Outcome("ack", {"result": child.told_so_far["result"]}) if child.told_so_far else DONE
        said = child.said.decode(errors="replace").strip()
        last = said.rpartition("\n")[2].strip()
        text = f"exit status {code}" if code > 0 else self.how(status)
        text = f"{text}: {last}"[:ERROR_MOST] if last else text
        fields: dict[str, Any] = {"error": text}
        if said:
            fields["backtrace"] = said
        if code == DATA_ERROR:
            fields["retry"] = False
        return Outcome("fail", fields, text, raised=f"exit status {code}" if code > 0 else "killed")

    # --- what it tells through descriptor 3

    def pipe_for_words(self) -> tuple[int, ...]:
        self._words = os.pipe()
        return self._words

    def hear_words(self, child: Child, words: tuple[int, ...]) -> None:
        child.words, writing = words
        os.close(writing)
        os.set_blocking(child.words, False)
        self._loop.add_reader(child.words, self._hear_words, child)

    def hear_the_last_words(self, child: Child) -> None:
        self._hear_words(child)
        if child.words >= 0:
            self._loop.remove_reader(child.words)
            os.close(child.words)
            child.words = -1

    def _hear_words(self, child: Child) -> None:
        while child.words >= 0:
            try:
                data = os.read(child.words, 1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:  # it has closed it
                self._loop.remove_reader(child.words)
                return
            *lines, child.words_said = (child.words_said + data).split(b"\n")
            for line in filter(None, lines):
                self._told(child, line)
            if len(child.words_said) > SAID_MOST:
                child.words_said = b""

    def _told(self, child: Child, line: bytes) -> None:
        """One line: take what can be understood of it."""
        try:
            said = dict(json.loads(line, parse_constant=no_constant, parse_int=integer))
            if unknown := said.keys() - TOLD:
                raise ValueError(f"it has `{min(unknown)}`, and not {', '.join(TOLD)}")
            for name, value in said.items():
                if (trouble := unkept(encoded(value))) is not None:
                    raise ValueError(f"`{name}` cannot be kept: {trouble}")
            if "snooze" in said:
                said["snooze"] = Snooze(said["snooze"])
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("job.told_nonsense queue=%s id=%s reason=%s", child.job.queue, child.job.id, error)
            return
        child.told_so_far |= {name: said[name] for name in said.keys() & {"result", "snooze"}}
        if wishes := {name: said[name] for name in said.keys() & {"progress", "saved"}}:
            child.job.tell(child.job, wishes)

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
        os.dup2(self._words[1], DESCRIPTOR)
        os.set_inheritable(DESCRIPTOR, True)
        about = {
            "PRESQUE_JOB_QUEUE": job.queue,
            "PRESQUE_JOB_ID": job.id,
            "PRESQUE_JOB_ATTEMPT": str(job.attempt),
            "PRESQUE_JOB_MAX_ATTEMPTS": str(job.max_attempts),
            "PRESQUE_JOB_LEASE": job.lease,
        }
        if (trace := trace_of(job)) is not None:
            about["TRACEPARENT"] = trace
            if job.tracestate is not None:
                about["TRACESTATE"] = job.tracestate
        if job.saved is not None:
            about["PRESQUE_JOB_SAVED"] = encoded(job.saved)
        for ignored in IGNORED_BY_PYTHON:
            signal.signal(signal.Signals[ignored], signal.SIG_DFL)
        self.limit_memory()
        os.execve(SHELL, [SHELL, "-c", self._work.command or ""], {**os.environ, **about})  # noqa: S606  # nosec B606


def trace_of(job: Job) -> str | None:
    """The trace that a program belongs to."""
    if job.span is None or (traced := tracing()) is None:
        return job.traceparent
    return job.span if isinstance(job.span, str) else str(traced.text_of_span(job.span))
