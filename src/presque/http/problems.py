"""From an error to a status and a JSON body.

On the classic routes the body is `{"error": "<text>"}`. On those of leases, single jobs, policies and
recurring jobs it is a problem of RFC 9457 that has `error`, too.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
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
    NamespaceFull,
    NoNamespace,
    NotFound,
    NotReady,
    OurFault,
    PresqueError,
    QueueClosed,
    QueueFull,
    Refused,
    StateError,
    StoreFull,
    StoreUnavailable,
    TokenExpired,
    TokenMissing,
    TokenUnknown,
    TooManyRequests,
)
from presque.http.gate import NotAllowed
from presque.http.head import BadHead
from presque.masking import without_tokens

log = logging.getLogger("presque.http")


class NoRoute(CallerError):
    """The route does not exist."""

    code = "no-such-route"

    def __init__(self, method: str, path: str, meant: str | None = None) -> None:
        guess = "" if meant is None else f", did you mean `{meant}`?"
        super().__init__(f"there is no route {method} {without_tokens(path)[:200]}{guess}")


class NoName(CallerError):
    """The path stops where the name of a queue should be."""

    code = "name-missing"

    def __init__(self) -> None:
        super().__init__("queue name is missing")


class NotStarted(OurFault):
    """The server has not reached its store yet."""

    code = "starting"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("the server is starting: its store is not ready yet; try again later")


class Stopping(OurFault):
    """The server stops before the request was there whole."""

    code = "stopping"

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class TooMany(PresqueError):
    """There are as many connections or requests as there may be. `status` is that of the answer."""

    code = "too-many"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class MethodNotAllowed(CallerError):
    """The route does not take this method; `allowed` are those that it takes."""

    code = "method-not-allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not allowed on this route; it takes {self.allowed}")


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
    (NamespaceFull, 507),
    (NoNamespace, 404),
    (KeyReused, 422),
    (JobExists, 400),  # presque has always answered so
    (StateError, 409),
    (TokenMissing, 401),
    (TokenUnknown, 401),
    (TokenExpired, 401),
    (Refused, 403),
    (TooManyRequests, 429),
    (CallerError, 400),
    (StoreFull, 507),
    (DiskFull, 507),
    (StoreUnavailable, 503),
    (NotReady, 503),
    (NotStarted, 503),
    (Stopping, 503),
    (OurFault, 500),
)


def status_of(error: PresqueError) -> int:
    """The status that says what `error` says."""
    if isinstance(error, (BadHead, NotAllowed, TooMany)):
        return error.status
    if isinstance(error, NamespaceFull) and error.kind in ("connections", "requests"):
        return 429
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


NOT_CLASSIC = frozenset(
    (
        "settle",
        "p",
        "cron",
        "clock",
        "search",
        "failures",
        "export",
        "import",
        "tasks",
        "tokens",
        "namespaces",
        "audit",
        "login",
        "logout",
    )
)
"""First words of paths."""


def is_classic(path: str) -> bool:
    """Whether errors on this path are written as presque has always written them."""
    _, first, *rest = [*path.split("/"), ""]
    if first in NOT_CLASSIC:
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
    """The same for errors outside errors.py, such as a route that does not exist."""
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
    if isinstance(error, (StoreUnavailable, NotStarted)):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, (TooManyRequests, NamespaceFull)):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, QueueFull) or status_of(error) in (429, 503):
        headers.setdefault("Retry-After", "1")
    if isinstance(error, TokenMissing):
        headers["WWW-Authenticate"] = 'Bearer realm="presque"'
    elif isinstance(error, (TokenUnknown, TokenExpired)):
        headers["WWW-Authenticate"] = 'Bearer realm="presque", error="invalid_token"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    return headers


class Sums:
    """Lines of which there may be thousands a second: of each kind the first is logged at once, then at most
    one in `every_s`, with how many it stands for."""

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._waiting: dict[str, tuple[int, Callable[[int], None]]] = {}

    def tell(self, kind: str, line: Callable[[int], None]) -> None:
        """Have a line logged; `line` gets the count. Of those summed up the last one is logged. There
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


def note(error: PresqueError, method: str, route: str, request: str | None = None) -> None:
    """Log what is our fault; what is the caller's fault they know from the answer. When the store is full or
    away that may be every request, so only the first of each code is logged at once, the others as a sum."""
    if isinstance(error, OurFault):
        _sums.tell(error.code, functools.partial(_tell, method, route, error.code, str(error), request))


def _tell(method: str, route: str, code: str, reason: str, request: str | None, count: int) -> None:
    log.warning(
        "request.failed method=%s route=%s code=%s reason=%r request=%s count=%d",
        method, route, code, reason, request, count,
    )  # fmt: skip
