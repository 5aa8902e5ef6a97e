"""What the system says of a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from presque.server.process_figures import process_figures

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files are open")


def test_the_open_files_are_counted() -> None:
    before = process_figures()["files"]
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    try:
        assert process_figures()["files"] == before + 300
    finally:
        for file in files:
            os.close(file)
    assert process_figures()["files"] == before


def test_a_system_that_does_not_tell_the_number_is_asked_for_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Path("/proc/self/fd")
    real = files.stat()
    with monkeypatch.context() as older:
        older.setattr(os, "stat", lambda _: os.stat_result((*real[:6], 0, *real[7:10])))
        found = process_figures()["files"]
    assert found == len(list(files.iterdir()))
