"""A plugin for pytest: a throw-away server for tests. It does nothing where no test asks for its fixtures.

    def test_whoever_signs_up_gets_a_letter(presque):
        sign_up("ana")
        assert [job.value["to"] for job in presque.pushed("mail")] == ["ana"]
        presque.clock.advance("1h")
        [letter] = presque.run_due({"mail": Mailer})
        assert letter.state == "done"

Whoever runs pytest has this module imported, so it imports nothing but pytest and the standard library. What
the fixtures need comes with the first test that uses them. The server takes more than 0.1 s to start, and
does so while pytest gets ready and the tests are collected (bench/throw_away.py).
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from presque.testing import Presque

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
POLL_S = 0.002
LOOK_MOST = 100
"""In how many folders, and into how many files, we look for a test before the tests are collected."""
_asks = re.compile(rb"\bdef \w+\((?:[^)]*,)?\s*presque(?:_server)?\s*[,:)]").search
_ready = re.compile(r"answers at (\S+)").search
_too_old = not hasattr(pytest, "StashKey")  # before pytest 7; its other tests must not suffer from that


@pytest.fixture(scope="session")
def presque_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of a server that keeps nothing and has a clock that can be moved. All tests of this process
    share it; each process of pytest-xdist has its own."""
    if _too_old:
        pytest.fail(
            f"the fixture `presque` needs pytest 7 or later; this is {pytest.__version__}", pytrace=False
        )
    server = pytestconfig.stash[_SERVER]
    server.begin()
    import presque.testing  # noqa: F401  (what tests use of it next, while the server starts)

    yield server.url()
    server.end()


@pytest.fixture
def presque(presque_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Presque]:
    """That server for one test: empty, at the real time, and where `App()` and `Client()` go without a
    URL."""
    from presque.testing import Presque

    monkeypatch.setenv("PRESQUE_URL", presque_server)
    for name in ("PRESQUE_TOKEN", "PRESQUE_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    with Presque(presque_server) as found:
        yield found


class _Server:
    """The process of the server, from when it is known that a test wants it until all tests are over."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _output(self) -> Path:
        assert self._directory is not None
        return Path(self._directory.name) / "output"

    def begin(self) -> None:
        """Start it, unless it was started before. Nobody waits for it here."""
        if self._process is not None:
            return
        own = {name: value for name, value in os.environ.items() if not name.startswith("PRESQUE_")}
        self._directory = self._directory or tempfile.TemporaryDirectory(prefix="presque-")
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                # -P: a file of the project may be called like something that the server imports
                [sys.executable, "-P", "-m", "presque.server.throw_away", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=own,
                start_new_session=True,  # a Ctrl-C is for pytest, which ends the server after its tests
            )

    def url(self) -> str:
        """Where it answers, once it does."""
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until:
            running = self._process.poll() is None
            said = self._output.read_text("utf-8", "replace")
            if found := _ready(said):
                return found[1]
            if not running:
                break
            time.sleep(POLL_S)
        hint = "; install it with `pip install presque`" if "No module named presque" in said else ""
        pytest.fail(
            f"the server of the fixture `presque` did not start{hint}:\n{said.strip()}", pytrace=False
        )

    def end(self) -> None:
        """End it, if it was started."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


if not _too_old:
    _SERVER = pytest.StashKey[_Server]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep the server of this run where the hooks and the fixture find it, and start it at once if one of the
    first files of the run says that its tests want it. A controller of pytest-xdist runs no tests."""
    if not _too_old:
        config.stash[_SERVER] = _Server()
        controls = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
        with contextlib.suppress(OSError):  # pytest will say what is wrong with a path
            if not controls and any(map(_file_asks, itertools.islice(_files(config), LOOK_MOST))):
                _begin(config)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let the server start while a module is imported whose text says that its tests want it."""
    if isinstance(collector, pytest.Module) and not _too_old and _file_asks(collector.path):
        _begin(collector.config)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let it start as soon as a test is found that wants it."""
    if _wants(item):
        _begin(item.config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """End it again if no test wants it after all, as with `-k`."""
    if not _too_old and not any(map(_wants, session.items)):
        session.config.stash[_SERVER].end()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no server behind, whatever became of the tests."""
    if not _too_old:
        config.stash[_SERVER].end()


def _files(config: pytest.Config) -> Iterator[Path]:
    """The files that pytest was asked to collect from, those of large trees in part."""
    named = ["conftest.py", *config.getini("python_files")]
    unwanted = config.getini("norecursedirs")
    for argument in config.args:
        start = config.invocation_params.dir / argument.partition("::")[0]
        if start.is_file():
            yield start
        for folder, folders, files in itertools.islice(os.walk(start), LOOK_MOST):
            folders[:] = sorted(each for each in folders if not _is_one_of(each, unwanted))
            yield from (Path(folder, each) for each in sorted(files) if _is_one_of(each, named))


def _is_one_of(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _file_asks(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return _asks(path.read_bytes()) is not None
    return False


def _begin(config: pytest.Config) -> None:
    if not _too_old and not config.getoption("collectonly"):
        with contextlib.suppress(OSError):  # the fixture tries again, and says why
            config.stash[_SERVER].begin()


def _wants(item: pytest.Item) -> bool:
    return "presque_server" in getattr(item, "fixturenames", ())
