"""The client: talks to a presque server over HTTP, with nothing but the standard library."""

from presque.client.answers import LeasedJob
from presque.client.async_client import AsyncClient
from presque.client.calls import BatchOptions, Job, PushOptions, Settlements
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

__all__ = [
    "AsyncClient",
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
    "QueueClosed",
    "ServerNotReached",
    "Settlements",
    "Unavailable",
]
