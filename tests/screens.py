"""A program on a real terminal of a given size: what it shows there, and what is typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyte

from tests import rig

PATIENCE = 30.0


class Screen:
    """A pseudo-terminal with a program in it; an emulator draws what the program writes."""

    def __init__(self, command: Sequence[str], columns: int, lines: int, environment: dict[str, str]) -> None:
        self.written = b""
        self._emulator = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._emulator)
        self._lock = threading.Lock()
        self.leader, follower = pty.openpty()
        self.tty = os.ttyname(follower)
        self._follower = follower  # kept open, so that its settings can be looked at after the program
        self._resize(columns, lines)
        self.settings = termios.tcgetattr(follower)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PRESQUE_")}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            kept.pop(name, None)
        self.process = subprocess.Popen(
            command,
            stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**kept, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self.leader, 65536)
            except OSError:
                return
            if not part:
                return
            with self._lock:
                self.written += part
                self._stream.feed(part)

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Change the size, as somebody who drags a corner of the window does."""
        with self._lock:
            self._emulator.resize(lines, columns)
            self._resize(columns, lines)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the space at the end of lines."""
        with self._lock:
            return [line.rstrip() for line in self._emulator.display]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    @property
    def scrolled(self) -> list[str]:
        """All lines so far, those that left the screen at its top included."""
        with self._lock:
            wide = self._emulator.columns
            above = ["".join(row[i].data for i in range(wide)).rstrip() for row in self._emulator.history.top]
            return above + [line.rstrip() for line in self._emulator.display]

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.leader, text.encode())

    def until(self, condition: Callable[[str], Any], within: float = PATIENCE) -> str:
        """The screen as soon as the condition holds for it."""

        def holds() -> str | None:
            text = self.text
            return text if condition(text) else None

        return str(rig.eventually(holds, within, say=lambda: f"\n{self.text}"))

    def shows(self, *texts: str) -> str:
        """The screen as soon as all these texts are on it."""
        return self.until(lambda screen: all(text in screen for text in texts))

    def ends(self, within: float = PATIENCE) -> int:
        """Wait for the end of the program. Returns its exit code."""
        code = self.process.wait(within)
        self.settled()
        return code

    def settled(self) -> None:
        """Wait until all that was written has been read: a mark of ours comes back."""
        mark = b"\x1b]0;settled\x07"
        count = self.written.count(mark)
        os.write(self._follower, mark)
        rig.eventually(lambda: self.written.count(mark) > count)

    def kept_settings(self) -> bool:
        """Whether the terminal is set as it was before."""
        return termios.tcgetattr(self._follower) == self.settings

    def close(self) -> None:
        """End the program, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._follower)
        self._reader.join(5)
        os.close(self.leader)


@contextlib.contextmanager
def screen(
    *arguments: str,
    at: dict[str, str] | None = None,
    columns: int = 80,
    lines: int = 24,
    command: Sequence[str] = (sys.executable, "-m", "presque"),
) -> Iterator[Screen]:
    """Run `presque`, or another command, on a terminal, with `at` in its environment."""
    found = Screen([*command, *arguments], columns, lines, at or {})
    try:
        yield found
    finally:
        found.close()
