"""What the queue does in cases that its users cannot bring about."""

from __future__ import annotations

import asyncio
import time

import pytest

from rerank_sidecar.batching.planner import Backlog, BatchLimits
from rerank_sidecar.batching.throughput import Throughput
from rerank_sidecar.batching.work import Completion, Waiter
from rerank_sidecar.batching.work_queue import Batch, WorkQueue
from rerank_sidecar.errors import InternalError
from tests.unit.batching.fake_backends import LIMITS, PATIENCE_S, sequence, value


class BrokenOnce(Backlog):
    """Gives a plan that was made up, once; its successor is sound."""

    plans: list[list[int]] = []  # noqa: RUF012 - emptied by whoever is made first

    def take_batch(self, now: float, running_tokens: float = 0.0) -> list[int]:
        return self.plans.pop() if self.plans else super().take_batch(now, running_tokens)


def waiter_for(mark: int, position: int = 0) -> Waiter:
    future: asyncio.Future[Completion[float]] = asyncio.get_running_loop().create_future()
    now = time.monotonic()
    return Waiter(sequence(mark), position, value, future, 0, None, now, now)


def put(queue: WorkQueue, *marks: int) -> list[asyncio.Future[Completion[float]]]:
    waiters = [waiter_for(mark, position) for position, mark in enumerate(marks)]
    queue.put(waiters)
    return [waiter.future for waiter in waiters]


@pytest.mark.parametrize(
    "plan", [[], [7], [0, 7]], ids=["nothing", "what is not", "also what is not"]
)
async def test_a_broken_plan_is_answered_and_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch, plan: list[int]
) -> None:
    monkeypatch.setattr(BrokenOnce, "plans", [plan])
    queue = WorkQueue(LIMITS, Throughput(1, 1000.0), BrokenOnce)
    failed = put(queue, 1, 1, 2)
    taking: asyncio.Future[Batch | None] = asyncio.ensure_future(
        asyncio.to_thread(queue.take_batch)
    )
    async with asyncio.timeout(PATIENCE_S):
        for future in failed:
            with pytest.raises(InternalError):
                await future
        assert queue.count == 0
        assert queue.tokens == 0
        put(queue, 3)
        batch = await taking
    assert batch is not None
    assert [int(work.sequence.token_ids[0]) for work in batch.works] == [3]


def test_a_plan_that_names_a_sequence_twice_runs_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take() -> list[int]:
        queue = WorkQueue(BatchLimits(1024, 8, 1.0), Throughput(1, 1000.0), BrokenOnce)
        put(queue, 1, 2)
        batch = queue.take_batch()
        assert batch is not None
        return [int(work.sequence.token_ids[0]) for work in batch.works]

    monkeypatch.setattr(BrokenOnce, "plans", [[1, 1, 0]])
    assert asyncio.run(take()) == [2, 1]


async def test_different_sequences_whose_hashes_are_equal_run_each() -> None:
    queue = WorkQueue(LIMITS, Throughput(1, 1000.0))
    waiters = [waiter_for(mark) for mark in (1, 2, 1, 2)]
    for waiter in waiters:
        waiter.content = 0
    queue.put(waiters)
    batch = queue.take_batch()
    assert batch is not None
    run_for = [[work for work in batch.works if waiter in work.waiters] for waiter in waiters]
    assert [[int(work.sequence.token_ids[0]) for work in each] for each in run_for] == [
        *([1], [2], [1], [2])
    ]
    queue.end(batch.works)
    queue.put([waiter_for(1)])
    assert queue.count == 1
