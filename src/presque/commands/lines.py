"""Push by lines: any number of jobs, one JSON document a line, stored in batches as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from presque import codec
from presque.engine.engine import Engine
from presque.errors import BodyTooLarge, CallerError, JobMissing, NotJson, PresqueError
from presque.job import PushOptions

BATCH_MOST = 1000
PIECE_BYTES = 64 * 1024  # a few calls, so that more is read while one is being stored


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
    than is about to be stored: while one batch is on its way the next one is read. Raises what is wrong with
    the first line that is not a job, and what the store refuses, and says how many before it were stored.
    Those stay stored.
    """
    if options.idempotency is not None:
        raise CallerError("`Idempotency-Key` is not for a push by lines: push in batches, each with its key")
    done = Stored()
    sending: asyncio.Task[list[int]] | None = None
    number = 0  # of the lines that are on their way or stored, empty ones included

    async def stored() -> None:
        nonlocal sending
        if sending is not None:
            ids, sending = await sending, None
            done.pushed += len(ids)
            done.first = done.first or str(ids[0])
            done.last = str(ids[-1])

    async def store(jobs: list[bytes]) -> None:
        nonlocal sending
        call = engine.prepare_push(queue, jobs, options)  # while those before are being stored
        await stored()
        sending = asyncio.create_task(engine.push_prepared(call))

    try:
        async for text in _whole_lines(parts, line_most):
            jobs, wrong = _jobs(text, number, line_most)
            number += text.count(b"\n")
            calls = -(-len(jobs) // BATCH_MOST)
            for n in range(calls):
                await store(jobs[n * len(jobs) // calls : (n + 1) * len(jobs) // calls])
            if wrong is not None:
                raise wrong
        await stored()
    except PresqueError as found:
        error = found
        try:
            await stored()  # what was on its way when a line was found to be wrong
        except PresqueError as other:
            error = other
        error.args = (f"{error}; the {done.pushed} jobs before it were stored",)
        raise error from None
    except BaseException:
        if sending is not None:
            sending.cancel()
        raise
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
