"""What can go wrong with tasks: where they are declared, and where their results are awaited."""

from __future__ import annotations

from presque.errors import PresqueError


class WrongTask(PresqueError, ValueError):
    """A task is declared in a way that cannot work."""

    code = "setup"


class TaskFailed(Exception):
    """The job of a task is dead. The text is what it raised last, `backtrace` shows where, if known."""

    def __init__(self, error: str, backtrace: str | None = None) -> None:
        self.backtrace = backtrace
        super().__init__(error)


class NoResult(LookupError):
    """The job is not on the server any more, so nobody knows its result: it was not kept, or was deleted."""
