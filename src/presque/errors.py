"""Every error presque raises, each with a code that never changes.

Three families, so that a door can translate without knowing each one: the caller's mistake
(`CallerError`), a state that is not what the caller thought (`StateError`), and trouble on our
side of the wire (`OurFault`). Beside them is `SetupError`: presque cannot start as told.

The text of an error says what is wrong and what to do about it, and never holds a job's body; of a body that
is not JSON it quotes a few characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

from presque.masking import without_tokens


class PresqueError(Exception):
    """Anything presque refuses to do. `str(error)` is a sentence for people, `code` a word for programs."""

    code: ClassVar[str] = "error"


E = TypeVar("E", bound=PresqueError)


def reworded(error: E, text: str) -> E:
    """The same error with another sentence. The given one, which others may share, stays as it is."""
    kind = type(error)
    found = kind.__new__(kind, text)
    found.__dict__.update(error.__dict__)
    return found


class CallerError(PresqueError):
    """The request itself is wrong. Sent again unchanged it will be refused again; nothing was stored."""

    code = "invalid-request"


class UnknownParameter(CallerError):
    """A parameter or field that the route does not know, with its nearest neighbour if there is one."""

    code = "unknown-parameter"

    def __init__(self, name: str, known: Iterable[str], what: str = "parameter", place: str = "") -> None:
        where = f" in `{place}`" if place else ""
        super().__init__(f"unknown {what} `{shown(name)}`{where}, {nearest(name, known)}")


def wrong_cursor() -> CallerError:
    """The error for a cursor that no page has answered."""
    return CallerError(
        "`cursor` should be the one that the previous page answered; leave it out for the first page"
    )


class InvalidName(CallerError):
    """A queue, worker or job is called something that it may not be called."""

    code = "invalid-name"


class JobMissing(CallerError):
    """A push without a body."""

    code = "job-missing"

    def __init__(self) -> None:
        super().__init__("job is missing")


class NotJson(CallerError):
    """The body is not one JSON document in UTF-8."""

    code = "not-json"


class BodyTooLarge(CallerError):
    """The body is larger than this server takes."""

    code = "body-too-large"


class AnswerTooLarge(CallerError):
    """The answers of an array of commands are as large as they may be; this command was not carried out."""

    code = "answer-too-large"

    def __init__(self) -> None:
        super().__init__(
            "this command was not carried out, since the answers before it fill 4 MiB: send it again"
        )


class Refused(CallerError):
    """The asker may not do this. `who`, `verb` and `queue` are noted for the audit."""

    code = "not-allowed"
    who: str = ""
    verb: str = ""
    queue: str | None = None


class TokenMissing(Refused):
    """This server requires a token, and the request has none."""

    code = "token-missing"

    def __init__(self) -> None:
        super().__init__("this needs an access token: send it in the header `Authorization: Bearer TOKEN`")


class TokenUnknown(Refused):
    """The token is none that this server knows: it was never made, was revoked, or is wrong."""

    code = "token-unknown"

    def __init__(self) -> None:
        super().__init__("this access token is not valid")


class TokenExpired(Refused):
    """The token was valid until some time ago."""

    code = "token-expired"

    def __init__(self) -> None:
        super().__init__("this access token has expired")


class NotPermitted(Refused):
    """The token is valid and does not allow this. The text names the scope that is missing."""

    code = "not-allowed"


class NoNamespace(Refused):
    """There is no such namespace, or not any more."""

    code = "no-namespace"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no namespace `{shown(name)}`")


class TooManyRequests(PresqueError):
    """The token allows so many requests in a while, and has had them. `retry_after` is in seconds."""

    code = "rate-exceeded"

    def __init__(self, retry_after: float) -> None:
        super().__init__("this access token has used up its rate; try again later")
        self.retry_after = retry_after


class StateError(PresqueError):
    """The request is right, but the queue or job is not in a state that allows it."""

    code = "conflict"


class JobExists(StateError):
    """A job with the same `uniq` key still waits."""

    code = "job-exists"

    def __init__(self) -> None:
        super().__init__("job already exists")


class KeyReused(StateError):
    """The Idempotency-Key was used within the last day for a push that asked for something else."""

    code = "idempotency-key-reused"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another push; use a new key for each job")


class QueueFull(StateError):
    """The queue holds as many waiting jobs as its policy allows."""

    code = "queue-full"

    def __init__(self) -> None:
        super().__init__("the queue is as long as its policy allows (`max_length`); push again later")


class NamespaceFull(StateError):
    """The namespace has as much of something as its quota allows. `code` is `quota-` and what it is: `jobs`,
    `bytes`, `queues`, `connections` or `requests`; `retry_after` is in seconds."""

    code = "quota-jobs"

    def __init__(self, kind: str, message: str, retry_after: float = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = f"quota-{kind}"  # type: ignore[misc]  # each has its own
        self.retry_after = retry_after


class WrongState(StateError):
    """What was asked cannot be done to a job in its present state."""

    code = "wrong-state"


class QueueClosed(StateError):
    """The one queue that was asked for is stopped, so it hands out nothing."""

    code = "queue-closed"

    def __init__(self) -> None:
        super().__init__("queue is closed")


class LeaseLost(StateError):
    """The token is of a lease that has ended: the job may be somebody else's by now."""

    code = "lease-lost"

    def __init__(self) -> None:
        super().__init__("the lease has ended; the job may be somebody else's by now")


