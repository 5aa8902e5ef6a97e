"""With which exit code a command ends that the server has refused."""

from __future__ import annotations

from presque.client.errors import (
    ClientError,
    Conflict,
    Gone,
    NotAllowed,
    NotFound,
    QueueClosed,
    ServerNotReached,
)
from presque.exits import CONFLICT, FAILED, NOT_ALLOWED, NOT_FOUND, NOT_REACHED, NOTHING_THERE, USAGE

_EXIT_CODES: tuple[tuple[type[ClientError], int], ...] = (
    (ServerNotReached, NOT_REACHED),
    (NotAllowed, NOT_ALLOWED),
    (QueueClosed, NOTHING_THERE),
    (NotFound, NOT_FOUND),
    (Gone, NOT_FOUND),
    (Conflict, CONFLICT),
    (ClientError, FAILED),
)
_WRONG = frozenset((400, 413, 414, 421, 422, 431))
"""Statuses of requests that are refused again when they are sent again."""


def exit_code(error: ClientError) -> int:
    """What a refusal is for the one who typed the command: see presque/exits.py."""
    if error.code == "idempotency-key-reused":
        return CONFLICT
    if error.status in _WRONG and type(error) is ClientError:
        return USAGE
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
