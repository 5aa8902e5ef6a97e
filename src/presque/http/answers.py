"""What a handler answers, and how an answer looks on the wire.

An `Answer` is a value: status, body, headers. Its body is bytes, or an iterator of bytes for an answer that
continues until one side ends it. This file turns an answer, or an error, into the bytes of HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus

import msgspec

from presque.errors import PresqueError
from presque.http import problems

CLOSE = b"Connection: close\r\n"
# No page elsewhere may embed an answer: from whether it loads it would learn whether a queue exists.
NO_STORE = (
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    b"Cross-Origin-Resource-Policy: same-origin\r\nX-Frame-Options: DENY\r\n"
)
JSON = "application/json"
PROBLEM = "application/problem+json"

_WITHOUT_BODY = (204, 304)
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Answer(msgspec.Struct, frozen=True):
    """One answer. `headers` are besides those that every answer has; `kind` is the media type."""

    body: bytes | AsyncIterator[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    kind: str = JSON
    sparing: bool = False
    """Whether a part that is not read is lost, so that as few as possible are on their way at once."""
    undo: Callable[[], object] | None = None
    """Puts back what the answer hands out, if the client leaves before it has it."""


def start(status: int, date: bytes) -> bytes:
    """The first two lines of an answer; `date` is the line that says when."""
    return _LINES[status] + date


def head(answer: Answer, date: bytes, *, close: bool, framing: bytes = b"") -> bytes:
    """The head of an answer, up to and with its empty line. `framing` says how a body without a known
    length ends."""
    lines = [start(answer.status, date)]
    body = answer.body
    if answer.status not in _WITHOUT_BODY and (body or not isinstance(body, bytes)):
        lines.append(b"Content-Type: %b\r\n" % answer.kind.encode("latin-1"))
    if "Cache-Control" not in answer.headers:
        lines.append(NO_STORE)
    if answer.headers:
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in answer.headers.items()]
    if close:
        lines.append(CLOSE)
    if not isinstance(body, bytes):
        lines.append(framing)
    elif answer.status not in _WITHOUT_BODY:
        lines.append(b"Content-Length: %d\r\n" % len(body))
    lines.append(b"\r\n")
    return b"".join(lines)


def with_lines(message: bytes, lines: bytes) -> bytes:
    """An answer with further lines in its head."""
    if not lines:
        return message
    first = message.index(b"\r\n") + 2
    return message[:first] + lines + message[first:]


def of_error(error: PresqueError, *, classic: bool) -> Answer:
    """The answer that says what is wrong, as the classic routes or as those of leases and jobs write it."""
    return Answer(
        (problems.body_of(error) if classic else problems.problem_of(error)) + b"\n",
        problems.status_of(error),
        problems.headers_of(error),
        JSON if classic else PROBLEM,
    )
