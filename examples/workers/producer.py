"""A producer in Python: python producer.py QUEUE NAME... Needs presque-client (or presque) alone."""

import os
import sys

from presque import Client

queue, *people = sys.argv[1:]

with Client(os.environ.get("PRESQUE_URL", "http://127.0.0.1:5000")) as client:
    for name in people:
        print(client.push(queue, {"name": name}))
