"""`presque worker --reload`: starts the worker again when a file of its code has changed. For development.

The worker is a child of this process, which imports none of its code: when the code cannot be imported, this
process waits until somebody fixes it. It looks at the times of the files twice a second, since no system
tells of changes in every kind of directory; less often where a look takes long, among very many files.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from presque.errors import SetupError

log = logging.getLogger("presque.worker")

LOOK_S = 0.5
LOOKS_MOST = 0.1
"""The part of its time in which it looks, at most."""
SETTLE_S = 0.1
STOP_S = 30.0
FILES_MOST = 20_000
MARK = "PRESQUE_RELOADED"
"""In the environment of the worker that is started again and again."""
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}
_PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT")


def is_child() -> bool:
    """Whether this is the worker that another process starts again."""
    return MARK in os.environ


def run(targets: Sequence[str]) -> int:
    """Run this command again as a worker, as often as its code changes. Returns its last exit code."""
    return _Reloading([Path.cwd(), *places(targets)]).run()


def places(targets: Sequence[str]) -> list[Path]:
    """Where the code of these modules is. Nothing is imported for that."""
    found = []
    sys.path.insert(0, str(Path.cwd()))
    for target in targets:
        root = target.partition(":")[0].partition(".")[0]
        try:
            spec = importlib.util.find_spec(root)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise SetupError(f"there is no module `{root}`: run this where it can be imported")
        if spec.submodule_search_locations:
            found += [Path(one) for one in spec.submodule_search_locations]
        elif spec.origin is not None and Path(spec.origin).exists():
            found.append(Path(spec.origin))
    return found


def files_in(places: Sequence[Path]) -> dict[str, int]:
    """The files of Python code there, with the times of their last change."""
    found: dict[str, int] = {}
    for place in places:
        for entry, changed in _python_files(place):
            found[entry] = changed
            if len(found) == FILES_MOST:
                return found
    return found


def pause_after(look_s: float) -> float:
    """How long not to look after a look that took a processor so long."""
    return max(LOOK_S, look_s / LOOKS_MOST - look_s)


def _python_files(place: Path) -> Iterator[tuple[str, int]]:
    if place.is_file():
        yield str(place), place.stat().st_mtime_ns
        return
    try:
        with os.scandir(place) as entries:
            found = list(entries)
    except OSError:
        return
    if any(one.name == "pyvenv.cfg" for one in found):
        return  # an environment, and not code that anybody changes
    for one in found:
        try:
            if one.name.endswith(".py"):
                yield one.path, one.stat().st_mtime_ns
            elif one.name[0] != "." and one.name not in _LEFT_OUT and one.is_dir(follow_symlinks=False):
                yield from _python_files(Path(one.path))
        except OSError:
            continue  # it has just gone


class _Reloading:
    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._asked: int | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        for name in _PASSED_ON:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._pass_on)
        seen = files_in(self._places)
        while True:
            self._worker = worker = self._start()
            changed = self._ended_or_changed(worker, seen)
            if changed is None:
                return worker.returncode
            log.info("worker.reloads file=%s", changed)
            self._stop(worker)
            if self._asked is not None:
                return worker.returncode
            seen = self._settled()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, *sys.orig_argv[1:]]
        return subprocess.Popen(command, env={**os.environ, MARK: "1"})

    def _ended_or_changed(self, worker: subprocess.Popen[bytes], seen: dict[str, int]) -> str | None:
        """Wait until a file has changed, and say which; None when the worker has ended as it should."""
        told = False
        pause = LOOK_S
        while True:
            ended = worker.poll() is not None
            if ended and (worker.returncode == 0 or self._asked is not None):
                return None
            if ended and not told:
                told = True
                log.warning("worker.waits_for_change code=%d", worker.returncode)
            time.sleep(pause)
            began = time.process_time()
            found = files_in(self._places)
            pause = pause_after(time.process_time() - began)
            if found != seen:
                return min(name for name, _ in found.items() ^ seen.items())

    def _settled(self) -> dict[str, int]:
        """The files when nobody writes them any more."""
        while True:
            found = files_in(self._places)
            time.sleep(SETTLE_S)
            if files_in(self._places) == found:
                return found

    def _stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Let the worker give back its jobs, and end it if it does not."""
        if worker.poll() is None:
            worker.terminate()
        try:
            worker.wait(STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if signal.Signals(number).name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
            self._asked = number
        worker = self._worker
        heard = number == signal.SIGINT and os.isatty(0)  # what is typed at a terminal reaches both
        if worker is not None and worker.poll() is None and not heard:
            worker.send_signal(number)
