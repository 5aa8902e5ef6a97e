"""What output looks like: tables, colours, progress, and text of strangers made safe for a terminal."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

import click

from presque.cli.columns import ELASTIC_LEAST, fitted, terminal_width, width_of, wrapped
from presque.cli.standard_output import SILENCED, silence
from presque.client.errors import ServerNotReached, Unavailable
from presque.client.json_values import encoded
from presque.exits import BROKEN_PIPE, FAILED, Failure
from presque.quantities import MIB, counted


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Collection[int] = (),
    *,
    elastic: Collection[int] = (),
    first_to_go: Sequence[int] = (),
) -> str:
    """Rows in columns, those in `right` aligned to the right. Without rows, the header alone.

    On a terminal no line is wider than it: the cells of `elastic` columns are cut with `…`, then the columns
    of `first_to_go` are left out in this order, and a line below names them. Elsewhere nothing is cut.
    Control sequences in a cell do not reach the terminal.
    """
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    width = terminal_width() if sys.stdout.isatty() else None
    said, left_out = fitted(lines, width, right, elastic, first_to_go)
    if left_out:
        more = f"not shown: {', '.join(left_out)} (in a wider terminal, or with --json)"
        said.extend(wrapped(more.split(), width) if width else [more])
    return "\n".join(said)


def coloured(text: str, colour: str) -> str:
    """`text` in `colour` on a terminal, unless NO_COLOR asks for none."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, fg=colour)


def look_before_taking() -> None:
    """Raises `Failure` if what is taken now could not be printed: then nothing is taken.

    A disk that is full cannot be seen beforehand: see `print_job`.
    """
    if sys.stdout.name == SILENCED:
        raise Failure("standard output is closed: no job was taken", FAILED)
    looked = select.poll()
    looked.register(sys.stdout, select.POLLOUT)
    if any(event & select.POLLERR for _, event in looked.poll(0)):
        raise Failure("nobody reads standard output: no job was taken", BROKEN_PIPE)


def print_answer(answer: Any, text: str, *, as_json: bool) -> None:
    """What the server answered: as JSON, or in words."""
    if as_json:
        print_json(answer)
    else:
        click.echo(text)


def print_json(value: Any) -> None:
    """A value as one line of JSON: what `--json` prints, whatever the command."""
    print_job(encoded(value))


def print_job(text: str, *, taken: bool = False) -> None:
    """A job's text and a line end; byte for byte, unless a terminal would take a part as a command.

    A job that was `taken` off its queue is nowhere else. If standard output does not take it, for any
    reason, it is printed on standard error.
    JSON may hold raw control characters beyond ASCII only inside strings, where an escape says the same.
    """
    if sys.stdout.isatty() and not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode() + b"\n")
        sys.stdout.buffer.flush()
    except OSError as error:
        if not taken:
            raise
        silence()
        click.echo(text, err=True)
        reason = error.strerror or str(error)
        said = f"cannot write to standard output ({reason}): what could not be written is above"
        raise Failure(said, BROKEN_PIPE if isinstance(error, BrokenPipeError) else FAILED) from None


