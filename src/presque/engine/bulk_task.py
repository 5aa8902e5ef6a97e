"""A bulk task as the store holds it: what is to be done, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from presque import codec, names
from presque.engine.finding import Filter
from presque.names import QueueList
from presque.tokens import Layer, Outside, Rules

TELLS_NOTHING = {"older", "newer", "priority"}  # filters that say nothing of what is in a job


class What(codec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is to be done, as the store has it. `filter` is in the words of lua/finding.lua.

    `by` and `name` say who asked for it; if that was the holder of an access token (`token`), the task ends
    when the token is no longer valid. `layers` are the rules that hold for them: (allowed or None, denied) of
    each layer.
    """

    act: str
    queues: str
    states: list[str]
    filter: dict[str, Any]
    to: str | None = None
    rate: float | None = None
    limit: int | None = None
    total: int | None = None
    by: str | None = None
    name: str | None = None
    token: bool = False
    layers: Sequence[tuple[list[str] | None, list[str]]] = ()


class How(codec.Struct, kw_only=True):
    """How far a task has come. The counts are those of the queues that it has done, and with those in `here`
    of all; `queue` is the one that it is in."""

    queue: str | None = None
    after: str = ""
    looked: int = 0
    matched: int = 0
    done: int = 0
    refused: int = 0
    here: tuple[int, int, int, int] = (0, 0, 0, 0)
    waits: str | None = None
    problems: Sequence[str] = ()


class Task(msgspec.Struct):
    """A task as the store has it. Moments are milliseconds since the epoch."""

    id: str
    status: str
    began: int
    ended: int | None
    what: What
    how: How = msgspec.field(default_factory=How)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """How many jobs were looked at, match, had it done, were refused."""
        how = self.how
        looked, matched, done, refused = how.here
        return how.looked + looked, how.matched + matched, how.done + done, how.refused + refused


class Progress(msgspec.Struct, frozen=True):
    """How far a task has come in one queue; see lua/bulk.lua."""

    step: int
    over: bool
    looked: int
    matched: int
    done: int
    refused: int
    state: int
    cursor: str
    top: int


def shows(act: str, only: Filter) -> bool:
    """Whether a task tells what is in jobs, by moving them or by which of them match."""
    return act == "move" or not only.keys() <= TELLS_NOTHING


def wanted(what: What) -> QueueList:
    """The queues of a task, without those that its token does not allow. Raises `PresqueError`."""
    queues = names.queue_list(what.queues)
    excluded = queues.excluded
    if what.layers:
        layers = tuple(
            Layer(allow=None if allow is None else Rules(allow), deny=Rules(deny))
            for allow, deny in what.layers
        )
        scopes = ("control", "read") if shows(what.act, what.filter) else ("control",)
        excluded += tuple(Outside(scope, layers) for scope in scopes)
    return replace(queues, excluded=excluded)


def read_task(parts: Sequence[Any]) -> Task:
    """A task, of the five parts that the store answers. One of another version can be looked at, no more."""
    id, status, what, how, ended = parts
    began, _, packed = what.partition(b" ")
    try:
        found, come = codec.decode_stored(packed, What), codec.decode_stored(how, How)
    except ValueError as error:
        found = What(act="unknown", queues="*", states=[], filter={})
        come = How(problems=(f"it was written by another version of presque: {error}",))
    return Task(
        id.decode(), status.decode(), int(began or 0), int(float(ended)) if ended else None, found, come
    )


def read_progress(reply: Sequence[Any]) -> Progress:
    step, over, looked, matched, done, refused, state, cursor, top = reply
    return Progress(step, over == 1, looked, matched, done, refused, state, cursor.decode(), top)
