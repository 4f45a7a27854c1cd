"""What models that read query and document together share: reading, and logits as scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import NonFiniteScore
from rerank_sidecar.rerankers.base import IndexedDocuments, ScoreOptions
from rerank_sidecar.rerankers.flow import Outcomes
from rerank_sidecar.rerankers.reading import DocumentReading, Finish, TooLong, WindowScore
from rerank_sidecar.rerankers.sharing import Lease
from rerank_sidecar.rerankers.threads import in_thread

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class PairReading(Generic[Q]):
    """A query's tokens on their way, and how documents are read with them.

    `read_pairs` computes, and so runs in the executor.
    """

    lease: Lease[Q]
    read_pairs: Callable[[Q, Sequence[str]], list[DocumentReading | TooLong]]
    logits_to_score: Finish
    options: ScoreOptions
    executor: Executor | None

    async def recall(self, group: IndexedDocuments) -> tuple[Outcomes, IndexedDocuments]:
        """Each pair needs a forward pass."""
        return [], group

    async def read(self, texts: Sequence[str]) -> list[DocumentReading | TooLong]:
        """Tokenise documents and cut them into windows, unless they may not be cut."""
        query = await self.lease.value(self.options.deadline)
        readings, seconds = await in_thread(self.executor, self.read_pairs, query, texts)
        self.options.meter.tokenise_s += seconds
        return readings

    async def finish(self) -> Finish:
        """Give how logits become scores."""
        return self.logits_to_score

    def close(self) -> None:
        """Let go of the query."""
        self.lease.close()


def logit_score(_position: int, logits: npt.NDArray[np.float32]) -> WindowScore:
    """Give the logit, of two answers that of yes less that of no, as it is.

    Raises:
        NonFiniteScore: it is infinite or none.
    """
    return WindowScore(_logit(logits))


def probability_score(_position: int, logits: npt.NDArray[np.float32]) -> WindowScore:
    """Give the probability that the logit, the log of the odds, stands for.

    Raises:
        NonFiniteScore: the logit is infinite or none.
    """
    logit = _logit(logits)
    # The exponent is never positive, so that it cannot overflow.
    decay = math.exp(-abs(logit))
    return WindowScore((1.0 if logit >= 0 else decay) / (1.0 + decay))


def _logit(logits: npt.NDArray[np.float32]) -> float:
    logit = float(logits[0]) - float(logits[1:].sum())
    if not math.isfinite(logit):
        raise NonFiniteScore("the model gave a logit that is not finite")
    return logit
