"""Standard output that is closed, full or unread: what then becomes of what is printed there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SILENCED = os.devnull


def open_or_silence() -> None:
    """Give a process that was started without a standard output one that takes everything.

    Otherwise the first socket would become file 1, and text would be written into it.
    """
    if sys.stdout is None:
        sys.stdout = Path(SILENCED).open("w")  # noqa: SIM115  (it stays open)


def silence() -> None:
    """Drop what comes from now on and what waits in buffers, so that the last flush does not fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
