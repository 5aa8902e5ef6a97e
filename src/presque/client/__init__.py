"""The client: talks to a presque server over HTTP, with nothing but the standard library."""

from presque.client.client import BatchOptions, Client, Job, PushOptions
from presque.client.transport import (
    ClientError,
    Conflict,
    NotAllowed,
    NotFound,
    QueueClosed,
    ServerNotReached,
    Unavailable,
)

__all__ = [
    "BatchOptions",
    "Client",
    "ClientError",
    "Conflict",
    "Job",
    "NotAllowed",
    "NotFound",
    "PushOptions",
    "QueueClosed",
    "ServerNotReached",
    "Unavailable",
]
