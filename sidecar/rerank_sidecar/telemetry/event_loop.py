"""How long the event loop keeps its callers waiting, measured all the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rerank_sidecar.telemetry import metrics

_INTERVAL_S = 0.1


@asynccontextmanager
async def watched_event_loop() -> AsyncIterator[None]:
    """Measure, while the context lasts, how late the running loop wakes those who sleep."""
    watching = asyncio.create_task(_watch())
    try:
        yield
    finally:
        watching.cancel()


async def _watch() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _INTERVAL_S
        await asyncio.sleep(_INTERVAL_S)
        metrics.EVENT_LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - due))
