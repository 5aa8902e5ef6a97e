"""The guide for those who come from another queue: each program after runs, and so do its jobs."""

from __future__ import annotations

import asyncio
import re
import sys
from types import ModuleType

import pytest

from presque.testing import Presque
from tests.docs import documents
from tests.docs.documents import Block

GUIDE = documents.ROOT / "docs" / "guides" / "migrating.md"
PROGRAMS = [block for block in documents.blocks(GUIDE) if block.language == "python"]
BEFORE = [block for block in PROGRAMS if block.reason]
AFTER = [block for block in PROGRAMS if not block.reason]
QUEUES = ("RQ", "Celery", "Dramatiq", "huey", "arq")


def test_each_queue_has_words_and_a_program_before_and_after() -> None:
    assert documents.headings(GUIDE)[1:] == [f"From {queue}" for queue in QUEUES]
    assert len(BEFORE) == len(AFTER) == len(QUEUES)
    for queue in QUEUES:
        rows = list(documents.rows(documents.section(GUIDE, f"From {queue}")))
        assert rows[0] == [queue, "presque"]
        assert len(rows) > 8


@pytest.mark.parametrize("block", BEFORE, ids=QUEUES)
def test_a_program_before_is_one(block: Block) -> None:
    compile("\n".join(block.lines), "before", "exec")


@pytest.mark.parametrize("block", AFTER, ids=QUEUES)
def test_a_program_after_runs_and_its_jobs_are_done(
    block: Block, presque: Presque, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("moved")
    monkeypatch.setitem(sys.modules, "moved", module)
    exec("\n".join(block.lines), vars(module))
    if "main" in vars(module):

        async def both() -> None:
            async with asyncio.timeout(60):
                running = asyncio.create_task(module.app.worker().run())
                await module.main()
                running.cancel()
                await asyncio.wait((running,))
                module.app.async_client.close()

        asyncio.run(both())
    presque.put_crons(module.app)
    for hours in (0, 12, 12):
        presque.clock.advance(hours * 3600)
        for run in presque.run_due(module.app):
            assert run.state == "done", run
    module.app.client.close()
    assert presque.pushed() == []
    assert all(presque.client.stats(queue)["dead"] == 0 for queue in presque.client.queues())


def test_the_words_of_presque_are_words_of_presque() -> None:
    """What stands in the second column as code and looks like a name is somewhere else in the documents."""
    others = "\n".join(
        document.read_text("utf-8") for document in documents.all_documents() if document != GUIDE
    )
    for cell in (row[-1] for row in documents.rows(GUIDE.read_text("utf-8"))):
        for word in re.findall(r"(?<![\w`.])([a-z]+_[a-z_]+)\b", cell):
            assert word in others, word
