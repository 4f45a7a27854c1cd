"""A whole run of the load generator: one load after the other against one target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rerank_sidecar.errors import StartupError
from rerank_sidecar.load.driver import Plan, drive
from rerank_sidecar.load.measurement import Measurement, Sample
from rerank_sidecar.load.report import LoadReport, summarise
from rerank_sidecar.load.requests import Repeat, make_requests
from rerank_sidecar.load.schedule import Load
from rerank_sidecar.load.targets import Door, open_target
from rerank_sidecar.load.texts import GivenTexts, MadeTexts, read_texts

Watch = Callable[[Load], Callable[[Sample], None]]
"""Told when a load begins; gives what is told of each of its requests."""

_PATIENCE_S = 30.0
"""What the first request may take, which shows that the target answers at all."""


@dataclass(frozen=True, slots=True)
class BenchJob:
    """What is sent, where to, how often and how long.

    `texts` is a file or folder of documents, or None for made ones of `mean_words` on average.
    `model` is the name that requests ask for, `token` what they show.
    """

    door: Door
    loads: tuple[Load, ...]
    plan: Plan
    documents: int
    mean_words: int
    texts: Path | None = None
    repeat: Repeat = Repeat.NONE
    distinct: int = 1
    model: str | None = None
    token: str | None = field(default=None, repr=False)
    chunks_at_once: int = 2


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All loads of a run, and what was sent in them."""

    target: str
    door: str
    documents: int
    texts: str
    repeat: str
    timeout_s: float
    duration_s: float
    loads: tuple[LoadReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain values, named as in these classes."""
        return asdict(self)


class Bench:
    """A job with its texts in memory.

    Raises:
        UnreadableInput: the texts cannot be read.
    """

    def __init__(self, job: BenchJob) -> None:
        self._job = job
        self._rng = np.random.default_rng(job.plan.seed)
        self._texts: GivenTexts | MadeTexts = (
            read_texts(job.texts, self._rng) if job.texts else MadeTexts(self._rng, job.mean_words)
        )

    async def run(
        self, address: str, watch: Watch = lambda load: lambda sample: None
    ) -> list[Measurement]:
        """Send every load after one request that shows that the target answers at all.

        Raises:
            StartupError: it does not.
            MissingExtra: the door needs an HTTP client that is not installed.
        """
        job = self._job
        requests = make_requests(
            self._texts, job.documents, self._rng, repeat=job.repeat, distinct=job.distinct
        )
        async with open_target(
            job.door,
            address,
            model=job.model,
            token=job.token,
            chunks_at_once=job.chunks_at_once,
        ) as target:
            first = await target.ask(next(requests), max(_PATIENCE_S, job.plan.timeout_s))
            if first.reason is not None and not first.refused:
                raise StartupError(f"{address} did not answer: {first.reason}")
            return [
                await drive(load, target, requests, job.plan, watch(load)) for load in job.loads
            ]

    def report(self, address: str, measured: Sequence[Measurement]) -> BenchReport:
        """Sum up what a run against this address found."""
        job = self._job
        again = f"{job.distinct} {job.repeat}" if job.repeat is not Repeat.NONE else "nothing"
        return BenchReport(
            target=address,
            door=job.door,
            documents=job.documents,
            texts=self._texts.source,
            repeat=again,
            timeout_s=job.plan.timeout_s,
            duration_s=job.plan.duration_s,
            loads=tuple(summarise(each) for each in measured),
        )
