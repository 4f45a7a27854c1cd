"""What waits to run: filled by event loops, emptied batch by batch by the workers.

The workers take turns at leading: the one that holds `_planning` waits for work, takes a batch and
hands the lead on before it runs the batch (the Leader/Followers pattern, Schmidt et al. 2000). So
no thread does nothing but dispatch, and each batch is planned as late as can be, from all that
waits. `put` takes only `_arrived`, which nobody holds for long, so planning never holds up an event
loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from rerank_sidecar.batching.planner import BatchLimits, PendingItem
from rerank_sidecar.batching.work import Work, count_tokens, deliver, sift
from rerank_sidecar.errors import InternalError, RerankError, ShuttingDown, as_rerank_error
from rerank_sidecar.telemetry.crashes import log_crash

_LOG = logging.getLogger(__name__)

Plan = Callable[[Sequence[PendingItem], BatchLimits, float], list[int]]
"""Chooses the next batch, as `plan_batch` does."""


class WorkQueue:
    """Holds waiting sequences, drops those that nobody waits for, and hands out batches."""

    def __init__(self, limits: BatchLimits, plan: Plan) -> None:
        self._limits = limits
        self._plan = plan
        self._arrived = threading.Condition()  # guards the next four
        self._arrivals: list[Work] = []
        self._closing = False
        self._count = 0
        self._tokens = 0
        self._planning = threading.Lock()  # guards _pending; taken before _arrived
        self._pending: list[Work] = []

    @property
    def count(self) -> int:
        """How many sequences wait."""
        return self._count

    @property
    def tokens(self) -> int:
        """How many tokens they have, without padding."""
        return self._tokens

    def put(self, works: Sequence[Work]) -> None:
        """Add sequences.

        Raises:
            ShuttingDown: the queue is closing.
        """
        tokens = count_tokens(works)
        with self._arrived:
            if self._closing:
                raise _shutting_down()
            self._arrivals += works
            self._count += len(works)
            self._tokens += tokens
            self._arrived.notify()

    def take_batch(self) -> list[Work] | None:
        """Wait for work and remove the next batch of it; None when the queue is closing."""
        with self._planning:
            while self._collect():
                try:
                    batch = self._plan_and_remove()
                except BaseException as error:  # noqa: BLE001 - the same plan would fail again
                    log_crash(_LOG, "planning a batch", error)
                    self._fail_pending(partial(as_rerank_error, error))
                    continue
                if batch:
                    return batch
            return None

    def close(self) -> None:
        """Take no more work and hand out no more batches; what waits stays until `drain`."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()

    def drain(self) -> None:
        """Fail everything that waits with ShuttingDown, after `close`."""
        with self._planning:
            self._collect()
            self._fail_pending(_shutting_down)

    def _collect(self) -> bool:
        """Wait until something is pending and gather it; False when the queue is closing."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._arrivals or self._pending or self._closing)
            self._pending += self._arrivals
            self._arrivals.clear()
            return not self._closing

    def _plan_and_remove(self) -> list[Work]:
        """Remove the next batch; empty if nobody waits for anything that is pending."""
        now = time.monotonic()
        wanted, late = sift(self._pending, now)
        deliver(late)
        positions = self._plan(wanted, self._limits, now)
        if wanted and not positions:
            raise InternalError("the planner chose nothing")
        chosen = set(positions)
        batch = [wanted[position] for position in positions]
        self._keep([work for position, work in enumerate(wanted) if position not in chosen])
        return batch

    def _fail_pending(self, make_error: Callable[[], RerankError]) -> None:
        failed = self._pending
        self._keep([])
        deliver((work, make_error()) for work in failed)

    def _keep(self, works: list[Work]) -> None:
        """Let only these go on waiting."""
        count = len(self._pending) - len(works)
        tokens = count_tokens(self._pending) - count_tokens(works)
        self._pending = works
        with self._arrived:
            self._count -= count
            self._tokens -= tokens


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down")
