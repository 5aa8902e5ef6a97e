"""A server that answers wrongly ends no worker that it has once answered rightly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import rig
from tests.worker.conftest import starting

JOB = {
    "queue": "q", "id": "1", "body": {}, "attempt": 1, "max_attempts": 5, "priority": 5,
    "pushed_at": "2026-11-25T00:00:00Z", "lease": "a", "lease_until": "2026-11-25T00:01:00Z",
}  # fmt: skip


class Wrong(ThreadingHTTPServer):
    """Answers a lease rightly, then wrongly as often as asked, then rightly."""

    daemon_threads = True

    def __init__(self, wrong: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.wrong = list(wrong)
        self.asked = 0
        self.done: list[str] = []


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Wrong

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
        settle = body.get("settle", body)
        told = [one for verb in ("ack", "fail", "release", "extend") for one in settle.get(verb, [])]
        self.server.done += [id for one in settle.get("ack", []) for id in one["ids"]]
        settled = [{"queue": one["queue"], "ids": one["ids"], "status": 200} for one in told]
        answer: Any = {"jobs": [], "settled": settled}
        if self.path.partition("?")[0].endswith("/lease"):
            self.server.asked += 1
            if self.server.asked == 1:
                answer = {"jobs": [JOB], "settled": settled}
            elif self.server.wrong:
                answer = self.server.wrong.pop(0)
            elif self.server.asked > 1 and "2" not in self.server.done:
                answer = {"jobs": [{**JOB, "id": "2", "lease": "b"}], "settled": settled}
        self.say(200, answer)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.say(200, {"status": "start"})

    def do_GET(self) -> None:
        self.say(404, {"error": "no"})

    def do_DELETE(self) -> None:
        self.do_GET()

    def say(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def wrong() -> Iterator[Any]:
    servers: list[Wrong] = []

    def start(*answers: Any) -> Wrong:
        server = Wrong(list(answers))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_wrong_answers_are_waited_out(wrong: Any, tmp_path: Path) -> None:
    server = wrong(
        {"jobs": [{**JOB, "id": {"odd": 1}}], "settled": []},
        {"jobs": [{**JOB, "attempt": "one"}], "settled": []},
        {"jobs": [], "settled": [{}] * 7},
        {"jobs": "many", "settled": []},
        {"jobs": [{**JOB, "lease": str(number)} for number in range(5000)], "settled": []},
        [1, 2],
        None,
    )
    with starting(tmp_path) as start:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        worker = start("worker", "tests.worker.jobs:Plain", "--queues", "q", "--interval", "1", url=url)
        rig.eventually(lambda: "2" in server.done)
        assert worker.process.poll() is None
        assert "Traceback" not in worker.said()
        assert worker.said().count("worker.waits_for_server") >= 1
