"""The workers and producers in examples/, each in its language, against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque import Client
from tests import rig

EXAMPLES = Path(__file__).parents[2] / "examples" / "workers"
LINES_MOST = 40
COMMANDS = {
    "py": [sys.executable],
    "sh": ["sh"],
    "mjs": ["node"],
    "pl": ["perl"],
    "rb": ["ruby"],
    "go": ["go", "run"],
}
NEEDS = {"sh": ["curl", "jq"], "mjs": ["node"], "pl": ["perl"], "rb": ["ruby"], "go": ["go"]}

every_language = pytest.mark.parametrize("language", COMMANDS)


def command(kind: str, language: str) -> list[str]:
    """How to run an example. Without its language the test is skipped on a laptop and fails in CI."""
    for program in NEEDS.get(language, ()):
        rig.require(program)
    return [*COMMANDS[language], str(EXAMPLES / f"{kind}.{language}")]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to end after the test, with what they started."""
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(server: rig.Server) -> dict[str, str]:
    return {**os.environ, "PRESQUE_URL": server.url, "LC_ALL": "C.UTF-8"}


@every_language
def test_a_worker_leases_works_and_settles(
    server: rig.Server,
    queue_name: str,
    tmp_path: Path,
    started: list[subprocess.Popen[bytes]],
    language: str,
) -> None:
    said = tmp_path / "said"
    with Client(server.url) as client, said.open("wb") as output:
        client.change_policy(queue_name, max_attempts=1)
        client.push(queue_name, {"name": "ana"})
        client.push(queue_name, {"who": "nobody"})
        worker = [*command("worker", language), queue_name]
        started.append(
            subprocess.Popen(
                worker, env=environment(server), stdout=output, stderr=output, start_new_session=True
            )
        )
        rig.eventually(lambda: client.stats(queue_name)["dead"] == 1, 40)
        client.push(queue_name, {"name": 'zoë "z" $HOME'})
        rig.eventually(lambda: client.stats(queue_name)["processed"] == 2)
        job = client.job(queue_name, "2")
    hellos = [line for line in said.read_text().splitlines() if line.startswith("hello")]
    assert hellos == ["hello, ana", 'hello, zoë "z" $HOME']
    assert "a greeting needs a name" in job["errors"][0]["error"]


@every_language
def test_a_producer_pushes_what_it_is_told(server: rig.Server, queue_name: str, language: str) -> None:
    producer = [*command("producer", language), queue_name, "ana", 'zoë "z" $HOME']
    done = subprocess.run(
        producer, env=environment(server), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n2\n"), done.stderr
    with Client(server.url) as client:
        jobs = client.fetch_many(queue_name, 2)
        assert [json.loads(job) for job in jobs] == [
            {"name": "ana"},
            {"name": 'zoë "z" $HOME'},
        ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES_MOST
