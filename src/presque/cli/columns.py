"""Columns of text within a width: how wide a text is on a terminal, how a table gives way."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Collection, Sequence

NARROWEST = 20  # a terminal that claims less is taken for one of this width
ELASTIC_LEAST = 8
NAME_LEAST = 14
"""The same for the first column, which names the row."""
GAP = 2


def terminal_width() -> int:
    """The columns of the terminal, or what COLUMNS says."""
    return max(shutil.get_terminal_size().columns, NARROWEST)


def width_of(text: str) -> int:
    """How many columns a printable text takes on a terminal: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text in at most this many columns; `…` stands for what is missing."""
    if width_of(text) <= width:
        return text
    if width < 1:
        return ""
    kept, used = "", 0
    for char in text:
        used += _columns(char)
        if used > width - 1:
            break
        kept += char
    return f"{kept}…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly this many columns."""
    text = cut(text, width)
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def wrapped(parts: Sequence[str], width: int, between: str = " ") -> list[str]:
    """The parts on as many lines as they need, each as full as may be; a part that is too wide is split."""
    lines = [""]
    for rest in parts:
        part = rest
        while width_of(part) > width:
            head = cut(f"{part} ", width + 1).removesuffix("…") or part[0]
            lines.append(head)
            part = part[len(head) :]
        joined = f"{lines[-1]}{between}{part}" if lines[-1] else part
        if width_of(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return [line for line in lines if line] or [""]


def fitted(
    lines: Sequence[Sequence[str]],
    width: int | None,
    right: Collection[int],
    elastic: Collection[int],
    first_to_go: Sequence[int],
) -> tuple[list[str], list[str]]:
    """The lines of a table, and the headings of the columns that there was no room for."""
    natural = [max(width_of(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = [i for i in range(len(natural)) if natural[i]] or [0]
    going = [i for i in first_to_go if i in shown]
    left_out = []
    widths = _shared(natural, shown, width, elastic)
    while widths is None and going:
        shown.remove(going[0])
        left_out.append(lines[0][going.pop(0)])
        widths = _shared(natural, shown, width, elastic)
    if widths is None:  # what names the row gives way last
        widths = _shared(natural, shown, width, {*elastic, 0}) or {i: natural[i] for i in shown}
    said = []
    for line in lines:
        cells = (padded(line[i], widths[i], right=i in right) for i in shown)
        text = (" " * GAP).join(cells).rstrip()
        said.append(text if width is None else cut(text, width))
    return said, left_out


def _shared(
    natural: Sequence[int], shown: Sequence[int], width: int | None, elastic: Collection[int]
) -> dict[int, int] | None:
    """How wide each column may be, None if they do not fit. The widest elastic one gives way first."""
    widths = {i: natural[i] for i in shown}
    if width is None:
        return widths
    over = sum(widths.values()) + GAP * (len(shown) - 1) - width
    able = [i for i in shown if i in elastic]
    while over > 0:
        widest = max(able, key=lambda i: widths[i], default=None)
        if widest is None:
            return None
        if widths[widest] <= (ELASTIC_LEAST if widest else NAME_LEAST):
            able.remove(widest)
            continue
        widths[widest] -= 1
        over -= 1
    return widths
