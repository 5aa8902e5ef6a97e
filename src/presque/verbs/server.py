"""Verbs on the server: many commands in one request, streams, health, figures, the clock for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from presque.fields import Field, Kind, duration, flag, of, text, word
from presque.verbs.bounds import DELAY_MOST, STREAM_MOST
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import QUEUES


def many_in_one() -> Iterator[Verb]:
    yield Verb(
        name="commands",
        means="Carry out commands.",
        scope="any",
        route="POST /queue",
        body="raw",
        answers="commanded",
        waits=True,
        command=False,
        refuses=(404, 409, 410, 422, 429, 507),
        worker="counted",
    )
    yield Verb(
        name="stream",
        means="Take jobs for good, one per line, as they arrive.",
        scope="fetch",
        route="GET /c/{queues}",
        fields=of(QUEUES, duration("wait", "The longest life of the stream.", 0, STREAM_MOST)),
        answers="lines",
        waits=True,
        takes=True,
        streams=True,
        command=False,
        worker="counted",
    )
    wanted = dataclasses.replace(QUEUES, means="Only from these queues.", required=False, blank=True)
    after = text(
        "last_event_id",
        "The last event that the client has seen: continue from there.",
        128,
        header="Last-Event-ID",
    )
    jobs = flag("jobs", "Whether to tell what happens to single jobs.", default=False)
    yield Verb(
        name="events",
        means="What happens, as it happens.",
        scope="read",
        over="seen",
        route="GET /events",
        fields=of(wanted, jobs, after),
        answers="events",
        waits=True,
        streams=True,
        command=False,
    )
    yield Verb(
        name="openapi",
        means="All of this as an OpenAPI document.",
        scope="any",
        route="GET /openapi.json",
        answers="openapi",
        reads=True,
        command=False,
    )


def health() -> Iterator[Verb]:
    yield Verb(
        name="livez",
        means="Whether the server is running.",
        scope="any",
        route="GET /livez",
        answers="health",
        reads=True,
        open=True,
        command=False,
    )
    yield Verb(
        name="server",
        means="The state of this server and its store, and the settings.",
        scope="read",
        over="all",
        route="GET /server",
        answers="server",
        reads=True,
        command=False,
    )
    yield Verb(
        name="readyz",
        means="Whether the server can do its work.",
        scope="any",
        route="GET /readyz",
        fields=of(word("exclude", "A state in which it counts as ready all the same.", "disk-full")),
        answers="health",
        reads=True,
        open=True,
        command=False,
    )


def clock() -> Iterator[Verb]:
    yield Verb(
        name="clock",
        means="What the clock of a server for tests shows.",
        scope="read",
        over="seen",
        route="GET /clock",
        answers="clock",
        problem=True,
        reads=True,
        refuses=(404,),
        command=False,
    )
    by = duration("advance", "How far to move it forward.", 0, DELAY_MOST, instead_of="at")
    yield Verb(
        name="move_clock",
        means="Move the clock of a server for tests, and let everything that depends on time follow.",
        scope="admin",
        over="all",
        route="POST /clock",
        fields=of(by, Field(name="at", kind=Kind.MOMENT, means="The moment that it shows from now on.")),
        body="fields",
        answers="clock",
        problem=True,
        refuses=(404,),
        command=False,
    )
