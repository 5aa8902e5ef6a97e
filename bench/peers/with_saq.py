"""Jobs for SAQ, whose results are not kept."""

import asyncio
import os

from counting import count
from saq import Queue

queue = Queue.from_url(os.environ["BENCH_REDIS"])


async def job(context, *, number):
    count()


settings = {"queue": queue, "functions": [job], "concurrency": 10}


async def enqueue(jobs):
    await queue.connect()
    for number in range(jobs):
        await queue.enqueue("job", number=number, ttl=-1)
    await queue.disconnect()


def fill(jobs):
    asyncio.run(enqueue(jobs))
