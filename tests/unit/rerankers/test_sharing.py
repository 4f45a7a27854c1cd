from __future__ import annotations

import asyncio
import time

import pytest

from rerank_sidecar.errors import BackendFailed, DeadlineExceeded
from rerank_sidecar.rerankers.sharing import Shared


class Maker:
    """Makes a new number each time, when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.may_go_on = asyncio.Event()
        self.error: Exception | None = None

    async def make(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return number


async def test_those_who_come_at_the_same_time_get_the_same() -> None:
    shared, maker = Shared[int](), Maker()
    maker.may_go_on.set()
    leases = [shared.lease("key", maker.make) for _ in range(3)]
    assert [await lease.value() for lease in leases] == [1, 1, 1]
    assert [lease.is_first for lease in leases] == [True, False, False]
    other = shared.lease("other", maker.make)
    assert await other.value() == 2


async def test_it_is_forgotten_with_the_last_lease() -> None:
    shared, maker = Shared[int](), Maker()
    maker.may_go_on.set()
    one, two = (shared.lease("key", maker.make) for _ in range(2))
    assert await one.value() == 1
    one.close()
    one.close()  # once is enough
    assert await two.value() == 1
    three = shared.lease("key", maker.make)
    assert await three.value() == 1
    two.close()
    three.close()
    assert await shared.lease("key", maker.make).value() == 2


async def test_one_who_leaves_does_not_harm_the_others() -> None:
    shared, maker = Shared[int](), Maker()
    one, two = (shared.lease("key", maker.make) for _ in range(2))
    waiting = asyncio.create_task(one.value())
    await asyncio.sleep(0)
    waiting.cancel()
    one.close()
    maker.may_go_on.set()
    assert await two.value() == 1
    assert maker.cancelled == 0


async def test_making_stops_when_everybody_has_left() -> None:
    shared, maker = Shared[int](), Maker()
    leases = [shared.lease("key", maker.make) for _ in range(2)]
    await asyncio.sleep(0)
    for lease in leases:
        lease.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (maker.begun, maker.cancelled) == (1, 1)


async def test_a_deadline_ends_the_wait_of_one_alone() -> None:
    shared, maker = Shared[int](), Maker()
    hasty, patient = (shared.lease("key", maker.make) for _ in range(2))
    with pytest.raises(DeadlineExceeded):
        await hasty.value(time.monotonic() + 0.01)
    with pytest.raises(DeadlineExceeded):
        await hasty.value(time.monotonic() - 1)
    hasty.close()
    maker.may_go_on.set()
    assert await patient.value() == 1


async def test_an_error_is_everybodys_but_not_of_those_who_come_later() -> None:
    shared, maker = Shared[int](), Maker()
    maker.may_go_on.set()
    maker.error = BackendFailed("no")
    leases = [shared.lease("key", maker.make) for _ in range(2)]
    for lease in leases:
        with pytest.raises(BackendFailed):
            await lease.value()
    maker.error = None
    later = shared.lease("key", maker.make)
    assert await later.value() == 2
    for lease in leases:
        lease.close()
    assert await shared.lease("key", maker.make).value() == 2
