"""Calls of functions in the store: how one is encoded and made, and how one over many queues is split."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from presque.engine.keys import PER_QUEUE, Keys
from presque.engine.library import NAME
from presque.errors import StoreError, StoreUnavailable
from presque.store.store import Store

QUEUES_A_CALL = 100  # at most: a call holds up everybody


def encode(name: str, keys: tuple[str, ...], *args: bytes | str | int) -> bytes:
    """A call of the function `name`, encoded for the wire (RESP)."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in args]
    return encode_args(name, keys, len(parts), b"".join(map(argument, parts)))


def encode_args(name: str, keys: tuple[str, ...], count: int, args: bytes) -> bytes:
    """The same, for `count` arguments that are encoded already."""
    head, length = _head_of_a_queue(name, keys) if len(keys) <= PER_QUEUE else _head(name, keys)
    return b"*%d\r\n%b%b" % (length + count, head, args)


def argument(part: bytes) -> bytes:
    """One argument, encoded for the wire."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


class OnKeys:
    """Calls functions on keys that are always the same, such as those of all recurring jobs."""

    def __init__(self, store: Store, tag: str, keys: tuple[str, ...]) -> None:
        self._store = store
        self._tag = tag
        self._keys = keys

    async def __call__(self, name: str, *args: str | bytes | int) -> Any:
        """The reply of a function. Raises `PresqueError`."""
        return await self._store.ask(self._tag, encode(name, self._keys, *args))


class OnQueue:
    """Calls functions on a queue. `answer` is how many bytes the reply may have, if that is much."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def __call__(self, name: str, queue: str, *args: str | bytes | int, answer: int = 0) -> Any:
        """The reply of a function. Raises `PresqueError`."""
        return await self._store.ask(queue, encode(name, self._keys.of(queue), *args), answer)


def split(queues: Sequence[str]) -> Iterator[Sequence[str]]:
    """The queues of each call, in their order, for what is asked of many queues.

    The one place that knows what fits into one call: QUEUES_A_CALL as yet, and on several nodes the queues of
    one node. The hash tag of the first queue says which node to ask.
    """
    for first in range(0, len(queues), QUEUES_A_CALL):
        yield queues[first : first + QUEUES_A_CALL]


async def in_pieces(
    queues: Sequence[str],
    ask: Callable[[Sequence[str]], Awaitable[Any]],
    spoilt: Callable[[dict[str, str]], None],
) -> AsyncIterator[tuple[Any, Sequence[str]]]:
    """Each reply to what is asked of many queues, and the queues that it is about.

    `ask` makes a call, whose reply says at [1] which queues are spoilt and at [2] how many were looked at:
    fewer than asked for if they hold large jobs. One that is spoilt is an error (`StoreError`) only if no
    other was asked for.
    """
    for some in split(queues):
        left = some
        while left:
            try:
                reply = await ask(left)
            except StoreUnavailable:
                raise
            except StoreError as error:
                if len(left) > 1 or len(queues) == 1:
                    raise
                spoilt({left[0]: str(error)})
                break
            yield reply, left
            left = left[reply[2] :]


def _head(name: str, keys: tuple[str, ...]) -> tuple[bytes, int]:
    """The parts of a call that are the same each time, encoded, and how many they are."""
    parts = ["FCALL", f"{NAME}_{name}", str(len(keys)), *keys]
    return b"".join(argument(part.encode()) for part in parts), len(parts)


_head_of_a_queue = lru_cache(maxsize=16384)(_head)


def ignore(_reply: object) -> None:
    """Receive the reply to a call of which nobody needs to know what came of it."""
