"""What a row says of a verb."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from presque.fields import Fields, Kind

Scope = Literal["push", "fetch", "lease", "read", "control", "admin", "any"]
"""What a token must allow. `lease` covers settling; `any` is for what holds other verbs, which decide."""

Over = Literal["", "seen", "each", "all"]
"""What the scope of a verb is compared with that names no queue: nothing, since it shows only what the asker
may see; each queue that it touches, by its function; or all queues there may be."""

Body = Literal["none", "job", "fields", "raw"]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing that presque can be asked."""

    name: str
    means: str
    scope: Scope
    route: str | None = None
    """Method and path; None for what is only a command. What stands in braces is a field."""
    over: Over = ""
    """Of a verb that need not name a queue; see `Over`."""
    public: bool = False
    """Whether it may be asked without an access token."""
    fields: Fields = field(default_factory=dict)
    body: Body = "none"
    """What the body of the HTTP request is: nothing, the field `job` as it came, an object of the fields, or
    something that the verb reads itself."""
    status: int = 200
    answers: str = "nothing"
    """The shape of the answer, see shapes/."""
    refuses: tuple[int, ...] = ()
    """The statuses of errors that it may be answered with, beside those that any request may."""
    worker: Literal["ignored", "counted", "required"] = "ignored"
    """What the header X-presque-workerid is to it."""
    problem: bool = False
    """Whether errors are RFC 9457 problems; on the classic routes they are `{"error": …}`."""
    waits: bool = False
    reads: bool = False
    """Whether it changes nothing: HEAD is allowed, and a client may repeat it."""
    takes: bool = False
    """Whether a GET of it takes jobs, so that a browser must not come here by a link."""
    streams: bool = False
    open: bool = False
    """Whether anybody may ask it, under any Host: what looks after servers knows neither names nor tokens."""
    command: bool = True
    """Whether it is a command of `POST /queue` and of WebSockets too."""
    also: tuple[str, ...] = ()
    """Further routes, as clients of 2010 know them."""
    when: str | None = None
    """A parameter that chooses this verb among those of the same route."""
    without: tuple[str, str] | None = None
    """A field, and the verb that a command means which leaves it out."""

    def __post_init__(self) -> None:
        if self.scope not in get_args(Scope):
            raise ValueError(f"the verb {self.name} has no scope")
        named = [one for one in (self.fields.get("queue"), self.fields.get("queues")) if one is not None]
        if self.scope != "any" and not self.over and not any(one.required for one in named):
            raise ValueError(
                f"the verb {self.name} names no queue: say in `over` what its scope is compared with"
            )

    @property
    def method(self) -> str:
        """The HTTP method; "" for what has no route."""
        return "" if self.route is None else self.route.split(" ")[0]

    @property
    def path(self) -> str:
        """The HTTP path with its fields in braces; "" for what has no route."""
        return "" if self.route is None else self.route.split(" ")[1]

    @cached_property
    def in_path(self) -> tuple[str, ...]:
        """The names of the fields that the path holds, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @cached_property
    def outside(self) -> Fields:
        """The fields that are not in the path, nor the whole body."""
        inside = {*self.in_path, *(("job",) if self.body == "job" else ())}
        return {name: one for name, one in self.fields.items() if name not in inside}

    @cached_property
    def members(self) -> Fields:
        """The fields as the members of a command, where the queue list that it is about is called `queue`
        too."""
        return {
            one.name: one
            for field in self.fields.values()
            for one in [dataclasses.replace(field, name="queue") if field.name in self._about else field]
        }

    @cached_property
    def _about(self) -> set[str]:
        return {name for name, field in self.fields.items() if name == "queues" and field.required}

    @cached_property
    def parameters(self) -> Fields:
        """The fields that the query of the URL may hold."""
        structured = (Kind.JSON, Kind.LIST, Kind.OBJECT)
        return {
            name: one
            for name, one in self.outside.items()
            if one.kind not in structured
            and (one.header is None or one.also_query)
            and not (self.body == "raw" and one.required)  # stands in the body
        }

    @cached_property
    def headers(self) -> Fields:
        """The fields that a header may hold, by the header's name in lower case."""
        return {one.header.lower(): one for one in self.outside.values() if one.header is not None}
