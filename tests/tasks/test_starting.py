"""A program that pushes starts with what pushing needs, and nothing else."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from presque import Client, exits
from tests import rig

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


@pytest.mark.parametrize("command", [("presque", "worker"), ("presque.tasks",)])
def test_a_worker_that_is_refused_ends_with_the_exit_codes_of_presque(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    def worker(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", *command, *arguments, "--burst", "--log-format", "plain"]
        return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)

    with rig.server("--data", str(tmp_path)) as server, Client(server.url) as client:
        assert worker("tests.tasks.nothing", "--url", server.url).returncode == exits.USAGE
        assert worker("tests.tasks.jobs", "--url", server.url).returncode == exits.DONE
        client.new_token("boss", allow=["*:*"])
        for target in ("tests.tasks.jobs", "tests.tasks.jobs:Old"):
            refused = worker(target, "--url", server.url)
            assert refused.returncode == exits.NOT_ALLOWED
            assert "this needs an access token" in refused.stderr.splitlines()[-1]
            assert "never retrieved" not in refused.stderr
