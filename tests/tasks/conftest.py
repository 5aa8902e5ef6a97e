"""Workers of modules, as processes of their own. What `tests.tasks.jobs` declares has queues of this test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import rig
from tests.worker.conftest import Process, client, starting

__all__ = ["client"]

Run = Callable[..., Process]


@pytest.fixture
def run(server: rig.Server, queue_name: str, tmp_path: Path) -> Iterator[Run]:
    """Starts `presque worker TARGET… FLAGS…`."""
    with starting(tmp_path) as start:

        def begin(*words: str, url: str = server.url, **environment: str) -> Process:
            return start("worker", *words, url=url, QUEUE=queue_name, **environment)

        yield begin
