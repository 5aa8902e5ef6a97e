"""Verbs on many jobs: search, failures, export, import, bulk tasks."""

from __future__ import annotations

from collections.abc import Iterator

from presque.fields import Field, Kind, flag, number, of, text, whole, word
from presque.verbs.bounds import COUNT_MOST, KEY_MOST, TASK_RATE_MOST
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import CURSOR, FILTER, LIMIT, ONLY_QUEUES, QUEUES, STATE, TASK_ID


def rows() -> Iterator[Verb]:
    yield Verb(
        name="search",
        means="Jobs that match, over all queues: as far as one answer looks, and a cursor to go on.",
        scope="read",
        over="seen",
        route="GET /search",
        fields=of(ONLY_QUEUES, STATE, *FILTER, LIMIT, CURSOR),
        answers="found",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="failures",
        means="Errors over all queues, grouped by their kind.",
        scope="read",
        over="seen",
        route="GET /failures",
        fields=of(
            ONLY_QUEUES,
            word(
                "state",
                "Errors of dead jobs, or of jobs scheduled for a retry.",
                "dead",
                "scheduled",
                default="dead",
            ),
            CURSOR,
        ),
        answers="failures",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="export",
        means="All jobs that match, one per line, with all that is known of them.",
        scope="read",
        over="seen",
        route="GET /export",
        fields=of(ONLY_QUEUES, STATE, *FILTER, CURSOR),
        answers="exported",
        problem=True,
        streams=True,
        command=False,
    )
    yield Verb(
        name="import",
        means="Put exported jobs back on their queues, one per line.",
        scope="push",
        over="each",
        route="POST /import",
        fields=of(
            text("import_name", "What the import is called: a batch of it is stored once.", KEY_MOST),
            whole("batch", "The number of this batch; each is larger than the one before.", 1, COUNT_MOST),
        ),
        body="raw",
        answers="imported",
        problem=True,
        refuses=(429, 507),
        command=False,
    )
    yield Verb(
        name="new_task",
        means="Retry, delete or move all jobs that match, in the background.",
        scope="control",
        route="POST /tasks",
        fields=of(
            word("act", "What to do to each job.", "retry", "delete", "move", required=True),
            QUEUES,
            Field(name="to", kind=Kind.QUEUE, means="The queue to which jobs are moved."),
            STATE,
            *FILTER,
            number("rate", "How many jobs a second at most.", 0.001, TASK_RATE_MOST),
            whole("limit", "How many jobs at most.", 1, COUNT_MOST),
            flag("dry_run", "Only count the jobs that match, and show some of them.", default=False),
        ),
        body="fields",
        status=201,
        answers="new_task",
        problem=True,
        refuses=(507,),
    )
    yield Verb(
        name="tasks",
        means="Bulk tasks, the newest first.",
        scope="read",
        over="seen",
        route="GET /tasks",
        fields=of(LIMIT, CURSOR),
        answers="tasks",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="task",
        means="One bulk task, and how far it has come.",
        scope="read",
        over="each",
        route="GET /tasks/{task_id}",
        fields=of(TASK_ID),
        answers="task",
        problem=True,
        reads=True,
        refuses=(404,),
    )
    for name, means in (
        ("pause", "Pause a bulk task until it is resumed."),
        ("resume", "Resume a bulk task where it was paused."),
    ):
        yield Verb(
            name=f"{name}_task",
            means=means,
            scope="control",
            over="each",
            route=f"POST /tasks/{{task_id}}/{name}",
            fields=of(TASK_ID),
            answers="task",
            problem=True,
            refuses=(404,),
        )
    yield Verb(
        name="cancel_task",
        means="Cancel a bulk task. What it has done stays done.",
        scope="control",
        over="each",
        route="DELETE /tasks/{task_id}",
        fields=of(TASK_ID),
        answers="task",
        problem=True,
        refuses=(404,),
    )
