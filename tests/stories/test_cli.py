"""The command line as a person or a script meets it: each test runs the real program."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from presque.cli.main import COMMANDS, presque
from tests import rig

Result = subprocess.CompletedProcess[str]


def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    """Run presque away from any terminal, with no settings but those in `environ`."""
    return subprocess.run(
        [sys.executable, "-m", "presque", *arguments],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=30,
        env={name: value for name, value in os.environ.items() if not name.startswith("PRESQUE_")} | environ,
    )


def on_terminal(*arguments: str, typed: str = "", **environ: str) -> tuple[int, str]:
    """Run presque on a terminal, type `typed` when it asks, and return exit code and screen."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "presque", *arguments]
    process = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", **environ},
    )
    os.close(follower)
    screen, deadline = b"", time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    part = os.read(leader, 4096)
                except OSError:  # Linux reports the end of a terminal as an error.
                    part = b""
                if not part:
                    break
                screen += part
                if typed and screen.rstrip().endswith(b"[y/N]:"):
                    os.write(leader, typed.encode())
                    typed = ""
        return process.wait(30), screen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(leader)


@pytest.fixture
def url(server: Any) -> str:
    """Where the server listens."""
    return str(server.url)


@pytest.fixture
def queue() -> str:
    """A name that no other test uses: the server may be shared."""
    return f"cli-{uuid4().hex[:8]}"


# --- without a server


def test_help_names_every_command_and_loads_none_of_them() -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "presque", "--help"], capture_output=True, text=True
    )
    assert all(f"\n  {name} " in said.stdout for name in COMMANDS)
    loaded = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert loaded.isdisjoint({"asyncio", "http.client", "msgspec", "ssl", "httptools", "uvloop", "yaml"})


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_each_command_says(name: str) -> None:
    command = presque.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert (command.name, command.get_short_help_str(100)) == (name, COMMANDS[name][1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("pusch q 1", "unknown command `pusch`, did you mean `push`? (see `presque --help`)"),
        ("frobnicate", "unknown command `frobnicate` (see `presque --help`)"),
        ("sta", "unknown command `sta`, did you mean `stats` or `start`? (see `presque --help`)"),
        ("serve --zzzz", "unknown option `--zzzz` (see `presque serve --help`)"),
        ("fetch q --wait", "`--wait` needs a value: --wait 5m (see `presque fetch --help`)"),
        ("config chek", "unknown command `chek`, did you mean `check`? (see `presque config --help`)"),
        ("serve --prot 1", "unknown option `--prot`, did you mean `--port`? (see `presque serve --help`)"),
        (
            "--url http://h stats",
            "`--url` goes after the command, as in `presque stats --url …` (see `presque --help`)",
        ),
        (
            "push q 1 --priority 10",
            (
                "invalid value for '--priority': should be a whole number from 1 to 9, not `10` "
                "(see `presque push --help`)"
            ),
        ),
        ("serve --port abc", "`--port` should be a whole number from 0 to 65535, not `abc`"),
        (
            "serve --memory --redis redis://h",
            "`--redis` and `--memory` contradict each other: presque uses one store, yours or its own",
        ),
        (
            "push q 1 --delay 5x",
            (
                "invalid value for '--delay': should be seconds from 0 to 315360000, or a duration such as "
                "90s or 1h30m, not `5x` (see `presque push --help`)"
            ),
        ),
        (
            "push q 1 --at 2026-01-01T00:00:00",
            (
                "invalid value for '--at': should end with Z or with an offset such as +02:00 "
                "(see `presque push --help`)"
            ),
        ),
        (
            "push q 1 --delay 5 --at 5",
            "--delay and --at contradict each other: use one of them (see `presque push --help`)",
        ),
        (
            "push q --jsonl --uniq k",
            "--uniq and --jsonl contradict each other: it is for one job (see `presque push --help`)",
        ),
        (
            "push q 1 --jsonl",
            (
                "--jsonl reads @FILE or standard input, not a job on the command line "
                "(see `presque push --help`)"
            ),
        ),
        ("push q", "there is no job in standard input (see `presque push --help`)"),
        ("push q @/no/file", "cannot read /no/file: No such file or directory (see `presque push --help`)"),
        (
            "fetch q --url ftp://h",
            "`ftp://h` is not a server URL: use http://host:port (see `presque fetch --help`)",
        ),
        (
            "purge q",
            ("not a terminal: pass --yes to delete all jobs of the queue (see `presque purge --help`)"),
        ),
    ],
)
def test_a_command_that_cannot_be_read_is_answered_in_one_line(arguments: str, sentence: str) -> None:
    said = run(*arguments.split())
    assert (said.returncode, said.stdout, said.stderr) == (2, "", f"presque: {sentence}\n")


