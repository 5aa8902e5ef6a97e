"""Pushing jobs."""

from __future__ import annotations

from collections.abc import Iterable

from presque.client.call import Answer, Call, Pushes, ask, id_of, object_of
from presque.client.options import BatchOptions, PushOptions
from presque.client.shapes import shaped


def push(queue: str, text: bytes, options: PushOptions) -> Call[str]:
    """Put a job on a queue: its id."""
    pushes = Pushes(queue, None, options.get("traceparent"))
    return ask("push", id_of, {"queue": queue, **options}, body=text, pushes=pushes)


def push_many(queue: str, texts: Iterable[str], options: BatchOptions) -> Call[list[str]]:
    """Put jobs on a queue, all or none: their ids."""
    bodies = list(texts)

    def meaning(answer: Answer) -> list[str]:
        ids = shaped(list[str], object_of(answer)["ids"])
        if len(ids) != len(bodies):
            raise ValueError("it does not have an id for each job")
        return ids

    body = f'{{"jobs":[{",".join(bodies)}]}}'.encode()
    pushes = Pushes(queue, len(bodies), options.get("traceparent"))
    return ask("push_many", meaning, {"queue": queue, **options}, body=body, pushes=pushes)


def put_back(queue: str, text: bytes, options: PushOptions, worker: str | None) -> Call[str]:
    """Put a failed job back: its new id."""
    pushes = Pushes(queue, None, options.get("traceparent"))
    return ask("put_back", id_of, {"queue": queue, **options}, body=text, worker=worker, pushes=pushes)
