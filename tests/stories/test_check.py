"""What a monitoring system is told, and what a bench measures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from presque import Client
from presque.cli.bench import Measured, histogram
from tests import rig
from tests.stories.test_cli import run


@pytest.fixture(scope="module")
def at() -> Iterator[dict[str, str]]:
    """A server with a few queues."""
    with rig.server("--memory") as server, Client(server.url) as client:
        client.push_many("mail", range(5))
        client.push_many("film", range(2))
        [job] = client.lease("film")
        client.fail(job, "no", retry=False)
        report = json.dumps({"queues": ["mail"], "state": "idle"})
        server.ask("PUT", "/w/", report, X_presque_workerid="w1")
        yield {"PRESQUE_URL": server.url}


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ("", 0, "OK - 2 queues, 6 ready jobs"),
        ("mail --ready 5,10", 0, "OK - 1 queue, 5 ready jobs"),
        ("mail --ready 4,10", 1, "WARNING - mail has 5 ready jobs | 'mail ready'=5;4;10;0 "),
        ("mail --ready 1,4", 2, "CRITICAL - mail has 5 ready jobs | 'mail ready'=5;1;4;0 "),
        ("mail --ready ,4", 2, "CRITICAL - mail has 5 ready jobs | 'mail ready'=5;;4;0 "),
        ("--dead 0", 1, "WARNING - film has 1 dead job | 'film dead'=1;0;;0 "),
        ("--dead 0 --ready 0,3", 2, "CRITICAL - mail has 5 ready jobs; film has 1"),
        ("m* --oldest 0ms,1d", 1, "WARNING - the oldest job of mail is ready for "),
        ("mail --oldest 5m,1h", 0, "OK - "),
        ("--silent 5", 0, "OK - 2 queues, 6 ready jobs"),
        ("nowhere", 3, "UNKNOWN - there is no queue `nowhere`"),
        ("nowhere*", 0, "OK - 0 queues, 0 ready jobs"),
        ("--ready 5x", 3, "UNKNOWN - invalid value for '--ready': should be WARN,CRIT, each a whole number"),
        ("--ready 10,5", 3, "UNKNOWN - invalid value for '--ready': WARN should come before CRIT"),
        ("--disk 5GiB,20GiB", 3, "UNKNOWN - invalid value for '--disk': WARN should come before CRIT"),
        ("--ready ,", 3, "UNKNOWN - invalid value for '--ready': has neither WARN nor CRIT"),
        ("--redy 5", 3, "UNKNOWN - unknown option `--redy`, did you mean `--ready`?"),
        ("a|b", 3, "UNKNOWN - "),
        ("--url http://127.0.0.1:1", 2, "CRITICAL - no server at http://127.0.0.1:1: Connection refused"),
        ("--url ftp://x", 3, "UNKNOWN - `ftp://x` is not a server URL"),
        ("--context nowhere", 3, "UNKNOWN - there is no context `nowhere`"),
        ("--disk 1GiB", 3, "UNKNOWN - the server does not know how much disk its store has"),
    ],
)
def test_a_check_answers_in_one_line_and_with_its_code(
    options: str, code: int, text: str, at: dict[str, str]
) -> None:
    said = run("check", *options.split(), **at)
    assert (said.returncode, said.stdout.count("\n")) == (code, 1)
    assert said.stdout.startswith(f"PRESQUE {text}")
    assert said.stdout.count("|") <= 1
    assert said.stderr == ""


def test_an_ok_says_what_no_threshold_looks_at() -> None:
    with rig.server("--memory", "--test-clock") as server, Client(server.url) as client:
        here = {"PRESQUE_URL": server.url}
        client.push("mail", 1)
        client.push("film", 1)
        client.stop("film")
        client.move_clock(60)
        said = run("check", **here).stdout
        assert said.startswith(
            "PRESQUE OK - 2 queues, 2 ready jobs; film: stopped; mail: no worker; no thresholds given | "
        )
        said = run("check", "mail", "--ready", "10", **here).stdout
        assert said.startswith("PRESQUE OK - 1 queue, 1 ready job; mail: no worker | 'mail ready'=1;10;;0 ")
        for number in range(4):
            client.push(f"q{number}", 1)
        client.move_clock(120)
        assert "q0: no worker; 3 more in trouble; no thresholds" in run("check", **here).stdout
        client.fetch("mail")
        assert run("check", "mail", **here).stdout.startswith(
            "PRESQUE OK - 1 queue, 0 ready jobs; no thresholds given | "
        )


def test_the_numbers_are_as_the_guidelines_want_them(at: dict[str, str]) -> None:
    said = run("check", "mail", "--ready", "100", "--silent", "0,5", **at).stdout
    one = r"('[^'=]+'|[a-z_]+)=[0-9.]+(s|B)?;[0-9.:]*;[0-9.:]*;0"
    assert re.fullmatch(rf"{one}( {one})*\n", said.partition(" | ")[2]), said
    assert re.search("silent_workers=[01];0;5;0", said)  # after 20 s the worker is silent


def test_free_disk_and_a_full_one_are_told(tmp_path: Any) -> None:
    with rig.server("--data", str(tmp_path / "data")) as server:
        here = {"PRESQUE_URL": server.url}
        assert run("check", "--disk", "1,1", **here).returncode == 0
        low = run("check", "--disk", "900TiB", **here)
        assert (low.returncode, "of disk free | disk_free=" in low.stdout) == (1, True)
    with rig.server("--data", str(tmp_path / "data"), "--min-free-disk", "900TiB") as server:
        full = run("check", PRESQUE_URL=server.url)
        assert full.returncode == 2
        assert full.stdout.startswith("PRESQUE CRITICAL - pushes are refused: ")


def test_a_store_that_is_away_is_critical_and_a_wrong_token_unknown(tmp_path: Any) -> None:
    with rig.store("valkey") as store, rig.server("--redis", store.url) as server:
        store.process.kill()
        store.process.wait()
        said = run("check", PRESQUE_URL=server.url)
        assert (said.returncode, said.stdout[:19]) == (2, "PRESQUE CRITICAL - ")
    data = str(tmp_path / "data")
    run("token", "new", "me", "--allow", "*:*", "--data", data)
    with rig.server("--data", data) as server:
        said = run("check", PRESQUE_URL=server.url)
        assert (said.returncode, said.stdout[:18]) == (3, "PRESQUE UNKNOWN - ")


# --- bench


def bench_queues(at: dict[str, str]) -> list[str]:
    return [name for name in run("queues", "list", **at).stdout.split() if name.startswith("bench-")]


def test_a_bench_measures_and_leaves_nothing_behind(at: dict[str, str]) -> None:
    said = run("bench", "--jobs", "300", "--clients", "3", "--json", **at)
    assert said.returncode == 0, said.stderr
    found = {one["verb"]: one for one in json.loads(said.stdout)["measured"]}
    assert list(found) == ["push", "fetch", "lease+ack"]
    for one in found.values():
        assert one["jobs"] == 300
        assert sum(step["count"] for step in one["histogram"]) == 300
        assert 0 < one["ms"]["p50"] <= one["ms"]["p99"] <= one["ms"]["p99.9"] <= one["ms"]["most"]
    assert bench_queues(at) == []
    assert json.loads(run("stats", "mail", "--json", **at).stdout)["ready"] == 5


def test_a_bench_ends_in_time_and_when_it_is_told_to(at: dict[str, str]) -> None:
    said = run("bench", "--jobs", "1000000", "--seconds", "0.2", **at)
    assert said.returncode == 0
    assert "for each verb at most 1000000 jobs or 0.2 s" in said.stdout
    process = subprocess.Popen(
        [sys.executable, "-m", "presque", "bench", "--seconds", "60", "--jobs", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **at},
    )  # fmt: skip
    rig.eventually(lambda: bench_queues(at))
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.fullmatch(r"presque: stopped; the queue bench-\w+ is forgotten\n", told)
    assert bench_queues(at) == []


def test_a_server_that_goes_away_ends_a_bench(tmp_path: Any) -> None:
    with rig.server("--memory") as server:
        here = {**os.environ, "PRESQUE_URL": server.url}
        process = subprocess.Popen(
            [sys.executable, "-m", "presque", "bench", "--seconds", "60", "--jobs", "1000000"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=here,
        )  # fmt: skip
        rig.eventually(lambda: bench_queues({"PRESQUE_URL": server.url}))
        server.stop()
    _, told = process.communicate(timeout=60)
    assert process.returncode in (1, 3)
    assert "is still there: presque queues forget bench-" in told
    assert told.count("\n") == 1


def test_a_bench_that_may_not_push_says_that_nothing_was_pushed(tmp_path: Any) -> None:
    data = str(tmp_path / "data")
    token = run("token", "new", "me", "--allow", "read:*", "--data", data).stdout.strip()
    with rig.server("--data", data) as server:
        said = run("bench", PRESQUE_URL=server.url, PRESQUE_TOKEN=token)
    assert said.returncode == 4
    assert "does not allow `push:bench-" in said.stderr
    assert "; nothing was pushed; " in said.stderr


def test_a_histogram_holds_every_request_once() -> None:
    took = sorted([900_000, 1_000_000, 1_000_001, 3_000_000, 40_000_000])
    found = histogram(took)
    assert found == [(1.0, 2), (2.0, 1), (4.0, 1), (8.0, 0), (16.0, 0), (32.0, 0), (64.0, 1)]
    assert histogram([]) == []
    measured = Measured("push", took, 2.0, 0.5)
    assert (measured.at(0.5), measured.at(1), measured.rate) == (1.000001, 40.0, 2.5)
    assert Measured("push", [], 0.0, 0.0).at(0.5) == 0
