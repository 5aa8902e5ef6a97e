"""A connection without a network: its states, its order, and what becomes of a client that leaves."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presque.errors import CallerError
from presque.http import door as doors
from presque.http.answering import Answering
from presque.http.answers import Answer
from presque.http.connection import Connection
from presque.http.door import Door
from presque.http.head import Head
from presque.http.parts import Parts
from presque.http.plan import Plan, Upload
from presque.http.states import NEXT, State

SLOWLY = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Wire(asyncio.Transport):
    """A transport that writes into a list. Its protocol hears of its end a turn later, as with a socket."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.closed = self.ended = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d\d\d) ", self.written)]


class Watched(Connection):
    """A connection that takes no step that the table does not know."""

    __slots__ = ("now",)
    now: State

    @property
    def state(self) -> State:
        return self.now

    @state.setter
    def state(self, state: State) -> None:
        before = getattr(self, "now", None)
        assert before is None or state in NEXT[before], f"{before!r} -> {state!r}"
        self.now = state


class Acts:
    """Plans that do what their path says, and what was left to be done later."""

    common = True

    def __init__(self) -> None:
        self.later: deque[Callable[[], object]] = deque()
        self.left: list[str] = []
        self.served: list[str] = []

    def __call__(self, head: Head, _client: object) -> Plan:
        if head.path == "/error":
            raise CallerError("wrong")
        if head.path == "/broken":
            raise RuntimeError("a mistake")
        if head.path == "/upload":
            return Takes(self)
        return Act(self, head.path)

    def namespace(self, _plan: Plan) -> None:
        """Nobody is in any."""

    def cors(self, head: Head) -> bytes:
        return b""

    def body_most(self, plan: Plan) -> int:
        return 1000

    def name(self, plan: Plan) -> str:
        return plan.path if isinstance(plan, Act) else type(plan).__name__


class Act:
    common = True

    def __init__(self, acts: Acts, path: str) -> None:
        self.acts = acts
        self.path = path

    def serve(self, connection: Answering, body: bytes) -> None:
        self.acts.served.append(self.path)
        answer = Answer(b"[%b]" % body, 200)
        if self.path == "/now":
            connection.answer(answer)
        elif self.path == "/raise":
            raise RuntimeError("a mistake")
        elif self.path == "/later":
            self.acts.later.append(lambda: connection.answer(answer))
        elif self.path == "/wait":
            self.acts.later.append(lambda: connection.answer(answer))
            connection.until_left(lambda: self.acts.left.append(self.path), lambda: True)
        elif self.path == "/task":
            connection.spawn(self.slowly(connection, answer))
        elif self.path in ("/stream", "/endless"):
            connection.spawn(connection.stream(Answer(self.parts(), 200)))

    async def slowly(self, connection: Answering, answer: Answer) -> None:
        await asyncio.sleep(0)
        connection.answer(answer)

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await asyncio.sleep(0)
            yield b"b"
            while self.path == "/endless":
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.acts.left.append(self.path)
            raise


class Takes(Upload):
    def __init__(self, acts: Acts) -> None:
        self.acts = acts

    def receive(self, connection: Answering, parts: Parts) -> Coroutine[Any, Any, None]:
        self.acts.served.append("/upload")  # here and not in the task, whose first turn comes later
        return self.measured(connection, parts)

    async def measured(self, connection: Answering, parts: Parts) -> None:
        size = 0
        async for part in parts:
            size += len(part)
        connection.answer(Answer(b"%d" % size, 201))


def ask(path: str, body: bytes = b"", *headers: bytes, method: bytes = b"POST") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    head = b"%b %b HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n"
    return head % (method, path.encode(), lines, len(body)) + body


def in_chunks(path: str, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
    framed = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 3]), body[at : at + 3]) for at in range(0, len(body), 3)
    )
    return head + framed + b"0\r\n\r\n"


