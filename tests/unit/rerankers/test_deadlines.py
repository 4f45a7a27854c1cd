"""What deadlines cut off ends as it should."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from anyio import CancelScope

from rerank_sidecar.rerankers.deadlines import cancelled_once


async def test_a_second_cancellation_does_not_interrupt_what_ends_the_work() -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            with CancelScope(shield=True):  # as httpx closes a connection
                await asyncio.sleep(0)
            closed.set()

    caller = asyncio.create_task(cancelled_once(work()))
    await began.wait()
    for _ in range(3):  # of the call, of a member, of the request
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await closed.wait()


async def test_its_result_and_its_error_are_the_works() -> None:
    async def gives() -> int:
        return 7

    async def fails() -> int:
        raise ZeroDivisionError

    assert await cancelled_once(gives()) == 7
    with pytest.raises(ZeroDivisionError):
        await cancelled_once(fails())


async def test_an_error_that_nobody_waits_for_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    go = asyncio.Event()

    async def fails() -> None:
        await go.wait()
        raise ZeroDivisionError

    caller = asyncio.create_task(cancelled_once(fails()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    del caller
    gc.collect()
    assert "never retrieved" not in caplog.text
