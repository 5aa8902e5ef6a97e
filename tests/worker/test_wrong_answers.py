"""A worker whose server, in mid-run, answers wrongly: it waits, goes on, and does each job once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from presque import Worker
from tests import rig

POLICY = {
    "queue": "q", "lease": 60, "max_attempts": 5, "ttl": None, "keep": 0, "dead_most": 10, "max_length": None,
    "backoff": {"first": 15, "factor": 2, "most": 3600, "jitter": 0.1}, "overflow": "reject",
    "max_leased": None, "group_leased": None, "rate": None, "delivery": "queue",
}  # fmt: skip


def job(id: str) -> dict[str, Any]:
    return {
        "queue": "q", "id": id, "body": id, "attempt": 1, "max_attempts": 5, "priority": 5, "pushed_at": "p",
        "lease": f"t{id}", "lease_until": "u",
    }  # fmt: skip


class Liar:
    """A server that answers each lease with the next of its lines; None is the right answer with a job."""

    def __init__(self, lines: list[bytes | None]) -> None:
        self.lines = iter(lines)
        self.acked: list[str] = []
        self.asked = 0
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                if self.path.endswith("/lease"):
                    line = liar.lease(body.get("settle", {}))
                else:
                    line = liar.other(self.path, body)
                self.wfile.write(line)
                self.close_connection = b"Content-Length" not in line

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def lease(self, settle: dict[str, list[dict[str, Any]]]) -> bytes:
        self.asked += 1
        line = next(self.lines, b"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n")
        if line is None:
            return ok({"jobs": [job(str(self.asked))], "settled": self.settled(settle)})
        if b" 204 " in line and settle:
            return ok({"jobs": [], "settled": self.settled(settle)})
        return line

    def other(self, path: str, body: dict[str, Any]) -> bytes:
        if path == "/settle":
            return ok({"settled": self.settled(body)})
        return ok(POLICY if path.startswith("/p/") else {"status": "start"})

    def settled(self, settle: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        self.acked += [id for one in settle.get("ack", []) for id in one["ids"]]
        return [{"queue": "q", "ids": one["ids"], "status": 200} for many in settle.values() for one in many]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(rig.PATIENCE)


def ok(answer: Any) -> bytes:
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def cut(answer: bytes) -> bytes:
    return answer.replace(b"Content-Length: ", b"Content-Length: 1")


WRONG: dict[str, bytes] = {
    "an id that is an object": ok({"jobs": [job("1") | {"id": {}}]}),
    "a job without a lease": ok({"jobs": [{"queue": "q", "id": "1", "body": 1}]}),
    "jobs by the hundred thousand": ok({"jobs": [job("1")] * 100_000}),
    "no list": ok({"jobs": "many"}),
    "another document": ok([1, 2]),
    "no JSON": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "elsewhere": b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
    "an answer that is cut off": cut(ok({"jobs": []})),
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
    "nothing": b"",
    "an answer without end": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (70 << 20),
}


class Noting(Worker):
    def __init__(self, url: str, done: list[str], max_answer: str | None = None) -> None:
        self.done = done
        super().__init__(url, queue="q", interval=0.2, max_answer=max_answer)

    def work(self, job: str) -> None:
        self.done.append(job)


@pytest.fixture
def liars() -> Iterator[list[Liar]]:
    found: list[Liar] = []
    yield found
    for one in found:
        one.stop()


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_worker_goes_on_after_an_answer_that_is_wrong(liars: list[Liar], wrong: bytes) -> None:
    liar = Liar([None, wrong, None])
    liars.append(liar)
    done: list[str] = []
    worker = Noting(liar.url, done)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        rig.eventually(lambda: len(liar.acked) >= 2)
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert done == liar.acked
    assert len(done) == 2


def test_settlements_that_are_not_all_answered_are_told_again(liars: list[Liar]) -> None:
    short = ok({"jobs": [], "settled": []})
    liar = Liar([None, short, short, None])
    liars.append(liar)
    done: list[str] = []
    worker = Noting(liar.url, done)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        rig.eventually(lambda: len(set(liar.acked)) >= 2)
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert len(done) == 2


def test_an_answer_may_be_as_long_as_the_worker_is_told(
    liars: list[Liar], caplog: pytest.LogCaptureFixture
) -> None:
    """A server may take jobs that are longer than what a worker takes unless told otherwise."""
    large = ok({"jobs": [job("large") | {"body": "x" * (2 << 20)}]})
    liar = Liar([large, None])
    liars.append(liar)
    done: list[str] = []
    worker = Noting(liar.url, done, max_answer="1MiB")
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        rig.eventually(lambda: liar.acked)
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert done == liar.acked
    assert "larger than 1048576 bytes; allow more with `max_answer`" in caplog.text
