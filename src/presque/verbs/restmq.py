"""The words of RestMQ."""

from __future__ import annotations

from collections.abc import Iterator

from presque.fields import of, text, value
from presque.verbs.bounds import KEY_MOST
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import QUEUE


def rows() -> Iterator[Verb]:
    job = value("value", "The job: any JSON value.", required=True)
    key = text("key", "The queue and the id of a job, as `add` answers it.", KEY_MOST, required=True)
    yield Verb(name="add", means="RestMQ's push.", scope="push", fields=of(QUEUE, job))
    yield Verb(name="take", means="RestMQ's fetch.", scope="fetch", fields=of(QUEUE), takes=True)
    yield Verb(name="get", means="RestMQ's look at the next job.", scope="read", fields=of(QUEUE), reads=True)
    yield Verb(name="del", means="RestMQ's delete.", scope="control", fields=of(QUEUE, key))
