"""The job that every library does: nothing but to be counted.

A process notes how many jobs it has done after its first and after each hundredth, with the time. So a job
costs no more than adding one, in whatever library, and what a process has done can still be told from the
file that all write to. What libraries log below a warning is dropped, whatever their command line sets up.
"""

import itertools
import logging
import os
import time

logging.disable(logging.INFO)

EVERY = 100
_numbers = itertools.count(1)
_file = os.open(os.environ["BENCH_COUNTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def count() -> None:
    """One more job is done."""
    number = next(_numbers)
    if number == 1 or number % EVERY == 0:
        os.write(_file, f"{os.getpid()} {number} {time.monotonic_ns()}\n".encode())
