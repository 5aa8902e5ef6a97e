"""What is known of a namespace that was made: what it is called, and how much of what it may have."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from presque import codec
from presque.errors import InvalidName, NamespaceFull, shown
from presque.quantities import counted

KINDS = ("queues", "jobs", "bytes", "connections", "requests")
"""What may be bound. `requests` are those of a second."""

NAME_RULE = "1 to 64 letters, digits and . _ -, beginning with a letter or digit"
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z").match


def name_of(text: str) -> str:
    """Return the name of a namespace if it is one. Raises `InvalidName`."""
    if not _name(text):
        raise InvalidName(f"`{shown(text)}` is not the name of a namespace: use {NAME_RULE}")
    return text


class Quotas(msgspec.Struct, frozen=True):
    """How much of each kind there may be; None for what is unlimited."""

    queues: int | None = None
    jobs: int | None = None
    bytes: int | None = None
    connections: int | None = None
    requests: int | None = None

    def changed(self, changes: Mapping[str, int | None]) -> Quotas:
        """These, but for the changes."""
        return msgspec.structs.replace(self, **changes)

    def as_dict(self) -> dict[str, int | None]:
        """By kind."""
        return {kind: getattr(self, kind) for kind in KINDS}


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """A namespace as the store has it. `id` tells it from one of the same name that there was before; while
    it is `ending` its data is deleted, and nobody may use it."""

    name: str
    id: str
    quotas: Quotas
    created_at: int
    made_by: str | None
    ending: bool
    packed: bytes = dataclasses.field(compare=False, repr=False)
    """What the store has."""

    @classmethod
    def new(cls, name: str, quotas: Quotas, now: int, made_by: str | None) -> NamespaceRecord:
        """One that is to be made."""
        return _packed(cls(name, secrets.token_hex(8), quotas, now, made_by, False, b""))

    @classmethod
    def read(cls, name: str, packed: bytes) -> NamespaceRecord:
        """What the store has of one. Raises `ValueError` or `KeyError` for what cannot be read."""
        found = codec.unpack_map(packed)
        known = {kind: found["quotas"].get(kind) for kind in KINDS}
        return cls(
            name, found["id"], Quotas(**known), found["created"], found["made_by"], found["ending"], packed
        )

    def with_quotas(self, quotas: Quotas) -> NamespaceRecord:
        """The same with other quotas."""
        return _packed(dataclasses.replace(self, quotas=quotas))

    def ended(self) -> NamespaceRecord:
        """The same, about to be deleted."""
        return _packed(dataclasses.replace(self, ending=True))


def _packed(record: NamespaceRecord) -> NamespaceRecord:
    bound = {kind: most for kind, most in record.quotas.as_dict().items() if most is not None}
    packed = codec.pack(
        {
            "id": record.id, "quotas": bound, "created": record.created_at, "made_by": record.made_by,
            "ending": record.ending,
        }
    )  # fmt: skip
    return dataclasses.replace(record, packed=packed)


_HELP = {
    "queues": "forget some, push to one that is there",
    "jobs": "fetch, finish or delete some",
    "bytes": "fetch, finish or delete some jobs",
    "connections": "close some",
    "requests": "try again later",
}
_SAID = {
    "queues": ("has", "queue"),
    "jobs": ("holds", "job"),
    "bytes": ("holds jobs of", "byte"),
    "connections": ("has", "open connection"),
    "requests": ("has made", "request"),
}


def full(kind: str, used: int, most: int, retry_after: float = 1, more: str = "") -> NamespaceFull:
    """The refusal of what would be more than the quota of its kind allows: `more` of it, if that is said."""
    verb, what = _SAID[kind]
    said = f"{verb} {counted(used, what)}" + (" in a second" if kind == "requests" else "")
    said += f" and this would add {more}" if more else ""
    text = f"the namespace {said}, and its quota `{kind}` is {most}: {_HELP[kind]}, or ask for a larger quota"
    return NamespaceFull(kind, text, retry_after)


def full_of(word: str) -> NamespaceFull:
    """The refusal that a function of the store tells as `quota <kind> <used> <most>`, and perhaps how much
    would be added."""
    _, kind, used, most, *more = word.split(" ")
    return full(kind, int(used), int(most), more=" ".join(more))
