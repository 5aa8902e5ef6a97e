"""Verbs on leases."""

from __future__ import annotations

from collections.abc import Iterator

from presque.fields import group, of
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import (
    ATTEMPT_ID,
    COUNT,
    ID,
    LEASE_SECONDS,
    OF_A_SETTLE,
    QUEUE,
    QUEUES,
    SETTLEMENTS,
    TOKEN,
    WAIT,
)


def rows() -> Iterator[Verb]:
    settle = group("settle", "Leases to settle first.", *SETTLEMENTS, undecoded=True)
    yield Verb(
        name="lease",
        means="Take jobs for a number of seconds.",
        scope="lease",
        route="POST /q/{queues}/lease",
        fields=of(QUEUES, COUNT, LEASE_SECONDS, WAIT, ATTEMPT_ID, settle),
        body="fields",
        answers="leased",
        problem=True,
        waits=True,
        worker="counted",
    )
    yield Verb(
        name="settle",
        means="End or extend many leases.",
        scope="lease",
        over="each",
        route="POST /settle",
        fields=of(*SETTLEMENTS),
        body="raw",
        answers="settled_many",
        problem=True,
        worker="counted",
    )
    for name, (means, more) in OF_A_SETTLE.items():
        yield Verb(
            name=name,
            means=means,
            scope="lease",
            route=f"POST /j/{{queue}}/{{id}}/{name}",
            fields=of(QUEUE, ID, TOKEN, *more),
            body="fields",
            answers="settled",
            problem=True,
            refuses=(404, 409, 410),
            worker="counted",
        )
