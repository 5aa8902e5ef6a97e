"""export and import on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from presque import Client
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
        assert "the input does not end as an export does" in begun.stderr
        again = run("import", str(file), "--name", queue_name, **at)
        assert again.stdout == "2000 jobs imported\n"
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
    assert said.returncode == 1
    assert "line 4: `-x` is not a valid queue name" in said.stderr
    assert "0 jobs of the input are stored; call it again with --name " in said.stderr
    assert run("import", stdin=lines, **at).stdout == "3 jobs imported\n"
    with Client(server.url) as client:
        assert bodies(client, queue_name) == [0, 1, 2]


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
