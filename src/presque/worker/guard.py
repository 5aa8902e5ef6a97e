"""A small process beside each worker that ends what jobs have started when the worker is killed.

Nothing tells a program that the process which started it was killed; it would go on while the next worker
begins the same job. So a worker on Linux starts this file as a program of its own. It waits, using nothing,
until the worker is gone, and then kills

- the process groups of forked jobs and of the commands of `presque work`, which it has been told of;
- what jobs forked without starting a program, which the children told it themselves;
- every program in whose environment the mark of this worker stands, and what those have started.

What it does not find is a program that was started with a cleaned environment and whose parent has ended.

It is not a child of the worker, so a job that waits for any child does not wait for it, and it has a session
of its own, so that a signal to the worker's group does not reach it. A worker that ends as it should says so,
and what its jobs left running on purpose is left alone. One whose jobs were cut off says so last of all: at
the end of a program Python waits for threads and children that those jobs have left, and may be killed there.

This file is run by its path, without `site` and without the rest of presque.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
from pathlib import Path

MARK = "OF_PRESQUE_WORKER"
ROUNDS = 50
_SHELL = 'trap "" TERM INT HUP QUIT; "$@" &'


class Guard:
    """The worker's side. One for each process, however many workers run in it."""

    def __init__(self) -> None:
        self._users = 0
        self._pipe = -1
        self._groups: set[int] = set()
        self.mark = ""

    def begin(self) -> str | None:
        """Start the guard. Returns why there is none, if so."""
        self._users += 1
        if self._users > 1:
            return None
        if sys.platform != "linux" or os.getpid() == 1:
            return None  # with process 1 all others of its container end
        trouble = None
        if self._pipe < 0:
            self.mark = secrets.token_hex(8)
            trouble = self._start()
        os.environ[MARK] = self.mark
        return trouble

    def end(self, *, stopped: bool) -> None:
        """The worker ends as it should. If its jobs were `stopped`, it says so when Python ends."""
        self._users -= 1
        if self._users:
            return
        os.environ.pop(MARK, None)
        if not stopped:
            self._leave()

    def at_exit(self) -> None:
        """Python ends. It may yet wait for children that jobs have started, so that is awaited here."""
        if self._pipe < 0:
            return
        if "multiprocessing" in sys.modules:
            for child in sys.modules["multiprocessing"].active_children():
                if not child.daemon:
                    child.join()
        self._leave()

    def _leave(self) -> None:
        self._say("bye")
        self._close()

    def add(self, group: int) -> None:
        """A job runs in this process group."""
        self._groups.add(group)
        self._say(f"g{group}")

    def remove(self, group: int) -> None:
        """It has ended, and all that was in its group has been killed."""
        self._groups.discard(group)
        self._say(f"-{group}")

    def forget(self, *, tell: bool) -> None:
        """In a child, which is ended with the others: the pipe to the guard is not for it."""
        if self._pipe < 0:
            return
        if tell:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"p%d\n" % os.getpid())
        self._close()
        self._users = 0
        self._groups = set()

    def _start(self) -> str | None:
        if not sys.executable or getattr(sys, "frozen", False) or not Path(__file__).exists():
            return "there is no Python to run it with"
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        own = [sys.executable, "-I", "-S", __file__, str(reading), str(os.getpid()), self.mark]
        try:
            subprocess.run(
                ["/bin/sh", "-c", _SHELL, "sh", *own],
                pass_fds=(reading,), start_new_session=True, cwd="/", check=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            self._close()
            return str(error)
        finally:
            os.close(reading)
        return None

    def _say(self, line: str) -> None:
        if self._pipe < 0:
            return
        try:
            os.write(self._pipe, line.encode() + b"\n")
        except BlockingIOError:
            pass  # it is stopped, and will not act either
        except OSError:  # somebody has killed it
            self._close()
            if line != "bye" and self._start() is None:
                with contextlib.suppress(OSError):
                    os.write(self._pipe, "".join(f"g{group}\n" for group in self._groups).encode())

    def _close(self) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                os.close(self._pipe)
        self._pipe = -1


guard = Guard()
atexit.register(guard.at_exit)  # as early as can be, so that it is called late


# --- the guard's own process


def main(pipe: int, worker: int, mark: str) -> None:
    """Wait for the end of the worker, then kill what it has left."""
    groups: set[int] = set()
    forked: dict[int, str] = {}
    if wait(pipe, worker, groups, forked):
        return
    needle = f"{MARK}={mark}".encode()
    for _ in range(ROUNDS):
        found = left(worker, needle, groups, forked)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        select.select((), (), (), 0.02)


def wait(pipe: int, worker: int, groups: set[int], forked: dict[int, str]) -> bool:
    """Hear what the worker says. Returns whether it said that all is well."""
    watched = select.poll()
    watched.register(pipe, select.POLLIN)
    life = -1
    with contextlib.suppress(OSError, AttributeError):
        life = os.pidfd_open(worker)  # a child of the worker may hold the pipe open
        watched.register(life, select.POLLIN)
    rest = b""
    while True:
        ready = [number for number, _ in watched.poll()]
        data = b""
        if pipe in ready:
            data = os.read(pipe, 65536)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line == b"bye":
                    return True
                hear(line, groups, forked)
        if not data and (pipe in ready or life in ready):
            return False


def hear(line: bytes, groups: set[int], forked: dict[int, str]) -> None:
    """One thing that the worker, or a child of it, has said."""
    with contextlib.suppress(ValueError):
        number = int(line[1:])
        if line[:1] == b"g":
            groups.add(number)
        elif line[:1] == b"-":
            groups.discard(number)
        elif line[:1] == b"p" and (about := stat(number)) is not None:
            forked[number] = about[2]
            if len(forked) > 1000:
                for pid in [pid for pid, since in forked.items() if (stat(pid) or ("", "", ""))[2] != since]:
                    del forked[pid]


def left(worker: int, needle: bytes, groups: set[int], forked: dict[int, str]) -> set[int]:
    """The processes that are to go."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    own = os.getpid()
    for entry in os.listdir("/proc"):  # noqa: PTH208  (thousands of names, and no use for paths)
        if not entry.isdigit() or int(entry) in (own, worker, 1):
            continue
        pid = int(entry)
        about = stat(pid)
        if about is None:
            continue
        parents[pid] = int(about[0])
        if int(about[1]) in groups or forked.get(pid) == about[2] or is_marked(pid, needle):
            found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found


def stat(pid: int) -> tuple[str, str, str] | None:
    """The parent of a process, its group, and when it was started; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # noqa: PTH123  (a name may be no text)
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[1], fields[2], fields[19])


def is_marked(pid: int, needle: bytes) -> bool:
    """Whether the environment of a process holds the mark."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123  (as above)
            return needle in file.read().split(b"\0")
    except OSError:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
