"""Recurring jobs as the store holds them: their definitions, and what is noted beside each.

Any other version may have written one. What cannot be understood is `Broken`, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from presque import codec, names, schedule
from presque.errors import CallerError, NotFound, WrongState, shown
from presque.job import PushOptions
from presque.schedule import LAST_MS, Schedule
from presque.verbs.bounds import OUTCOMES, PRIORITY_MOST

ATTEMPTS_MOST = 1000
KEY_MOST = 255
SET_BACK_MS = 60_000  # a clock that was set back by less brings no moment again
STEADY_MOST = 10**15 - 1  # a moment that `stamp` can write: after the year 33000 of the steady clock
LOST_BODY = "its body is lost"
MISSED = ("skip", "once", "all")
OVERLAP = ("allow", "skip")


class Cron(codec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """A recurring job, as it is stored beside its body. Times are seconds, `ttl` milliseconds.

    `missed` says what becomes of moments at which no server ran, `overlap` whether a job is pushed while the
    one before is not finished.
    """

    queue: str
    schedule: str
    timezone: str = "UTC"
    missed: str = "once"
    overlap: str = "allow"
    priority: int = 5
    ttl: int | None = None
    attempts: int | None = None
    keep: int | None = None
    group: str | None = None


class Broken(Exception):
    """A recurring job cannot be read; the text says why. `cron` is what could be read."""

    def __init__(self, reason: str, cron: Cron | None = None) -> None:
        super().__init__(reason)
        self.cron = cron


class Record(msgspec.Struct, frozen=True):
    """A recurring job as the store holds it. Moments are milliseconds.

    `score` is the next moment as the store writes it, b"" for none; `kind` the clock that it is of.
    """

    name: str
    packed: bytes
    score: bytes
    kind: str
    era: str
    fired_at: int | None
    paused_at: int | None

    @property
    def next_at(self) -> int | None:
        """The next moment; None if there is none, or none that can be."""
        if not self.score:
            return None
        score = float(self.score)
        return int(score) if -STEADY_MOST <= score <= STEADY_MOST else None


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended that a recurring job pushed: a word of `OUTCOMES`, when (ms), and why it is dead."""

    word: str
    at: int
    id: str
    error: str


class Shown(msgspec.Struct, frozen=True):
    """A recurring job for those who look. Moments are milliseconds since the epoch; `now` is the store's.

    `cron` and `schedule` are None where they cannot be read, and `broken` says why; `body` is empty if it is
    lost. `outcome` is how its job ended that ended last.
    """

    name: str
    cron: Cron | None
    schedule: Schedule | None
    broken: str | None
    body: bytes
    next_at: int | None
    fired_at: int | None
    paused_at: int | None
    now: int
    outcome: Outcome | None = None


@lru_cache(maxsize=4096)
def understand(packed: bytes) -> tuple[Cron, Schedule]:
    """What a definition means. Raises `Broken`."""
    cron = decode(packed)
    try:
        return cron, schedule.read(cron.schedule, cron.timezone)
    except CallerError as error:
        raise Broken(f"{error}: this server does not know it", cron) from None


def decode(packed: bytes) -> Cron:
    """A definition as it was stored, its values checked: another version may have written it."""
    try:
        cron = codec.decode_stored(packed, Cron)
        names.queue(cron.queue)
    except (ValueError, CallerError) as error:
        raise Broken(f"its definition is damaged or of a later version of presque: {error}") from None
    for name, word, words in (("missed", cron.missed, MISSED), ("overlap", cron.overlap, OVERLAP)):
        if word not in words:
            raise Broken(f"its `{name}` is `{shown(word)}`: a later version of presque may know that", cron)
    if not (
        1 <= cron.priority <= PRIORITY_MOST
        and 0 < (cron.ttl or 1) <= LAST_MS
        and 0 < (cron.attempts or 1) <= ATTEMPTS_MOST
        and 0 <= (cron.keep or 0) <= LAST_MS
        and 0 < len((cron.group or "-").encode()) <= KEY_MOST
    ):
        raise Broken("its definition is damaged: a number is out of bounds", None)
    return cron


def clocks(reply: Sequence[Any]) -> tuple[int, int]:
    """The times with which a reply begins: of the clock, and of the one that never goes back (ms)."""
    return int(reply[0]), int(reply[1])


def read_outcome(said: bytes | None) -> Outcome | None:
    """What the functions noted of a job that ended; None where nothing of the kind is there."""
    word, at, job, error = (*(said or b"").split(b" ", 3), b"", b"", b"", b"")[:4]
    if word.decode("ascii", "replace") not in OUTCOMES or not at.isdigit():
        return None
    return Outcome(word.decode(), int(at), job.decode(), error.decode("utf-8", "ignore"))


def read_record(parts: Sequence[Any]) -> Record:
    """A recurring job as the functions reply it."""
    name, packed, score, kind, note = parts
    era, fired, paused = (*note.split(b" "), b"", b"", b"")[:3]
    return Record(
        name.decode("utf-8", "backslashreplace"),
        packed,
        score,
        kind.decode(),
        era.decode("utf-8", "backslashreplace"),
        _moment(fired),
        _moment(paused),
    )


def _moment(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 18 else None


def kind(wanted: Schedule) -> str:
    """The clock that a schedule follows, in the word of the functions."""
    return "steady" if wanted.steady else "due"


def is_right(record: Record, wanted: Schedule, now: int) -> bool:
    """Whether the next moment of a recurring job can be, by the clock that its schedule follows (ms)."""
    following = next(iter(wanted.next(now)), None)
    if not record.score:
        return following is None
    if record.kind != kind(wanted) or record.next_at is None or following is None:
        return False
    if record.next_at <= following:
        return True
    # A clock that was set back by a moment: what was pushed just now does not come again.
    return record.kind == "due" and record.fired_at is not None and 0 < record.fired_at - now <= SET_BACK_MS


def stamp(era: str, moment: int) -> str:
    """A text that grows with the era and, within it, with the moment."""
    return f"{int(era) if era.isdecimal() else 0:015d}:{moment:015d}"


def push_options(name: str, cron: Cron, stamp: str | None = None, ahead: int | None = None) -> PushOptions:
    """How the job is pushed, for a moment or at once."""
    skip = cron.overlap == "skip"
    return PushOptions(
        priority=cron.priority,
        ttl=cron.ttl,
        attempts=cron.attempts,
        keep=cron.keep,
        uniq=f"cron:{name}" if skip else None,
        uniq_until="done" if skip else "fetch",
        group=cron.group,
        cron=name,
        stamp=stamp,
        ahead=ahead,
    )


def missing(name: str) -> NotFound:
    """There is none."""
    return NotFound(f"there is no recurring job `{name}`")


def broken(name: str, why: Broken) -> WrongState:
    """What callers hear of one that cannot be read."""
    return WrongState(f"the recurring job `{name}` is broken: {why}; define it again or delete it")
