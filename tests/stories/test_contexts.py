"""Named servers: which one a command talks to, and that their tokens stay where they belong."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.stories.test_cli import run

AWAY = "http://127.0.0.1:1"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody without contexts."""
    return {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "presque" / "contexts.json"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that wants a token, and the token."""
    data = str(tmp_path_factory.mktemp("guarded") / "data")
    token = run("token", "new", "me", "--allow", "*:*", "--data", data).stdout.strip()
    with rig.server("--data", data) as server:
        yield server, token


def test_a_context_brings_server_and_token(home: dict[str, str], guarded: tuple[rig.Server, str]) -> None:
    server, token = guarded
    made = run("context", "new", "work", server.url, "--token", "-", stdin=f"{token}\n", **home)
    assert (made.returncode, made.stdout) == (0, f"work is {server.url}, with a token\n")
    assert run("push", "mail", "1", "--context", "work", **home).returncode == 0
    assert run("push", "mail", "1", PRESQUE_CONTEXT="work", **home).returncode == 0
    assert run("push", "mail", "1", "--url", server.url, **home).returncode == 4
    assert run("context", "use", "work", **home).stdout == f"work is in use: {server.url}\n"
    assert run("push", "mail", "1", **home).returncode == 0
    assert "at " + server.url in run("doctor", **home).stdout
    assert run("context", "use", "--none", **home).stdout == "no context is in use\n"


def test_the_most_explicit_says_which_server(home: dict[str, str], server: rig.Server) -> None:
    run("context", "new", "away", AWAY, **home)
    run("context", "new", "here", server.url, "--use", **home)
    said = {
        "context": run("stats", **home),
        "url over context in use": run("stats", "--url", AWAY, **home),
        "variable over context in use": run("stats", PRESQUE_URL=AWAY, **home),
        "context over variables": run("stats", "--context", "here", PRESQUE_URL=AWAY, **home),
        "named context over url": run("stats", PRESQUE_CONTEXT="here", PRESQUE_URL=AWAY, **home),
        "url over named context": run("stats", "--url", AWAY, PRESQUE_CONTEXT="here", **home),
        "option over named context": run("stats", "--context", "away", PRESQUE_CONTEXT="here", **home),
    }
    assert {name: done.returncode for name, done in said.items()} == {
        "context": 0,
        "url over context in use": 3,
        "variable over context in use": 3,
        "context over variables": 0,
        "named context over url": 0,
        "url over named context": 3,
        "option over named context": 3,
    }


def test_a_token_goes_to_no_other_server(home: dict[str, str], guarded: tuple[rig.Server, str]) -> None:
    server, token = guarded
    run("context", "new", "work", server.url, "--token", token, "--use", **home)
    run("context", "new", "bare", server.url, **home)
    assert run("stats", "--url", server.url, **home).returncode == 4
    assert run("stats", PRESQUE_URL=server.url, **home).returncode == 4
    assert run("stats", "--context", "bare", **home).returncode == 4
    assert run("stats", "--context", "bare", PRESQUE_TOKEN=token, **home).returncode == 0
    assert run("stats", "--context", "work", PRESQUE_TOKEN="wrong", **home).returncode == 0
    assert run("stats", "--context", "work", "--token", "wrong", **home).returncode == 4


def test_a_token_is_never_shown_and_no_other_can_read_it(home: dict[str, str], file: Path) -> None:
    secret = "p_secret-of-mine"
    shown = [
        run("context", "new", "work", AWAY, "--token", secret, **home),
        run("context", "new", "work", AWAY, "--token", secret, **home),
        run("context", "list", **home),
        run("context", "list", "--json", **home),
        run("context", "use", "work", **home),
        run("stats", **home),
        run("doctor", **home),
        run("context", "remove", "worl", **home),
        run("context", "new", "wrong", AWAY, "--token", "a b", **home),
        run("context", "new", "empty", AWAY, "--token", "-", **home),
    ]
    assert [one.returncode for one in shown] == [0, 6, 0, 0, 0, 3, 1, 5, 2, 2]
    assert shown[7].stderr == "presque: there is no context `worl`, did you mean `work`?\n"
    assert not any(secret in one.stdout + one.stderr for one in shown)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o640)
    said = run("stats", **home)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"presque: others may read {file}, which may hold tokens: chmod 600 {file}\n"


WRONG = '{"a": {"url": "x", "token": null}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 1, "contexts": {"a": {"url": "x", "token": null}}, "used": null}',
        "[" * 9999,
    ],
)
def test_a_broken_file_is_a_sentence(text: str, home: dict[str, str], file: Path) -> None:
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(0o600)
    said = run("context", "list", **home)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "is not what presque wrote: fix it, or remove it" in said.stderr
    assert run("stats", "--url", AWAY, **home).returncode == 3  # who names a URL needs no contexts
    assert file.read_text() == text


def test_of_several_that_write_at_once_none_is_lost(home: dict[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: run("context", "new", f"c{n}", AWAY, **home), range(8)))
    said = json.loads(run("context", "list", "--json", **home).stdout)
    assert [one["name"] for one in said] == [f"c{n}" for n in range(8)]


def test_a_mistake_is_a_sentence(home: dict[str, str]) -> None:
    both = run("stats", "--url", AWAY, "--context", "x", **home)
    assert (both.returncode, both.stderr) == (
        2, "presque: --url and --context contradict each other: use one of them\n",
    )  # fmt: skip
    none = run("stats", "--context", "x", **home)
    assert (none.returncode, none.stderr) == (
        5, "presque: there is no context `x`: make it with `presque context new`\n",
    )  # fmt: skip
    assert run("context", "new", "a b", AWAY, **home).returncode == 2
    assert run("context", "new", "a", "ftp://x", **home).returncode == 2
    assert run("context", "use", **home).returncode == 2


def test_queues_of_the_chosen_server_are_completed(
    home: dict[str, str], server: rig.Server, queue_name: str
) -> None:
    run("context", "new", "here", server.url, **home)
    with Client(server.url) as client:
        client.push(queue_name, 1)

    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "PATH": "/usr/bin"}
        done = subprocess.run(
            [sys.executable, "-m", "presque"], env={**words, **home, "_PRESQUE_COMPLETE": "bash_complete"},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return [one.partition(",")[2] for one in done.stdout.split()]

    assert completed("presque stats --context h") == ["here"]
    assert completed(f"presque stats --context here {queue_name[:-1]}") == [queue_name]
    assert completed(f"presque stats --url {server.url} {queue_name[:-1]}") == [queue_name]
