"""Workers: write `work`, start it, and jobs get done. Talks to the server over HTTP alone.

The names are imported when they are first used: `presque serve` uses one module, a program that pushes none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presque.worker.errors import (
        Dead,
        Interrupted,
        JobCancelled,
        JobKilled,
        JobStopped,
        JobTimeout,
        Retry,
        Snooze,
    )
    from presque.worker.failures import to_file, to_queue
    from presque.worker.job import Job, current_job
    from presque.worker.settings import WrongSetting
    from presque.worker.worker import Worker

__all__ = [
    "Dead",
    "Interrupted",
    "Job",
    "JobCancelled",
    "JobKilled",
    "JobStopped",
    "JobTimeout",
    "Retry",
    "Snooze",
    "Worker",
    "WrongSetting",
    "current_job",
    "to_file",
    "to_queue",
]

_HOMES = {
    "Job": "job",
    "Worker": "worker",
    "WrongSetting": "settings",
    "current_job": "job",
    "to_file": "failures",
    "to_queue": "failures",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module `presque.worker` has no `{name}`")
    found: object = getattr(import_module(f"presque.worker.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return __all__
