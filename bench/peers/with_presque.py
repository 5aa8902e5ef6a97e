"""Jobs for presque, done inline or in a forked child each."""

import time

from counting import count

from presque import Worker


class Counting(Worker):
    """Does nothing but count."""

    def work(self, job: object) -> None:
        count()


class Stamping(Worker):
    """Notes when each job reached it, on the clock that all processes share."""

    def work(self, job: object) -> None:
        print(time.monotonic_ns(), flush=True)
