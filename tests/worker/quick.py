"""Makes each mess as if a job had made it that was too quick to be looked after closely, and prints those of
which something was left: `python -m tests.worker.quick`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from types import SimpleNamespace
from typing import Any

from presque.worker.signals import Handler, Signals, heard
from presque.worker.surroundings import Surroundings
from tests.worker import wild

NOT_HERE = {
    "context": "each job has a context of its own",
    "alarm in processor time": "its handler does nothing; seen at a closer look",
    "signals of C": "seen at a closer look",
    "descriptor of stderr elsewhere": "seen at a closer look",
    "logger of the app": "seen at a closer look",
    "filters of handlers": "seen at a closer look",
}


def main() -> None:
    output = os.dup(1)
    job: Any = SimpleNamespace(queue="q", id="1")
    left = []
    nothing: Handler = lambda _number, _frame: None  # noqa: E731
    raising = {int(number): nothing for number in (signal.SIGURG, signal.SIGVTALRM, signal.SIGPROF)}
    with heard(Signals({signal.SIGTERM}, lambda _: None, raising)) as signals:
        surroundings = Surroundings(signals)
        surroundings.enter()
        before = wild.state()
        for what, mess in wild.MESSES.items():
            if what in NOT_HERE:
                continue
            with contextlib.suppress(ValueError):
                mess()
            surroundings.restore(job, now=0.0, took_s=0.0)
            if wild.state() != before:
                left.append(what)
        surroundings.close()
    os.write(output, json.dumps(left).encode())


if __name__ == "__main__":
    main()
