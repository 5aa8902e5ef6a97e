"""export and import on the command line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from presque.cli.lines import how_many
from tests import rig
from tests.stories.test_cli import run


@pytest.fixture
def at(server: rig.Server) -> dict[str, str]:
    """The environment in which commands find the server."""
    return {"PRESQUE_URL": server.url}


def export_to(target: Path | str, queue: str, at: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run presque export with standard output at a file."""
    with Path(target).open("wb") as file:
        return subprocess.run(
            [sys.executable, "-m", "presque", "export", queue],
            stdout=file, stderr=subprocess.PIPE, text=True, env={**os.environ, **at}, check=False,
        )  # fmt: skip


def bodies(client: Client, queue: str) -> list[Any]:
    found, cursor = [], None
    while True:
        page = client.search(queue, limit=500, cursor=cursor)
        found += [one["body"] for one in page["jobs"]]
        cursor = page["cursor"]
        if cursor is None:
            return sorted(found)


def test_what_was_exported_is_imported_once(
    server: rig.Server, at: dict[str, str], queue_name: str, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.jsonl"
    with Client(server.url) as client:
        for first in (0, 1000):
            client.push_many(queue_name, list(range(first, first + 1000)))
        said = export_to(file, queue_name, at)
        assert (said.returncode, said.stderr) == (0, "2000 jobs exported\n")
        lines = file.read_text().splitlines()
        client.purge(queue_name)

        cut = tmp_path / "cut.jsonl"  # an import of the first part, as if it had broken off
        cut.write_text("\n".join(lines[:1200]))
        begun = run("import", str(cut), "--name", "mine", **at)
        assert (begun.returncode, begun.stdout) == (2, "1200 jobs imported\n")
        client.purge(queue_name)
        assert run("import", str(file), "--name", "mine", **at).stdout.endswith(" imported\n")
        assert (
            run("import", str(file), "--name", "mine", **at).stdout
            == "0 jobs imported; 2000 jobs stored before\n"
        )
        assert bodies(client, queue_name) == list(range(2000))


def test_an_import_goes_on_from_standard_input(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    lines = "".join(json.dumps({"queue": queue_name, "body": n}) + "\n" for n in range(3))
    said = run("import", "-", stdin=lines + '{"queue":"-x","body":1}\n', **at)
    assert said.returncode == 2
    assert "line 4: `-x` is not a valid queue name" in said.stderr
    assert "0 jobs of the input stored; run it again with --name " in said.stderr
    assert run("import", stdin=lines + '{"cursor":null}\n', **at).stdout == "3 jobs imported\n"
    with Client(server.url) as client:
        assert bodies(client, queue_name) == [0, 1, 2]


def test_the_progress_of_an_export_knows_how_much_there_is(
    server: rig.Server, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(server.url) as client:
        client.push_many(queue_name, [1, 2, 3])
        client.push_many(f"{queue_name}-b", [1, 2], delay=3600)
    assert how_many(server.url, None, f"{queue_name}*", None) == 5
    assert how_many(server.url, None, f"{queue_name}*", "any") == 5
    assert how_many(server.url, None, f"{queue_name}*", "scheduled") == 2
    assert how_many("http://127.0.0.1:1", None, queue_name, None) is None
    monkeypatch.setattr("presque.cli.lines.COUNTED_WITHIN_S", 1e-9)
    assert how_many(server.url, None, f"{queue_name}*", None) is None  # counting would take too long


@pytest.mark.parametrize("cut", ["at a line", "in a line"])
def test_an_import_of_a_part_says_how_to_go_on_and_that_loses_nothing(
    cut: str, server: rig.Server, at: dict[str, str], queue_name: str, tmp_path: Path
) -> None:
    file, part = tmp_path / "jobs.jsonl", tmp_path / "part.jsonl"
    with Client(server.url) as client:
        client.push_many(queue_name, list(range(700)))
        export_to(file, queue_name, at)
        client.purge(queue_name)
        lines = file.read_text().splitlines(keepends=True)
        part.write_text("".join(lines[:600]) + (lines[600][:20] if cut == "in a line" else ""))
        said = run("import", str(part), "--json", **at)
        assert said.returncode == 2
        assert json.loads(said.stdout) == {"imported": 600, "known": 0, "whole": False}
        assert said.stderr == (
            "presque: the input is cut off: it does not end as an export does; its 600 lines are stored; the "
            "rest, from a whole copy: tail -n +601 COPY | presque import\n"
        )
        rest = run("import", stdin="".join(lines[600:]), **at)
        assert (rest.returncode, rest.stdout) == (0, "100 jobs imported\n")
        assert bodies(client, queue_name) == list(range(700))


def test_the_whole_of_an_import_that_was_cut_off_loses_nothing_under_the_same_name(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    lines = [json.dumps({"queue": queue_name, "body": n}) + "\n" for n in range(700)]
    run("import", "--name", queue_name, stdin="".join(lines[:600]), **at)
    whole = "".join(lines) + '{"cursor":null}\n'
    assert run("import", "--name", queue_name, stdin=whole, **at).returncode == 0
    with Client(server.url) as client:
        assert set(bodies(client, queue_name)) == set(range(700))


def test_a_refused_line_has_its_number_in_the_whole_input(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    line = json.dumps({"queue": queue_name, "body": 1}) + "\n"
    said = run("import", stdin=f"\n{line * 600}{line.replace('body', 'boby')}", **at)
    assert said.returncode == 2
    assert said.stderr.startswith("presque: line 602: unknown field `boby`, did you mean `body`?; nothing")
    assert "500 jobs of the input stored" in said.stderr


@pytest.mark.parametrize("command", ["import", "push q --jsonl"])
def test_a_compressed_input_is_refused_with_the_command_that_reads_it(
    command: str, at: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "jobs.gz"
    file.write_bytes(gzip.compress(b"1\n"))
    said = run(*command.split(), f"{'@' if 'push' in command else ''}{file}", **at)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"presque: the input is compressed: gzip -dc FILE | presque {command} (see")


def test_an_empty_input_is_no_export(at: dict[str, str]) -> None:
    said = run("import", stdin="", **at)
    assert (said.returncode, said.stderr) == (
        2, "presque: the input is empty: an export has one line at least\n"
    )  # fmt: skip


def test_an_input_that_is_cut_off_in_its_first_line_is_not_called_empty(at: dict[str, str]) -> None:
    said = run("import", stdin='{"queue":', **at)
    assert said.returncode == 2
    assert said.stderr.startswith("presque: the input is cut off: ")
    assert said.stderr.endswith(": tail -n +1 COPY | presque import\n")


def test_a_full_disk_ends_an_export_and_loses_no_job(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Client(server.url) as client:
        client.push_many(queue_name, [1, 2, 3])
        said = export_to("/dev/full", queue_name, at)
        assert said.returncode == 1
        assert "cannot write to standard output (No space left on device)" in said.stderr
        assert "0 jobs written for sure, and none was taken" in said.stderr
        assert bodies(client, queue_name) == [1, 2, 3]


def test_an_export_goes_on_when_the_server_comes_back(tmp_path: Path) -> None:
    data, port = str(tmp_path / "data"), str(rig.free_port())
    at = {"PRESQUE_URL": f"http://127.0.0.1:{port}"}
    with rig.server("--data", data, "--port", port) as server, Client(server.url) as client:
        client.push_many("q", list(range(10)))
    process = subprocess.Popen(
        [sys.executable, "-m", "presque", "export", "q"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **at},
    )  # fmt: skip
    with rig.server("--data", data, "--port", port):
        out, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "10 jobs exported\n")
    assert [json.loads(line)["body"] for line in out.splitlines() if '"body"' in line] == list(range(10))


def test_an_export_of_a_server_that_is_not_there_ends(queue_name: str) -> None:
    at = {"PRESQUE_URL": "http://127.0.0.1:1"}
    said = run("export", queue_name, **at)
    assert said.returncode == 3
    assert "the server is away" in said.stderr


def test_an_export_of_a_queue_that_there_is_not_says_so(server: rig.Server, queue_name: str) -> None:
    at = {"PRESQUE_URL": server.url}
    run("push", queue_name, "1", **at)
    said = run("export", f"{queue_name}s", **at)
    assert said.returncode == 0
    assert said.stderr == (
        f"presque: note: there is no queue `{queue_name}s`, did you mean `{queue_name}`?\n0 jobs exported\n"
    )
    assert run("export", f"{queue_name}s*", **at).stderr == "0 jobs exported\n"
    assert "no queue matches" in run("stats", "--queues", f"{queue_name}s*", **at).stdout
