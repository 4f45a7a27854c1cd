"""Runs the token sequences of all callers through one backend, batch after batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import Backend, TokenSequence
from rerank_sidecar.batching.planner import BatchLimits, plan_batch
from rerank_sidecar.batching.work import (
    Completion,
    Outcome,
    Work,
    count_tokens,
    deliver,
    sift,
)
from rerank_sidecar.batching.work_queue import Plan, WorkQueue
from rerank_sidecar.errors import BackendFailed, RerankError, as_rerank_error
from rerank_sidecar.telemetry.crashes import log_crash

__all__ = ["Completion", "ForwardPass", "Scheduler"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_PASSES_AHEAD = 2
"""One forward pass that runs and one that is ready when it ends, for each worker."""


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """One forward pass as it ran: sequences, their tokens, the same with padding, and the time.

    `padded_tokens` is the longest sequence times their number.
    """

    size: int
    tokens: int
    padded_tokens: int
    infer_s: float
    failed: bool


class Scheduler:
    """Batches the sequences of all callers and runs them on its own threads.

    Every future that it gives out is resolved, whatever happens in the backend, in `finish` or
    here: with a completion, with an error of the error tree, or by its owner who cancels it.
    """

    def __init__(
        self,
        backend: Backend,
        limits: BatchLimits,
        *,
        workers: int,
        plan: Plan = plan_batch,
        on_forward_pass: Callable[[ForwardPass], None] | None = None,
    ) -> None:
        """Prepare `workers` threads, each of which runs one batch at a time.

        `on_forward_pass` is told of every forward pass, on the thread that ran it.
        """
        self._backend = backend
        self._fair_share_tokens = _PASSES_AHEAD * workers * limits.max_batch_tokens
        self._queue = WorkQueue(limits, plan)
        self._on_forward_pass = on_forward_pass
        self._threads = [
            # Daemons, so that a process that dies without close() does not hang.
            threading.Thread(target=self._work, name=f"forward-pass-{number}", daemon=True)
            for number in range(workers)
        ]

    @property
    def pending_count(self) -> int:
        """How many sequences wait for a forward pass to begin."""
        return self._queue.count

    @property
    def pending_tokens(self) -> int:
        """How many tokens the waiting sequences have, without padding."""
        return self._queue.tokens

    @property
    def fair_share_tokens(self) -> int:
        """How many tokens one caller does well to have here at once.

        It is enough to keep every worker busy. The queue is served by age, so a caller who submits
        more at once makes all who come later wait for all of it.
        """
        return self._fair_share_tokens

    def start(self) -> None:
        """Start the worker threads."""
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        """Fail what waits with ShuttingDown, let running batches finish and end the threads."""
        self._queue.close()
        await asyncio.to_thread(self._wind_down)

    def submit(
        self,
        sequences: Sequence[TokenSequence],
        finish: Callable[[int, npt.NDArray[np.float32]], T],
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> list[asyncio.Future[Completion[T]]]:
        """Queue sequences and return one future for each, in order, of the running event loop.

        `finish(position, array)` turns the backend's array for `sequences[position]` into the value
        of its future, on a worker thread right after the forward pass. A higher `priority` runs
        sooner; `deadline` is on the clock of `time.monotonic`, in seconds. Cancelling a future
        drops its sequence if it has not begun.

        A future fails with DeadlineExceeded if its deadline passes before its forward pass begins,
        BackendFailed if the backend fails on this sequence even alone, ShuttingDown if it still
        waits at `close`, the RerankError that `finish` raises, or InternalError.

        Raises:
            ShuttingDown: the scheduler is closed or closing.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        futures: list[asyncio.Future[Completion[T]]] = [loop.create_future() for _ in sequences]
        self._queue.put(
            [
                Work(len(sequence), priority, deadline, now, sequence, position, finish, future)
                for position, (sequence, future) in enumerate(zip(sequences, futures, strict=True))
            ]
        )
        return futures

    def _wind_down(self) -> None:
        self._queue.drain()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run the next batch and answer those who wait for it; False when the queue is closing."""
        batch = self._queue.take_batch()
        if batch is None:
            return False
        try:
            outcomes = self._run(batch)
        except BaseException as error:  # noqa: BLE001 - somebody waits for every sequence
            log_crash(_LOG, "a batch", error)
            outcomes = [(work, as_rerank_error(error)) for work in batch]
        deliver(outcomes)
        return True

    def _run(self, batch: list[Work]) -> list[Outcome]:
        """Run a batch; if that fails, each sequence alone, so that only the bad ones fail."""
        begun = time.monotonic()
        try:
            arrays = self._forward(batch)
        except RerankError as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            _LOG.warning("a batch of %d failed; running its sequences one by one", len(batch))
            return [outcome for work in batch for outcome in self._run_alone(work)]
        infer_s_per_token = (time.monotonic() - begun) / max(1, count_tokens(batch))
        return [
            (work, _finish(work, array, begun - work.enqueued_at, infer_s_per_token * work.length))
            for work, array in zip(batch, arrays, strict=True)
        ]

    def _run_alone(self, work: Work) -> list[Outcome]:
        wanted, late = sift([work], time.monotonic())
        return self._run(wanted) if wanted else late

    def _forward(self, batch: list[Work]) -> list[npt.NDArray[np.float32]]:
        """Run one forward pass; whatever goes wrong in it becomes a RerankError."""
        begun = time.monotonic()
        failed = True
        try:
            arrays = self._backend.run([work.sequence for work in batch])
            if len(arrays) != len(batch):
                raise BackendFailed(f"{len(arrays)} arrays came back for {len(batch)} sequences")
            failed = False
        except RerankError:
            raise
        except BaseException as error:
            log_crash(_LOG, "a forward pass", error)
            raise BackendFailed(
                "the forward pass failed; the server's log has the details"
            ) from error
        finally:
            self._report(batch, time.monotonic() - begun, failed)
        return arrays

    def _report(self, batch: list[Work], infer_s: float, failed: bool) -> None:
        if self._on_forward_pass is None:
            return
        padded_tokens = len(batch) * max(work.length for work in batch)
        try:
            self._on_forward_pass(
                ForwardPass(len(batch), count_tokens(batch), padded_tokens, infer_s, failed)
            )
        except BaseException as error:  # noqa: BLE001 - who watches must not harm what is watched
            log_crash(_LOG, "observing a forward pass", error)


def _finish(
    work: Work, array: npt.NDArray[np.float32], queue_s: float, infer_s: float
) -> Completion[Any] | RerankError:
    try:
        return Completion(work.finish(work.position, array), queue_s, infer_s)
    except RerankError as error:
        return error
    except BaseException as error:  # noqa: BLE001 - it concerns this sequence only
        log_crash(_LOG, "finishing a sequence", error)
        return as_rerank_error(error)
