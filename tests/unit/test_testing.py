"""What users test their jobs with: `perform`, and clients that do at once what is pushed."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import pytest

from presque import Dead, Retry, Worker
from presque.client import AsyncPusher, Client, ClientError, Pusher
from presque.testing import AsyncInlineClient, InlineClient, Outcome, perform, perform_async
from presque.worker import JobStopped


class Double(Worker):
    def work(self, job: Any) -> Any:
        return job * 2


class DoubleLater(Worker):
    async def work(self, job: Any) -> Any:
        await asyncio.sleep(0)
        return job * 2


def double(job: Any) -> Any:
    return job * 2


async def double_later(job: Any) -> Any:
    await asyncio.sleep(0)
    return job * 2


def multiply(factor: int, job: Any) -> Any:
    return job * factor


class Doubling:
    def __call__(self, job: Any) -> Any:
        return job * 2


class DoublingLater:
    async def __call__(self, job: Any) -> Any:
        return job * 2


WORKS: dict[str, Any] = {
    "a class": Double,
    "an async class": DoubleLater,
    "a worker": Double(queue="q"),
    "an async worker": DoubleLater(queue="q"),
    "a function": double,
    "an async function": double_later,
    "a partial": functools.partial(multiply, 2),
    "an async partial": functools.partial(double_later),
    "an object": Doubling(),
    "an async object": DoublingLater(),
}
works = pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)


@works
def test_anything_that_works_can_be_tried(work: Any) -> None:
    assert perform(work, 21) == Outcome("done", 42)
    client = InlineClient({"q": work})
    client.push("q", 21)
    assert client.outcomes == [Outcome("done", 42)]


@works
async def test_in_an_async_test_too(work: Any) -> None:
    assert await perform_async(work, 21) == Outcome("done", 42)
    assert perform(work, 21) == Outcome("done", 42)
    client = AsyncInlineClient({"q": work})
    await client.push("q", 21)
    InlineClient({"q": work}).push("q", 21)
    assert client.outcomes == [Outcome("done", 42)]


async def test_async_work_runs_in_the_loop_of_the_test() -> None:
    loops = []

    async def look(_: Any) -> None:
        loops.append(asyncio.get_running_loop())

    await perform_async(look, 1)
    perform(look, 1)
    assert loops[0] is asyncio.get_running_loop()
    assert loops[1] is not loops[0]


# --- what work raises


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> Callable[[Any], None]:
    def work(_: Any) -> None:
        raise error

    return work


def raising_later(error: BaseException) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def work(_: Any) -> None:
        raise error

    return work


RAISED: list[tuple[BaseException, str]] = [
    (ValueError("no"), "failed"),
    (Odd(), "failed"),
    (SystemExit(3), "failed"),
    (KeyboardInterrupt(), "failed"),
    (asyncio.CancelledError(), "failed"),
    (GeneratorExit(), "failed"),
    (Dead("gone"), "dead"),
    (Retry("later", in_=30), "failed"),
    (JobStopped("enough"), "failed"),
    (BaseExceptionGroup("g", [Dead("gone")]), "dead"),
]


@pytest.mark.parametrize(("error", "state"), RAISED, ids=[type(error).__name__ for error, _ in RAISED])
async def test_nothing_that_work_raises_is_raised(error: BaseException, state: str) -> None:
    for outcome in (
        perform(raising(error), 1),
        perform(raising_later(error), 1),
        await perform_async(raising(error), 1),
        await perform_async(raising_later(error), 1),
    ):
        assert outcome.state == state
        assert outcome.error


async def test_work_that_cancels_its_own_task_cancels_nobody_else() -> None:
    async def work(_: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    for outcome in (perform(work, 1), await perform_async(work, 1)):
        assert (outcome.state, outcome.error) == ("failed", "CancelledError")


async def test_a_test_that_is_cancelled_cancels_the_work() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work(_: Any) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(perform_async(work, 1))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()


def test_a_task_that_exits_is_a_failure() -> None:
    async def work(_: Any) -> None:
        async def leave() -> None:
            sys.exit(3)

        await asyncio.gather(asyncio.create_task(leave()))

    assert perform(work, 1).state == "failed"


def test_a_coroutine_that_nobody_awaits_is_not_done() -> None:
    outcome = perform(lambda job: double_later(job), 1)
    assert outcome.state == "failed"
    assert "coroutine" in (outcome.error or "")


def test_an_outcome_says_what_the_job_showed() -> None:
    class Showing(Worker):
        def work(self, job: Any) -> None:
            self.job.progress(0.5)
            self.job.extend(90)
            self.job.extend()
            raise Retry("later", in_=7)

    assert perform(Showing, 1) == Outcome(
        "failed", error="later", retry_in=7, progress=[0.5], extended=[90, None]
    )
    assert perform(Showing, 1, attempt=5).state == "dead"


# --- the clients


def test_every_push_is_done_at_once() -> None:
    with InlineClient({"double": Double, "b*,!bad": double, "*": raising(Dead("x"))}) as client:
        assert client.push("double", 1, delay=60, priority=9, uniq="u") == "1"
        assert client.push_text("double", b" 2 ") == "2"
        assert client.push_many("big", [3, 4], delay="5m") == ["3", "4"]
        assert client.push_texts("big", ["5", '"x"']) == ["5", "6"]
        client.push("bad", 7)
    assert [one.result for one in client.outcomes] == [2, 4, 6, 8, 10, "xx", None]
    assert client.outcomes[-1].state == "dead"


async def test_every_push_is_awaited_and_done() -> None:
    async with AsyncInlineClient({"double": double_later}) as client:
        assert await client.push("double", 1) == "1"
        assert await client.push_text("double", "2") == "2"
        assert await client.push_many("double", [3]) == ["3"]
        assert await client.push_texts("double", ["4"]) == ["4"]
    assert [one.result for one in client.outcomes] == [2, 4, 6, 8]


def test_a_job_may_push_jobs() -> None:
    def split(job: list[int]) -> None:
        client.push_many("double", job)

    client: InlineClient = InlineClient({"split": split, "double": Double})
    client.push("split", [1, 2])
    assert [one.result for one in client.outcomes] == [2, 4, None]


def test_it_is_taken_where_a_client_is_expected() -> None:
    def sign_up(client: Client) -> None:
        client.push("mail", 1)

    def sign_in(client: Pusher) -> None:
        client.push("mail", 1)

    client = InlineClient({"mail": Double})
    sign_up(client)
    sign_in(client)
    sign_in(Client("http://h")) if not client.outcomes else None
    pusher: AsyncPusher = AsyncInlineClient({"mail": Double})
    asyncio.run(push_one(pusher))
    assert len(client.outcomes) == 2


async def push_one(client: AsyncPusher) -> None:
    await client.push("mail", 1)


def test_what_needs_a_server_says_so() -> None:
    with pytest.raises(NotImplementedError, match="has no server to ask for GET /q/mail"):
        InlineClient({}).fetch("mail")
    with pytest.raises(NotImplementedError, match="has no server to ask for GET /stats/"):
        asyncio.run(AsyncInlineClient({}).all_stats())


def test_a_queue_without_a_worker_is_an_error() -> None:
    with pytest.raises(KeyError, match="there is no worker for the queue `mial`"):
        InlineClient({"mail": Double}).push("mial", 1)


def test_nothing_is_done_if_one_of_many_is_refused() -> None:
    client = InlineClient({"q": Double})
    with pytest.raises(ValueError):
        client.push_texts("q", ["1", "{"])
    with pytest.raises(TypeError):
        client.push_many("q", [1, object()])
    with pytest.raises(ValueError, match="time zone"):
        client.push("q", 1, delayed=datetime(2031, 1, 1))  # noqa: DTZ001
    with pytest.raises(ClientError, match="unknown parameter `dellay`, did you mean `delay`"):
        client.push("q", 1, dellay=5)  # type: ignore[call-arg]
    assert client.outcomes == []
