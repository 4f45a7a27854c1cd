"""What waits and what runs: filled by event loops, emptied batch by batch by the workers.

Each idle worker waits for work, plans the next batch as late as can be, from all that waits, and
runs it itself, so no thread does nothing but dispatch. One lock guards it all; planning costs so
little that nobody holds it for long. Nothing is called under it that may wait.

A sequence that is put while one of the same tokens waits or runs joins it, until its results are
handed out (`end`): whoever joined by then gets them, whoever comes later starts anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from rerank_sidecar.batching.planner import Backlog, BatchLimits
from rerank_sidecar.batching.throughput import Running, Throughput
from rerank_sidecar.batching.work import Answer, Waiter, Work, count_tokens, deliver, work_for
from rerank_sidecar.errors import (
    DeadlineExceeded,
    InternalError,
    RerankError,
    ShuttingDown,
    as_rerank_error,
)
from rerank_sidecar.telemetry.crashes import log_crash

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a worker runs next."""

    works: list[Work]
    running: Running


class WorkQueue:
    """Holds sequences and who waits for them, drops what nobody waits for, hands out batches."""

    def __init__(
        self,
        limits: BatchLimits,
        throughput: Throughput,
        make_backlog: Callable[[BatchLimits], Backlog] = Backlog,
    ) -> None:
        self._new_backlog = partial(make_backlog, limits)
        self._throughput = throughput
        self._changed = threading.Condition()  # guards all below
        self._closing = False
        self._backlog = self._new_backlog()
        self._waiting: dict[int, Work] = {}
        self._tokens = 0
        self._by_content: dict[int, Work] = {}

    @property
    def count(self) -> int:
        """How many sequences wait."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """How many tokens they have, without padding."""
        return self._tokens

    def put(self, waiters: Sequence[Waiter]) -> None:
        """Add sequences and who waits for them.

        Raises:
            ShuttingDown: the queue is closing.
        """
        with self._changed:
            if self._closing:
                raise _shutting_down()
            self._changed.notify(sum(map(self._put, waiters)))

    def withdraw(self, waiters: Iterable[Waiter]) -> list[Waiter]:
        """Let them wait no longer, but for those whose forward pass has begun; give the others."""
        with self._changed:
            return [waiter for waiter in waiters if self._withdraw(waiter)]

    def take_batch(self) -> Batch | None:
        """Wait for work and remove the next batch of it; None when the queue is closing."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting)
                if self._closing:
                    return None
                works, answers = self._next_batch()
                batch = self._begin(works) if works else None
            deliver(answers)
            if batch is not None:
                return batch

    def is_still_wanted(self, work: Work) -> bool:
        """Tell whether somebody waits for what is to run once more, and answer those too late."""
        with self._changed:
            wanted, answers = self._sift([work])
        deliver(answers)
        return bool(wanted)

    def end(self, works: Iterable[Work]) -> None:
        """Let nobody else join these; from here on their waiters are the caller's alone."""
        with self._changed:
            for work in works:
                self._forget(work)

    def close(self) -> None:
        """Take no more work and hand out no more batches; what waits stays until `drain`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def drain(self) -> None:
        """Fail everything that waits with ShuttingDown, after `close`."""
        with self._changed:
            answers = self._fail_waiting(_shutting_down)
        deliver(answers)

    def _put(self, waiter: Waiter) -> bool:
        """Add somebody who waits; tell whether there is more to run now."""
        work = self._by_content.get(waiter.content)
        is_new = work is None or not work.is_same(waiter.sequence)
        if work is None or is_new:
            work = work_for(waiter)
            self._by_content[work.content] = work
            self._let_wait(work)
        elif work.join(waiter) and work.number is not None:
            self._backlog.remove(work.number)
            self._let_wait(self._take_out(work.number))
        if work.number is not None:
            waiter.waits_for = work
        return is_new

    def _let_wait(self, work: Work) -> None:
        work.number = self._backlog.add(work.as_item())
        self._waiting[work.number] = work
        self._tokens += work.length

    def _take_out(self, number: int) -> Work:
        work = self._waiting.pop(number)
        work.number = None
        self._tokens -= work.length
        return work

    def _forget(self, work: Work) -> None:
        if self._by_content.get(work.content) is work:
            del self._by_content[work.content]

    def _withdraw(self, waiter: Waiter) -> bool:
        work, waiter.waits_for = waiter.waits_for, None
        if work is None or work.number is None:
            return False
        del work.waiters[waiter]
        if not work.waiters:
            self._backlog.remove(work.number)
            self._forget(self._take_out(work.number))
        return True

    def _next_batch(self) -> tuple[list[Work], list[Answer]]:
        """Remove the next batch; empty if nobody waits for it any more."""
        now = time.monotonic()
        try:
            numbers = self._backlog.take_batch(now, self._throughput.tokens_left(now))
            if not numbers or not self._waiting.keys() >= set(numbers):
                raise InternalError("the planner chose nothing, or what does not wait")
        except BaseException as error:  # noqa: BLE001 - the same plan would fail again
            log_crash(_LOG, "planning a batch", error)
            return [], self._fail_waiting(partial(as_rerank_error, error))
        works = [self._take_out(number) for number in dict.fromkeys(numbers)]
        for waiter in chain.from_iterable(work.waiters for work in works):
            waiter.waits_for = None
        return self._sift(works)

    def _begin(self, works: list[Work]) -> Batch:
        return Batch(works, self._throughput.begin(count_tokens(works), time.monotonic()))

    def _sift(self, works: Iterable[Work]) -> tuple[list[Work], list[Answer]]:
        now = time.monotonic()
        wanted: list[Work] = []
        late: list[Answer] = []
        for work in works:
            late += [(waiter, deadline_passed()) for waiter in work.waiters if waiter.is_late(now)]
            work.waiters = {
                waiter: None
                for waiter in work.waiters
                if not waiter.future.done() and not waiter.is_late(now)
            }
            if work.waiters:
                wanted.append(work)
            else:
                self._forget(work)
        return wanted, late

    def _fail_waiting(self, make_error: Callable[[], RerankError]) -> list[Answer]:
        failed = list(self._waiting.values())
        self._waiting.clear()
        self._tokens = 0
        self._backlog = self._new_backlog()
        for work in failed:
            work.number = None
            self._forget(work)
        waiters = list(chain.from_iterable(work.waiters for work in failed))
        for waiter in waiters:
            waiter.waits_for = None
        return [(waiter, make_error()) for waiter in waiters]


def deadline_passed() -> DeadlineExceeded:
    """Make the error of a sequence whose deadline has passed before it could run."""
    return DeadlineExceeded("the deadline passed before the model could run")


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down")
