"""`python -m presque.worker TARGET…`: the command, which is a floor above, in `presque.tasks`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("presque.tasks", run_name="__main__", alter_sys=True)
