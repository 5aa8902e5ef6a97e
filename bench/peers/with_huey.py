"""Jobs for huey, whose results are not kept."""

import os

from counting import count
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], results=False)


@huey.task()
def job(number):
    count()


def fill(jobs):
    for number in range(jobs):
        job(number)
