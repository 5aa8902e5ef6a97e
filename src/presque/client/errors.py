"""What can go wrong between a client and its server."""

from __future__ import annotations

import json


class ClientError(Exception):
    """The server refused, or was not reached. `str(error)` is a sentence for people.

    `status` is the HTTP status, or None when there was no answer; `code` a stable word for programs;
    `text` what the server said.
    """

    def __init__(self, text: str, *, status: int | None = None, code: str = "error") -> None:
        super().__init__(text)
        self.text, self.status, self.code = text, status, code


class ServerNotReached(ClientError):
    """No answer came. `sent` tells whether the request may have been carried out nevertheless."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text, code="server-not-reached")
        self.sent = sent


class NotAllowed(ClientError):
    """401 or 403: no token, a wrong one, or one that does not allow this."""


class NotFound(ClientError):
    """404: there is no such thing."""


class QueueClosed(NotFound):
    """404: the one queue that was asked for is stopped."""


class Conflict(ClientError):
    """409, or a job whose unique key is taken: the state is not what the caller thought."""


class Gone(ClientError):
    """410: the job is finished or deleted."""


class Full(ClientError):
    """429 or 507: the queue is as long as its policy allows, or the store has no memory left."""


class Unavailable(ClientError):
    """503: the server has no store right now. The outcome of a request that changes something is unknown."""


_BY_STATUS: dict[int, tuple[type[ClientError], str]] = {
    400: (ClientError, "invalid-request"),
    401: (NotAllowed, "not-allowed"),
    403: (NotAllowed, "not-allowed"),
    404: (NotFound, "not-found"),
    409: (Conflict, "conflict"),
    410: (Gone, "job-gone"),
    429: (Full, "queue-full"),
    503: (Unavailable, "store-unavailable"),
    507: (Full, "store-full"),
}


def refusal(status: int, body: bytes) -> ClientError:
    """The error that an answer with a status of 300 and more stands for."""
    kind, code = _BY_STATUS.get(status, (ClientError, "error"))
    text = f"the server answered {status}"
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        text = said["error"] if isinstance(said.get("error"), str) else text
        code = said["code"] if isinstance(said.get("code"), str) else code
    if kind is NotFound and text == "queue is closed":
        kind, code = QueueClosed, "queue-closed"
    if text == "job already exists":  # The classic routes say 400 for what is a conflict.
        kind, code = Conflict, "job-exists"
    return kind(text, status=status, code=code)
