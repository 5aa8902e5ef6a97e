"""Jobs for RQ, whose results are not kept. Its workers import `job` by name."""

import os

from counting import count
from redis import Redis
from rq import Queue


def job(number):
    count()


def fill(jobs):
    queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS"]))
    for first in range(0, jobs, 1000):
        queue.enqueue_many(
            [
                Queue.prepare_data("with_rq.job", (number,), result_ttl=0)
                for number in range(first, min(first + 1000, jobs))
            ]
        )
