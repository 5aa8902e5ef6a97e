"""What the tests of the functions share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from presque.engine import library
from tests import rig
from tests.lua.test_functions import Functions


@contextmanager
def loaded(store: rig.Store, inside: str = "") -> Iterator[Functions]:
    """The functions, loaded anew, in a namespace of their own or in one inside it."""
    with store.client() as client:
        client.function_load(library.source(), replace=True)
        found = Functions(client, f"l{uuid4().hex[:8]}{inside}")
        yield found
        found.clear()


@pytest.fixture
def functions(store: rig.Store) -> Iterator[Functions]:
    with loaded(store) as found:
        yield found