def test_a_missing_body_is_asked_for_on_a_terminal() -> None:
    code, screen = on_terminal("push", "q")
    assert code == 2
    assert "BODY is missing: give a JSON document, @FILE, or - for standard input" in screen


def test_without_a_command_there_is_help_and_a_usage_error() -> None:
    said = run()
    assert said.returncode == 2
    assert "Commands:" in said.stderr


def test_no_server_is_exit_code_3() -> None:
    said = run("stats", "--url", "http://127.0.0.1:1")
    assert said.returncode == 3
    assert said.stderr == (
        "presque: no server at http://127.0.0.1:1: Connection refused; "
        "start one with `presque serve`, or pass --url\n"
    )


def test_config_show_says_where_every_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("port: 6000\nredis: {host: valkey, password: hunter2}\n")
    said = run("config", "show", "--config", str(file), PRESQUE_WORKERS="2")
    rows = [line.split() for line in said.stdout.splitlines()]
    assert ["port", "6000", f"{file}:1"] in rows
    assert ["workers", "2", "PRESQUE_WORKERS"] in rows
    assert ["redis.password", "***", f"{file}:2"] in rows
    assert ["max_body", "1MiB", "default"] in rows
    in_json = json.loads(run("config", "show", "--json", "--config", str(file)).stdout)
    assert in_json["port"] == {"value": 6000, "from": f"{file}:1"}
    assert in_json["redis.password"]["value"] == "***"
    assert "hunter2" not in said.stdout


