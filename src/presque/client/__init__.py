"""The client: talks to a presque server over HTTP, with nothing but the standard library.

The names are imported when they are first used: a program that only pushes starts without asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presque.client.async_client import AsyncClient
    from presque.client.calls.taking import Job
    from presque.client.client import Client
    from presque.client.errors import (
        ClientError,
        Conflict,
        Full,
        Gone,
        NotAllowed,
        NotFound,
        QueueClosed,
        ServerNotReached,
        Unavailable,
    )
    from presque.client.leased import LeasedJob
    from presque.client.options import BatchOptions, PushOptions, Settlements
    from presque.client.pushing import AsyncPusher, Pusher
    from presque.tokens import narrow

__all__ = [
    "AsyncClient",
    "AsyncPusher",
    "BatchOptions",
    "Client",
    "ClientError",
    "Conflict",
    "Full",
    "Gone",
    "Job",
    "LeasedJob",
    "NotAllowed",
    "NotFound",
    "PushOptions",
    "Pusher",
    "QueueClosed",
    "ServerNotReached",
    "Settlements",
    "Unavailable",
    "narrow",
]

_ERRORS = (
    "ClientError", "Conflict", "Full", "Gone", "NotAllowed", "NotFound", "QueueClosed", "ServerNotReached",
    "Unavailable",
)  # fmt: skip
_HOMES = {
    "AsyncClient": "async_client",
    "AsyncPusher": "pushing",
    "BatchOptions": "options",
    "Client": "client",
    "Job": "calls.taking",
    "LeasedJob": "leased",
    "PushOptions": "options",
    "Pusher": "pushing",
    "Settlements": "options",
    **dict.fromkeys(_ERRORS, "errors"),
}


def __getattr__(name: str) -> object:
    if name == "narrow":
        found = import_module("presque.tokens").narrow
    elif name in _HOMES:
        found = getattr(import_module(f"presque.client.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module `presque.client` has no `{name}`")
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return __all__
