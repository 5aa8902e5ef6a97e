"""What a queue or a worker may be called, and how a queue list is read.

A name becomes part of a store key, a URL, a header and a log line, so the rule is strict and checked
once, at the door. Braces are out of the question: they would move the key to another cluster slot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from presque import globs
from presque.errors import InvalidName, shown

QUEUE_RULE = "1 to 128 letters, digits and . _ : @ ~ + -, beginning with a letter or digit"
PATTERN_RULE = f"{QUEUE_RULE}; * and ? stand for others, ! leaves one out, commas go between"
WORKER_RULE = "1 to 256 visible ASCII characters"
LIST_MOST = 64

_queue = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@~+-]{0,127}\Z").match
_pattern = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._:@~+*?-]{0,127}\Z").match
_beginning = re.compile(r"[^*?]*").match
_job = re.compile(r"[1-9][0-9]{0,14}\Z").match
_jobs = re.compile(r"[1-9][0-9]{0,14}(?: [1-9][0-9]{0,14})*\Z").match
_worker = re.compile(r"[\x21-\x7e]{1,256}\Z").match


def queue(name: str, what: str = "queue") -> str:
    """Return `name` if a queue, or `what` follows the same rule, may be called so; raise `InvalidName`."""
    if _queue(name):
        return name
    raise InvalidName(f"`{shown(name)}` is not a valid {what} name: use {QUEUE_RULE}")


def job(job_id: str) -> str:
    """Return `job_id` if it can be a job's id, raise `InvalidName` otherwise."""
    if _job(job_id):
        return job_id
    raise InvalidName(f"`{shown(job_id)}` is not a job id: use one that a push returned")


def jobs(ids: Sequence[str]) -> None:
    """Raise `InvalidName` unless each of these can be a job's id: the same in less time."""
    text = " ".join(ids)
    if not _jobs(text) or text.count(" ") >= len(ids):  # one may be "1 2"
        for job_id in ids:
            job(job_id)


def is_pattern(text: str) -> bool:
    """Whether this can be a queue's name, or a pattern of such names."""
    return _pattern(text) is not None


def worker(name: str) -> str:
    """Return `name` if a worker may be called so, raise `InvalidName` otherwise."""
    if _worker(name):
        return name
    raise InvalidName(f"`{shown(name)}` is not a valid worker id: use {WORKER_RULE}")


class Excluding(Protocol):
    """Leaves queues out of a list as a pattern does."""

    def excludes(self, queue: str) -> bool:
        """Whether it leaves this queue out."""

    @property
    def weight(self) -> int:
        """How many patterns that compares it with."""


@dataclass(frozen=True, slots=True)
class QueueList:
    """What a fetch or lease asks for: names and globs in order of preference, and what to leave out.

    The semantics are resque's: a glob stands for the known queues that match it and were not named
    before, in alphabetical order; `!glob` takes its matches out of every glob, but never takes out a
    queue that is named in full.
    """

    items: tuple[str, ...]
    excluded: tuple[str | Excluding, ...] = ()
    single: str | None = None
    """The name of the queue if exactly one is asked for by name, as most callers do."""
    text: str = field(default="", compare=False)
    """The list as it was written."""
    excluding: int = field(init=False, compare=False, default=0)
    """With how many patterns a name is compared to see whether it is left out."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "excluding", sum(1 if isinstance(one, str) else one.weight for one in self.excluded)
        )

    @property
    def weight(self) -> int:
        """With how many patterns a name is compared."""
        return len(self.items) + self.excluding

    @property
    def globs(self) -> bool:
        """Whether queues that do not exist yet could match."""
        return any(has_glob(item) for item in self.items)

    def matches(self, name: str) -> bool:
        """Whether the queue `name` belongs to this list."""
        if name in self.items:
            return True
        return any(has_glob(item) and globs.fits(name, item) for item in self.items) and not any(
            _leaves_out(one, name) for one in self.excluded
        )

    def expand(self, known: Iterable[str]) -> list[str]:
        """The queues to look at, most preferred first, when `known` are the queues that exist."""
        names = sorted(known) if self.globs else []
        found: dict[str, None] = {}
        for item in self.items:
            if not has_glob(item):
                found.setdefault(item)
                continue
            for name in names:
                if self.picks(item, name):
                    found.setdefault(name)
        return list(found)

    def picks(self, glob: str, name: str) -> bool:
        """Whether `glob`, which is one of this list, stands for the queue `name`."""
        return globs.fits(name, glob) and not any(_leaves_out(out, name) for out in self.excluded)


def _leaves_out(one: str | Excluding, name: str) -> bool:
    return globs.fits(name, one) if isinstance(one, str) else one.excludes(name)


def has_glob(item: str) -> bool:
    """Whether `item` is a pattern and not a name."""
    return "*" in item or "?" in item


def beginning(item: str) -> str:
    """What all names begin with that a pattern matches: it as far as its first `*` or `?`."""
    found = _beginning(item)
    return "" if found is None else found[0]


def is_queue(name: str) -> bool:
    """Whether a queue may be called so."""
    return _queue(name) is not None


@lru_cache(maxsize=1024)
def queue_list(text: str) -> QueueList:
    """Read `critical,*,!bulk_*`. Raises `InvalidName` with the part that is wrong."""
    items: list[str] = []
    excluded: list[str] = []
    parts = text.split(",")
    if len(parts) > LIST_MOST:
        raise InvalidName(f"a queue list has at most {LIST_MOST} parts, this one has {len(parts)}")
    for part in parts:
        bare = part.removeprefix("!")
        if not _pattern(bare):
            raise InvalidName(f"`{shown(part)}` is not a queue name or pattern: use {PATTERN_RULE}")
        (excluded if part.startswith("!") else items).append(bare)
    if not items:
        raise InvalidName("this list only excludes: start it with `*,`")
    wanted = tuple(dict.fromkeys(items))
    single = wanted[0] if len(wanted) == 1 and not has_glob(wanted[0]) else None
    return QueueList(wanted, tuple(excluded), single, text)
