"""Jobs whose taker has gone."""

from __future__ import annotations

import asyncio

from presque import names
from presque.engine.engine import Engine
from presque.errors import PresqueError
from presque.job import PLAIN, Fetched


async def test_jobs_given_back_one_after_the_other_keep_their_order(engine: Engine, queue_name: str) -> None:
    wanted = names.queue_list(queue_name)
    await engine.push_many(queue_name, [b"1", b"2"], PLAIN)
    both = asyncio.Event()

    def gone(found: Fetched | PresqueError | None) -> bool:
        both.set()
        return False

    def gone_when_another_asks(found: Fetched | PresqueError | None) -> bool:
        engine.fetch(wanted, 0, gone)
        return False

    engine.fetch(wanted, 0, gone_when_another_asks)
    await both.wait()
    while (await engine.peek(queue_name, 0))[0] < 2:  # given back in the background
        pass

    assert [job.body for job in await engine.fetch_many(queue_name, 2)] == [b"1", b"2"]
