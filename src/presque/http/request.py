"""What the head of a request says, and the call that it becomes when its body is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from presque import codec
from presque.commands.call import Call, Service
from presque.commands.who import Who
from presque.errors import CallerError
from presque.fields import Fields, check_together, read_values
from presque.verbs.verb import Verb


class Request(msgspec.Struct, frozen=True):
    """The verb, the caller, the fields that the head holds, typed, and the worker's id."""

    service: Service
    verb: Verb
    who: Who
    fields: Mapping[str, Any]
    worker: str | None
    prefix: str = ""
    """What links in the answer begin with, as a proxy has taken it off the path."""

    def count(self) -> None:
        """Count a request that was let in when its plan was made. Raises `TooManyRequests`."""
        if self.who.meter is not None:
            self.who.meter.spend()
        self.service.counts[self.verb.name] += 1

    def call(self, body: bytes, source: str = "") -> Call:
        """The call, once the body is there; `source` is the client's address. Raises `CallerError` if the
        body is wrong."""
        verb, fields = self.verb, self.fields
        if verb.body == "job":
            fields = {**fields, "job": body}
        elif verb.body == "fields":
            fields = {**fields, **self.members(body)}
            check_together(verb.fields, fields)
        raw = body if verb.body == "raw" else b""
        return Call(self.service, verb, fields, raw, self.worker, self.who, source, self.prefix, timed=True)

    def members(self, body: bytes) -> dict[str, Any]:
        """The fields that the body holds, typed. Raises `CallerError`."""
        known = _in_a_body(self.verb)
        given = codec.members(body, known)
        for name in given:
            if name in self.fields:
                raise CallerError(f"`{name}` is given twice: give it once, in the body or outside of it")
        return read_values(known, given)


def _in_a_body(verb: Verb) -> Fields:
    return {name: one for name, one in verb.outside.items() if one.header is None or one.also_query}
