"""A program that pushes starts with what pushing needs, and nothing else."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

LOADED = """
import json, sys
before = set(sys.modules)
from presque import {name}
{use}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

SLOW = (
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "ssl",
    "presque.worker",
    "presque.tasks.worker",
)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        (
            "App",
            "app = App()\n@app.task\ndef send(to: str): ...\nsend.body('ana')\napp.client",
        ),
        ("Client", "Client('http://localhost:5000')"),
    ],
)
def test_what_pushes_loads_the_standard_library_alone_and_little_of_it(name: str, use: str) -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}\n" + LOADED.format(name=name, use=use)
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    roots = {one.partition(".")[0] for one in found}
    assert roots - set(sys.stdlib_module_names) == {"presque"}
    assert [one for one in found if one in SLOW or one.startswith(tuple(f"{slow}." for slow in SLOW))] == []


@pytest.mark.parametrize("module", ["presque", "presque.client", "presque.tasks"])
def test_every_name_that_a_package_offers_is_there(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []
    assert set(dir(found)) >= set(found.__all__)
    with pytest.raises(AttributeError, match="has no `nothing`"):
        found.nothing  # noqa: B018