def one_line(text: str) -> str:
    """A JSON text without its line ends, which stand between its parts and never within."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


class Counter:
    """How far long work is, on standard error: nothing when that is not a terminal.

    It counts jobs that are `what` ("pushed"), `of` so many in all if that is known. Work whose jobs are not
    counted beforehand can say in `show` which part of it is done.
    """

    def __init__(self, what: str, of: int | None = None) -> None:
        self._what, self._of = what, of
        self._on = sys.stderr.isatty()
        self._began = self._shown_at = time.monotonic()
        self._written = False

    def show(self, done: int, part: float | None = None) -> None:
        """Overwrite the line, a few times a second at most. `part` is from 0 to 1."""
        now = time.monotonic()
        if not self._on or now - self._shown_at <= 0.2:
            return
        self._shown_at, self._written = now, True
        if part is None and self._of:
            part = done / self._of
        line = self.line(done, part, now - self._began)
        click.echo(f"\r{line[: terminal_width() - 1]}\x1b[K", err=True, nl=False)

    def line(self, done: int, part: float | None, seconds: float) -> str:
        """The line after so many seconds: a bar if it is known how much there is, how many, how quick."""
        line = f"{self._far(done)} {self._what}, {self._rate(done / seconds)} a second"
        if not part:
            return line
        part = min(part, 1.0)
        filled = int(part * BAR)
        left = age(seconds * (1 - part) / part)
        return f"[{'#' * filled}{'.' * (BAR - filled)}] {part:4.0%}  {line}, {left} left"

    def _far(self, done: int) -> str:
        return counted(done, "job") if self._of is None else f"{done} of {counted(self._of, 'job')}"

    def _rate(self, rate: float) -> str:
        return f"{rate:.0f}"

    def clear(self) -> None:
        """Leave the line empty, for what is printed next."""
        if self._written:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._written = False


class Bytes(Counter):
    """The same of bytes; it is told of each part. How many they are in all may be an estimate."""

    done = 0

    def add(self, size: int) -> None:
        """So many more. Called from one thread at a time."""
        self.done += size
        self.show(self.done, min(self.done / self._of, 0.99) if self._of else None)

    def far(self) -> str:
        """How far it is, for a message."""
        return f"{_mib(self.done)}{f' of about {_mib(self._of)}' if self._of else ''} {self._what}"

    def _far(self, done: int) -> str:
        return _mib(done)

    def _rate(self, rate: float) -> str:
        return _mib(rate)


def _mib(size: float) -> str:
    return f"{size / MIB:,.1f} MiB"


BAR = 16
EVERY_S = 2.0
"""How often `--watch` looks."""


def age(seconds: float | None) -> str:
    """How long something lasts, in its two largest units: `1.2s`, `4m05s`, `3h20m`, `2d4h`."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def confirmed(question: str) -> bool:
    """Ask on the terminal. Raises `click.UsageError` where nobody can be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError("not a terminal: pass --yes to go on without being asked")
    if click.confirm(question, err=True):
        return True
    click.echo("nothing was changed", err=True)
    return False


def shown(text: Callable[[], str], *, watch: bool) -> None:
    """Print a text, with `watch` again and again."""
    if watch:
        watched(text, EVERY_S)
    print_job(text())


def watched(text: Callable[[], str], every_s: float) -> NoReturn:
    """Print a text again and again, until Ctrl-C: over the whole screen on a terminal, else below.

    When the server goes away it is waited for. Raises `ClientError` if it was not there to begin with.
    """
    screen, reached = sys.stdout.isatty(), False
    while True:
        try:
            said = text()
        except (ServerNotReached, Unavailable) as error:
            if not reached:
                raise
            click.echo(f"presque: {error}; trying again", err=True)
        else:
            reached = True
            if screen:
                height = shutil.get_terminal_size().lines - 1
                said = "\n".join(said.splitlines()[: max(height, 1)])
            click.echo(f"\x1b[H\x1b[2J{said}" if screen else said)
        time.sleep(every_s)


def pairs(rows: Iterable[tuple[str, str]], column: int) -> str:
    """A line for each name and its value, which begins in that column; a terminal sees long ones wrapped."""
    width = terminal_width() if sys.stdout.isatty() else None
    said = []
    for name, value in rows:
        value = printable(value)
        room = 0 if width is None else width - column
        whole = width_of(value) <= room or room < ELASTIC_LEAST
        parts = [value] if whole else wrapped(value.split(), room)
        said += [f"{name if i == 0 else '':{column}}{part}".rstrip() for i, part in enumerate(parts)]
    return "\n".join(said)


def printable(text: str) -> str:
    """A text of strangers in which a terminal finds nothing to obey."""
    return "".join(c if c.isprintable() else "?" for c in text)
