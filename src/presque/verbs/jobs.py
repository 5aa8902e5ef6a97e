"""Verbs on jobs: push and fetch, one job or a batch; one job that is in the store."""

from __future__ import annotations

from collections.abc import Iterator

from presque.fields import many, number, of, value, whole, word
from presque.verbs.bounds import BATCH, BATCH_MOST, RATE_MOST, RETRY_MOST, STATES
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import (
    CURSOR,
    FROM_HEADERS,
    ID,
    JOB,
    LIMIT,
    OF_A_BATCH,
    OF_A_PUSH,
    OF_PUSHES,
    QUEUE,
    QUEUES,
    WAIT,
    WAIT_FOR_END,
    _of_a_job,
)


def push_and_fetch() -> Iterator[Verb]:
    yield Verb(
        name="push",
        means="Put a job on a queue.",
        scope="push",
        route="POST /q/{queue}",
        fields=of(QUEUE, JOB, *OF_A_PUSH, *FROM_HEADERS),
        body="job",
        status=201,
        answers="pushed",
        refuses=OF_PUSHES,
    )
    yield Verb(
        name="put_back",
        means="Put a failed job back on its queue, and count a failure.",
        scope="push",
        route="PUT /q/{queue}",
        fields=of(QUEUE, JOB, *OF_A_PUSH, *FROM_HEADERS),
        body="job",
        status=201,
        answers="pushed",
        refuses=OF_PUSHES,
        worker="counted",
    )
    jobs = many("jobs", "The jobs.", JOB, BATCH_MOST, required=True, undecoded=True)
    yield Verb(
        name="push_many",
        means="Put many jobs on a queue, all of them or none.",
        scope="push",
        route="POST /qb/{queue}",
        fields=of(QUEUE, jobs, *OF_A_BATCH, *FROM_HEADERS),
        body="raw",
        status=201,
        answers="pushed_many",
        refuses=OF_PUSHES,
    )
    yield Verb(
        name="fetch",
        means="Take a job off the first queue that has one, at once and for good.",
        scope="fetch",
        route="GET /q/{queues}",
        fields=of(QUEUES, WAIT),
        answers="fetched",
        waits=True,
        takes=True,
        refuses=(404,),
        worker="counted",
    )
    batch_size = whole("batch_size", "How many at most.", 1, BATCH_MOST, default=BATCH, blank=True)
    yield Verb(
        name="fetch_many",
        means="Take many jobs off a queue, at once and for good.",
        scope="fetch",
        route="GET /qb/{queue}",
        fields=of(QUEUE, batch_size),
        answers="fetched_many",
        takes=True,
        refuses=(404,),
        worker="counted",
    )


def single_jobs() -> Iterator[Verb]:
    yield Verb(
        name="job",
        means="Everything known about a job; with `wait`, once it is done or dead.",
        scope="read",
        route="GET /j/{queue}/{id}",
        fields=of(QUEUE, ID, WAIT_FOR_END),
        answers="job",
        problem=True,
        waits=True,
        reads=True,
        refuses=(404, 410),
    )
    yield Verb(
        name="jobs",
        means="The jobs of a queue in one state.",
        scope="read",
        route="GET /j/{queue}",
        fields=of(QUEUE, word("state", "Which jobs.", *STATES, required=True), LIMIT, CURSOR),
        answers="jobs",
        reads=True,
        when="state",
    )
    changes = (_of_a_job["priority"], _of_a_job["delay"], _of_a_job["delayed"])
    yield Verb(
        name="change",
        means="Change a waiting job.",
        scope="control",
        route="PATCH /j/{queue}/{id}",
        fields=of(QUEUE, ID, *changes, value("body", "Another job in its place.")),
        body="fields",
        answers="job",
        problem=True,
        refuses=(404, 409, 507),
    )
    yield Verb(
        name="delete",
        means="Delete a job. A leased job is deleted when its lease ends.",
        scope="control",
        route="DELETE /j/{queue}/{id}",
        fields=of(QUEUE, ID),
        status=204,
        problem=True,
        refuses=(404,),
    )
    yield Verb(
        name="retry",
        means="Retry a dead job.",
        scope="control",
        route="POST /j/{queue}/{id}/retry",
        fields=of(QUEUE, ID),
        answers="job",
        problem=True,
        without=("id", "retry_all"),
        refuses=(404, 409),
    )
    limit = whole("limit", "How many at most.", 1, RETRY_MOST)
    rate = number("rate", "How many a second.", 0.001, RATE_MOST)
    yield Verb(
        name="retry_all",
        means="Retry dead jobs, those that died first.",
        scope="control",
        route="POST /j/{queue}/retry",
        fields=of(QUEUE, limit, rate),
        body="fields",
        answers="retried",
        problem=True,
    )
    yield Verb(
        name="explain",
        means="Why a job is not running.",
        scope="read",
        route="GET /j/{queue}/{id}/explain",
        fields=of(QUEUE, ID),
        answers="explained",
        problem=True,
        reads=True,
        refuses=(404,),
    )
