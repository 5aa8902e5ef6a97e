"""Every command that a document shows is run, and prints what the document says.

A block marked `console` is run: lines with `$ ` are commands, what follows them is their output, and `…`
stands for anything. Each document gets a server of its own; its address takes the place of port 5000. A
block that cannot be run says so in a comment above it: <!-- not run: reason -->.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import rig
from tests.docs import documents
from tests.docs.documents import Block, Command

COMMAND_WITHIN_S = 20


def to_run(document: Path) -> list[Block]:
    return [block for block in documents.blocks(document) if block.language == "console" and not block.reason]


@pytest.mark.parametrize(
    "document", [one for one in documents.with_examples() if to_run(one)], ids=documents.called
)
def test_every_example_prints_what_the_document_says(document: Path, tmp_path: Path) -> None:
    rig.require("curl")
    (tmp_path / ".curlrc").write_text("silent\nshow-error\n")  # as on a terminal: no progress
    wrong: list[str] = []
    with rig.server("--memory") as server:
        for command in [command for block in to_run(document) for command in block.commands()]:
            printed = run(command, server, tmp_path)
            expected = at(server, command.output).rstrip("\n")
            if not fits(printed, expected):
                wrong.append(f"line {command.line}: {command.text}\n--- says\n{expected}\n--- is\n{printed}")
    assert not wrong, f"in {documents.called(document)}\n" + "\n\n".join(wrong)


@pytest.mark.parametrize("document", documents.with_examples(), ids=documents.called)
def test_every_command_is_in_a_block_that_is_run_or_says_why_not(document: Path) -> None:
    for block in documents.blocks(document):
        if block.language in documents.SHELLS:
            assert block.language == "console" or block.reason, f"line {block.line}: neither run nor excused"
        else:
            typed = [line for line in block.lines if re.match(r"\s*(\$ |curl |presque (?!\S*:))", line)]
            assert typed == [], f"line {block.line}: mark the block as console"


def test_the_blocks_that_are_not_run_are_few_and_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    excused = [
        f"{documents.called(document)}:{block.line}: {block.reason}"
        for document in documents.with_examples()
        for block in documents.blocks(document)
        if block.reason
    ]
    with capsys.disabled():
        print(f"\n{len(excused)} blocks of the documents are not run:", *excused, sep="\n  ")  # noqa: T201
    ran = sum(len(to_run(document)) for document in documents.with_examples())
    assert len(excused) < ran


def run(command: Command, server: rig.Server, home: Path) -> str:
    """What one command prints, standard error included."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "HOME": str(home), "CURL_HOME": str(home), "PRESQUE_URL": server.url,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", at(server, command.text)],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )
    return done.stdout.decode().replace("\r\n", "\n").rstrip("\n")


def at(server: rig.Server, text: str) -> str:
    """The text with the address of the server that runs in place of the one that the documents name."""
    return re.sub(r"(localhost|127\.0\.0\.1):5000", f"127.0.0.1:{server.port}", text)


def fits(printed: str, expected: str) -> bool:
    """Whether the output is the expected one, in which `…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None
