"""The id of a request: it comes back, and it stands in the lines of the log that are about that request."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests import rig


@pytest.mark.parametrize("path", ["/status/", "/q/none", "/no/such/route", "/j/q/1", "/metrics"])
def test_it_comes_back_with_whatever_is_answered(server: rig.Server, path: str) -> None:
    answer = server.ask("GET", path, X_Request_Id="order-17")

    assert answer.headers["x-request-id"] == "order-17"
    assert "x-request-id" not in server.ask("GET", path).headers


def test_each_request_of_a_connection_gets_its_own(server: rig.Server, queue_name: str) -> None:
    for number in range(5):
        name = f"push-{number}" if number % 2 else None
        headers = {"X_Request_Id": name} if name else {}
        answer = server.ask("POST", f"/q/{queue_name}", "1", 30, **headers)
        assert answer.headers.get("x-request-id") == name


@pytest.mark.parametrize("name", ["two words", "x" * 129, "ä"])
def test_what_is_no_id_is_as_if_it_were_not_given(server: rig.Server, name: str) -> None:
    answer = server.ask("GET", "/status/", X_Request_Id=name)

    assert answer.status == 200
    assert "x-request-id" not in answer.headers


def logging_json(store: rig.Store) -> contextlib.AbstractContextManager[rig.Server]:
    return rig.server("--log-format", "json", PRESQUE_REDIS__UNIX=store.socket)


def lines_of(server: rig.Server, event: str) -> list[Any]:
    found = [json.loads(line) for line in server.everything if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def test_a_slow_push_is_logged_with_its_id_and_a_fetch_that_waits_is_not() -> None:
    with (
        rig.store("valkey") as store,
        rig.server("--log-format", "json", PRESQUE_REDIS__UNIX=store.socket) as server,
    ):
        server.ask("GET", "/q/none?wait=1.2", None, 30, X_Request_Id="waits")

        def slow() -> list[Any]:
            with store.client() as client:
                client.execute_command("CLIENT", "PAUSE", "1500", "ALL")
            server.ask("POST", "/q/mail", "1", 30, X_Request_Id="order-17")  # which may come too late for it
            return lines_of(server, "request.slow")

        lines = rig.eventually(slow)

    assert "waits" not in [line["request"] for line in lines]
    line = lines[-1]
    assert (line["verb"], line["request"], line["count"]) == ("push", "order-17", 1)
    assert line["seconds"] >= 1


def test_an_answer_that_is_our_fault_has_an_id_that_stands_in_the_log() -> None:
    with (
        rig.store("valkey") as store,
        rig.server("--log-format", "json", PRESQUE_REDIS__UNIX=store.socket) as server,
    ):
        store.process.send_signal(signal.SIGKILL)
        made = rig.eventually(
            lambda: (answer := server.ask("GET", "/status/", None, 30)).status == 503 and answer
        ).headers["x-request-id"]

        [line] = rig.eventually(lambda: lines_of(server, "request.failed"))

    assert line["request"] == made
    assert line["code"] == "store-unavailable"


def test_a_json_log_holds_nothing_but_json_whatever_goes_wrong() -> None:
    """A warning, an error of a thread, one that Python can only ignore, one that nobody catches."""
    program = """
import threading, warnings
from presque import log
log.configure("json")
log.catch_all()
warnings.warn("watch out")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
class Bad:
    def __del__(self):
        raise ValueError("in the end")
Bad()
raise RuntimeError("nobody caught this")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == [
        "log",
        "thread.broken",
        "process.error_ignored",
        "process.broken",
    ]
    assert "watch out" in lines[0]["message"]
    assert "ZeroDivisionError" in lines[1]["traceback"]
    assert lines[3]["error"] == "RuntimeError('nobody caught this')"
    assert done.returncode == 1


def test_a_start_that_fails_is_an_event_of_a_json_log(server: rig.Server) -> None:
    command = [
        sys.executable,
        "-m",
        "presque",
        "serve",
        "--memory",
        "--port",
        str(server.port),
        "--log-format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout, line["event"], line["level"]) == (
        1,
        "",
        "server.not_started",
        "critical",
    )
    assert "address already in use" in line["reason"]
