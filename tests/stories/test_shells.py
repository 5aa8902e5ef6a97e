"""Manual pages and completion, with the programs that people use them with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from presque import Client
from presque.cli.main import presque
from presque.cli.man import commands, roff
from presque.exits import MEANINGS
from tests import rig
from tests.screens import Screen, screen
from tests.stories.test_cli import run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manual pages."""
    directory = tmp_path_factory.mktemp("man") / "man1"
    said = run("man", str(directory))
    count = len(list(directory.glob("*.1")))
    assert said.stdout == f"{count} pages in {directory}: man {directory}/presque.1\n"
    return directory


def test_every_command_has_a_page_that_names_all_its_options(pages: Path) -> None:
    found = list(commands(presque, click.Context(presque, info_name="presque")))
    assert {path.stem for path in pages.iterdir()} == {"-".join(names) for names, _, _ in found}
    for names, command, _ in found:
        text = (pages / f"{'-'.join(names)}.1").read_text()
        for param in command.params:
            if isinstance(param, click.Option):
                assert roff(param.opts[0]) in text


def test_man_shows_every_page_without_a_warning(pages: Path) -> None:
    rig.require("man")
    for path in sorted(pages.iterdir()):
        done = subprocess.run(
            ["man", "--warnings", "--encoding=UTF-8", "--local-file", str(path)],
            env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PAGER": "cat"},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), path.name
    push = subprocess.run(
        ["man", "--local-file", str(pages / "presque-push.1")],
        env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PAGER": "cat"},
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    for text in "presque-push - Put a job on a queue", "--jsonl", "EXIT STATUS", "PRESQUE_CONTEXT":
        assert text in push


def test_help_pages_and_guide_have_the_same_exit_codes(pages: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "command-line.md").read_text()
    listed = run("--help").stdout
    for code, means in MEANINGS:
        assert f"| {code} | {means} |" in guide.replace("`", "")
        assert f"\n  {code:<3}  {means}\n" in listed
        for path in pages.iterdir():
            text = path.read_text()
            assert path.stem == "presque-check" or f".B {code}\n{roff(means)}\n" in text


def test_pages_that_cannot_be_written_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = run("man", str(tmp_path / "file" / "x"))
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)


# --- completion


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server with queues, and a home in which `presque` is a command."""
    home = tmp_path_factory.mktemp("home")
    program = home / "bin" / "presque"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m presque "$@"\n')
    program.chmod(0o755)
    with rig.server("--memory") as server, Client(server.url) as client:
        client.push("mail-in", 1)
        client.push("mail-out", 1)
        client.push("unlike", 1)
        yield {
            "PRESQUE_URL": server.url, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local"), "HISTFILE": "", "LC_ALL": "C.UTF-8",
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip


SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), "source <(presque completion bash)"),
    "zsh": (("zsh", "-f", "-i"), "autoload -U compinit; compinit -u -D; source <(presque completion zsh)"),
    "fish": (("fish", "--no-config", "-i"), "presque completion fish | source"),
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, at: dict[str, str]) -> Iterator[Screen]:
    """A shell that has been told how to complete."""
    command, told = SHELLS[request.param]
    rig.require(command[0])
    with screen(command=command, columns=100, at=at) as found:
        # What shows that it is done stands on a line of its own: what was typed does not count.
        found.type(f"{told}; echo rea''dy\n")
        found.until(lambda text: "ready" in text.split())
        yield found


def test_a_shell_completes_commands_options_and_queues(shell: Screen) -> None:
    shell.type("presque comple\t")
    shell.shows("presque completion")
    shell.type("\x15presque stats --wat\t")
    shell.shows("presque stats --watch")
    shell.type("\x15presque stats unl\t")
    shell.shows("presque stats unlike")
    shell.type("\x15presque purge mail-\t\t")
    shell.shows("mail-in", "mail-out")
    shell.type("\x15\x15")
