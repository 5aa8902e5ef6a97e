"""Jobs for streaQ, whose results are not kept."""

import asyncio
import os

from counting import count
from streaq import Worker

worker = Worker(redis_url=os.environ["BENCH_REDIS"])


@worker.task(ttl=0)
async def job(number):
    count()


async def enqueue(jobs):
    async with worker:
        for first in range(0, jobs, 1000):
            await worker.enqueue_many(
                [job.enqueue(number) for number in range(first, min(first + 1000, jobs))]
            )


def fill(jobs):
    asyncio.run(enqueue(jobs))
