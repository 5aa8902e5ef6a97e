"""Client: one method per verb.

    client = Client("http://127.0.0.1:5000")
    client.push("mail", {"to": "ana"}, delay=60)
    job = client.fetch("critical,*", wait=20)

Every method raises a `ClientError`: `ServerNotReached` when no answer came, otherwise what the server
said. Nothing is retried behind your back, except what only reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NoReturn, Self, TypedDict, Unpack
from urllib.parse import quote, urlencode

from presque.client.transport import Answer, QueueClosed, Transport, refusal

DEFAULT_URL = "http://127.0.0.1:5000"


class BatchOptions(TypedDict, total=False):
    """What may be said about a push. `delay`, `ttl` and `keep` are seconds.

    `delayed` is epoch seconds, an RFC 3339 text or a `datetime` with a time zone.
    """

    delay: float | None
    delayed: float | str | datetime | None
    priority: int | None
    ttl: float | None
    attempts: int | None
    keep: float | None
    group: str | None


class PushOptions(BatchOptions, total=False):
    """What may be said about the push of one job: a unique key, too."""

    uniq: str | None
    uniq_until: Literal["fetch", "done"] | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was fetched. `body` is its text exactly as it was pushed."""

    queue: str
    id: str
    body: str

    @property
    def value(self) -> Any:
        """The JSON value, decoded anew at each look."""
        return json.loads(self.body)


class Client:
    """Talks to one server. Threads may share it. `timeout` is seconds for an answer, waits not counted."""

    def __init__(self, base_url: str = DEFAULT_URL, token: str | None = None, timeout: float = 30) -> None:
        self.transport = Transport(base_url, token, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client stays usable."""
        self.transport.close()

    def push(self, queue: str, job: Any, **options: Unpack[PushOptions]) -> str:
        """Put a JSON value on a queue and return its id. When this returns, the server has stored it."""
        return self.push_text(queue, encoded(job), **options)

    def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Put a JSON document on a queue, byte for byte as given, and return its id."""
        answer = self._json("POST", f"/q/{_name(queue)}{_query(**options)}", _bytes(text))
        return str(answer["id"])

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Put all of `jobs` on a queue, or none, and return their ids in the same order."""
        return self.push_texts(queue, [encoded(job) for job in jobs], **options)

    def push_texts(self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[str]:
        """Put JSON documents on a queue, all or none. Raises `ValueError` if a text is not one document."""
        body = f'{{"jobs":[{",".join(checked(text) for text in texts)}]}}'
        ids: list[str] = self._json("POST", f"/qb/{_name(queue)}{_query(**options)}", body.encode())["ids"]
        return ids

    def fetch(self, queues: str, wait: float | None = None) -> Job | None:
        """Take a job for good, waiting up to `wait` seconds (60 at most); None when there is none.

        Raises `QueueClosed` when the one queue named is stopped. A job whose answer is lost on the way
        is lost: fetch is at most once.
        """
        path = f"/q/{_name(queues)}{_query(wait=wait)}"
        answer = self._unless_empty(self.transport.request("GET", path, wait=wait or 0))
        if answer is None:
            return None
        headers = answer.headers
        return Job(headers["Presque-Queue"], headers["Presque-Job-Id"], answer.body.decode())

    def fetch_many(self, queue: str, count: int = 10) -> list[str]:
        """Take up to `count` jobs (1000 at most) of one queue for good: their texts, as they were pushed."""
        path = f"/qb/{_name(queue)}{_query(batch_size=count)}"
        answer = self._unless_empty(self.transport.request("GET", path))
        texts: list[str] = [] if answer is None else json.loads(answer.body)
        return texts

    def put_back(self, queue: str, job: Any, worker: str | None = None) -> str:
        """Put a job that failed back and count the failure, for `worker` too. Returns the new id."""
        headers = {"X-presque-workerid": worker} if worker is not None else None
        return str(self._json("PUT", f"/q/{_name(queue)}", encoded(job).encode(), headers)["id"])

    def purge(self, queue: str) -> None:
        """Delete all that the queue holds: jobs of every state, counters, unique keys."""
        self._answer("DELETE", f"/q/{_name(queue)}")

    def info(self, queue: str) -> dict[str, Any]:
        """`queue_name`, `job_count`, `job_processed` and `job_failed`."""
        return self._read(f"/j/{_name(queue)}")

    def status(self, queue: str | None = None) -> dict[str, Any]:
        """`queues` and how many in `size`; for one queue, `queue` and how many jobs wait in `size`."""
        return self._read(f"/status/{_name(queue or '')}")

    def peek(self, queue: str) -> list[str]:
        """The texts of the next jobs, 1000 at most, without taking them."""
        texts: list[str] = self._read(f"/status/{_name(queue)}?with_desc=1")["jobs"]
        return texts

    def start(self, queue: str) -> None:
        """Let a stopped queue hand out jobs again."""
        self._control(queue, "start")

    def stop(self, queue: str) -> None:
        """Let a queue hand out nothing. It still takes pushes."""
        self._control(queue, "stop")

    def control(self, queue: str) -> bool:
        """Whether the queue is started. One that was never seen is."""
        return bool(self._read(f"/control/{_name(queue)}")["status"])

    def stats(self, queue: str | None = None) -> dict[str, Any]:
        """All that the dashboard shows, of the server or of one queue."""
        return self._read(f"/stats/{_name(queue or '')}")

    def workers(self) -> list[str]:
        """The ids of the workers that are registered."""
        ids: list[str] = json.loads(self._answer("GET", "/w/", reads=True).body)
        return ids

    def _control(self, queue: str, status: str) -> None:
        self._answer("POST", f"/control/{_name(queue)}", encoded({"status": status}).encode())

    def _read(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._answer("GET", path, reads=True).body)
        return answer

    def _json(
        self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._answer(method, path, body, headers).body)
        return answer

    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        reads: bool = False,
    ) -> Answer:
        answer = self.transport.request(method, path, body, headers, reads=reads)
        if answer.status >= 300:
            raise refusal(answer)
        return answer

    def _unless_empty(self, answer: Answer) -> Answer | None:
        """The answer to a fetch; None for the 404 that only says that no job waits."""
        if answer.status < 300:
            return answer
        error = refusal(answer)
        if answer.status == 404 and not isinstance(error, QueueClosed) and error.text == "no job":
            return None
        raise error


def encoded(value: Any) -> str:
    """`value` as compact JSON. Raises `ValueError` or `TypeError` for what JSON cannot say, such as NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def checked(text: str) -> str:
    """Return `text` if it is one JSON document, raise `ValueError` that says where it is not."""
    try:
        json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _name(name: str) -> str:
    return quote(name, safe=",*!:@~+")


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _query(**parameters: object) -> str:
    given = {name: _parameter(value) for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _parameter(value: object) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone names no moment: give it one")
        return value.isoformat()
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
