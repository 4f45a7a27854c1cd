"""Backends that do as a test wants, and a scheduler around them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Completion, Scheduler

PATIENCE_S = 30.0
LIMITS = BatchLimits(max_batch_tokens=1024, max_batch_size=8, max_wait_s=60.0)
BAD = 666
DOCUMENT_TEXT = "the text of a document"

Array = npt.NDArray[np.float32]


def sequence(mark: int, length: int = 4) -> TokenSequence:
    """Make a sequence that is recognised by its first token."""
    token_ids = np.full(length, mark, dtype=np.int64)
    return TokenSequence(token_ids, np.zeros(length, dtype=np.int64))


def value(_position: int, array: Array) -> float:
    return float(array[0])


class FakeBackend:
    """Answers each sequence with its first token and keeps what it ran."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[threading.Thread] = set()

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("fake", "1", "cpu", "float32", 1)

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        self.threads.add(threading.current_thread())
        self.batches.append([int(one.token_ids[0]) for one in batch])
        return [one.token_ids[:1].astype(np.float32) for one in batch]

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


class GatedBackend(FakeBackend):
    """Says when a pass has begun and holds it until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        arrays = super().run(batch)
        self.begun.release()
        assert self.may_go_on.acquire(timeout=PATIENCE_S)
        return arrays

    async def wait_until_busy(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)

    def open(self) -> None:
        self.may_go_on.release(1000)


class BadSequenceBackend(FakeBackend):
    """Fails every batch that has a bad sequence in it."""

    def __init__(self, make_error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.make_error = make_error

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        arrays = super().run(batch)
        if BAD in self.batches[-1]:
            raise self.make_error()
        return arrays


class GatedBadSequence(GatedBackend):
    """Waits as its parent does, and then fails on every batch that holds a bad sequence."""

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        arrays = super().run(batch)
        if any(array[0] == BAD for array in arrays):
            raise ValueError
        return arrays


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[Scheduler]:
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


async def settled(
    futures: Sequence[asyncio.Future[Completion[float]]],
) -> list[float | BaseException]:
    async with asyncio.timeout(PATIENCE_S):
        results = await asyncio.gather(*futures, return_exceptions=True)
    return [each.value if isinstance(each, Completion) else each for each in results]