class JobGone(StateError):
    """The job has been finished or deleted."""

    code = "job-gone"

    def __init__(self) -> None:
        super().__init__("the job is finished or deleted")


class NotFound(StateError):
    """There is no such thing."""

    code = "not-found"


class NoTestClock(NotFound):
    """The clock of this server cannot be moved."""

    code = "no-test-clock"

    def __init__(self) -> None:
        super().__init__(
            "the clock of this server cannot be moved: for tests, start one with "
            "`presque serve --memory --test-clock`"
        )


class NoJob(NotFound):
    """None of the queues that were asked for has a job that is ready."""

    code = "no-job"

    def __init__(self) -> None:
        super().__init__("no job")


class OurFault(PresqueError):
    """The request was right and could not be served now."""

    code = "internal"


class StoreUnavailable(OurFault):
    """The store did not answer in time, or is not there.

    `sent` tells whether the call may have reached it: if so the outcome is unknown, and presque does
    not repeat it by itself, since a job could be stored twice or lost.
    """

    code = "store-unavailable"
    retry_after = 1

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class StoreLoading(StoreUnavailable):
    """The store is there, and still reading its data. It will answer when it has done so."""

    def __init__(self) -> None:
        super().__init__("the store is still reading its data")


class StoreFull(OurFault):
    """The store is over its memory limit: pushes are refused, everything that frees memory goes on."""

    code = "store-full"

    def __init__(self) -> None:
        super().__init__(
            "the store has no memory left for another job; fetch or purge some, or raise its maxmemory"
        )


class DiskFull(OurFault):
    """The disk that holds the data has too little room left: nothing grows, everything that frees goes on."""

    code = "disk-full"

    def __init__(self, free: int, least: int) -> None:
        mib = 1024 * 1024
        super().__init__(
            f"the disk is nearly full ({free // mib} MiB free, `min_free_disk` is {-(-least // mib)} MiB): "
            "no job is accepted; make room on the disk, or fetch or purge some jobs"
        )


class NotReady(OurFault):
    """The server runs, and cannot do its work now. `reasons` are words that never change."""

    code = "not-ready"

    def __init__(self, reasons: Iterable[str]) -> None:
        super().__init__(f"not ready: {', '.join(reasons)}")


class StoreError(OurFault):
    """The store answered with an error that presque did not expect."""

    code = "store-error"


class SetupError(PresqueError):
    """presque cannot start, or a command cannot run, with these settings or arguments."""

    code = "setup"


class InTheWay(SetupError):
    """Something is there already that would be overwritten."""

    code = "in-the-way"


class NoToken(SetupError):
    """Others could reach the server, and there is no access token that would keep them out."""

    code = "no-token"


def nearest(name: str, known: Iterable[str]) -> str:
    """Finish the sentence about an unknown `name`: the known name that looks most like it, or all of them."""
    from difflib import get_close_matches  # a start need not wait for it

    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return "this route takes none"
    return "expected one of " + ", ".join(f"`{n}`" for n in names)


def shown(text: str) -> str:
    """What a caller sent, made safe and short enough to be quoted in a sentence or a log line."""
    printable = "".join(c if c.isprintable() else "?" for c in without_tokens(text[:256])[:64])
    return printable + "…" if len(text) > 64 else printable
