"""The whole screen of a terminal: taken, drawn on, and given back as it was, whatever ends the program.

Control sequences are those of ECMA-48 and xterm, which every terminal of the last decades understands.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple, Self

import click

from presque.exits import Ended

# The other screen, no cursor, no wrapping at the right edge; and back, with no colour left behind.
_TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
_GIVE_BACK = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_STYLES = {"": "", "head": "1", "bad": "31", "warn": "33", "old": "2", "chosen": "7"}
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
ESCAPE_S = 0.05
"""How long what follows an escape may take to come; else it was the key Esc."""

KEYS = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\t": "tab", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x0c": "redraw",
    "\x1b": "escape",
}  # fmt: skip


class Line(NamedTuple):
    """A line of the screen and how it looks: `head`, `bad`, `warn`, `old`, `chosen`, or plain."""

    text: str
    style: str = ""


class FullScreen:
    """A terminal that a program has to itself while inside. Raises `click.UsageError` where there is none.

    Its settings come back when the program leaves, however: by itself, by an exception, by a signal that it
    can catch, while it is stopped (Ctrl-Z), and, by a process that waits for its end, after a KILL.
    """

    def __init__(self) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("not a terminal: `presque stats --watch` prints lines")
        if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
            raise click.UsageError("this terminal cannot move its cursor: use `presque stats --watch`")
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._coloured = not os.environ.get("NO_COLOR")
        self._drawn: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._settings = termios.tcgetattr(self._in)
        self._guard = _guard(self._in, self._out, self._settings)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, _end)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self.forget)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._step_aside)
        self._take()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        for ending in _ENDING:  # nothing may come between
            signal.signal(ending, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):
            os.write(self._guard, b"!")
        for file in (self._guard, self._woken, self._waker):
            os.close(file)
        if isinstance(error, Ended):  # our parent should see what ended us
            signal.signal(error.number, signal.SIG_DFL)
            os.kill(os.getpid(), error.number)

    # --- what is on it

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        found = os.get_terminal_size(self._out) if not _told() else shutil.get_terminal_size()
        return max(found.columns, 1), max(found.lines, 1)

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, none of them wider than the screen. What is there already is not sent again."""
        written = [self._written(line) for line in lines]
        parts = [] if self._drawn else ["\x1b[H\x1b[2J"]
        for i, text in enumerate(written):
            if i >= len(self._drawn) or self._drawn[i] != text:
                parts.append(f"\x1b[{i + 1};1H{text}\x1b[K")
        if len(written) < len(self._drawn):
            parts.append(f"\x1b[{len(written) + 1};1H\x1b[J")
        self._drawn = written
        self._send("".join(parts))

    def _written(self, line: Line) -> str:
        style = _STYLES[line.style] if self._coloured else ""
        return f"\x1b[{style}m{line.text}\x1b[0m" if style else line.text

    def forget(self, *_: Any) -> None:
        """Draw everything the next time: another program may have written on the screen."""
        self._drawn = []

    def _send(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._out, data) :]

    # --- what is typed

    def keys(self, seconds: float) -> Iterator[str]:
        """The keys that are pressed within this time; none if something else happens first."""
        readable, _, _ = select.select([self._in, self._woken], [], [], seconds)
        if self._woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._in not in readable:
            return
        text = self._read()
        while text.endswith("\x1b") and select.select([self._in], [], [], ESCAPE_S)[0]:
            text += self._read()
        yield from typed(text)

    def _read(self) -> str:
        data = os.read(self._in, 4096)
        if not data:
            raise Ended(signal.SIGHUP)
        return self._decoder.decode(data)

    def wake(self) -> None:
        """Let `keys` return now, from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._waker, b".")

    # --- taking it and giving it back

    def _take(self) -> None:
        tty.setcbreak(self._in)
        self._send(_TAKE)
        self._drawn = []

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._send(_GIVE_BACK)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._settings)

    def _step_aside(self, _number: int, _frame: FrameType | None) -> None:
        """Stop, as Ctrl-Z wants it, and come back when we are continued."""
        self._give_back()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self._take()


def typed(text: str) -> Iterator[str]:
    """The keys in what a terminal sent: names of keys, or characters. Sequences that mean nothing here go."""
    at = 0
    while at < len(text):
        end = at + 1
        if text[at] == "\x1b" and text[end : end + 1] in ("[", "O"):
            end += 1
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            end += 1
        part = text[at:end]
        at = end
        if part in KEYS:
            yield KEYS[part]
        elif len(part) == 1 and part.isprintable():
            yield part


def _told() -> bool:
    """Whether somebody says how large the screen is, instead of the terminal."""
    return bool(os.environ.get("COLUMNS") or os.environ.get("LINES"))


def _end(number: int, _frame: FrameType | None) -> None:
    raise Ended(number)


def _guard(file: int, out: int, settings: Any) -> int:
    """Start a process that gives the terminal back if this one ends without saying a byte into the pipe."""
    heard, told = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            os.close(told)
            if not os.read(heard, 1):
                os.write(out, _GIVE_BACK.encode())
                termios.tcsetattr(file, termios.TCSADRAIN, settings)
        finally:
            os._exit(0)
    os.close(heard)
    return told
