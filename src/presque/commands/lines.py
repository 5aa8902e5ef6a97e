"""Push by lines: any number of jobs, one JSON document a line, stored in batches as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from presque import codec
from presque.engine.engine import Engine
from presque.engine.pushing import Prepared
from presque.errors import BodyTooLarge, CallerError, JobMissing, NotJson, PresqueError, reworded
from presque.job import PushOptions
from presque.quantities import counted

BATCH_MOST = 1000
PIECE_BYTES = 64 * 1024  # a few calls, so that more is read while one is being stored
PREPARED_MOST = 2  # calls that wait for the one under way, so that the store need not wait for the next


class Stored(msgspec.Struct):
    """How far a push by lines came: how many jobs were stored, and the ids of the first and the last."""

    pushed: int = 0
    first: str | None = None
    last: str | None = None


async def push(
    engine: Engine, queue: str, parts: AsyncIterator[bytes], options: PushOptions, line_most: int
) -> Stored:
    """Store each line of what `parts` bring as a job, in their order; lines of white space are passed over.

    Jobs are stored in batches, so memory stays flat however many there are, and no more is taken from `parts`
    than is about to be stored: while one batch is on its way the next ones are read. Raises what is wrong
    with the first line that is not a job, and what the store refuses, and says how many before it were
    stored. Those stay stored.
    """
    if options.idempotency is not None:
        raise CallerError(
            "a push by lines takes no `Idempotency-Key`: push in batches, each with its own key"
        )
    done = Stored()
    prepared: asyncio.Queue[Prepared | None] = asyncio.Queue(PREPARED_MOST)
    wrong: PresqueError | None = None  # with a line, or with what brings them
    refused: PresqueError | None = None

    async def send() -> None:
        nonlocal refused
        while (call := await prepared.get()) is not None:
            if refused is not None:
                continue
            try:
                ids = await engine.push_prepared(call)
            except PresqueError as error:
                refused = error
            else:
                done.pushed += len(ids)
                done.first = done.first or str(ids[0])
                done.last = str(ids[-1])

    async def prepare(jobs: list[bytes]) -> None:
        calls = -(-len(jobs) // BATCH_MOST)
        for n in range(calls):
            await asyncio.sleep(0)  # the call before may be done, and the store idle
            some = jobs[n * len(jobs) // calls : (n + 1) * len(jobs) // calls]
            await prepared.put(engine.prepare_push(queue, some, options))

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        number = 0  # of the lines that were read, empty ones included
        try:
            async for text in _whole_lines(parts, line_most):
                jobs, wrong = _jobs(text, number, line_most)
                number += text.count(b"\n")
                await prepare(jobs)
                if wrong is not None or refused is not None:
                    break
        except PresqueError as error:
            wrong = error
        await prepared.put(None)
    if (found := refused or wrong) is not None:
        raise reworded(found, f"{found}; {_stored(done.pushed)}")
    if not done.pushed:
        raise JobMissing
    return done


async def _whole_lines(parts: AsyncIterator[bytes], line_most: int) -> AsyncIterator[bytes]:
    """What comes, in pieces of whole lines, of some PIECE_BYTES each."""
    rest = bytearray()
    number = 1
    async for part in parts:
        rest += part
        while len(rest) >= PIECE_BYTES:
            end = rest.rfind(b"\n", 0, PIECE_BYTES) + 1 or rest.find(b"\n", PIECE_BYTES) + 1
            if not end:
                break
            piece = bytes(rest[:end])
            del rest[:end]
            number += piece.count(b"\n")
            yield piece
        if len(rest) > line_most and b"\n" not in rest[: line_most + 1]:
            raise BodyTooLarge(f"line {number} is larger than {line_most} bytes")
    if rest.strip():
        yield bytes(rest)


def _stored(count: int) -> str:
    if count == 0:
        return "nothing was stored"
    return f"the {counted(count, 'job')} before it {'was' if count == 1 else 'were'} stored"


def _jobs(text: bytes, number: int, line_most: int) -> tuple[list[bytes], PresqueError | None]:
    """The jobs of some whole lines, and what is wrong with the first line that is none, if there is one.
    `number` lines came before."""
    try:
        jobs = codec.decode_lines(text)
    except NotJson:
        jobs = None
    if jobs is not None and len(max(jobs, key=len)) <= line_most:
        return jobs, None
    jobs = []
    for line in text.split(b"\n"):
        number += 1
        job = line.strip()
        if not job:
            continue
        try:
            codec.check(job)
        except NotJson as error:
            return jobs, NotJson(f"line {number}: {error}")
        if len(job) > line_most:
            return jobs, BodyTooLarge(f"line {number} is larger than {line_most} bytes")
        jobs.append(job)
    return jobs, None
