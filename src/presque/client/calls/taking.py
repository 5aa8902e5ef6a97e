"""Taking jobs: for good, or on a lease that is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from presque.client.call import Answer, Call, accepted, ask, object_of, written
from presque.client.errors import NO_JOB, refusal
from presque.client.json_values import decoded
from presque.client.leased import Holder, Leased, counts, leased, named, settled
from presque.client.options import Duration, Settlements
from presque.client.shapes import shaped
from presque.verbs import VERBS

if TYPE_CHECKING:
    from presque.client.answers import Settled

LEASE_MOST = 1000
"""Jobs in one lease."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was fetched. `body` is its text exactly as it was pushed."""

    queue: str
    id: str
    body: str

    @property
    def value(self) -> Any:
        """The JSON value, decoded at each access."""
        return decoded(self.body)


def fetch(queues: str, wait: Duration | None, worker: str | None) -> Call[Job | None]:
    """Take a job for good; None when there is none."""

    def meaning(answer: Answer) -> Job | None:
        if _nothing(answer):
            return None
        accepted(answer)
        return Job(answer.headers["presque-queue"], answer.headers["presque-job-id"], answer.body.decode())

    return ask("fetch", meaning, {"queues": queues, "wait": wait}, worker=worker)


def fetch_many(queue: str, count: int, worker: str | None) -> Call[list[str]]:
    """Take jobs for good: their texts."""

    def meaning(answer: Answer) -> list[str]:
        found = [] if _nothing(answer) else shaped(list[str], decoded(accepted(answer).body))
        if len(found) > count:
            raise ValueError("there are more jobs than were asked for")
        return found

    return ask("fetch_many", meaning, {"queue": queue, "batch_size": count}, worker=worker)


def lease(
    queues: str,
    *,
    count: int | None = None,
    seconds: Duration | None = None,
    wait: Duration | None = None,
    attempt_id: str | None = None,
    worker: str | None = None,
    settlements: Settlements | None = None,
    texts: bool = False,
) -> Call[Leased]:
    """Lease jobs, after settling others if `settlements` are given."""
    # A repeated attempt gets its jobs again, however many are asked for now.
    most = LEASE_MOST if attempt_id is not None else count or 1
    to_settle = count_of(settlements or {})

    def meaning(answer: Answer) -> Leased:
        if answer.status == 204:
            return Leased([], paused=tuple(filter(None, answer.headers.get("presque-paused", "").split(","))))
        found = leased(accepted(answer).body, texts=texts)
        if len(found.jobs) > most:
            raise ValueError("there are more jobs than were asked for")
        return replace(found, settled=settled(found.settled, to_settle))

    asked = {"queues": queues, "count": count, "seconds": seconds, "wait": wait, "attempt_id": attempt_id}
    return ask("lease", meaning, {**asked, "settle": settlements or None}, worker=worker)


def settle(settlements: Settlements, worker: str | None = None) -> Call[list[Settled]]:
    """Settle many leases: what became of each, acks first, then fails, releases and extensions."""
    asked = count_of(settlements)
    body = written(VERBS["settle"].fields, settlements)
    return ask("settle", lambda a: settled(object_of(a)["settled"], asked), {}, body=body, worker=worker)


def settle_one(verb: str, holder: Holder, fields: Mapping[str, Any], worker: str | None) -> Call[Settled]:
    """Settle one lease. A field that is None is as if it were not given."""
    queue, id, lease = named(holder)
    given = {name: value for name, value in fields.items() if value is not None}
    return ask(verb, _settled, {"queue": queue, "id": id, "lease": lease, **given}, worker=worker)


def count_of(settlements: Settlements) -> int:
    """How many leases are to be settled."""
    return sum(counts(cast(Sequence[Mapping[str, Any]], entries)) for entries in settlements.values())


def _settled(answer: Answer) -> Settled:
    [found] = settled([object_of(answer)], 1)
    return found


def _nothing(answer: Answer) -> bool:
    """Whether this is the 404 that only says that no job waits."""
    if answer.status != 404:
        return False
    return refusal(answer.status, answer.body, answer.headers).code == NO_JOB
