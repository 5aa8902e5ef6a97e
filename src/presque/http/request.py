"""What the head of a request says, and the call that it becomes when its body is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from presque import codec
from presque.commands.call import Call, Service, Who
from presque.errors import CallerError
from presque.fields import Fields, check_together, read_values
from presque.verbs import Verb


@dataclass(frozen=True, slots=True)
class Request:
    """The verb, who asks, the fields that the head holds, typed, and the worker's id."""

    service: Service
    verb: Verb
    who: Who
    fields: Mapping[str, Any]
    worker: str | None

    def call(self, body: bytes) -> Call:
        """The call, once the body is there. Raises `CallerError` if the body is wrong."""
        verb, fields = self.verb, self.fields
        if verb.body == "job":
            fields = {**fields, "job": body}
        elif verb.body == "fields":
            fields = {**fields, **self.members(body)}
            check_together(verb.fields, fields)
        return Call(self.service, verb, fields, body if verb.body == "raw" else b"", self.worker, self.who)

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
