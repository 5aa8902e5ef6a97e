"""What can go wrong between a client and its server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

TEXT_MOST = 1000
"""Characters of what a server said that a text shows."""


class ClientError(Exception):
    """The server refused, or was not reached. `str(error)` is a sentence for people.

    `status` is the HTTP status, or None when there was no answer; `code` a stable word for programs;
    `text` what the server said.
    """

    def __init__(self, text: str, *, status: int | None = None, code: str = "error") -> None:
        self.text, self.status, self.code = one_line(text), status, code
        super().__init__(self.text)


class ServerNotReached(ClientError):
    """No answer came. `sent` tells whether the request may have been carried out nevertheless."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text, code="server-not-reached")
        self.sent = sent


class NotAllowed(ClientError):
    """401 or 403: no token, a wrong one, or one that does not allow this."""


class NotFound(ClientError):
    """404: it does not exist."""


class QueueClosed(NotFound):
    """404: the one queue that was asked for is stopped."""


class Conflict(ClientError):
    """409, or a job whose unique key is taken: the state is not what the caller thought."""


class Gone(ClientError):
    """410: the job is finished or deleted."""


class Full(ClientError):
    """429 or 507: there is no room in the queue, the namespace, the store or on its disk, or the caller asks
    too often. `code` says which."""


class Unavailable(ClientError):
    """503: the server has no store now, or is starting or stopping. The outcome of a request that changes
    something is unknown."""


NO_JOB = "no-job"
"""The code of the 404 that only says that no job waits."""

_BY_STATUS: dict[int, tuple[type[ClientError], str]] = {
    400: (ClientError, "invalid-request"),
    401: (NotAllowed, "not-allowed"),
    403: (NotAllowed, "not-allowed"),
    404: (NotFound, "not-found"),
    409: (Conflict, "conflict"),
    410: (Gone, "job-gone"),
    429: (Full, "queue-full"),
    503: (Unavailable, "store-unavailable"),
    507: (Full, "store-full"),  # or `disk-full`
}


# What the classic routes answer with a status that says too little. The text counts where a server does not
# send the header `Presque-Error`.
_BY_CODE: dict[str, type[ClientError]] = {"queue-closed": QueueClosed, "job-exists": Conflict}
_BY_TEXT = {"queue is closed": "queue-closed", "job already exists": "job-exists", "no job": NO_JOB}
_word = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z").match


def refusal(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> ClientError:
    """The error that an answer with a status of 300 and more stands for.

    Its code is the word in the header `Presque-Error`, else `code` in the body, else what its status says.
    """
    kind, code = _BY_STATUS.get(status, (ClientError, "error"))
    text = f"the server answered {status}"
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    named: object = (headers or {}).get("presque-error")
    if isinstance(said, dict):
        text = said["error"] if isinstance(said.get("error"), str) else text
        named = named or said.get("code") or _BY_TEXT.get(text)
    if isinstance(named, str) and len(named) <= 64 and _word(named):
        code = named
    return _BY_CODE.get(code, kind)(text, status=status, code=code)


def one_line(text: str, most: int = TEXT_MOST) -> str:
    """A text of strangers as one line of at most this many characters, safe for a terminal and a log."""
    cut = text[:most]
    line = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in cut)
    return line + "…" if len(text) > most else line
