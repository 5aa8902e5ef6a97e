"""A head that was understood: what follows from it, worked out once and remembered."""

from __future__ import annotations

import re
from collections.abc import Mapping

from presque.errors import PresqueError
from presque.http import head as heads
from presque.http import problems
from presque.http.answering import Answering, Asked
from presque.http.door import BODY_FREE_BYTES, Door
from presque.http.head import BadHead, Head, LargeBody
from presque.http.parts import Parts
from presque.http.plan import Namespace, Plan, Upload
from presque.http.proxies import Client
from presque.http.tallies import Tally

REQUEST_ID_MOST = 128
VISIBLE = re.compile(r"[!-~]+").fullmatch
REMEMBERED_MOST = 4096
REMEMBERED_BYTES_MOST = 2048


class Understood(Asked):
    """A head, and what follows from it."""

    __slots__ = (
        "body_at", "body_most", "chunked", "close", "continues", "length", "namespace", "plan", "raw",
        "short_cut", "size",
    )  # fmt: skip

    def __init__(
        self,
        raw: bytes,
        head: Head,
        plan: Plan,
        cors: bytes,
        client: Client,
        namespace: Namespace | None,
        tally: Tally,
        body_most: int,
    ) -> None:
        self.namespace = namespace
        self.body_most = body_most
        self.client = client
        self.tally = tally
        self.request_id = request_id(head.headers)
        if self.request_id is not None:
            cors += b"X-Request-Id: %b\r\n" % self.request_id.encode()
        self.raw = raw  # the head, unchanged
        self.cors = cors
        self.body_at = len(raw)
        self.size = len(raw) + head.length  # of the whole request, unless it is chunked
        self.plan = plan
        self.method = head.method
        self.length = head.length
        self.chunked = head.chunked
        self.close = not head.keep_alive or head.upgrade
        self.continues = head.expects_continue
        self.version_1_0 = head.version == "1.0"
        self.route = "/" + head.path.split("/")[1] if head.path.startswith("/") else ""
        self.classic = problems.is_classic(head.path)
        self.upload = isinstance(plan, Upload)
        self.short_cut = False  # it is remembered, and `size` says where its request ends

    @property
    def refusal(self) -> PresqueError | None:
        """Why the request is refused, if its head already shows that it is."""
        return self.plan.error if isinstance(self.plan, _Refusal | _RefusedBody) else None


class _Refusal:
    """The plan of a request that is wrong in a way that its head already shows."""

    common = True

    def __init__(self, error: PresqueError) -> None:
        self.error = error

    def serve(self, connection: Answering, _body: bytes) -> None:
        connection.answer_error(self.error)


class _RefusedBody(Upload):
    """The same where the body is large. Nothing is kept of it, so that who is refused takes no room from
    others; it is read, since a client may look for its answer only then."""

    hurried = True

    def __init__(self, error: PresqueError, most: int) -> None:
        self.error = error
        self._most = most

    async def receive(self, connection: Answering, parts: Parts) -> None:
        left = self._most
        async for part in parts:
            left -= len(part)
            del part  # while the next one is awaited
            if left < 0:
                break
        connection.answer_error(self.error)


class _Broken:
    """The plan of a request that could not even be looked at."""

    common = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def serve(self, _connection: Answering, _body: bytes) -> None:
        raise self._error


def understand(
    raw: bytes, door: Door, client: Client, remembered: dict[bytes, Understood], *, proxied: bool
) -> Understood:
    """Parse a head and work out all that follows from it. `client` is at the other end of the connection,
    `proxied` says that it is a proxy that we believe.

    Raises `BadHead` for a head that cannot be trusted; any other error is the answer to the request, once its
    body is out of the way.
    """
    if len(raw) > heads.MOST_BYTES:
        raise BadHead(f"the head of the request is larger than {heads.MOST_BYTES} bytes", 431)
    head = heads.read(raw)
    planner = door.planner
    plan: Plan
    try:
        if proxied:
            client = door.proxies.client(client, head.headers)
        plan = planner(head, client)
    except PresqueError as error:
        large = head.chunked or BODY_FREE_BYTES < head.length <= door.max_body
        plan = _RefusedBody(error, door.max_body) if large else _Refusal(error)
    except Exception as error:  # noqa: BLE001  (the last resort)
        plan = _Broken(error)
    cors, most = planner.cors(head), planner.body_most(plan)
    if head.length > most and not isinstance(plan, Upload):
        classic = problems.is_classic(head.path)
        raise LargeBody(f"the body is larger than {most} bytes", cors, classic=classic)
    tally = door.tallies.of(planner.name(plan))
    if door.traced is not None:
        tally = door.traced(tally, head)
    known = Understood(raw, head, plan, cors, client, planner.namespace(plan), tally, most)
    if len(raw) <= REMEMBERED_BYTES_MOST and plan.common and not is_named(head.headers):
        if len(remembered) >= REMEMBERED_MOST:
            remembered.clear()
        remembered[raw] = known
        known.short_cut = not known.chunked and not known.close and not known.upload
    return known


def request_id(headers: Mapping[str, str]) -> str | None:
    """What the client calls its request, in 1 to 128 visible characters of ASCII; None otherwise."""
    found = headers.get("x-request-id", "")
    return found if 0 < len(found) <= REQUEST_ID_MOST and VISIBLE(found) else None


def is_named(headers: Mapping[str, str]) -> bool:
    """Whether a head names its own request, so that no other one will be the same."""
    return "traceparent" in headers or request_id(headers) is not None
