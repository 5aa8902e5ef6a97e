"""What output looks like: tables, colours, and text of strangers made safe for a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence

import click


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    """Rows in columns, those in `right` aligned to the right. Without rows, the header alone."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def coloured(text: str, colour: str) -> str:
    """`text` in `colour` on a terminal, unless NO_COLOR asks for none."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, fg=colour)


def print_job(text: str) -> None:
    """A job's text and a line end; byte for byte, unless a terminal would take a part as a command.

    JSON may hold raw control characters beyond ASCII only inside strings, where an escape says the same.
    """
    if sys.stdout.isatty() and not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()


def one_line(text: str) -> str:
    """A JSON text without its line ends, which stand between its parts and never within."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
