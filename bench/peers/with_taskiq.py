"""Jobs for taskiq, which keeps no results without a result backend."""

import asyncio
import os

from counting import count
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=os.environ["BENCH_REDIS"])


@broker.task
async def job(number):
    count()


async def enqueue(jobs):
    await broker.startup()
    for number in range(jobs):
        await job.kiq(number)
    await broker.shutdown()


def fill(jobs):
    asyncio.run(enqueue(jobs))
