"""Sends a load to a target and notes what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rerank_sidecar.load.measurement import Measurement, Sample
from rerank_sidecar.load.requests import LoadRequest
from rerank_sidecar.load.schedule import ClosedLoop, Load, OpenLoop, poisson_arrivals
from rerank_sidecar.load.targets import Target

_PAUSE_S = 0.1
"""How long a caller that waits for its answers holds off after one was refused or failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to send, after a warm-up that is not counted, and the deadline of each request.

    `seed` draws the moments of an open loop.
    """

    duration_s: float
    timeout_s: float
    warm_up_s: float = 0.0
    seed: int = 0

    @property
    def end_s(self) -> float:
        """When the last request may be sent, from the start."""
        return self.warm_up_s + self.duration_s


async def drive(
    load: Load,
    target: Target,
    requests: Iterator[LoadRequest],
    plan: Plan,
    on_sample: Callable[[Sample], None] = lambda sample: None,
) -> Measurement:
    """Send a load, wait for the last answer, and give what is counted.

    In an open loop that is every request that was due after the warm-up. In a closed loop it is
    every request that was done after the warm-up and before the end: those that were under way at
    the beginning make up for those that still are at the end.
    """
    run = _Run(target, requests, plan, on_sample)
    processor_s = time.process_time()
    if isinstance(load, ClosedLoop):
        await run.by_callers(load.callers)
        counted = [each for each in run.samples if plan.warm_up_s <= each.done_s < plan.end_s]
    else:
        await run.at_rate(load)
        counted = [each for each in run.samples if plan.warm_up_s <= each.due_s]
    share = (time.process_time() - processor_s) / run.now()
    return Measurement(load, plan.duration_s, plan.timeout_s, counted, share)


class _Run:
    def __init__(
        self,
        target: Target,
        requests: Iterator[LoadRequest],
        plan: Plan,
        on_sample: Callable[[Sample], None],
    ) -> None:
        self.samples: list[Sample] = []
        self._target = target
        self._requests = requests
        self._plan = plan
        self._on_sample = on_sample
        self._began = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._began

    async def by_callers(self, callers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._call_again_and_again())

    async def at_rate(self, load: OpenLoop) -> None:
        rng = np.random.default_rng(self._plan.seed)
        arrivals_s = poisson_arrivals(load.rate_per_s, self._plan.end_s, rng)
        async with asyncio.TaskGroup() as group:
            for due_s in arrivals_s.tolist():
                request = next(self._requests)  # made ahead of its time
                await asyncio.sleep(max(0.0, due_s - self.now()))
                group.create_task(self._send(request, due_s))

    async def _call_again_and_again(self) -> None:
        while self.now() < self._plan.end_s:
            request = next(self._requests)
            sample = await self._send(request, self.now())
            if sample.answer.reason is not None:
                await asyncio.sleep(_PAUSE_S)

    async def _send(self, request: LoadRequest, due_s: float) -> Sample:
        sent_s = self.now()
        answer = await self._target.ask(request, self._plan.timeout_s)
        sample = Sample(due_s, sent_s, self.now(), len(request.documents), answer)
        self.samples.append(sample)
        self._on_sample(sample)
        return sample
