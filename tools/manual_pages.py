"""Puts the manual pages into the wheel, where `man presque` finds them: a hook of hatchling.

The pages are made of what the commands say of themselves, so they are made when the wheel is, and not kept.
That takes what the commands import: pyproject.toml asks for it to be in the environment of the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface[Any]):
    """Makes the pages before the wheel is put together, and removes them afterwards."""

    @property
    def pages(self) -> Path:
        """Where they are meanwhile."""
        return Path(self.directory) / "manual-pages"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make them. Who installs an editable presque changes it, and has `presque man`."""
        if version == "editable":
            return
        # pip hands the environment of a build down by PYTHONPATH
        paths = [str(Path(self.root) / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        source = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "presque", "man", str(self.pages)]
        subprocess.run(command, env={**os.environ, **source}, check=True, stdout=subprocess.DEVNULL)
        for page in sorted(self.pages.iterdir()):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove them."""
        shutil.rmtree(self.pages, ignore_errors=True)
