"""Verbs on workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from presque.fields import Field, Kind, flag, of, word
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import QUEUE, WORKER


def rows() -> Iterator[Verb]:
    yield Verb(
        name="register",
        means="The worker in the header takes jobs from this queue.",
        scope="lease",
        route="POST /w/{queue}",
        fields=of(QUEUE),
        status=201,
        refuses=(507,),
        worker="required",
    )
    yield Verb(
        name="unregister",
        means="The worker in the header takes no more jobs from this queue.",
        scope="lease",
        route="DELETE /w/{queue}",
        fields=of(QUEUE),
        status=204,
        worker="required",
    )
    only = dataclasses.replace(WORKER, means="Only this worker.", required=False, blank=True)
    of_queue = Field(
        name="queue_name",
        kind=Kind.QUEUE,
        means="The workers of this queue.",
        blank=True,
        instead_of="worker_id",
    )
    with_desc = flag("with_desc", "Whether to show all that is known of them.", default=False, blank=True)
    yield Verb(
        name="workers",
        means="All workers and what they are working on.",
        scope="read",
        over="seen",
        route="GET /w/",
        also=("GET /w/{anything}",),
        fields=of(only, of_queue, with_desc),
        answers="workers",
        reads=True,
        refuses=(404,),
    )
    yield Verb(
        name="report",
        means="The worker in the header reports what it is doing, and learns what it is asked to do.",
        scope="lease",
        over="each",
        route="PUT /w/",
        body="raw",
        answers="told",
        command=False,
        refuses=(507,),
        worker="required",
    )
    status = word("status", "What it should do.", "start", "quiet", "stop", required=True)
    yield Verb(
        name="tell_worker",
        means="Ask a worker to be quiet, to stop, or to take jobs again.",
        scope="control",
        over="each",
        route="POST /w/",
        fields=of(WORKER, status),
        body="fields",
        answers="worker_told",
        refuses=(404, 507),
    )
    yield Verb(
        name="leave",
        means="The worker in the header has ended.",
        scope="lease",
        over="each",
        route="DELETE /w/",
        status=204,
        worker="required",
    )
