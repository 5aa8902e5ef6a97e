"""The functions that presque keeps in the store: read from lua/, stamped with a version, joined, called.

Functions are data in the store, shared by every server on it. The version is in the name of the library
and of each function, so an old and a new presque can share one store during an upgrade.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from presque.engine.keys import PER_QUEUE
from presque.store.greeting import Functions

VERSION = 2
NAME = f"presque_{VERSION}"
LAYOUT = 2  # of the data: keys, records, runs. Data of another layout is refused at the start
QUEUES_A_CALL = 100  # at most: a call holds up everybody

# Each file may use what stands in those before it.
_FILES = (
    "head",
    "records",
    "events",
    "policy",
    "ready",
    "runs",
    "sweep",
    "push",
    "take",
    "deliver",
    "settle",
    "jobs",
    "queues",
    "workers",
    "cron",
    "register",
)


def source() -> str:
    """The text to give to FUNCTION LOAD."""
    folder = files("presque.engine") / "lua"
    parts = [(folder / f"{name}.lua").read_text("utf-8") for name in _FILES]
    text = "\n".join(parts).replace("@VERSION@", str(VERSION)).replace("@LAYOUT@", str(LAYOUT))
    return f"#!lua name={NAME}\n{text}"


def functions() -> Functions:
    """The library as the store's connection loads it."""
    return Functions(NAME, source())


def call(name: str, keys: tuple[str, ...], *args: bytes | str | int) -> bytes:
    """A call of the function `name`, encoded for the wire (RESP)."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in args]
    return call_encoded(name, keys, len(parts), b"".join(map(argument, parts)))


def call_encoded(name: str, keys: tuple[str, ...], count: int, args: bytes) -> bytes:
    """The same, for `count` arguments that are encoded already."""
    head, length = _head_of_a_queue(name, keys) if len(keys) <= PER_QUEUE else _head(name, keys)
    return b"*%d\r\n%b%b" % (length + count, head, args)


def argument(part: bytes) -> bytes:
    """One argument, encoded for the wire."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


def _head(name: str, keys: tuple[str, ...]) -> tuple[bytes, int]:
    """The parts of a call that are the same each time, encoded, and how many they are."""
    parts = ["FCALL", f"{NAME}_{name}", str(len(keys)), *keys]
    return b"".join(argument(part.encode()) for part in parts), len(parts)


_head_of_a_queue = lru_cache(maxsize=16384)(_head)
