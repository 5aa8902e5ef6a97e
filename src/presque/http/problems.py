"""From an error to a status and a JSON body.

On the classic routes the body is `{"error": "<text>"}`. On those of leases, single jobs, policies and
recurring jobs it is a problem of RFC 9457 that has `error`, too.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus

from presque import codec
from presque.errors import (
    BodyTooLarge,
    CallerError,
    DiskFull,
    JobExists,
    JobGone,
    KeyReused,
    NotFound,
    OurFault,
    PresqueError,
    QueueClosed,
    QueueFull,
    StateError,
    StoreFull,
    StoreUnavailable,
)
from presque.http.gate import NotAllowed
from presque.http.head import BadHead

log = logging.getLogger("presque.http")


class NoRoute(CallerError):
    """There is no such route."""

    code = "no-such-route"

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"there is no route {method} {path[:200]}")


class NoName(CallerError):
    """The path stops where the name of a queue should stand."""

    code = "name-missing"

    def __init__(self) -> None:
        super().__init__("queue name is missing")


class Stopping(OurFault):
    """The server stops before the request was there whole."""

    code = "stopping"

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class MethodNotAllowed(CallerError):
    """The route does not take this method; `allowed` are those that it takes."""

    code = "method-not-allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not for this route; it takes {self.allowed}")


# The first class that fits decides, so the special ones stand before their families.
_STATUS: tuple[tuple[type[PresqueError], int], ...] = (
    (NoRoute, 404),
    (NoName, 404),
    (MethodNotAllowed, 405),
    (BodyTooLarge, 413),
    (QueueClosed, 404),
    (NotFound, 404),
    (JobGone, 410),
    (QueueFull, 429),
    (KeyReused, 422),
    (JobExists, 400),  # presque has always answered so
    (StateError, 409),
    (CallerError, 400),
    (StoreFull, 507),
    (DiskFull, 507),
    (StoreUnavailable, 503),
    (Stopping, 503),
    (OurFault, 500),
)


def status_of(error: PresqueError) -> int:
    """The status that says what `error` says."""
    if isinstance(error, (BadHead, NotAllowed)):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def is_classic(path: str) -> bool:
    """Whether errors on this path are written as presque has always written them."""
    _, first, *rest = [*path.split("/"), ""]
    if first in ("settle", "p", "cron"):
        return False
    return not (first == "j" and len(rest) > 2) and not (first == "q" and rest[1:2] == ["lease"])


def body_of(error: PresqueError) -> bytes:
    """The error as the classic routes write it."""
    return codec.encode({"error": str(error)})


def problem_of(error: PresqueError) -> bytes:
    """The error as the routes of leases and jobs write it (RFC 9457). `error` repeats `detail`, so that one
    field can be read on every route; `code` is a word that never changes."""
    return problem(status_of(error), error.code, str(error))


def problem(status: int, code: str, text: str) -> bytes:
    """The same for what is no error of ours, such as a route that does not exist."""
    return codec.encode(
        {
            "type": f"urn:presque:problem:{code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": text,
            "error": text,
            "code": code,
        }
    )


def headers_of(error: PresqueError) -> dict[str, str]:
    """Headers that go with the error: its code, on every route, and what else its status asks for."""
    headers = {"Presque-Error": error.code}
    if isinstance(error, StoreUnavailable):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, QueueFull):
        headers["Retry-After"] = "1"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    return headers


class Sums:
    """Lines of which there may be thousands a second: of each kind the first is told at once, then at most
    one in `every_s`, with how many it stands for."""

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._waiting: dict[str, tuple[int, Callable[[int], None]]] = {}

    def tell(self, kind: str, line: Callable[[int], None]) -> None:
        """Have a line told; `line` gets the count. Of those summed up the last one is told. There
        should be few kinds. Needs a running event loop."""
        if kind in self._waiting:
            count, _ = self._waiting[kind]
            self._waiting[kind] = (count + 1, line)
            return
        line(1)
        self._begin(kind)

    def _begin(self, kind: str) -> None:
        self._waiting[kind] = (0, lambda _: None)
        asyncio.get_running_loop().call_later(self._every_s, self._end, kind)

    def _end(self, kind: str) -> None:
        count, line = self._waiting.pop(kind)
        if count:
            line(count)
            self._begin(kind)


_sums = Sums()


def note(error: PresqueError, method: str, route: str) -> None:
    """Log what is our fault; what is the caller's fault they know from the answer. When the store is full or
    away that may be every request, so only the first of each code is told at once, the others as a sum."""
    if isinstance(error, OurFault):
        _sums.tell(error.code, functools.partial(_tell, method, route, error.code, str(error)))


def _tell(method: str, route: str, code: str, reason: str, count: int) -> None:
    log.warning(
        "request.failed method=%s route=%s code=%s reason=%r count=%d", method, route, code, reason, count
    )
