"""Work that has to be done by a time of its own, and how it ends when it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rerank_sidecar.errors import DeadlineExceeded

if TYPE_CHECKING:
    from anyio import CancelScope

T = TypeVar("T")


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


async def cancelled_once(work: Coroutine[Any, Any, T]) -> T:
    """Do work of an HTTP client, and when the caller is cancelled, let it put its things in order.

    A cancellation that meets httpx while it frees or closes a connection leaves that connection
    taken for good, until none is left. It guards itself from those of anyio's scopes, not from
    those of tasks: https://github.com/encode/httpcore/blob/master/httpcore/_synchronization.py.
    """
    from anyio import CancelScope

    scope = CancelScope()
    task = asyncio.create_task(_within(scope, work))
    task.add_done_callback(_take_note)
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            scope.cancel()
            await asyncio.wait([task])
    return task.result()


async def _within(scope: CancelScope, work: Coroutine[Any, Any, T]) -> T:
    with scope:
        return await work
    raise asyncio.CancelledError


def _take_note(task: asyncio.Task[Any]) -> None:
    # A caller that was cancelled does not ask for the error, which asyncio would then log in full.
    if not task.cancelled():
        task.exception()
