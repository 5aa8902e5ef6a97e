"""Clients that do at once what is pushed, without a server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, Unpack

from presque import names
from presque.client import AsyncClient, Client, ClientError, NotFound
from presque.client.address import server
from presque.client.call import Call, parameters_of
from presque.client.calls import pushing
from presque.client.exchange import Request
from presque.client.json_values import checked, decoded, encoded
from presque.client.options import BatchOptions, PushOptions
from presque.errors import CallerError, PresqueError
from presque.fields import check_together, read_texts
from presque.testing.trying import Outcome, Works, perform, perform_async
from presque.verbs import VERBS
from presque.worker.alone import Turns, check_bodies

T = TypeVar("T")

_REQUEST = Request(server("http://inline"), None)


class _Inline:
    """What both clients share: who does which jobs, what a server would refuse, and how jobs went."""

    def __init__(self, workers: Mapping[str, Works]) -> None:
        self.workers = dict(workers)
        self.outcomes: list[Outcome] = []
        self._ids = itertools.count(1)

    def take(self, verb: str, queue: str, texts: list[str], options: Any) -> list[_Taken]:
        """The jobs of a push, each with who does it. Raises what a push to a server raises."""
        many = verb == "push_many"
        call = pushing.push_many(queue, texts, options) if many else _push(queue, texts[0], options)
        _REQUEST.of(call)
        parameters, headers = parameters_of(verb, options)
        row = VERBS[verb]
        if not queue:
            raise NotFound("queue name is missing", status=404, code="name-missing")
        try:
            names.queue(queue)
            given = read_texts(row.parameters, parameters)
            for name, value in headers.items():
                row.headers[name.lower()].read_text(value)
            check_together(row.parameters, given)
            if _ends_before_it_is_due(given):
                raise CallerError("`ttl` ends before the job is due: nobody could ever take it")
        except PresqueError as error:
            raise ClientError(str(error), status=400, code=error.code) from None
        check_bodies(texts, many=many)
        works = self._works(queue)
        attempts = given.get("attempts")
        return [_Taken(works, queue, decoded(text), str(next(self._ids)), attempts) for text in texts]

    def turns(self, job: _Taken) -> Iterator[dict[str, Any]]:
        """How `perform` is to do a job, as often as it is to be done: after each time `outcomes` has one
        more."""
        turns, saved = Turns(job.attempts), None
        while True:
            yield {
                "queue": job.queue, "id": job.id, "saved": saved,
                "attempt": turns.attempt, "max_attempts": turns.most,
            }  # fmt: skip
            went = self.outcomes[-1]
            saved = went.saved[-1] if went.saved else saved
            if not turns.again(went.state, f"job {job.id} of `{job.queue}`"):
                return

    def _works(self, queue: str) -> Works:
        found = self.workers.get(queue)
        if found is not None:
            return found
        for pattern, works in self.workers.items():
            if names.queue_list(pattern).matches(queue):
                return works
        raise KeyError(f"there is no worker for the queue `{queue}`")


@dataclass(frozen=True, slots=True)
class _Taken:
    works: Works
    queue: str
    value: Any
    id: str
    attempts: int | None


def _no_server(call: Call[Any]) -> NoReturn:
    raise NotImplementedError(
        f"this client does what is pushed and has no server to ask for {call.method} {call.path}"
    )


def _ends_before_it_is_due(given: Mapping[str, Any]) -> bool:
    delay = given.get("delay") or given.get("delayed", 0) - time.time() * 1000
    return "ttl" in given and 0 < delay >= given["ttl"]


def _push(queue: str, text: str, options: Any) -> Call[str]:
    return pushing.push(queue, text.encode(), options)


def _text(body: str | bytes) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ClientError("the body is not UTF-8", status=400, code="not-json") from None


class InlineClient(Client):
    """A `Client` for tests: each job that is pushed is done at once, `outcomes` tells how each attempt went.

    A job that fails is retried at once, as often as its `attempts` say (5 by default), and one that is
    snoozed comes again at once.

    `workers` says who does the jobs of a queue, by its name or by a queue list with patterns; a name counts
    before a pattern. What a server would refuse is refused with the same errors. Options such as `delay` are
    checked and then ignored. Raises `KeyError` when there is no worker for the queue. All that is not a push
    raises `NotImplementedError`, since there is no server.
    """

    def __init__(self, workers: Mapping[str, Works]) -> None:
        super().__init__("http://inline", "inline")
        self._inline = _Inline(workers)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the jobs went, in the order in which they ended."""
        return self._inline.outcomes

    def perform(self, call: Call[T]) -> T:
        """Refused, with `NotImplementedError`: this client has no server to ask."""
        _no_server(call)

    def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Do the job and return an id."""
        return self._do(self._inline.take("push", queue, [_text(text)], options))[0]

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Do the jobs in their order and return their ids."""
        texts = [encoded(job) for job in jobs]
        return self._do(self._inline.take("push_many", queue, texts, options))

    def push_texts(self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[str]:
        """Do the jobs in their order and return their ids."""
        return self._do(self._inline.take("push_many", queue, [checked(one) for one in texts], options))

    def _do(self, jobs: list[_Taken]) -> list[str]:
        for job in jobs:
            for how in self._inline.turns(job):
                self.outcomes.append(perform(job.works, job.value, **how))
        return [job.id for job in jobs]


class AsyncInlineClient(AsyncClient):
    """The same for an `AsyncClient`: async work runs in the loop of the test."""

    def __init__(self, workers: Mapping[str, Works]) -> None:
        super().__init__("http://inline", "inline")
        self._inline = _Inline(workers)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the jobs went, in the order in which they ended."""
        return self._inline.outcomes

    async def perform(self, call: Call[T]) -> T:
        """Refused, with `NotImplementedError`: this client has no server to ask."""
        _no_server(call)

    async def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Do the job and return an id."""
        return (await self._do(self._inline.take("push", queue, [_text(text)], options)))[0]

    async def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Do the jobs in their order and return their ids."""
        texts = [encoded(job) for job in jobs]
        return await self._do(self._inline.take("push_many", queue, texts, options))

    async def push_texts(
        self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]
    ) -> list[str]:
        """Do the jobs in their order and return their ids."""
        return await self._do(self._inline.take("push_many", queue, [checked(one) for one in texts], options))

    async def _do(self, jobs: list[_Taken]) -> list[str]:
        for job in jobs:
            for how in self._inline.turns(job):
                self.outcomes.append(await perform_async(job.works, job.value, **how))
        return [job.id for job in jobs]
