"""The reference of the clients: it is fresh, and leaves nothing out."""

from __future__ import annotations

import inspect
import subprocess
import sys

from presque import AsyncClient, Client, client
from presque.client import ClientError
from tests.docs import documents

REFERENCE = documents.ROOT / "docs" / "reference" / "client.md"


def test_it_is_what_the_tool_makes_of_the_source() -> None:
    done = subprocess.run(
        [sys.executable, "tools/reference.py", "--check"],
        cwd=documents.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_every_method_and_every_error() -> None:
    headings = set(documents.headings(REFERENCE))
    for kind in (Client, AsyncClient):
        methods = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
        assert methods <= headings
    rows = {row[0] for row in documents.rows(REFERENCE.read_text("utf-8"))}
    kinds = [one for one in vars(client).values() if inspect.isclass(one) and issubclass(one, ClientError)]
    assert {kind.__name__ for kind in kinds} <= rows
    assert {"lease-lost", "disk-full", "server-not-reached", "no-test-clock"} <= rows
