"""What a server answers that has not reached its store yet: that it lives, and that it is not ready."""

from __future__ import annotations

import msgspec

from presque.errors import NotReady
from presque.http.answering import Answering
from presque.http.answers import Answer
from presque.http.door import BODY_FREE_BYTES
from presque.http.head import Head
from presque.http.plan import Plan
from presque.http.problems import NotStarted
from presque.http.proxies import Client

LIVES = Answer(b'{"status":"ok"}\n')


class Starting:
    """Works out what is asked of a server that starts."""

    def __call__(self, head: Head, _client: Client) -> Plan:
        """The plan of a request. Raises `NotReady` or `NotStarted` for all but `GET /livez`."""
        if head.path == "/livez":
            return _Lives()
        if head.path == "/readyz":
            raise NotReady(["loading"])
        raise NotStarted

    def namespace(self, _plan: Plan) -> None:
        """Nobody is in any yet."""

    def body_most(self, _plan: Plan) -> int:
        """As much as is read of what is refused: who pushes should hear that the server starts, not that the
        body is too large."""
        return BODY_FREE_BYTES

    def name(self, _plan: Plan) -> str:
        """All answers are counted as one: nobody reads the figures of a server that starts."""
        return "starting"

    def cors(self, _head: Head) -> bytes:
        """No header: there is nothing that a page could read."""
        return b""


class _Lives(msgspec.Struct, frozen=True):
    common: bool = True

    def serve(self, connection: Answering, _body: bytes) -> None:
        connection.answer(LIVES)
