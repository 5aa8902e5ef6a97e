"""Reads the documents: their fenced blocks, the commands in them, their tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = ("console", "sh", "bash", "shell")

_MARKER = re.compile(r"<!-- not run: (?P<reason>\S.*?) -->\s*\Z").match
_FENCE = re.compile(r"\s*```(?P<language>\w*)\s*\Z").match
_CELL = re.compile(r"(?<!\\)\|").split
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)").finditer


def all_documents() -> list[Path]:
    """Every document of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def with_examples() -> list[Path]:
    """The documents whose commands are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def called(document: Path) -> str:
    """A document's name for people."""
    return str(document.relative_to(ROOT))


@dataclass(frozen=True, slots=True)
class Command:
    """What a reader would type, and what the document says that they would see."""

    line: int
    text: str
    output: str


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `reason` says why it is not run, if a comment above it does."""

    line: int
    language: str
    lines: tuple[str, ...]
    reason: str | None

    def commands(self) -> list[Command]:
        """The commands of a console block: a line with `$ `, those with `> ` that continue it, its output."""
        found: list[Command] = []
        for number, line in enumerate(self.lines, self.line + 1):
            if line.startswith("$ "):
                found.append(Command(number, line[2:], ""))
                continue
            assert found, f"line {number}: a console block begins with a command, after `$ `"
            last = found[-1]
            if line.startswith("> ") and not last.output and last.text.endswith("\\"):
                found[-1] = Command(last.line, f"{last.text}\n{line[2:]}", "")
            else:
                found[-1] = Command(last.line, last.text, f"{last.output}{line}\n")
        return found


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document."""
    found: list[Block] = []
    language: str | None = None
    began, inside = 0, list[str]()
    reason: str | None = None
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        fence = _FENCE(line)
        if language is not None:
            if fence:
                found.append(Block(began, language, tuple(inside), reason))
                language, reason = None, None
            else:
                inside.append(line)
        elif fence:
            language, began, inside = fence["language"], number, []
        elif line.strip():
            marker = _MARKER(line.strip())
            reason = marker["reason"] if marker else None
    assert language is None, f"{called(document)}: the block in line {began} has no end"
    return found


def prose(document: Path) -> list[str]:
    """The lines of a document outside its fenced blocks."""
    found: list[str] = []
    fenced = False
    for line in document.read_text("utf-8").splitlines():
        if _FENCE(line):
            fenced = not fenced
        elif not fenced:
            found.append(line)
    return found


def headings(document: Path) -> list[str]:
    """The texts of the headings, without their marks."""
    return [line.lstrip("#").strip() for line in prose(document) if re.match(r"#{1,6} ", line)]


def section(document: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    parts = re.split(r"^#{1,6} +(.*)$", document.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table, without the marks of code."""
    for line in text.splitlines():
        if line.startswith("|") and not re.match(r"\|[\s:|-]+\Z", line):
            yield [cell.strip().strip("`").replace("\\|", "|") for cell in _CELL(line.strip())[1:-1]]


def links(document: Path) -> list[str]:
    """The targets of the links that stay inside the project."""
    targets = (match["target"] for line in prose(document) for match in _LINK(line))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchor(heading: str) -> str:
    """The name by which a heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
