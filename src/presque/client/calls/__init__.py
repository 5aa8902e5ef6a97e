"""What can be asked of a server, as calls: the request of each verb, and what its answer means.

A file for each subject, as in `presque.verbs`. They are imported when they are first used: a program that
only pushes does without the shapes of all other answers.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presque.client.calls import access, crons, jobs, many_jobs, pushing, queues, server, taking, workers

__all__ = ["access", "crons", "jobs", "many_jobs", "pushing", "queues", "server", "taking", "workers"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module `presque.client.calls` has no `{name}`")
    return import_module(f"presque.client.calls.{name}")
