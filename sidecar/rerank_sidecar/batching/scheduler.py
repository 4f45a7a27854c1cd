"""Runs the token sequences of all callers through one backend, batch after batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import Backend, TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.submission import Submission
from rerank_sidecar.batching.throughput import Throughput
from rerank_sidecar.batching.work import Answer, Completion, Waiter, Work, count_tokens, deliver
from rerank_sidecar.batching.work_queue import WorkQueue
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

    `padded_tokens` is the padded length of the longest sequence times their number.
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
        tokens_per_s: float = 10_000.0,
        on_forward_pass: Callable[[ForwardPass], None] | None = None,
    ) -> None:
        """Prepare `workers` threads, each of which runs one batch at a time.

        `workers` takes the place of `limits.workers`. `tokens_per_s` is what the measurement of
        that name starts from. `on_forward_pass` is told of every forward pass, on the thread
        that ran it.
        """
        self._backend = backend
        self._limits = replace(limits, workers=workers)
        self._fair_share_tokens = _PASSES_AHEAD * workers * limits.max_batch_tokens
        self._throughput = Throughput(workers, tokens_per_s)
        self._queue = WorkQueue(self._limits, self._throughput)
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
    def tokens_per_s(self) -> float:
        """At what rate all workers together read tokens, without padding, when all are busy.

        It follows the latest batches; idle time does not change it.
        """
        return self._throughput.tokens_per_s

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
        since: float | None = None,
    ) -> list[asyncio.Future[Completion[T]]]:
        """Queue sequences and return one future for each, in order, of the running event loop.

        `finish(position, array)` turns the backend's array for `sequences[position]` into the value
        of its future, on a worker thread right after the forward pass. A higher `priority` runs
        sooner; `deadline` is on the clock of `time.monotonic`, in seconds. Cancelling a future
        drops its sequence if it has not begun and nobody else waits for it. `since`, on the same
        clock, is from when they stand in the queue, if that is not now; a time to come is now.

        A sequence of the same tokens as one that waits or runs joins it: they run once, as the most
        urgent of them would. Each has its own `finish`, future and deadline all the same.

        A future fails with DeadlineExceeded as soon as its deadline passes before its forward pass
        begins, BackendFailed if the backend fails on this sequence even alone, ShuttingDown if it
        still waits at `close`, the RerankError that `finish` raises, or InternalError.

        Raises:
            ShuttingDown: the scheduler is closed or closing.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        enqueued_at = now if since is None else min(since, now)
        urgency = priority, deadline, now, enqueued_at
        waiters = [
            Waiter(sequence, position, finish, loop.create_future(), *urgency)
            for position, sequence in enumerate(sequences)
        ]
        self._queue.put(waiters)
        Submission(self._queue, waiters).watch(loop, deadline)
        return [waiter.future for waiter in waiters]

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
        failed = True
        try:
            answers, failed = self._run(batch.works)
        except BaseException as error:  # noqa: BLE001 - somebody waits for every sequence
            log_crash(_LOG, "a batch", error)
            self._queue.end(batch.works)
            answers = [(waiter, as_rerank_error(error)) for waiter in _waiters(batch.works)]
        self._throughput.end(batch.running, time.monotonic(), failed=failed)
        deliver(answers)
        return True

    def _run(self, works: list[Work]) -> tuple[list[Answer], bool]:
        """Run a batch and tell whether it failed.

        If it does, each sequence runs alone, so that only the bad ones fail.
        """
        begun = time.monotonic()
        try:
            arrays = self._forward(works)
        except RerankError as error:
            if len(works) == 1:
                self._queue.end(works)
                return [(waiter, error) for waiter in _waiters(works)], True
            _LOG.warning("a batch of %d failed; running its sequences one by one", len(works))
            return [answer for work in works for answer in self._run_alone(work)], True
        self._queue.end(works)
        infer_s_per_token = (time.monotonic() - begun) / max(1, count_tokens(works))
        return [
            answer
            for work, array in zip(works, arrays, strict=True)
            for answer in _finish_all(work, array, begun, infer_s_per_token * work.length)
        ], False

    def _run_alone(self, work: Work) -> list[Answer]:
        return self._run([work])[0] if self._queue.is_still_wanted(work) else []

    def _forward(self, works: list[Work]) -> list[npt.NDArray[np.float32]]:
        """Run one forward pass; whatever goes wrong in it becomes a RerankError."""
        begun = time.monotonic()
        failed = True
        try:
            arrays = self._backend.run([work.sequence for work in works])
            if len(arrays) != len(works):
                raise BackendFailed(f"{len(arrays)} arrays came back for {len(works)} sequences")
            failed = False
        except RerankError:
            raise
        except BaseException as error:
            log_crash(_LOG, "a forward pass", error)
            raise BackendFailed(
                "the forward pass failed; the server's log has the details"
            ) from error
        finally:
            self._report(works, time.monotonic() - begun, failed)
        return arrays

    def _report(self, works: list[Work], infer_s: float, failed: bool) -> None:
        if self._on_forward_pass is None:
            return
        padded_tokens = len(works) * self._limits.padded(max(work.length for work in works))
        try:
            self._on_forward_pass(
                ForwardPass(len(works), count_tokens(works), padded_tokens, infer_s, failed)
            )
        except BaseException as error:  # noqa: BLE001 - who watches must not harm what is watched
            log_crash(_LOG, "observing a forward pass", error)


def _waiters(works: Iterable[Work]) -> Iterator[Waiter]:
    return chain.from_iterable(work.waiters for work in works)


def _finish_all(
    work: Work, array: npt.NDArray[np.float32], begun: float, infer_s: float
) -> list[Answer]:
    """Make everybody's own value of a sequence that has run; they part its time among them."""
    waiters = [waiter for waiter in work.waiters if not waiter.future.done()]
    return [
        (waiter, _finish(waiter, array, begun, infer_s / len(waiters), shared=place > 0))
        for place, waiter in enumerate(waiters)
    ]


def _finish(
    waiter: Waiter, array: npt.NDArray[np.float32], begun: float, infer_s: float, *, shared: bool
) -> Completion[Any] | RerankError:
    # Whoever joined a forward pass that was running has not waited for it to begin.
    queue_s = max(0.0, begun - waiter.submitted_at)
    try:
        return Completion(waiter.finish(waiter.position, array), queue_s, infer_s, shared)
    except RerankError as error:
        return error
    except BaseException as error:  # noqa: BLE001 - it concerns this sequence only
        log_crash(_LOG, "finishing a sequence", error)
        return as_rerank_error(error)
