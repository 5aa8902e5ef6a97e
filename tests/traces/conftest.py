"""A collector, and a server that sends its spans there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from presque import Client
from tests import rig
from tests.traces.collector import Collector, collector


@pytest.fixture(scope="module")
def jaeger() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture(autouse=True)
def empty(jaeger: Collector) -> None:
    jaeger.spans.clear()


@pytest.fixture(scope="module")
def traced(jaeger: Collector) -> Iterator[rig.Server]:
    with rig.server("--memory", "--traces", **jaeger.environment) as found:
        yield found


@pytest.fixture
def client(traced: rig.Server) -> Iterator[Client]:
    with Client(traced.url) as found:
        yield found
