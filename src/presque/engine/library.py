"""The functions that presque keeps in the store: read from lua/, stamped with a version, joined.

Functions are data in the store, shared by every server on it. The version is in the name of the library
and of each function, so an old and a new presque can share one store during an upgrade.
"""

from __future__ import annotations

from pathlib import Path

from presque.store.greeting import Functions

VERSION = 2
NAME = f"presque_{VERSION}"
LAYOUT = 3  # of the data: keys, records, runs. Data of another layout is refused at the start

# Each file may use what stands in those before it. A library has room for 200 local names at once, so what
# stands in brackets lends nothing to those after it: its names end with it.
_FILES: tuple[str | tuple[str, ...], ...] = (
    "head",
    "records",
    "events",
    "policy",
    "ready",
    "history",
    "runs",
    "quotas",
    "sweep",
    ("push",),
    "take",
    ("deliver",),
    "settle",
    "states",
    ("jobs",),
    ("finding", "bulk", "moving"),
    ("queues",),
    ("workers",),
    ("cron",),
    ("access",),
    ("tasks",),
    ("alerts",),
)
_TEST_CLOCK = ("clock",)  # is there only for a server with a clock that can be moved


def source(*, test_clock: bool = False) -> str:
    """The text to give to FUNCTION LOAD."""
    files = (*_FILES, _TEST_CLOCK) if test_clock else _FILES
    parts = (_read(one) if isinstance(one, str) else f"do\n{''.join(map(_read, one))}end\n" for one in files)
    text = "\n".join(parts).replace("@VERSION@", str(VERSION)).replace("@LAYOUT@", str(LAYOUT))
    return f"#!lua name={NAME}\n{text}"


def _read(name: str) -> str:
    return Path(__file__).with_name("lua").joinpath(f"{name}.lua").read_text("utf-8")


def functions(*, test_clock: bool = False) -> Functions:
    """The library as the store's connection loads it, with a clock that can be moved if that is wanted."""
    return Functions(NAME, source(test_clock=test_clock))
