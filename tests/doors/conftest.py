"""A server of its own for the scenarios of the classic routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import rig


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Door]:
    """Not the shared one, since the tests of /stats/ count queues."""
    with rig.server("--data", str(tmp_path_factory.mktemp("door") / "presque")) as found:
        yield found
