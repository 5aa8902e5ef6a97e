"""The guide to testing: its programs are tests, and they pass."""

from __future__ import annotations

from pathlib import Path

from tests.docs import documents
from tests.stories.test_pytest_plugin import run

GUIDE = documents.ROOT / "docs" / "guides" / "testing.md"


def test_its_tests_pass(tmp_path: Path) -> None:
    programs = [block for block in documents.blocks(GUIDE) if block.language == "python"]
    text = "\n\n".join("\n".join(block.lines) for block in programs)
    said = run(tmp_path, text)
    assert f"{text.count('def test_')} passed" in said, said
