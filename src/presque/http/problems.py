"""From an error to a status and a JSON body, on the classic routes: `{"error": "<text>"}`."""

from __future__ import annotations

import logging
from http import HTTPStatus

from presque import codec
from presque.errors import (
    BodyTooLarge,
    CallerError,
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

# The first class that fits decides, so the special ones stand before their families.
_STATUS: tuple[tuple[type[PresqueError], int], ...] = (
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
    (StoreUnavailable, 503),
    (OurFault, 500),
)


def status_of(error: PresqueError) -> int:
    """The status that says what `error` says."""
    if isinstance(error, (BadHead, NotAllowed)):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: PresqueError) -> bytes:
    """The error as the classic routes write it."""
    return codec.encode({"error": str(error)})


def problem_of(error: PresqueError) -> bytes:
    """The error as the routes of leases and jobs write it (RFC 9457). `error` repeats `detail`, so that one
    field can be read on every route; `code` is a word that never changes."""
    status = status_of(error)
    return codec.encode(
        {
            "type": f"urn:presque:problem:{error.code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": str(error),
            "error": str(error),
            "code": error.code,
        }
    )


def headers_of(error: PresqueError) -> dict[str, str]:
    """Headers that go with the error."""
    if isinstance(error, StoreUnavailable):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, QueueFull):
        return {"Retry-After": "1"}
    return {}


def note(error: PresqueError, method: str, route: str) -> None:
    """Log what is our fault; what is the caller's fault they know from the answer."""
    if isinstance(error, OurFault):
        log.warning(
            "request.failed method=%s route=%s code=%s reason=%r", method, route, error.code, str(error)
        )
