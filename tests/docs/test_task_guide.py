"""The guide to tasks: its programs run, and its tables leave nothing out."""

from __future__ import annotations

import re
from typing import Any

import pytest

from presque.tasks import options
from tests import rig
from tests.docs import documents

GUIDE = documents.ROOT / "docs" / "guides" / "tasks.md"


def test_its_programs_run(server: rig.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each with the names of those before it."""
    monkeypatch.setenv("PRESQUE_URL", server.url)
    names: dict[str, Any] = {"__name__": "guide"}
    programs = [block for block in documents.blocks(GUIDE) if block.language == "python"]
    assert len(programs) > 6
    for block in programs:
        lines = "\n" * block.line + "\n".join(block.lines)
        exec(compile(lines, str(GUIDE), "exec"), names)
    names["app"].client.purge("mail", forget=True)
    names["app"].client.close()


def test_it_has_every_option_and_no_other() -> None:
    rows = documents.rows(documents.section(GUIDE, "Options of a task"))
    written = {name for row in list(rows)[1:] for name in re.findall(r"\b[a-z_]+\b", row[0].partition("=")[0])}
    assert written == {*options.OF_A_PUSH, *options.OF_A_WORKER}
