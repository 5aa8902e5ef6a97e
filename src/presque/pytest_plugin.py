"""A plugin for pytest: a throw-away server for tests. It does nothing until a test asks for its fixtures.

    def test_whoever_signs_up_gets_a_letter(presque):
        sign_up("ana")
        assert [job.value["to"] for job in presque.pushed("mail")] == ["ana"]
        presque.clock.advance("1h")
        [letter] = presque.run_due({"mail": Mailer})
        assert letter.state == "done"

Whoever runs pytest has this module imported, so it imports nothing but pytest and the standard library. What
the fixtures need comes with the first test that uses them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
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
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_ready = re.compile(r"answers at (\S+)").search


@pytest.fixture(scope="session")
def presque_server() -> Iterator[str]:
    """The URL of a server that keeps nothing and has a clock that can be moved. All tests of this process
    share it; each process of pytest-xdist has its own."""
    with tempfile.TemporaryDirectory(prefix="presque-") as directory:
        output = Path(directory) / "output"
        process = _started(output)

        try:
            yield _url(process, output)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
            if process.poll() is None:
                process.kill()
                process.wait()


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


def _started(output: Path) -> subprocess.Popen[bytes]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PRESQUE_")}
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "presque.server.throw_away"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=own,
            start_new_session=True,  # a Ctrl-C is for pytest, which ends the server when its tests are over
            preexec_fn=_die_with_us if _libc is not None else None,
        )


def _die_with_us() -> None:
    """Have the server end when pytest is killed (Linux)."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _url(process: subprocess.Popen[bytes], output: Path) -> str:
    """Where the server answers, once it does."""
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        if found := _ready(output.read_text("utf-8", "replace")):
            return found[1]
        time.sleep(0.005)
    said = output.read_text("utf-8", "replace").strip()
    hint = "; install it with `pip install presque`" if "No module named presque" in said else ""
    pytest.fail(f"the server of the fixture `presque` did not start{hint}:\n{said}", pytrace=False)
