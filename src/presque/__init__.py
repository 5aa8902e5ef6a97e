"""presque: a persistent job queue that anyone can use with curl.

    from presque import AsyncClient, Client, Worker

The names are imported when they are first used, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from presque.version import __version__

if TYPE_CHECKING:
    from presque.client import AsyncClient, Client, ClientError
    from presque.worker import Dead, Retry, Worker

__all__ = ["AsyncClient", "Client", "ClientError", "Dead", "Retry", "Worker", "__version__"]

_HOMES = {
    "AsyncClient": "presque.client",
    "Client": "presque.client",
    "ClientError": "presque.client",
    "Dead": "presque.worker",
    "Retry": "presque.worker",
    "Worker": "presque.worker",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `presque` has no `{name}`")
    return getattr(import_module(_HOMES[name]), name)
