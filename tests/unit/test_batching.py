"""When what is asked goes out: alone at once, together when many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from presque.engine.batching import CALLS_MOST, LOAD_FROM, Batch, Batches

pytestmark = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
Loop = Callable[[], asyncio.AbstractEventLoop]


class Calls:
    """What was sent, to be answered when a test likes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[str], Callable[[Any], None]]] = []
        self.told: list[str] = []
        self.then: Callable[[], None] | None = None
        self.batches = Batches(self.send, self.deliver)

    def send(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        self.sent.append((queue, list(batch.callers), receive))

    def deliver(self, _queue: str, batch: Batch, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        self.told += batch.callers
        if self.then is not None:
            then, self.then = self.then, None
            then()

    def ask(self, *callers: str, queue: str = "mail") -> None:
        for caller in callers:
            self.batches.add(queue, caller)

    def answer(self, reply: Any = "done") -> None:
        _, _, receive = self.sent.pop(0)
        receive(reply)

    def callers(self) -> list[list[str]]:
        return [callers for _, callers, _ in self.sent]


async def turn() -> None:
    """Let whatever is ready run once, and what that makes ready."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_the_first_requests_of_a_turn_go_out_together_at_its_end(loop: Loop) -> None:
    async def play() -> None:
        calls = Calls()
        calls.ask("a", "b")
        assert calls.callers() == []
        await turn()
        assert calls.callers() == [["a", "b"]]
        calls.answer()
        assert calls.told == ["a", "b"]

    _run(loop, play())


def test_one_after_the_other_each_goes_out_at_once_and_nothing_is_left_to_do(loop: Loop) -> None:
    async def play() -> None:
        calls = Calls()
        calls.ask("a")
        await turn()
        calls.answer()
        for one in "bcd":
            assert not calls.batches.busy
            calls.ask(one)
            assert calls.callers() == [[one]]  # before the turn ends
            calls.answer()
        assert calls.told == ["a", "b", "c", "d"]

    _run(loop, play())


def test_what_is_asked_while_a_lone_call_is_under_way_goes_out_together_when_it_is_back(loop: Loop) -> None:
    async def play() -> None:
        calls = Calls()
        calls.ask("a")
        await turn()
        calls.ask("b", "c")
        assert calls.callers() == [["a"]]
        calls.answer()
        assert calls.callers() == [["b", "c"]]
        calls.answer()
        calls.ask("d", "e")  # there may be several now
        assert calls.callers() == []
        await turn()
        assert calls.callers() == [["d", "e"]]

    _run(loop, play())


def test_a_caller_that_asks_again_when_it_is_told_is_not_forgotten(loop: Loop) -> None:
    async def play() -> None:
        calls = Calls()
        calls.ask("a")
        await turn()
        calls.then = lambda: calls.ask("b")
        calls.answer()
        assert calls.callers() == [["b"]]
        calls.then = lambda: calls.ask("c", "d")
        calls.answer()
        assert calls.callers() == [["c"]]
        calls.answer()
        assert calls.callers() == [["d"]]
        calls.answer()
        assert calls.told == ["a", "b", "c", "d"]
        assert not calls.batches.busy

    _run(loop, play())


def test_a_delivery_that_raises_leaves_nothing_behind(loop: Loop) -> None:
    async def play() -> None:
        calls = Calls()
        told: list[Any] = []
        calls.batches.add("mail", told.append)
        await turn()
        calls.answer(RuntimeError("on purpose"))
        assert len(told) == 1
        assert not calls.batches.busy

    _run(loop, play())


def test_under_load_a_call_waits_for_half_of_those_who_were_answered_but_not_for_long(loop: Loop) -> None:
    async def play() -> None:
        calls, many = Calls(), [str(i) for i in range(2 * LOAD_FROM)]
        calls.ask(*many)
        await turn()
        calls.answer()
        calls.ask("a")
        assert calls.callers() == []
        for _ in range(20):
            await turn()
        assert calls.callers() == [["a"]]
        calls.answer()
        for _ in range(20):
            await turn()
        assert not calls.batches.busy

    _run(loop, play())


def test_a_full_call_goes_out_at_once_and_each_queue_has_calls_of_its_own(loop: Loop) -> None:
    async def play() -> None:
        calls, many = Calls(), [str(i) for i in range(CALLS_MOST)]
        calls.ask(*many)
        assert calls.callers() == [many]
        calls.ask("a", queue="other")
        await turn()
        assert [queue for queue, _, _ in calls.sent] == ["mail", "other"]
        calls.answer()
        calls.answer()
        assert calls.told == [*many, "a"]

    _run(loop, play())


@pytest.fixture(autouse=True)
def _no_loop_is_left() -> Iterator[None]:
    yield
    asyncio.set_event_loop(None)


def _run(loop: Loop, play: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(play, 10))
