"""The functions that presque keeps in the store: read from lua/, stamped with a version, joined.

Functions are data in the store, shared by every server on it. The version is in the name of the library
and of each function, so an old and a new presque can share one store during an upgrade.
"""

from __future__ import annotations

from importlib.resources import files

from presque.store.greeting import Functions

VERSION = 2
NAME = f"presque_{VERSION}"
LAYOUT = 2  # of the data: keys, records, runs. Data of another layout is refused at the start

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
)
# What lends nothing to those after it stands in a block: a library has room for 200 local names at once.
_ENCLOSED = ("push", "deliver", "jobs", "queues", "workers", "cron")


def source() -> str:
    """The text to give to FUNCTION LOAD."""
    folder = files("presque.engine") / "lua"
    parts = {name: (folder / f"{name}.lua").read_text("utf-8") for name in _FILES}
    for name in _ENCLOSED:
        parts[name] = f"do\n{parts[name]}end\n"
    text = "\n".join(parts.values()).replace("@VERSION@", str(VERSION)).replace("@LAYOUT@", str(LAYOUT))
    return f"#!lua name={NAME}\n{text}"


def functions() -> Functions:
    """The library as the store's connection loads it."""
    return Functions(NAME, source())
