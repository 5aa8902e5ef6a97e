"""What code that pushes jobs needs of a client, whichever it is: a real one, or one that does them at once.

    def sign_up(client: Pusher, address: str) -> None:
        client.push("mail", {"to": address})

`Client` and `presque.testing.InlineClient` are a `Pusher`; `AsyncClient` and `AsyncInlineClient` are an
`AsyncPusher`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, Unpack

from presque.client.options import BatchOptions, PushOptions


class Pusher(Protocol):
    """Pushes jobs. See the methods of `Client`."""

    def push(self, queue: str, job: Any, **options: Unpack[PushOptions]) -> str:
        """Put a JSON value on a queue and return its id."""

    def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Put a JSON document on a queue, byte for byte as given, and return its id."""

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Put all of `jobs` on a queue, or none, and return their ids in the same order."""

    def push_texts(self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[str]:
        """Put JSON documents on a queue, all or none, and return their ids in the same order."""


class AsyncPusher(Protocol):
    """Pushes jobs, with coroutines. See the methods of `AsyncClient`."""

    async def push(self, queue: str, job: Any, **options: Unpack[PushOptions]) -> str:
        """Put a JSON value on a queue and return its id."""

    async def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Put a JSON document on a queue, byte for byte as given, and return its id."""

    async def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Put all of `jobs` on a queue, or none, and return their ids in the same order."""

    async def push_texts(
        self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]
    ) -> list[str]:
        """Put JSON documents on a queue, all or none, and return their ids in the same order."""
