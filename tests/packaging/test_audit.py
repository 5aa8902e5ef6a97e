"""What CI says of known faults: nothing that was not looked up passes for faultless, and nothing waits."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "audit.py"
PASSED_OVER = {"name": "hiredis", "skip_reason": "Dependency not found on PyPI"}
SOUND = {"name": "click", "version": "8.1", "vulns": []}
FAULTY = {"name": "httptools", "version": "0.1", "vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]}


@pytest.fixture
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "status", "line"),
    [
        ([SOUND], 0, "1 packages have no known fault"),
        ([SOUND, PASSED_OVER], 0, "1 packages have no known fault; 1 could not be looked up"),
        ([SOUND, FAULTY], 1, "known faults: httptools 0.1 (PYSEC-1, GHSA-2)"),
        ([FAULTY, PASSED_OVER], 1, "known faults: httptools 0.1 (PYSEC-1, GHSA-2); 1 could not be looked up"),
        ([PASSED_OVER], 3, "SKIPPED: pypi.org, or the mirror in its place, knows none of 1 packages"),
        ([], 3, "SKIPPED: pypi.org, or the mirror in its place, knows none of 0 packages"),
    ],
)
def test_only_what_was_looked_up_counts(audit: Any, packages: list[Any], status: int, line: str) -> None:
    assert audit.judged({"dependencies": packages}) == (status, line)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (subprocess.TimeoutExpired(["/x/pip-audit", "--no-deps"], 180), "pip-audit took longer than 180 s"),
        (
            subprocess.CalledProcessError(1, ["/x/pip", "install"], stderr="a\nERROR: no network\n"),
            "pip failed: ERROR: no network",
        ),
        (ValueError("it cannot be reached"), "it cannot be reached"),
    ],
)
def test_what_keeps_it_from_looking_is_said(
    audit: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    why: str,
) -> None:
    def fails(_directory: Path) -> Any:
        raise error

    monkeypatch.setattr(audit, "looked_up", fails)
    assert audit.main() == 3
    assert capsys.readouterr().out == f"audit: SKIPPED: {why}\n"
