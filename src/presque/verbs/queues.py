"""Verbs on queues: counts, start and stop, purge, policies, recurring jobs, history."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from presque.fields import flag, of, text, whole, word
from presque.periods import PERIODS
from presque.verbs.bounds import ACCEPT_MOST, OVER, PEEK, PEEK_MOST
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import CURSOR, LIMIT, NAME, OF_A_PAGE_OF_QUEUES, POLICY, QUEUE, RECURRING


def policies_and_recurring_jobs() -> Iterator[Verb]:
    yield Verb(
        name="policy",
        means="The settings of a queue.",
        scope="read",
        route="GET /p/{queue}",
        fields=of(QUEUE),
        answers="policy",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="change_policy",
        means="Set the given fields of a policy; null restores the default.",
        scope="control",
        route="PATCH /p/{queue}",
        fields=of(QUEUE, *POLICY),
        body="fields",
        answers="policy",
        refuses=(507,),
        problem=True,
    )
    yield Verb(
        name="crons",
        means="Recurring jobs, by name.",
        scope="read",
        over="seen",
        route="GET /cron/",
        fields=of(LIMIT, CURSOR),
        answers="crons",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="cron",
        means="One recurring job.",
        scope="read",
        over="each",
        route="GET /cron/{name}",
        fields=of(NAME),
        answers="cron",
        problem=True,
        reads=True,
        refuses=(404,),
    )
    yield Verb(
        name="put_cron",
        means="Define a recurring job.",
        scope="admin",
        route="PUT /cron/{name}",
        fields=of(NAME, *RECURRING),
        body="fields",
        answers="cron",
        problem=True,
        refuses=(507,),
    )
    yield Verb(
        name="run_cron",
        means="Push the job of a recurring job now. Its schedule does not change.",
        scope="control",
        over="each",
        route="POST /cron/{name}/run",
        fields=of(NAME),
        status=201,
        answers="ran",
        problem=True,
        refuses=(404, 409, 429, 507),
    )
    yield Verb(
        name="pause_cron",
        means="Pause a recurring job: push nothing until it is resumed.",
        scope="control",
        over="each",
        route="POST /cron/{name}/pause",
        fields=of(NAME),
        answers="cron",
        problem=True,
        refuses=(404,),
    )
    yield Verb(
        name="resume_cron",
        means="Resume a recurring job, from its next time on.",
        scope="control",
        over="each",
        route="POST /cron/{name}/resume",
        fields=of(NAME),
        answers="cron",
        problem=True,
        refuses=(404, 409),
    )
    yield Verb(
        name="delete_cron",
        means="Delete a recurring job.",
        scope="admin",
        over="each",
        route="DELETE /cron/{name}",
        fields=of(NAME),
        status=204,
        problem=True,
        refuses=(404,),
    )


def queues() -> Iterator[Verb]:
    yield Verb(
        name="purge",
        means="Delete all jobs of a queue, and its counters; with `forget` the queue itself.",
        scope="control",
        route="DELETE /q/{queue}",
        fields=of(QUEUE, flag("forget", "Whether to forget the queue, too.", default=False)),
        status=204,
    )
    yield Verb(
        name="info",
        means="The classic counts of a queue.",
        scope="read",
        route="GET /j/{queue}",
        fields=of(QUEUE),
        answers="info",
        reads=True,
    )
    yield Verb(
        name="queues",
        means="The names of all queues, a page of them where there are many.",
        scope="read",
        over="seen",
        route="GET /status/",
        fields=of(*OF_A_PAGE_OF_QUEUES),
        answers="queues",
        reads=True,
    )
    with_desc = flag(
        "with_desc", "Whether to show the texts of the next 1000 jobs too.", default=False, blank=True
    )
    yield Verb(
        name="size",
        means="How many jobs of a queue are ready.",
        scope="read",
        route="GET /status/{queue}",
        fields=of(QUEUE, with_desc),
        answers="size",
        reads=True,
    )
    yield Verb(
        name="peek",
        means="Look at the next jobs without taking them.",
        scope="read",
        fields=of(QUEUE, whole("count", "How many at most.", 1, PEEK_MOST, default=PEEK)),
        reads=True,
    )
    yield Verb(
        name="started",
        means="Whether a queue hands out jobs.",
        scope="read",
        route="GET /control/{queue}",
        fields=of(QUEUE),
        answers="started",
        reads=True,
    )
    yield Verb(
        name="control",
        means="Start or stop a queue.",
        scope="control",
        route="POST /control/{queue}",
        fields=of(QUEUE, word("status", "What it should do.", "start", "stop", required=True)),
        body="raw",
        answers="updated",
        refuses=(507,),
        command=False,
    )
    yield Verb(
        name="start", means="Let a stopped queue hand out jobs again.", scope="control", fields=of(QUEUE)
    )
    yield Verb(
        name="stop",
        means="Stop a queue from handing out jobs. It still accepts them.",
        scope="control",
        fields=of(QUEUE),
    )
    yield Verb(
        name="all_stats",
        means="Everything about this server and its queues, a page of them where there are many.",
        scope="read",
        over="seen",
        route="GET /stats/",
        fields=of(*OF_A_PAGE_OF_QUEUES),
        answers="all_stats",
        reads=True,
    )
    yield Verb(
        name="stats",
        means="Everything about one queue.",
        scope="read",
        route="GET /stats/{queue}",
        fields=of(QUEUE),
        answers="stats",
        reads=True,
        without=("queue", "all_stats"),
    )
    yield Verb(
        name="history",
        means="What happened in a period, to one queue or to all together: counts, waits and run times.",
        scope="read",
        over="seen",
        route="GET /history",
        fields=of(
            dataclasses.replace(QUEUE, means="Only this queue.", required=False, blank=True),
            word("over", "The period, up to now.", *PERIODS, default=OVER),
        ),
        answers="history",
        reads=True,
    )

    yield Verb(
        name="metrics",
        means="What this server, its store and its queues are doing, for Prometheus or OpenMetrics.",
        scope="read",
        over="all",
        route="GET /metrics",
        fields=of(
            text(
                "accept",
                "The format: that of OpenMetrics, or else of Prometheus.",
                ACCEPT_MOST,
                header="Accept",
            )
        ),
        answers="metrics",
        reads=True,
        command=False,
    )
