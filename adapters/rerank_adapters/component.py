"""What the components for all frameworks share: their options, and what comes of a call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from rerank_adapters.candidates import Arrangement, Placed
from rerank_adapters.lost_in_the_middle import lost_in_the_middle
from rerank_adapters.rerank import Fuse, OnError, Rerank
from rerank_adapters.transport.channel import Target

ERROR_KEY = "rerank_error"
"""Where a row's metadata says why it was not reranked: a reason of docs/errors.md, or gRPC's code.

All rows have it after a call that was passed through, else those whose text failed alone.
"""

RETRIEVAL_SCORE_KEY = "retrieval_score"
"""Where a row's metadata keeps the retriever's score, on request."""

_LOG = logging.getLogger("rerank_adapters")


class ComponentOptions(TypedDict, total=False):
    """The keyword arguments that a component takes beside those of its framework.

    `target` is where the sidecar is, as `RerankClient` takes it, or the URL of its HTTP door;
    `timeout_s` is the deadline of a call in seconds. A given sidecar has its own of both. `model`
    names one of the sidecar's models. `top_n` is how many rows come back, None: all. `on_error`
    says what becomes of a call that fails: "raise", or "passthrough" to get the rows back in their
    order, each with a `rerank_error`. `fuse` says whether that order counts, too.
    `lost_in_the_middle` puts the best rows first and last, which is where a language model looks.
    """

    target: Target | None
    timeout_s: float
    model: str | None
    top_n: int | None
    on_error: OnError | None
    fuse: Fuse
    lost_in_the_middle: bool


@dataclass(frozen=True, slots=True)
class Reranked:
    """One row that comes back: which it is, its score, and why it was not reranked, if so.

    `score` is None if the call was passed through; one that failed alone has the worst of the
    others.
    """

    index: int
    score: float | None
    error: str | None


def reranked_rows(
    arrangement: Arrangement, rerank: Rerank, *, for_prompt: bool
) -> Iterator[Reranked]:
    """Give the rows that come back, best first, or best first and last if it is for a prompt."""
    if arrangement.missing_texts:
        _LOG.warning("%d documents without text were scored as empty", arrangement.missing_texts)
    page: Sequence[Placed] = arrangement.page(rerank)
    passed_through = arrangement.passed_through
    for placed in lost_in_the_middle(page) if for_prompt else page:
        if passed_through is not None:
            reason = passed_through.reason or passed_through.code.name
            yield Reranked(placed.index, None, reason)
        else:
            error = None if placed.error is None else placed.error.reason
            yield Reranked(placed.index, placed.score, error)
