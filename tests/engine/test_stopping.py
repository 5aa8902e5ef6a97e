"""What a stopping server owes to those who wait."""

from __future__ import annotations

import asyncio

import pytest

from presque import names
from presque.engine.engine import Engine
from presque.errors import PresqueError
from presque.job import Fetched
from tests import rig


async def test_one_whose_first_look_is_under_way_is_answered_and_the_store_is_kept(
    engine: Engine, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    answered: asyncio.Future[Fetched | PresqueError | None] = asyncio.get_running_loop().create_future()

    def take(found: Fetched | PresqueError | None) -> bool:
        answered.set_result(found)
        return True

    engine.fetch(names.queue_list(queue_name), 60, take)
    engine.stop_waiting()

    assert await asyncio.wait_for(answered, rig.PATIENCE) is None
    assert await engine.started(queue_name)
    assert "store.lost" not in caplog.text
