"""Jobs for Celery, whose results are ignored."""

import os

from celery import Celery
from counting import count

app = Celery("with_celery", broker=os.environ["BENCH_REDIS"])
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 100  # as its guide to optimizing advises for many short tasks
app.conf.broker_connection_retry_on_startup = True


@app.task
def job(number):
    count()


def fill(jobs):
    for number in range(jobs):
        job.delay(number)
