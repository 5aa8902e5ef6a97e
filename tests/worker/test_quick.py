"""Jobs that are too quick to be looked after closely leave nothing behind either."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from presque.worker.glance import Glance, looks_at


def test_a_quick_job_leaves_its_process_as_it_was() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.worker.quick"], capture_output=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == []


def test_a_glance_sees_what_is_changed_removed_and_added() -> None:
    class Holder:
        pass

    holder: Any = Holder()
    holder.there = 1
    glance = Glance(looks_at(holder, ["there", "missing"]))
    assert glance.is_same()
    holder.there = 2
    assert not glance.is_same()
    holder.there, holder.missing = 1, 1
    assert not glance.is_same()
    del holder.missing
    assert glance.is_same()
