"""The command line on jobs that are there, leases by hand, policies, recurring jobs, and what happens.

What goes right is shown in docs/guides/command-line.md, whose examples are run by a test of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from presque.cli.fields import options_of
from presque.cli.main import presque
from presque.verbs import VERBS
from tests import rig
from tests.stories.test_cli import on_terminal, run


@pytest.fixture
def at(server: rig.Server) -> dict[str, str]:
    """The environment in which commands find the server."""
    return {"PRESQUE_URL": server.url}


WRONG = {
    "retry q": "give ids, or --all for every dead job of the queue",
    "retry q 1 --all": "give ids, or --all for every dead job of the queue",
    "retry q 1 --rate 5": "--rate, --limit and the options that choose jobs go with --all",
    "move q other": "pass --state to say which jobs to move: scheduled, ready, leased, done, dead or any",
    "delete q": "give ids, or --state for all jobs in one state",
    "delete q 1 --state dead": "give ids, or --state for all jobs in one state",
    "delete q 1 --dry-run": "the options that choose jobs go with --state",
    "queues policy q lease": "`lease` should be name=value, as in lease=5m",
    "queues policy q leese=5": "unknown field `leese`, did you mean `lease`?",
    "queues policy q rate.cuont=5": "unknown field `rate.cuont`, did you mean `rate.count`?",
    "queues policy q rate=5": "`rate` has parts: set them one by one, as in rate.count=…",
    "queues policy q lease=0": "`lease` should be seconds from 1 to 43200, or a duration such as",
    "queues lsit": "unknown command `lsit`, did you mean `list`?",
    "push q 1 --uniq-until done": "--uniq-until goes with --uniq",
    "ack q 1 t --result {": "invalid value for '--result': should be a JSON document, not `{`",
    "fetch q --wait 61": "invalid value for '--wait': should be seconds from 0 to 60",
    "cron set c q { @daily": "BODY should be a JSON document",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_said_in_one_line_before_any_server_is_asked(line: str) -> None:
    said = run(*line.split(), PRESQUE_URL="http://127.0.0.1:1")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"presque: {WRONG[line]}")
    assert said.stderr.count("\n") == 1


def dead(at: dict[str, str], queue: str, count: int) -> None:
    """Push jobs and let them die."""
    run("push", queue, "--jsonl", stdin="".join(f'{{"n":{n}}}\n' for n in range(count)), **at)
    for line in run("lease", queue, "--count", str(count), **at).stdout.splitlines():
        job = json.loads(line)
        said = run("fail", queue, job["id"], job["lease"], "--dead", "--error", f"reason {job['id']}", **at)
        assert said.stdout == "dead\n"


def test_jobs_are_listed_searched_and_bounded(at: dict[str, str], queue_name: str) -> None:
    dead(at, queue_name, 3)
    run("push", queue_name, '{"n": 9, "bell": "\\u0007"}', "--delay", "1h", **at)

    everything = run("jobs", queue_name, "--json", **at).stdout.splitlines()
    assert [json.loads(line)["state"] for line in everything] == ["scheduled", "dead", "dead", "dead"]
    found = run("jobs", queue_name, "--grep", "reason 2", "--json", **at)
    assert [json.loads(line)["body"] for line in found.stdout.splitlines()] == [{"n": 1}]
    first = run("jobs", queue_name, "--state", "dead", "--limit", "1", **at)
    assert len(first.stdout.splitlines()) == 2
    assert first.stderr == "presque: the first 1 job; --limit shows more\n"
    nothing = run("jobs", queue_name, "--grep", "nowhere", **at)
    assert (nothing.returncode, nothing.stderr) == (7, "presque: no job\n")


def test_a_body_cannot_command_the_terminal(at: dict[str, str], queue_name: str) -> None:
    raw = '{"x":"\x9b2J","y":"\u2028"}'  # C1 control characters may stand raw in JSON
    assert run("push", queue_name, raw, **at).returncode == 0
    for command in ("jobs", queue_name), ("job", queue_name, "1"):
        _, screen = on_terminal(*command, **at)
        assert "\x9b" not in screen
        assert "\u2028" not in screen


def test_the_first_refusal_ends_it_and_says_how_far_it_came(at: dict[str, str], queue_name: str) -> None:
    dead(at, queue_name, 2)
    said = run("delete", queue_name, "1", "77", "2", **at)
    assert said.returncode == 5
    assert said.stderr.endswith("; 1 job deleted before job 77\n")
    assert len(run("jobs", queue_name, **at).stdout.splitlines()) == 2


def test_deleting_many_asks_on_a_terminal_and_needs_yes_elsewhere(
    at: dict[str, str], queue_name: str
) -> None:
    dead(at, queue_name, 2)
    delete = ("delete", queue_name, "--state", "dead")
    assert run(*delete, "--dry-run", **at).stdout == "2 jobs would be deleted\n"
    assert run(*delete, **at).returncode == 2
    assert on_terminal(*delete, typed="n\n", **at)[0] == 1
    code, screen = on_terminal(*delete, typed="y\n", **at)
    assert (code, "2 jobs deleted" in screen) == (0, True)
    assert run(*delete, "--yes", **at).stdout == "0 jobs deleted\n"


def test_a_lease_that_is_gone_is_told_by_the_exit_code(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, "1", **at)
    job = json.loads(run("lease", queue_name, "--worker", "me", **at).stdout)
    assert run("ack", queue_name, job["id"], "1-0000000000000000", **at).returncode == 6
    assert run("release", queue_name, job["id"], job["lease"], **at).stdout == "ready\n"
    again = json.loads(run("lease", queue_name, **at).stdout)
    assert again["attempt"] == 1
    assert run("ack", queue_name, job["id"], again["lease"], **at).stdout == "done\n"
    assert run("ack", queue_name, job["id"], "1-0000000000000000", **at).returncode == 5
    assert run("job", queue_name, "99", **at).returncode == 5
    assert run("lease", queue_name, **at).returncode == 7


def test_a_job_is_failed_by_hand_without_saying_why(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, "1", **at)
    held = json.loads(run("lease", queue_name, **at).stdout)
    said = run("fail", queue_name, held["id"], held["lease"], "--dead", "--json", **at)
    assert json.loads(said.stdout)["state"] == "dead"
    assert "failed by hand" in run("jobs", queue_name, **at).stdout


def test_waiting_for_a_job_tells_how_it_ended(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, "1", "--keep", "1m", **at)
    assert run("job", queue_name, "1", "--wait", "0.01", **at).returncode == 1
    job = json.loads(run("lease", queue_name, **at).stdout)
    run("ack", queue_name, "1", job["lease"], **at)
    assert run("job", queue_name, "1", "--wait", "5", **at).returncode == 0


def test_a_push_says_all_that_the_route_takes() -> None:
    """And so it stays: a new field of the verb is an option, or this fails."""
    command = presque.get_command(None, "push")  # type: ignore[arg-type]
    assert command is not None
    options = {one.name for one in command.params}
    assert set(VERBS["push"].fields) - options == {"job"}


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        *((name, name) for name in ("lease", "ack", "fail", "release", "extend")),
        *((name, name) for name in ("job", "change", "link", "audit")),
        ("jobs", "search"), ("export", "export"), ("delete", "new_task"),
    ],
)  # fmt: skip
def test_a_command_of_a_verb_has_an_option_for_each_of_its_fields(name: str, verb: str) -> None:
    command = presque.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    options = {one.name for one in command.params}
    # The token stands on the line; --dead is `retry: false`; attempt_id and settle are for programs; pages
    # are read one after the other.
    otherwise = {"lease", "retry", "attempt_id", "settle", "cursor", "act", "to"}
    otherwise |= {"queues"} if "queue" in options else set()
    assert set(VERBS[verb].fields) - options <= otherwise


def test_an_option_reads_as_its_route_does() -> None:
    @options_of("push", "ttl")
    def command() -> None:
        """Nothing."""

    [option] = command.__click_params__  # type: ignore[attr-defined]
    assert option.type.convert("1h30m", option, None) == 5400


# --- what happens


def tailing(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "presque", "tail", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environ},
    )  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_tail_ends_when_nobody_reads_it_any_more(flags: tuple[str, ...]) -> None:
    with rig.server("--memory") as server:
        tail = tailing("--jobs", *flags, PRESQUE_URL=server.url)
        assert tail.stdout is not None
        assert tail.stderr is not None
        try:
            server.ask("POST", "/q/mail", "1")
            tail.stdout.readline()
            tail.stdout.close()
            until = time.monotonic() + rig.PATIENCE
            while tail.poll() is None and time.monotonic() < until:
                server.ask("POST", "/q/mail", "1")
                time.sleep(0.1)
            assert (tail.wait(rig.PATIENCE), tail.stderr.read()) == (141, "")
        finally:
            tail.kill()
            tail.wait()
            tail.stderr.close()


def test_tail_tells_what_happens_and_goes_on_after_the_server_was_away(tmp_path: Any) -> None:
    data = ("--data", str(tmp_path / "data"))
    with rig.server(*data) as server:
        port = str(server.port)
        server.ask("POST", "/q/mail", b"1")
        tail = tailing("--jobs", "--json", "mail", PRESQUE_URL=server.url)
        try:
            assert tail.stdout is not None
            assert tail.stderr is not None
            first = json.loads(tail.stdout.readline())
            assert (first["event"], first["queue"], first["ready"]) == ("queue", "mail", 1)
            server.ask("POST", "/q/other", b"1")
            server.ask("GET", "/q/mail")
            told = [json.loads(tail.stdout.readline()) for _ in range(2)]
            assert {(one["event"], one.get("what")) for one in told} == {("job", "fetched"), ("queue", None)}
            assert {one["queue"] for one in told} == {"mail"}
            server.stop()
            assert "trying again" in tail.stderr.readline()
            with rig.server(*data, "--port", port) as again:
                assert json.loads(tail.stdout.readline())["queue"] == "mail"
                assert again.ask("GET", "/livez").status == 200
        finally:
            tail.send_signal(signal.SIGINT)
            assert tail.wait(rig.PATIENCE) == 130
            tail.communicate()


def test_tail_says_what_is_wrong_and_does_not_try_for_ever(at: dict[str, str]) -> None:
    away = run("tail", PRESQUE_URL="http://127.0.0.1:1")
    assert (away.returncode, away.stderr.count("\n")) == (3, 1)
    assert away.stderr.startswith(
        "presque: no server at http://127.0.0.1:1: Connection refused; start one with"
    )
    exported = run("export", "mail", PRESQUE_URL="http://127.0.0.1:1")
    assert exported.stderr.startswith("presque: the server is away (Connection refused): 0 jobs written")
    assert run("tail", "a b", **at).returncode == 2


def test_a_shell_completes_commands_and_names_of_queues(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, "1", **at)

    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        asked = {**os.environ, **words, "_PRESQUE_COMPLETE": "bash_complete"}
        done = subprocess.run(
            [sys.executable, "-m", "presque"],
            env={**asked, **at}, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return [one.partition(",")[2] for one in done.stdout.split()]

    assert completed("presque que") == ["queues"]
    assert completed(f"presque stats {queue_name[:-1]}") == [queue_name]
    at["PRESQUE_URL"] = "http://127.0.0.1:1"
    assert completed("presque stats q") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_completes_is_printed_for_each_shell(shell: str) -> None:
    assert "_PRESQUE_COMPLETE" in run("completion", shell).stdout


def test_ctrl_c_says_how_far_a_long_push_came(at: dict[str, str], queue_name: str) -> None:
    push = subprocess.Popen(
        [sys.executable, "-m", "presque", "push", queue_name, "--jsonl"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **at},
    )  # fmt: skip
    assert push.stdin is not None
    assert push.stdout is not None
    push.stdin.write("1\n" * 501)
    push.stdin.flush()
    for _ in range(500):
        assert push.stdout.readline()
    push.send_signal(signal.SIGINT)
    _, said = push.communicate(timeout=30)
    assert push.returncode == 130
    assert "stopped in line 50" in said
    assert "500 jobs pushed for sure" in said


def test_a_worker_shows_its_host_its_memory_and_its_version(
    at: dict[str, str], queue_name: str, server: rig.Server
) -> None:
    report = {"queues": [queue_name], "host": "vm7", "memory": 96 * 2**20, "version": "1.2.3"}
    name = f"w-{queue_name}"
    server.ask("PUT", "/w/", json.dumps(report), X_presque_workerid=name)
    [line] = [line for line in run("workers", **at).stdout.splitlines() if name in line]
    assert line.split()[-4:] == ["vm7", "96", "MiB", "1.2.3"]
    server.ask("DELETE", "/w/", X_presque_workerid=name)


def test_a_worker_cannot_command_the_terminal(
    at: dict[str, str], queue_name: str, server: rig.Server
) -> None:
    evil = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202e\u2066"
    report = {"queues": [queue_name], "state": evil, "list": evil, "jobs": [{"queue": evil, "id": evil}]}
    report |= {"host": evil, "memory": evil, "version": [evil]}
    name = f"evil-{queue_name}"
    said = server.ask("PUT", "/w/", json.dumps(report), X_presque_workerid=name)
    assert said.status == 200
    for more in (), ("--json",):
        _, screen = on_terminal("workers", *more, **at)
        assert name in screen
        assert not set("\x1b\x07\x9b\u202e\u2066") & set(screen)
    server.ask("DELETE", "/w/", X_presque_workerid=name)


def test_a_job_that_cannot_be_written_is_not_lost(at: dict[str, str], queue_name: str) -> None:
    assert run("push", queue_name, '{"n": 1}', **at).returncode == 0
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "presque", "fetch", queue_name],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, **at},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        '{"n": 1}\n'
        "presque: cannot write to standard output (No space left on device): "
        "what could not be written is above\n"
    )


def test_a_slip_in_the_name_of_a_queue_is_noticed(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, "1", **at)
    slip = f"{queue_name[:-2]}{queue_name[-1]}{queue_name[-2]}x"
    said = run("stats", slip, **at)
    assert (said.returncode, said.stdout) == (5, "")
    assert said.stderr == f"presque: there is no queue `{slip}`, did you mean `{queue_name}`?\n"
    for command in ("stop",), ("start",), ("purge", "--yes"), ("queues", "forget", "--yes"):
        noted = run(*command, slip, **at)
        assert noted.returncode == 0
        assert f"there is no queue `{slip}`" in noted.stderr
        assert "there is no queue" not in run("stop", queue_name, **at).stderr


def test_a_job_that_waits_is_changed(at: dict[str, str], queue_name: str) -> None:
    run("push", queue_name, '{"to": "ana"}', **at)
    assert run("change", queue_name, "1", "--priority", "9", **at).stdout == (
        f"job 1 of {queue_name} is ready, priority 9\n"
    )
    later = run("change", queue_name, "1", '{"to": "bob"}', "--delay", "1h", **at).stdout
    assert later.startswith(f"job 1 of {queue_name} is scheduled, priority 9, ready at ")
    said = json.loads(run("change", queue_name, "1", "--delay", "0", "--json", **at).stdout)
    assert (said["state"], said["body"]) == ("ready", {"to": "bob"})
    assert run("change", queue_name, "1", **at).returncode == 2
    assert run("change", queue_name, "1", "{", **at).returncode == 2
    run("lease", queue_name, **at)
    assert run("change", queue_name, "1", "--priority", "1", **at).returncode == 6


def test_jobs_of_several_queues_are_listed_by_what_they_are_like(at: dict[str, str], queue_name: str) -> None:
    one, other = f"{queue_name}-a", f"{queue_name}-b"
    run("push", one, '"x"', "--priority", "9", "--group", "eu", **at)
    run("push", other, '"y"', **at)
    found = run("jobs", f"{queue_name}*", **at).stdout.splitlines()
    assert found[0].split() == ["queue", "id", "state", "attempt", "when", "job"]
    assert [line.split()[0] for line in found[1:]] == [one, other]
    assert run("jobs", one, **at).stdout.split()[0] == "id"
    for only in ("--priority", "9"), ("--group", "eu"), ("--text", '"x"'), ("--grep", "x"):
        lines = run("jobs", f"{queue_name}*", *only, "--json", **at).stdout.splitlines()
        assert [json.loads(line)["queue"] for line in lines] == [one], only
    assert run("jobs", f"{queue_name}*", "--older", "1h", **at).returncode == 7
