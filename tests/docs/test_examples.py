"""Every command that a document shows is run, and prints what the document says.

A block marked `console` is run: lines with `$ ` are commands, what follows them is their output, and `…`
stands for anything. Each document gets a server of its own; its address takes the place of port 5000, and that of one with
a test clock of port 5001. A block that cannot be run says so in a comment above it: <!-- not run: reason -->.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import rig
from tests.docs import documents
from tests.docs.documents import Block, Command

COMMAND_WITHIN_S = 60


def to_run(document: Path) -> list[Block]:
    return [block for block in documents.blocks(document) if block.language == "console" and not block.reason]


@pytest.mark.parametrize(
    "document", [one for one in documents.with_examples() if to_run(one)], ids=documents.called
)
def test_every_example_prints_what_the_document_says(document: Path, tmp_path: Path) -> None:
    rig.require("curl")
    (tmp_path / ".curlrc").write_text("silent\nshow-error\n")  # as on a terminal: no progress
    wrong: list[str] = []
    with contextlib.ExitStack() as until_end:
        servers = {5000: until_end.enter_context(rig.server("--memory"))}
        if "localhost:5001" in document.read_text("utf-8"):
            servers[5001] = until_end.enter_context(rig.server("--memory", "--test-clock"))
        for command in [command for block in to_run(document) for command in block.commands()]:
            printed = run(command, servers, tmp_path)
            expected = at(servers, command.output).rstrip("\n")
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


def run(command: Command, servers: Mapping[int, rig.Server], home: Path) -> str:
    """What one command prints, standard error included."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ, "PATH": path, "HOME": str(home), "CURL_HOME": str(home), "PRESQUE_URL": servers[5000].url,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", at(servers, command.text)],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )
    return done.stdout.decode().replace("\r\n", "\n").rstrip("\n")


def at(servers: Mapping[int, rig.Server], text: str) -> str:
    """The text with the addresses of the servers that run in place of those that the documents name."""
    for port, server in servers.items():
        text = re.sub(rf"(localhost|127\.0\.0\.1):{port}", f"127.0.0.1:{server.port}", text)
    return text


def fits(printed: str, expected: str) -> bool:
    """Whether the output is the expected one, in which `…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None
