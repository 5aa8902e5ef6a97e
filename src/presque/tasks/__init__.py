"""Tasks: jobs that are calls of Python functions. They build on the client and the worker.

The names are imported when they are first used: a program that only pushes starts without the worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presque.tasks.app import App
    from presque.tasks.errors import NoResult, TaskFailed, WrongTask
    from presque.tasks.inline import Inline, Ran
    from presque.tasks.options import PushOptions
    from presque.tasks.pushed import Pushed
    from presque.tasks.task import Task
    from presque.tasks.worker import AppWorker

__all__ = [
    "App",
    "AppWorker",
    "Inline",
    "NoResult",
    "PushOptions",
    "Pushed",
    "Ran",
    "Task",
    "TaskFailed",
    "WrongTask",
]

_HOMES = {
    "App": "app",
    "AppWorker": "worker",
    "Inline": "inline",
    "NoResult": "errors",
    "PushOptions": "options",
    "Pushed": "pushed",
    "Ran": "inline",
    "Task": "task",
    "TaskFailed": "errors",
    "WrongTask": "errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `presque.tasks` has no `{name}`")
    found: object = getattr(import_module(f"presque.tasks.{_HOMES[name]}"), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return __all__