def test_config_check_accepts_or_names_the_mistake(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("port: 6000\n")
    assert run("config", "check", "--config", str(file)).stdout == "the settings are valid\n"
    file.write_text("prot: 6000\n")
    said = run("config", "check", "--config", str(file))
    assert (said.returncode, said.stderr) == (
        2,
        f"presque: unknown setting `prot` in {file}:1, did you mean `port`?\n",
    )


def test_an_open_door_is_refused_as_a_wrong_setting() -> None:
    checked = run("config", "check", PRESQUE_HOST="0.0.0.0")
    assert (checked.returncode, checked.stdout) == (0, "the settings are valid\n")  # it asks no store
    assert "serve will not listen on 0.0.0.0 before there is an access token" in checked.stderr
    said = run("serve", "--memory", PRESQUE_HOST="0.0.0.0")
    assert (said.returncode, said.stdout) == (2, "")
    assert (
        "will not listen on 0.0.0.0: there is no access token yet"
        in json.loads(said.stderr.splitlines()[-1])["reason"]
    )
    assert "store.away" not in said.stderr
    assert run("config", "check", PRESQUE_HOST="0.0.0.0", PRESQUE_INSECURE="1").returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_is_run_that_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    for name in ("uvloop", "msgspec", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('somebody else was run')\n")
    monkeypatch.chdir(tmp_path)
    installed = ("-P", "-m", "presque")  # as the command `presque` does
    with rig.server("--memory", "--workers", workers, program=installed) as server:
        assert server.ask("GET", "/status/").status == 200


def test_an_address_that_cannot_be_had_is_answered_with_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = run("serve", "--memory", "--port", str(port), "--log-format", "plain")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == (
        f"presque: cannot listen on 127.0.0.1:{port}: address already in use; "
        "stop what uses it, or choose another with --port\n"
    )
    said = run(
        "serve", "--memory", "--port", "0", "--host", "192.0.2.1", "--insecure", "--log-format", "plain"
    )
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith("presque: cannot listen on 192.0.2.1:0: ")
    assert said.stderr.endswith("; correct --host\n")


def test_doctor_finds_what_is_wrong_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = run(
        "doctor",
        "--url",
        "http://127.0.0.1:1",
        "--json",
        PRESQUE_DATA=str(tmp_path / "file" / "x"),
        PRESQUE_VALKEY_BIN="/no",
    )
    found = {one["check"]: one for one in json.loads(said.stdout)}
    assert said.returncode == 1
    assert found["Python"]["result"] == "ok"
    assert found["valkey"]["result"] == "fail"
    assert found["data"] == {
        "check": "data",
        "result": "fail",
        "seen": f"{tmp_path / 'file' / 'x'} (will be made)",
        "todo": f"{tmp_path / 'file'} is not a directory",
    }
    assert found["server"]["result"] == "fail"


# --- with a server


def test_what_is_pushed_is_fetched_byte_for_byte(url: str, queue: str) -> None:
    pushed = run("push", queue, '{ "to": "Zoë", "n": 1.00 }', PRESQUE_URL=url)
    assert (pushed.returncode, pushed.stderr) == (0, "")
    assert pushed.stdout.strip()
    fetched = run("fetch", queue, "--url", url)
    assert (fetched.returncode, fetched.stdout) == (0, '{ "to": "Zoë", "n": 1.00 }\n')


def test_a_job_comes_from_a_file_or_a_pipe_without_the_last_line_end(
    url: str, queue: str, tmp_path: Path
) -> None:
    (tmp_path / "job.json").write_text('{"from":\n"file"}\n')
    run("push", queue, f"@{tmp_path / 'job.json'}", PRESQUE_URL=url)
    run("push", queue, "-", stdin='"dash"\n', PRESQUE_URL=url)
    run("push", queue, stdin='"pipe"\n', PRESQUE_URL=url)
    assert run("peek", queue, PRESQUE_URL=url).stdout == '{"from": "file"}\n"dash"\n"pipe"\n'
    peeked = run("peek", queue, "--json", PRESQUE_URL=url).stdout
    assert json.loads(peeked) == [{"from": "file"}, "dash", "pipe"]
    assert run("fetch", queue, PRESQUE_URL=url).stdout == '{"from":\n"file"}\n'


def test_json_output_is_one_object_a_line(url: str, queue: str) -> None:
    pushed = json.loads(run("push", queue, "[1,\n2.0]", "--json", PRESQUE_URL=url).stdout)
    assert pushed["queue"] == queue
    fetched = run("fetch", queue, "--json", PRESQUE_URL=url).stdout
    assert fetched == f'{{"queue":"{queue}","id":"{pushed["id"]}","job":[1, 2.0]}}\n'


def test_an_empty_queue_is_exit_code_7(url: str, queue: str) -> None:
    for command in (["fetch", queue], ["fetch", queue, "--wait", "100ms"], ["peek", queue]):
        said = run(*command, PRESQUE_URL=url)
        assert (said.returncode, said.stdout, said.stderr) == (7, "", "presque: no job\n")


def test_a_unique_key_that_is_taken_is_exit_code_6(url: str, queue: str) -> None:
    assert run("push", queue, "1", "--uniq", "k", PRESQUE_URL=url).returncode == 0
    said = run("push", queue, "2", "--uniq", "k", PRESQUE_URL=url)
    assert (said.returncode, said.stderr) == (6, "presque: job already exists\n")


def test_a_job_that_is_not_json_is_refused_by_the_server(url: str, queue: str) -> None:
    said = run("push", queue, "{", PRESQUE_URL=url)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("presque: ")
    assert said.stderr.count("\n") == 1


def test_delay_at_and_priority_reach_the_queue(url: str, queue: str) -> None:
    run("push", queue, '"later"', "--delay", "1h", PRESQUE_URL=url)
    run("push", queue, '"much later"', "--at", "2126-01-01T00:00:00+02:00", PRESQUE_URL=url)
    run("push", queue, '"low"', "--priority", "1", PRESQUE_URL=url)
    run("push", queue, '"high"', "--priority", "9", PRESQUE_URL=url)
    assert run("fetch", queue, PRESQUE_URL=url).stdout == '"high"\n'
    assert run("fetch", queue, PRESQUE_URL=url).stdout == '"low"\n'
    assert run("fetch", queue, PRESQUE_URL=url).returncode == 7
    assert json.loads(run("stats", queue, "--json", PRESQUE_URL=url).stdout)["scheduled"] == 2


def test_lines_are_pushed_in_order_and_counted(url: str, queue: str) -> None:
    lines = "".join(f'{{"n":{n}}}\n' for n in range(1234))
    said = run("push", queue, "--jsonl", stdin=lines + "\n", PRESQUE_URL=url)
    assert (said.returncode, said.stderr) == (0, "1234 jobs pushed\n")
    assert len(set(said.stdout.split())) == 1234
    assert run("fetch", queue, PRESQUE_URL=url).stdout == '{"n":0}\n'
    assert run("fetch", queue, PRESQUE_URL=url).stdout == '{"n":1}\n'


def test_the_first_bad_line_ends_it_after_those_before(url: str, queue: str) -> None:
    said = run("push", queue, "--jsonl", stdin='1\n\n{"n":2}\n1,2\n5\n', PRESQUE_URL=url)
    assert said.returncode == 2
    assert said.stderr == (
        "presque: line 4 is not a JSON document (extra data at column 2); "
        "2 jobs pushed, all before that line; correct it, then: "
        f"tail -n +4 INPUT | presque push {queue} --jsonl\n"
    )
    assert len(said.stdout.split()) == 2
    assert run("peek", queue, PRESQUE_URL=url).stdout == '1\n{"n":2}\n'


def test_a_push_of_lines_that_ends_early_says_what_was_typed_for_the_rest(
    url: str, queue: str, tmp_path: Path
) -> None:
    file = tmp_path / "many jobs"
    file.write_text('1\n{"n":')
    said = run("push", queue, f"@{file}", "--jsonl", "--priority", "9", PRESQUE_URL=url)
    assert (said.returncode, said.stdout) == (2, "1\n")
    assert said.stderr == (
        "presque: line 2 is not a JSON document (expecting value at column 6), and has no end: it may be cut "
        f"off; 1 job pushed, all before that line; correct it, then: tail -n +2 '{file}' | "
        f"presque push {queue} --jsonl --priority 9\n"
    )


def test_a_stopped_queue_hands_out_nothing_until_it_is_started(url: str, queue: str) -> None:
    run("push", queue, "1", PRESQUE_URL=url)
    assert run("stop", queue, PRESQUE_URL=url).returncode == 0
    said = run("fetch", queue, PRESQUE_URL=url)
    assert (said.returncode, said.stderr) == (7, "presque: queue is closed\n")
    assert f"{queue} " in run("stats", PRESQUE_URL=url).stdout
    assert "stopped" in run("stats", queue, PRESQUE_URL=url).stdout
    assert run("start", queue, PRESQUE_URL=url).returncode == 0
    assert run("fetch", queue, PRESQUE_URL=url).stdout == "1\n"


def test_stats_show_a_row_for_every_queue(url: str, queue: str) -> None:
    run("push", queue, "1", PRESQUE_URL=url)
    said = run("stats", PRESQUE_URL=url)
    [row] = [line.split() for line in said.stdout.splitlines() if line.startswith(queue)]
    assert row[:3] == [queue, "1", "0"]
    assert "store " in said.stdout
    assert "durability " in said.stdout
    assert queue in json.loads(run("stats", "--json", PRESQUE_URL=url).stdout)["queues"]


def test_purge_asks_on_a_terminal_and_obeys(url: str, queue: str) -> None:
    run("push", queue, "1", PRESQUE_URL=url)
    code, screen = on_terminal("purge", queue, "--url", url, typed="n\n")
    assert code == 1
    assert f"Delete all jobs of {queue}, 1 of them waiting, and its counters?" in screen
    assert run("peek", queue, PRESQUE_URL=url).stdout == "1\n"
    code, _ = on_terminal("purge", queue, "--url", url, typed="y\n")
    assert code == 0
    assert run("peek", queue, PRESQUE_URL=url).returncode == 7


def test_purge_takes_yes_for_an_answer(url: str, queue: str) -> None:
    run("push", queue, "1", PRESQUE_URL=url)
    said = run("purge", queue, "--yes", PRESQUE_URL=url)
    assert (said.returncode, said.stdout) == (0, f"{queue} is purged\n")


def test_a_terminal_never_sees_control_characters_of_a_job(url: str, queue: str) -> None:
    run("push", queue, stdin='"a\x9b31m\x7fb"', PRESQUE_URL=url)
    run("push", queue, stdin='"a\x9b31m\x7fb"', PRESQUE_URL=url)
    code, screen = on_terminal("fetch", queue, "--url", url)
    assert (code, screen.strip()) == (0, r'"a\u009b31m\u007fb"')
    assert run("fetch", queue, PRESQUE_URL=url).stdout == '"a\x9b31m\x7fb"\n'


def test_a_reader_who_leaves_is_no_error(url: str, queue: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "presque", "push", queue, "--jsonl", "--url", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.write("1\n2\n")
    process.stdin.close()
    assert process.wait(30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_doctor_reaches_the_server(url: str) -> None:
    said = run("doctor", "--url", url)
    assert f"at {url}" in said.stdout
    [row] = [line for line in said.stdout.splitlines() if "  server " in line]
    assert row.startswith("ok")
