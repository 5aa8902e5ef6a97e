"""What a push of a task returns: its job, whose end and result can be awaited."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from presque.client.call import seconds_of
from presque.client.errors import NotFound
from presque.client.options import Duration
from presque.tasks.errors import NoResult, TaskFailed
from presque.tasks.signature import Signature

if TYPE_CHECKING:
    from presque.client.answers import JobRecord

R = TypeVar("R")
WAIT_MOST_S = 60.0
"""For how long one request may wait."""
NOT_THERE = "is not on the server any more: it was deleted, or it is done and was not kept (give `keep`)"


class Asking(Protocol):
    """Looks at jobs: what an App offers."""

    def look(self, queue: str, id: str, wait: float | None) -> JobRecord:
        """A job, after waiting for its end."""

    async def alook(self, queue: str, id: str, wait: float | None) -> JobRecord:
        """The same on asyncio."""


class Pushed(Generic[R]):
    """A job that was pushed: `queue`, `id`, and its result when it has one."""

    __slots__ = ("_asking", "_signature", "id", "queue")

    def __init__(self, queue: str, id: str, asking: Asking, signature: Signature) -> None:
        self.queue, self.id = queue, id
        self._asking, self._signature = asking, signature

    def __repr__(self) -> str:
        return f"<Pushed {self.queue}/{self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pushed) and (self.queue, self.id) == (other.queue, other.id)

    def __hash__(self) -> int:
        return hash((self.queue, self.id))

    def job(self, wait: Duration | None = None) -> JobRecord:
        """All that the server knows of the job; with `wait`, as soon as it is done or dead."""
        return self._asking.look(self.queue, self.id, seconds_of("wait", wait))

    async def ajob(self, wait: Duration | None = None) -> JobRecord:
        """The same on asyncio."""
        return await self._asking.alook(self.queue, self.id, seconds_of("wait", wait))

    def result(self, timeout: Duration = 30) -> R:
        """Wait for the end of the job, and return what the task returned.

        Raises `TaskFailed` when the job is dead, `NoResult` when nobody knows the result, since the task has
        no `keep` or it is over, and `TimeoutError` when the job has not ended within `timeout`: seconds, a
        `timedelta` or a text such as "1h30m".
        """
        for wait in _waits(self, timeout):
            try:
                found = self._asking.look(self.queue, self.id, wait)
            except NotFound:
                raise NoResult(f"job {self.id} of `{self.queue}` {NOT_THERE}") from None
            if found["state"] in ("done", "dead"):
                return self._read(found)
        raise AssertionError("unreachable")

    async def aresult(self, timeout: Duration = 30) -> R:  # noqa: ASYNC109  (the server waits, not we)
        """The same on asyncio."""
        for wait in _waits(self, timeout):
            try:
                found = await self._asking.alook(self.queue, self.id, wait)
            except NotFound:
                raise NoResult(f"job {self.id} of `{self.queue}` {NOT_THERE}") from None
            if found["state"] in ("done", "dead"):
                return self._read(found)
        raise AssertionError("unreachable")

    def _read(self, found: JobRecord) -> R:
        if found["state"] == "dead":
            errors = found["errors"]
            last = errors[-1] if errors else None
            said = last["error"] if last is not None else None
            trace = last["backtrace"] if last is not None else None
            raise TaskFailed(said or found.get("reason", "the job is dead"), trace)
        if "kept_until" not in found and not self._signature.returns_nothing:
            raise NoResult(
                f"job {self.id} of `{self.queue}` is done, and was not kept: give the task a `keep`"
            )
        result: R = self._signature.result(found["result"])
        return result


def _waits(pushed: Pushed[Any], timeout: Duration) -> Iterator[float]:
    """For how long each request waits, until the time is over: then it raises `TimeoutError`."""
    seconds = seconds_of("timeout", timeout) or 0.0
    until = time.monotonic() + seconds
    left = seconds
    while True:
        yield min(left, WAIT_MOST_S)
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(
                f"job {pushed.id} of `{pushed.queue}` has not ended within {seconds:g} s: it goes on"
            )
