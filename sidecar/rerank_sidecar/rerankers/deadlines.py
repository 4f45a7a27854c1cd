"""Work that has to be done by a time of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rerank_sidecar.errors import DeadlineExceeded


@asynccontextmanager
async def before(deadline: float | None) -> AsyncIterator[None]:
    """Cancel what is within the context when a time on the clock of `time.monotonic` has come.

    None never comes. Not to be held across the `yield` of a generator.

    Raises:
        DeadlineExceeded: the time came first.
    """
    left_s = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(left_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the deadline passed before every score was known") from error
