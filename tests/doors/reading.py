"""Readers of /events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any

from tests import rig


class Events:
    """A reader of /events."""

    def __init__(self, server: rig.Server, query: str = "", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.PATIENCE)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("GET", f"/events{query}", None, names)
        self.response = self.connection.getresponse()
        self.last = ""
        self.kind = ""

    def next(self) -> Any:
        """The data of the next event, whose name is `kind` and whose id, if it has one, `last`."""
        data = None
        while (line := self.response.readline().decode()) != "\n":
            assert line, "the stream has ended"
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "id":
                self.last = value
            elif field == "event":
                self.kind = value
            elif field == "data":
                data = json.loads(value)
        return data

    def job(self) -> tuple[str, str]:
        """The next event of a job: its id and what happened."""
        while True:
            data = self.next()
            if data is not None and self.kind != "queue":
                assert self.kind == "job", (self.kind, data)
                return data["id"], data["what"]

    def until(self, enough: Callable[[list[tuple[str, Any]]], bool]) -> list[tuple[str, Any]]:
        """The events that are not of queues, each with its name, until there are enough."""
        found: list[tuple[str, Any]] = []
        while not enough(found):
            data = self.next()
            if data is not None and self.kind != "queue":
                found.append((self.kind, data))
        return found

    def close(self) -> None:
        self.response.close()
        self.connection.close()
