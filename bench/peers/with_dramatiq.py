"""Jobs for Dramatiq, which keeps no results unless told."""

import os

import dramatiq
from counting import count
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))


@dramatiq.actor
def job(number):
    count()


def fill(jobs):
    for number in range(jobs):
        job.send(number)
