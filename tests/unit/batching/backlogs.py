"""Plans over a list, for tests that look at one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_sidecar.batching.planner import Backlog, BatchLimits, PendingItem


def plan_batch(
    pending: Sequence[PendingItem], limits: BatchLimits, now: float, running_tokens: float = 0.0
) -> list[int]:
    """Give the positions in `pending` of the batch that runs next."""
    backlog = Backlog(limits)
    positions = {backlog.add(item): position for position, item in enumerate(pending)}
    return [positions[number] for number in backlog.take_batch(now, running_tokens)]
