"""A worker in Python: python worker.py [QUEUE]. Needs presque-client (or presque) alone."""

import sys

from presque import Worker


class Greeter(Worker):
    def work(self, job):
        if "name" not in job:
            raise ValueError("a greeting needs a name")
        print("hello,", job["name"], flush=True)


# The server is PRESQUE_URL, http://127.0.0.1:5000 unless that is set.
Greeter(queue=sys.argv[1] if len(sys.argv) > 1 else "greetings").start()