class Client:
    """Both ends of one connection, in one loop."""

    def __init__(self) -> None:
        self.acts = Acts()
        self.door = Door(self.acts, 1000)
        self.connection = Watched(self.door)
        self.wire = Wire(self.connection)

    async def settled(self) -> None:
        """Let everything happen that can."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def answered(self) -> None:
        """Do all that was left for later, until nothing is."""
        await self.settled()
        while self.acts.later:
            self.acts.later.popleft()()
            await self.settled()

    def send(self, data: bytes) -> None:
        if data and not self.wire.closed:
            self.connection.data_received(data)

    def end(self) -> None:
        """Close the sending side."""
        if not self.wire.closed and not self.connection.eof_received():
            self.wire.close()


PATHS = ["/now", "/later", "/wait", "/task", "/stream", "/error", "/upload"]
STATUS = {"/upload": 201, "/error": 400}


@SLOWLY
@given(
    st.lists(st.tuples(st.sampled_from(PATHS), st.binary(max_size=8), st.booleans()), max_size=8),
    st.data(),
)
async def test_requests_cut_anywhere_are_answered_in_their_order(
    asked: list[tuple[str, bytes, bool]], data: st.DataObject
) -> None:
    client = Client()
    sent = b"".join(in_chunks(path, body) if chunks else ask(path, body) for path, body, chunks in asked)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        client.send(sent[start:end])
        if data.draw(st.booleans()):
            await client.settled()
    await client.answered()
    assert client.wire.statuses() == [STATUS.get(path, 200) for path, _, _ in asked]
    assert not client.wire.closed
    assert client.connection.state is State.IDLE


STEPS = ["more", "more", "settle", "answer", "tick", "stuck", "unstuck", "end", "shutdown", "lost"]


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log of the mistakes that are made on purpose."""
    log = logging.getLogger("presque.http")
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@SLOWLY
@given(
    st.lists(st.sampled_from([*PATHS, "/endless", "/raise", "/broken", "junk"]), max_size=6),
    st.lists(st.sampled_from(STEPS), max_size=25),
    st.data(),
)
async def test_whatever_happens_no_step_is_unknown_and_nothing_is_carried_out_unanswered(
    asked: list[str], steps: list[str], data: st.DataObject
) -> None:
    client = Client()
    sent = b"".join(b"\x00junk\r\n\r\n" if path == "junk" else ask(path, b"12") for path in asked)
    given_up: list[str] | None = None
    for step in steps:
        if step == "more":
            size = data.draw(st.integers(1, 200))
            piece, sent = sent[:size], sent[size:]
            if piece:
                client.send(piece)
        elif step == "settle":
            await client.settled()
        elif step == "answer" and client.acts.later:
            client.acts.later.popleft()()
        elif step == "tick":
            client.door.now += 100
            if client.connection.deadline and not client.wire.closed:
                client.connection.time_is_up()
        elif step in ("stuck", "unstuck") and not client.wire.closed:
            (client.connection.pause_writing if step == "stuck" else client.connection.resume_writing)()
        elif step == "end":
            client.end()
        elif step == "shutdown" and not client.wire.closed:
            client.connection.shutdown()
        elif step == "lost":
            client.wire.close()
        if given_up is None and client.wire.closed:
            given_up = list(client.acts.served)
    client.connection.resume_writing()
    await client.answered()
    served, answered = len(client.acts.served), len(client.wire.statuses())
    if given_up is not None:
        assert client.acts.served == given_up, "something was carried out after the connection was given up"
        assert client.connection.state is State.LOST
    else:
        still_sent = client.connection.state is State.RECEIVING  # nothing is owed before its body is whole
        assert answered + still_sent >= served, "a request was carried out and not answered"


@pytest.mark.parametrize("path", ["/raise", "/broken"])
async def test_a_mistake_is_answered_and_ends_the_connection(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    client.send(ask(path) + ask("/now"))
    await client.answered()
    assert client.wire.statuses() == [500]
    assert b"\r\nConnection: close\r\n" in client.wire.written
    assert client.wire.closed
    assert "/now" not in client.acts.served
    assert "a mistake" in caplog.text


@pytest.mark.parametrize("path", ["/wait", "/endless"])
@pytest.mark.parametrize("how", ["half-close", "lost"])
async def test_who_leaves_while_it_waits_is_cancelled_and_what_is_behind_it_is_not_served(
    path: str, how: str
) -> None:
    client = Client()
    client.send(ask(path) + ask("/now"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    client.end() if how == "half-close" else client.wire.close()
    await client.answered()
    assert client.acts.left == [path]
    assert client.acts.served == [path]
    assert client.connection.state is State.LOST


async def test_who_does_not_wait_and_closes_its_sending_side_is_answered() -> None:
    client = Client()
    client.send(ask("/later") + ask("/task") + ask("/now") + b"POST /now HTT")
    client.end()
    await client.answered()
    assert client.wire.statuses() == [200, 200, 200]
    assert client.wire.closed


async def test_an_error_that_the_head_shows_is_remembered() -> None:
    client = Client()
    for _ in range(3):
        client.send(ask("/error", b"body"))
    assert client.wire.statuses() == [400, 400, 400]
    assert len(client.door.understood()) == 1


async def test_a_body_is_not_taken_faster_than_its_plan_reads_it() -> None:
    client = Client()
    client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n")
    for _ in range(12):
        client.send(b"x" * 100_000)  # before the plan has its turn
    paused = not client.wire.reading
    await client.settled()
    assert (paused, client.wire.reading) == (True, True)
    client.send(b"x" * 1_800_000 + ask("/now"))
    await client.answered()
    assert client.wire.statuses() == [201, 200]
    assert b"3000000" in client.wire.written


@pytest.mark.parametrize("chunked", [False, True])
async def test_after_a_body_that_had_to_wait_the_next_request_is_read(chunked: bool) -> None:
    client = Client()
    size = 700_000
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    client.send(b"POST /upload HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % how)
    if chunked:
        client.send(b"%x\r\n" % size)
    client.send(b"x" * 600_000)  # before the plan has its turn, so no more is read for now
    client.send(b"x" * 100_000 + (b"\r\n0\r\n\r\n" if chunked else b""))
    assert not client.wire.reading
    await client.answered()
    assert client.wire.statuses() == [201]
    assert client.wire.reading


@pytest.mark.parametrize(
    "at", [0.0, 951_782_399.9, 951_868_800, 1_796_000_000, 4_102_444_799, *range(0, 2**31, 2**27)]
)
def test_the_date_of_an_answer_is_written_as_http_writes_dates(at: float) -> None:
    assert doors._date(at).decode() == formatdate(at, usegmt=True)
