"""The client: talks to a presque server over HTTP, with nothing but the standard library."""

from presque.client.answers import LeasedJob
from presque.client.async_client import AsyncClient
from presque.client.calls import Job
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
from presque.client.options import BatchOptions, PushOptions, Settlements
from presque.client.pushing import AsyncPusher, Pusher

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
]
