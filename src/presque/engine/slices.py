"""Long work in slices, between which the event loop serves its other callers."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.005


class Slice:
    """Gives other callers their turn during long work."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def breathe(self) -> None:
        """Let the others go on if this has taken long enough."""
        if time.perf_counter() > self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_S
