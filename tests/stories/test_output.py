"""What commands print: tables in terminals of all widths, colours, standard output that takes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque import Client
from presque.cli import columns
from presque.cli.terminal import Bytes, Counter
from presque.quantities import MIB
from tests import rig
from tests.screens import screen
from tests.stories.test_cli import run

LONG = "a-queue-with-a-name-that-is-longer-than-most-and-goes-on-and-on"


@pytest.fixture(scope="module")
def at() -> Iterator[dict[str, str]]:
    """A server whose queues, jobs and workers have long names and bodies."""
    with rig.server("--memory") as server:
        found = {"PRESQUE_URL": server.url}
        for queue in LONG, "short":
            run("push", queue, json.dumps({"text": "名前 " * 60, "n": 1}), **found)
            run("push", queue, '{"n": 2}', "--delay", "1h", **found)
        run(
            "cron", "set", f"cron-{LONG}", LONG, "1", "0 9 * * mon-fri", "--timezone", "Europe/Paris", **found
        )
        run("retry", LONG, "--all", **found)
        with Client(server.url) as client:
            client.push("dying", 1, attempts=1)
            client.fail(client.lease("dying")[0], f"no such codec: {'名前 ' * 60}")
        report = {"queues": [LONG], "state": "works", "list": f"{LONG},short", "jobs": []}
        server.ask("PUT", "/w/", json.dumps(report), X_presque_workerid=f"worker-{LONG}")
        yield found


TABLES = (
    "stats", "stats short", "history", "history short", "failures", "queues policy short", "tasks list",
    "token list", "namespace list",
    f"jobs {LONG}", f"job {LONG} 1 --explain", "workers", "cron list", "config show", "doctor",
)  # fmt: skip


@pytest.mark.parametrize("wide", [40, 80, 200])
@pytest.mark.parametrize("command", TABLES)
def test_a_table_fits_the_terminal(command: str, wide: int, at: dict[str, str]) -> None:
    with screen(*command.split(), columns=wide + 60, lines=60, at={**at, "COLUMNS": str(wide)}) as shown:
        shown.ends()
        lines = [line for line in shown.scrolled if line]
    assert lines
    assert [line for line in lines if columns.width_of(line) > wide] == []


def test_a_narrow_table_says_what_it_leaves_out_and_a_pipe_gets_all(at: dict[str, str]) -> None:
    with screen("stats", columns=40, at=at) as shown:
        shown.ends()
        narrow = shown.text
    assert "short" in narrow
    assert "ready" in narrow
    assert "processed" not in narrow.split("not shown")[0]
    assert "not shown: expired, done" in narrow
    piped = run("stats", COLUMNS="40", **at).stdout
    assert LONG in piped
    assert "done/min" in piped
    assert "…" not in piped


def test_the_name_of_a_row_gives_way_last() -> None:
    lines = [["worker", "state", "queues"], ["worker-with-a-name", "idle", "some-queues"]]
    said, left_out = columns.fitted(lines, 26, (), (1, 2), (2,))
    assert (said[1], left_out) == ("worker-with-a-name  idle", ["queues"])
    said, left_out = columns.fitted(lines, 22, (), (1, 2), (2,))
    assert (said[1], left_out) == ("worker-with-a-…  idle", ["queues"])


def test_a_wide_character_takes_two_columns_and_an_accent_none() -> None:
    assert columns.width_of("名前") == 4
    assert columns.width_of("e\u0301a") == 2
    assert columns.cut("名前名前", 5) == "名前…"
    assert columns.cut("名前名前", 4) == "名…"
    assert columns.width_of(columns.padded("名前名前", 4)) == 4
    assert columns.cut("ab", 0) == ""


def test_words_are_wrapped_by_what_they_take_on_a_terminal() -> None:
    assert columns.wrapped(["名前", "名前", "x"], 6) == ["名前", "名前 x"]
    assert columns.wrapped(["abcdefgh", "x"], 3) == ["abc", "def", "gh", "x"]
    assert columns.wrapped(["abcd", "x"], 3) == ["abc", "d x"]
    assert columns.wrapped([], 3) == [""]


def test_colours_are_for_terminals_and_those_who_want_them(at: dict[str, str]) -> None:
    with screen("doctor", at=at) as shown:
        shown.ends()
        assert b"\x1b[32mok" in shown.written
    with screen("doctor", at={**at, "NO_COLOR": "1"}) as shown:
        shown.ends()
        assert b"\x1b[" not in shown.written
    assert "\x1b" not in run("doctor", **at).stdout


def test_stats_are_shown_anew_while_the_server_comes_and_goes(tmp_path: Path) -> None:
    data, port = str(tmp_path / "data"), str(rig.free_port())
    with screen("stats", "--watch", at={"PRESQUE_URL": f"http://127.0.0.1:{port}"}) as shown:
        assert shown.ends() == 3  # one that was never there is not waited for
    with rig.server("--data", data, "--port", port) as server:
        run("push", "mail", "1", PRESQUE_URL=server.url)
        with contextlib.ExitStack() as stack:
            shown = stack.enter_context(screen("stats", "--watch", at={"PRESQUE_URL": server.url}))
            shown.shows("mail")
            watching = stack.pop_all()
    with watching:
        shown.shows("trying again")
        with rig.server("--data", data, "--port", port):
            shown.until(lambda text: "mail" in text and "trying again" not in text)
            shown.type("\x03")
            assert shown.ends() == 130


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_jobs_and_failures_can_be_watched(at: dict[str, str], queue_name: str, columns: int) -> None:
    with (
        screen("jobs", queue_name, "--watch", columns=columns, at=at) as jobs,
        screen("failures", queue_name, "--watch", columns=columns, at=at) as failures,
    ):
        jobs.until(lambda text: text.startswith("no job"))
        failures.until(lambda text: text.startswith("no failures"))
        run("push", queue_name, "7", "--attempts", "1", **at)
        jobs.shows("ready")
        held = json.loads(run("lease", queue_name, **at).stdout)
        run("fail", queue_name, held["id"], held["lease"], "--error", "bad", **at)
        jobs.shows("dead")
        failures.shows("bad")
        for shown in (jobs, failures):
            shown.type("\x03")
            assert shown.ends() == 130


def test_a_look_at_more_jobs_than_are_shown_says_so(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, "--jsonl", stdin="1\n" * 1001, **at)
    said = run("peek", queue_name, **at)
    assert said.stdout.count("\n") == 1000
    assert said.stderr.startswith("presque: the next 1000 jobs; there may be others: presque jobs ")


# --- progress


def test_progress_has_a_bar_a_rate_and_the_time_left_when_it_is_known() -> None:
    assert Counter("pushed").line(1000, None, 2.0) == "1000 jobs pushed, 500 a second"
    known = Counter("deleted", of=4000)
    assert known.line(1000, 0.25, 2.0) == (
        "[####............]  25%  1000 of 4000 jobs deleted, 500 a second, 6.0s left"
    )


def test_progress_of_bytes_may_have_a_bar_that_is_an_estimate() -> None:
    known = Bytes("read", of=64 * MIB)
    assert known.line(16 * MIB, 0.25, 2.0) == (
        "[####............]  25%  16.0 MiB read, 8.0 MiB a second, 6.0s left"
    )
    known.add(80 * MIB)
    assert known.far() == "80.0 MiB of about 64.0 MiB read"
    assert Bytes("read", of=0).line(MIB, None, 2.0) == "1.0 MiB read, 0.5 MiB a second"


def test_a_long_push_of_a_file_shows_how_far_it_is(at: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    file.write_text('{"n": 1}\n' * 60_000)
    done = f"{sys.executable} -m presque push bulk --jsonl @{file} > /dev/null"
    with screen(done, command=("bash", "-c"), columns=100, at=at) as shown:
        assert shown.ends() == 0
        said = shown.written.decode()
    assert "60000 jobs pushed" in said
    assert "[" in said
    assert "a second" in said
    assert " left" in said


# --- standard output that takes nothing


def in_shell(line: str, at: dict[str, str]) -> subprocess.CompletedProcess[str]:
    presque = f"{sys.executable} -m presque"
    return subprocess.run(
        ["bash", "-c", line.replace("presque ", f"{presque} ")],
        env={**os.environ, **at}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["fetch", "fetch --json", "lease --count 5"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-", "| (exec <&-; sleep 3)", "| true"])
def test_a_job_that_cannot_be_printed_is_not_lost(
    command: str, where: str, at: dict[str, str], queue_name: str
) -> None:
    for n in range(3):
        run("push", queue_name, json.dumps({"n": n}), **at)
    verb, _, options = command.partition(" ")
    done = in_shell(f"set -o pipefail; presque {verb} {queue_name} {options} {where}", at)
    left = json.loads(run("stats", queue_name, "--json", **at).stdout)
    printed = done.stderr.count('{"n"')
    assert printed + left["ready"] == 3
    assert "Traceback" not in done.stderr
    if where == ">&-":
        assert "standard output is closed: no job was taken" in done.stderr
    if where != "| true":  # may have read it in time
        assert done.returncode != 0


def test_a_program_that_cannot_write_fails_its_job_which_comes_again(
    at: dict[str, str], queue_name: str
) -> None:
    for n in range(2):
        run("push", queue_name, str(n), **at)
    in_shell(f"presque work {queue_name} --exec cat --burst >/dev/full", at)
    left = json.loads(run("stats", queue_name, "--json", **at).stdout)
    assert (left["scheduled"] + left["ready"], left["failed"]) == (2, 2)


def test_a_tail_onto_a_full_disk_ends_and_says_why(at: dict[str, str], queue_name: str) -> None:
    pushing = f"(while presque push {queue_name} 1 >/dev/null; do :; done) & pushes=$!"
    done = in_shell(
        f"{pushing}; presque tail {queue_name} --jobs >/dev/full; code=$?; kill $pushes; exit $code", at
    )
    assert done.returncode == 1
    assert "presque: cannot write to standard output: No space left on device\n" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["stats", "stats --json", "queues list", "workers", "cron list", "config show", "doctor", "jobs short",
     "job short 1", "peek short", "push short 1", "token list", "completion bash"],
)  # fmt: skip
def test_a_full_disk_under_standard_output_is_said_in_one_line(command: str, at: dict[str, str]) -> None:
    done = in_shell(f"presque {command} >/dev/full", at)
    assert done.returncode == 1
    assert done.stderr == "presque: cannot write to standard output: No space left on device\n"
    assert "Traceback" not in in_shell(f"presque {command} >&-", at).stderr


def test_a_push_of_lines_that_cannot_print_ids_says_how_far_it_came(
    at: dict[str, str], queue_name: str
) -> None:
    done = in_shell(f"seq 1234 | presque push {queue_name} --jsonl >/dev/full", at)
    assert done.returncode == 1
    assert done.stderr == (
        "presque: cannot write to standard output (No space left on device), so it stopped; "
        f"500 jobs pushed before, up to line 500; the rest: tail -n +501 INPUT | presque push {queue_name} "
        "--jsonl\n"
    )
    rest = in_shell(f"seq 1234 | tail -n +501 | presque push {queue_name} --jsonl >/dev/null", at)
    assert rest.stderr == "734 jobs pushed\n"
    assert json.loads(run("stats", queue_name, "--json", **at).stdout)["ready"] == 1234
