"""Clients that push and fetch all the time and write down what they were told."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests import rig

QUEUE = "load"


class Load:
    """Use as a context: the clients run inside, and have all ended afterwards.

    Jobs are numbers. `acknowledged` were answered with 201, `fetched` came in a 200. A fetch that ended
    without either a job or "no job" is in `unclear`: its job may have been taken.
    """

    def __init__(self, server: rig.Door, writers: int = 8, fetchers: int = 4) -> None:
        self.server = server
        self.acknowledged: set[int] = set()
        self.sent: set[int] = set()
        self.fetched: list[int] = []
        self.unclear = 0
        self.statuses: Counter[int] = Counter()
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(writers)]
        self._threads += [threading.Thread(target=self._fetch) for _ in range(fetchers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more_acknowledged(self, count: int) -> None:
        """Wait until so many more pushes were acknowledged."""
        wanted = len(self.acknowledged) + count
        rig.eventually(lambda: len(self.acknowledged) >= wanted)

    def check(self) -> None:
        """Fetch what is left, then hold what came out against what went in."""
        left: list[int] = []
        while (answer := self.server.ask("GET", f"/qb/{QUEUE}?batch_size=1000")).status == 200:
            left += map(int, answer.json)
        out = self.fetched + left
        twice = [number for number, times in Counter(out).items() if times > 1]
        assert twice == [], "a job was handed out twice"
        assert set(out) <= self.sent, "a job came out that nobody pushed"
        lost = self.acknowledged - set(out)
        assert len(lost) <= self.unclear, f"{len(lost)} acknowledged jobs are gone"

    def _connections(self) -> Iterator[http.client.HTTPConnection]:
        """One connection after the other; the next when using the last has failed."""
        while not self._over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
            with contextlib.closing(connection):
                yield connection
            time.sleep(0.01)  # the server may be away

    def _write(self) -> None:
        for connection in self._connections():
            with contextlib.suppress(OSError, http.client.HTTPException):
                while not self._over.is_set():
                    number = next(self._numbers)
                    self.sent.add(number)
                    connection.request("POST", f"/q/{QUEUE}", b"%d" % number)
                    response = connection.getresponse()
                    response.read()
                    self.statuses[response.status] += 1
                    if response.status == 201:
                        self.acknowledged.add(number)

    def _fetch(self) -> None:
        for connection in self._connections():
            asked = False
            try:
                while not self._over.is_set():
                    asked = False
                    connection.request("GET", f"/q/{QUEUE}?wait=0.2")
                    asked = True
                    response = connection.getresponse()
                    body = response.read()
                    self.statuses[response.status] += 1
                    if response.status == 200:
                        self.fetched.append(int(body))
                    elif response.status != 404:
                        self.unclear += 1
            except (OSError, http.client.HTTPException):
                self.unclear += asked


def store_of(server: rig.Server) -> int:
    """The process id of the store that a server of one process has started."""
    parent = server.process.pid

    def child() -> int | None:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0]) if children else None

    return int(rig.eventually(child))
