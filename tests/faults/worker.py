"""A worker for the history checker: leases, settles at random, and writes down what it did and was told.

It runs as a process of its own, to be killed: `python -m tests.faults.worker PORT LOG SEED`. Each line of the
log is written before or after the request that it speaks of, and not buffered.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import time
from typing import Any

QUEUE = "history"
COUNT = 10
SECONDS = 1


class Log:
    """Lines of JSON, each on disk before the next step is made."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, what: str, **fields: Any) -> None:
        line = json.dumps({"what": what, "at": time.time(), **fields})
        os.write(self._file, line.encode() + b"\n")


class Server:
    """Requests that are repeated until they are answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, path: str, body: Any, key: str = "") -> Any:
        """The answer's JSON, None for 204. What is sent may be repeated, a push because of its key."""
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            try:
                if self._connection is None:
                    self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
                self._connection.request("POST", path, json.dumps(body), headers)
                response = self._connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                self.close()
                time.sleep(0.05)  # the server may be away
                continue
            if response.status < 300:
                return json.loads(text) if text else None
            time.sleep(0.05)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def work(server: Server, log: Log, chance: random.Random) -> None:
    """Lease some jobs and deal with each in its way."""
    attempt_id = f"{os.getpid()}-{chance.random()}"
    answer = server.ask(f"/q/{QUEUE}/lease", {"count": COUNT, "seconds": SECONDS, "attempt_id": attempt_id})
    for job in answer["jobs"] if answer else ():
        log.write("leased", job=job["body"], token=job["lease"], until=job["lease_until"])
    settle: dict[str, list[dict[str, Any]]] = {"ack": [], "fail": [], "release": [], "extend": []}
    for job in answer["jobs"] if answer else ():
        lease = {name: job[name] for name in ("queue", "id", "lease")}
        verb = chance.choices(("ack", "fail", "release", "extend", "forget"), (80, 6, 4, 5, 5))[0]
        if verb == "forget":
            continue
        if verb == "extend":
            settle["extend"].append(lease | {"seconds": SECONDS})
        else:
            settle[verb].append(lease | ({"retry_in": 0} if verb == "fail" else {}))
        log.write("settling", job=job["body"], token=job["lease"], verb=verb)
    if not any(settle.values()):
        time.sleep(0.02)
        return
    bodies = {job["id"]: job["body"] for job in answer["jobs"]}
    asked = [(verb, one) for verb in settle for one in settle[verb]]
    for (verb, one), told in zip(asked, server.ask("/settle", settle)["settled"], strict=True):
        log.write(
            "settled", job=bodies[one["id"]], token=one["lease"], verb=verb, status=told["status"],
            until=told.get("lease_until"),
        )  # fmt: skip


def main() -> None:
    port, path, seed = sys.argv[1:]
    server, log, chance = Server(int(port)), Log(path), random.Random(int(seed))
    while True:
        work(server, log, chance)


if __name__ == "__main__":
    main()
