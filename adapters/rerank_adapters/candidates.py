"""Candidates of a store and what becomes of them: the same steps for every store, both ways.

An adapter reads its rows into `Candidates`, asks `rerank_candidates` (or its asynchronous twin),
and makes new rows of what comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

from rerank_adapters.errors import RerankCallError
from rerank_adapters.messages import DocumentError, RerankOptions, RerankResponse
from rerank_adapters.rerank import (
    Fuse,
    OnError,
    Prop,
    ReciprocalRank,
    Rerank,
    WeightedSum,
    render,
    store_score_to_unit,
)


class Sidecar(Protocol):
    """What the adapters need of a client: `RerankClient` has it, and so has the in-process twin."""

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        """Score documents against a query, best first."""
        ...


class AsyncSidecar(Protocol):
    """The same for asyncio."""

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> Awaitable[RerankResponse]:
        """Score documents against a query, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of a store in its order: their texts and, where it has them, its scores.

    `texts` are None where a row has none; those are scored as empty.
    """

    texts: tuple[str | None, ...]
    store_scores: tuple[float | None, ...] | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Any],
        prop: Prop,
        field: Callable[[Any, str], object],
        store_score: Callable[[Any], float] | None = None,
    ) -> Candidates:
        """Read rows; `field` reads a field of one, `store_score` its score."""
        texts = tuple(render(prop, row, field) for row in rows)
        return cls(texts, None if store_score is None else tuple(map(store_score, rows)))


@dataclass(frozen=True, slots=True)
class Placed:
    """One row in its new place: which it is, and both scores.

    `score` is what the row stands here by: the model's, or the fused one; the store's own where
    the order is the store's. One whose text failed alone has its `error`, stands behind the others
    and has the worst of their scores.
    """

    index: int
    score: float | None
    store_score: float | None = None
    error: DocumentError | None = None


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The rows in their new order, and how it came about.

    `passed_through` is the error for which the store's own order came back; None: reranked.
    `response` is the sidecar's, None if there was nothing to ask. `missing_texts` is how many rows
    had no text.
    """

    rows: tuple[Placed, ...]
    response: RerankResponse | None = None
    missing_texts: int = 0

    @property
    def passed_through(self) -> RerankCallError | None:
        """Give the error for which the store's own order came back."""
        return None if self.response is None else self.response.passed_through

    def page(self, rerank: Rerank, limit: int | None = None, offset: int = 0) -> tuple[Placed, ...]:
        """Give the rows that the caller asked for."""
        counts = [count for count in (limit, rerank.top_n) if count is not None]
        return self.rows[offset : offset + min(counts) if counts else None]


def rerank_candidates(
    sidecar: Sidecar, rerank: Rerank, query: str, candidates: Candidates
) -> Arrangement:
    """Rerank the rows of a store.

    Raises:
        RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
    """
    if not candidates.texts:
        return Arrangement(())
    texts, options = _documents(candidates), _options(rerank)
    response = sidecar.rerank(query, texts, on_error=rerank.on_error, **options)
    return arrange(rerank, candidates, response)


async def rerank_candidates_async(
    sidecar: AsyncSidecar, rerank: Rerank, query: str, candidates: Candidates
) -> Arrangement:
    """Rerank the rows of a store; raises what `rerank_candidates` raises."""
    if not candidates.texts:
        return Arrangement(())
    texts, options = _documents(candidates), _options(rerank)
    response = await sidecar.rerank(query, texts, on_error=rerank.on_error, **options)
    return arrange(rerank, candidates, response)


def arrange(rerank: Rerank, candidates: Candidates, response: RerankResponse) -> Arrangement:
    """Put rows in the order of an answer, fused with their own if that is wanted.

    Ties are in the store's order; rows that failed alone come last, in the store's order.
    """
    missing = sum(text is None for text in candidates.texts)
    stores = candidates.store_scores or (None,) * len(candidates.texts)
    if response.passed_through is not None:
        rows = tuple(Placed(index, score, score) for index, score in enumerate(stores))
        return Arrangement(rows, response, missing)
    scores = _fused(rerank.fuse, stores, response)
    placed = [Placed(index, score, stores[index]) for index, score in scores.items()]
    worst = placed[-1].score if placed else 0.0
    failed = sorted((each for each in response.results if each.error), key=lambda each: each.index)
    placed += [Placed(each.index, worst, stores[each.index], each.error) for each in failed]
    return Arrangement(tuple(placed), response, missing)


def _documents(candidates: Candidates) -> list[str]:
    return [text or "" for text in candidates.texts]


def _options(rerank: Rerank) -> RerankOptions:
    # All rows come back, because fusing and cutting to a page need them.
    return {
        "model": rerank.model,
        "normalization": "unit" if isinstance(rerank.fuse, WeightedSum) else None,
    }


def _fused(
    fuse: Fuse, stores: Sequence[float | None], response: RerankResponse
) -> dict[int, float]:
    """Give what each scored row stands in the new order by, best first, ties in store order."""
    scored = {each.index: each.score for each in response.results if each.score is not None}
    if fuse == "none":
        return scored  # the sidecar's order, in which a RANK is better when it is lower
    if isinstance(fuse, WeightedSum):
        fused = {
            index: fuse.weight * score + (1 - fuse.weight) * _unit(fuse, stores[index])
            for index, score in scored.items()
        }
    else:
        k = fuse.k if isinstance(fuse, ReciprocalRank) else ReciprocalRank().k
        fused = {
            index: 1 / (k + index + 1) + 1 / (k + place)
            for place, index in enumerate(scored, start=1)
        }
    return dict(sorted(fused.items(), key=lambda pair: (-pair[1], pair[0])))


def _unit(fuse: WeightedSum, score: float | None) -> float:
    if score is None:
        raise ValueError("fuse: a WeightedSum needs the store's scores, and these rows have none")
    return store_score_to_unit(fuse.store_scale, score)
