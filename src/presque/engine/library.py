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

# Each file may use what stands in those before it.
_FILES = (
    "head",
    "records",
    "events",
    "policy",
    "ready",
    "history",
    "runs",
    "quotas",
    "sweep",
    "push",
    "take",
    "deliver",
    "settle",
    "states",
    "jobs",
    "bulk",
    "queues",
    "workers",
    "cron",
    "access",
    "tasks",
    "alerts",
)
# What lends nothing to those after it stands in a block: a library has room for 200 local names at once.
_ENCLOSED = (
    "push", "deliver", "jobs", "bulk", "queues", "workers", "cron", "access", "tasks", "alerts", "clock",
)  # fmt: skip
_TEST_CLOCK = "clock"  # the file that is there only for a server with a clock that can be moved


def source(*, test_clock: bool = False) -> str:
    """The text to give to FUNCTION LOAD."""
    folder = Path(__file__).with_name("lua")
    names = (*_FILES, _TEST_CLOCK) if test_clock else _FILES
    parts = {name: (folder / f"{name}.lua").read_text("utf-8") for name in names}
    for name in parts.keys() & set(_ENCLOSED):
        parts[name] = f"do\n{parts[name]}end\n"
    text = "\n".join(parts.values()).replace("@VERSION@", str(VERSION)).replace("@LAYOUT@", str(LAYOUT))
    return f"#!lua name={NAME}\n{text}"


def functions(*, test_clock: bool = False) -> Functions:
    """The library as the store's connection loads it, with a clock that can be moved if that is wanted."""
    return Functions(NAME, source(test_clock=test_clock))
