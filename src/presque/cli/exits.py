"""How a command ends that did not work: a sentence, and one of the codes of presque/exits.py."""

from __future__ import annotations

from presque.exits import (
    BROKEN_PIPE,
    CONFLICT,
    DONE,
    FAILED,
    INTERRUPTED,
    MEANINGS,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_REACHED,
    NOTHING_THERE,
    USAGE,
    wrong_or_failed,
)

__all__ = [
    "BROKEN_PIPE",
    "CONFLICT",
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "MEANINGS",
    "NOTHING_THERE",
    "NOT_ALLOWED",
    "NOT_FOUND",
    "NOT_REACHED",
    "USAGE",
    "Failure",
    "wrong_or_failed",
]


class Failure(Exception):
    """A sentence for standard error, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
