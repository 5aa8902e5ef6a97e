"""Jobs for arq, whose results are not kept."""

import asyncio
import os

from arq import create_pool
from arq.connections import RedisSettings
from counting import count

SETTINGS = RedisSettings.from_dsn(os.environ["BENCH_REDIS"])


async def job(context, number):
    count()


class WorkerSettings:
    functions = (job,)
    redis_settings = SETTINGS
    keep_result = 0


async def enqueue(jobs):
    pool = await create_pool(SETTINGS)
    for number in range(jobs):
        await pool.enqueue_job("job", number)


def fill(jobs):
    asyncio.run(enqueue(jobs))
