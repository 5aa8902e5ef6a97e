"""Exit codes, the same for every command."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
NOT_REACHED = 3
NOT_ALLOWED = 4
NOT_FOUND = 5
CONFLICT = 6
NOTHING_THERE = 7
INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended."""


class Failure(Exception):
    """A sentence for standard error, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
