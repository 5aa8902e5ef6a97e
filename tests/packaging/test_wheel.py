"""The wheel of presque itself: what is in it besides the source."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from presque.cli.main import COMMANDS
from tests import rig

ROOT = Path(__file__).parents[2]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    flags = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory)]
    # pip hands the environment of a build down by PYTHONPATH: so does this, and sees who gets it
    seen = directory / "seen"
    (directory / "sitecustomize.py").write_text(
        f"import sys\nopen({str(seen)!r}, 'a').write(' '.join(sys.orig_argv) + '\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, *PIP, *flags, str(ROOT)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(directory)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " -m presque man " in seen.read_text()
    [found] = directory.glob("*.whl")
    return found


def test_it_has_a_manual_page_for_each_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    pages = {Path(name).name for name in names if ".data/data/share/man/man1/" in name}
    assert pages >= {"presque.1", *(f"presque-{command}.1" for command in COMMANDS)}
    assert not any("manual-pages" in name or "manual_pages" in name for name in names)


def test_man_finds_them_where_presque_is_installed(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, man goes by the PATH."""
    man = rig.require("man")
    venv.create(tmp_path / "env", with_pip=True)
    command = [str(tmp_path / "env/bin/python"), *PIP, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True)
    environment = {**os.environ, "PATH": f"{tmp_path}/env/bin:{os.environ['PATH']}", "MANPAGER": "cat"}
    environment.pop("MANPATH", None)
    for page in ("presque", "presque-push"):
        where = subprocess.run([man, "-w", page], env=environment, capture_output=True, text=True, check=True)
        assert where.stdout.strip() == f"{tmp_path}/env/share/man/man1/{page}.1"
