"""presque: a persistent job queue that anyone can use with curl.

    from presque import App, AsyncClient, Client, Worker

The names are imported when they are first used, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from presque.version import __version__

if TYPE_CHECKING:
    from presque.client import AsyncClient, Client, ClientError
    from presque.tasks.app import App
    from presque.worker import Dead, Retry, Snooze, Worker, current_job

__all__ = [
    "App",
    "AsyncClient",
    "Client",
    "ClientError",
    "Dead",
    "Retry",
    "Snooze",
    "Worker",
    "__version__",
    "current_job",
]

_HOMES = {
    "App": "presque.tasks.app",
    "AsyncClient": "presque.client",
    "Client": "presque.client",
    "ClientError": "presque.client",
    "Dead": "presque.worker",
    "Retry": "presque.worker",
    "Snooze": "presque.worker",
    "Worker": "presque.worker",
    "current_job": "presque.worker",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `presque` has no `{name}`")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return __all__
