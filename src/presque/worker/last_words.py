"""Gives jobs back in place of the process that ran them, after its end.

A thread cannot be ended, and what runs in it would go on while the next worker begins the same job. So a
worker whose jobs would not stop replaces itself with this program (`exec`), which ends all its threads, and
keeps the process id, so that a supervisor of the worker waits for this, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presque.client.client import Client
from presque.client.errors import ClientError
from presque.worker.outbox import Letter, settlements
from presque.worker.settings import Settings

WITHIN_S = 5.0
_ROOT = Path(__file__).resolve().parent.parent.parent


def replace_process(settings: Settings, letters: Sequence[Letter]) -> None:
    """End this process, and settle these leases. Returns only when that cannot be done."""
    if not letters or not sys.executable or not hasattr(os, "execve") or getattr(sys, "frozen", False):
        return
    words = {"url": settings.base_uri, "token": settings.token, "settle": settlements(letters)}
    start = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from presque.worker import last_words as it"
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        file.write(json.dumps(words).encode())
        file.flush()
        file.seek(0)
        os.dup2(file.fileno(), 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)  # it would outlive what comes next
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", f"{start}; it.main()"], dict(os.environ))  # noqa: S606  (our own interpreter)  # nosec


def main() -> None:
    """Say what is on standard input, and end with the exit code of a worker that left jobs running."""
    words: dict[str, Any] = json.load(sys.stdin)
    with contextlib.suppress(ClientError), Client(words["url"], words["token"], WITHIN_S) as client:
        client.settle(words["settle"])
    sys.exit(1)
