"""Candidates of a store and what becomes of them: the same steps for every store, both ways.

An adapter reads its rows into `Candidates`, asks `rerank_candidates` (or its asynchronous twin),
and makes new rows of what comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Unpack

from rerank_adapters.errors import ERRORS, RerankCallError
from rerank_adapters.messages import (
    Document,
    DocumentError,
    RerankOptions,
    RerankResponse,
    RerankResult,
)
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
from rerank_adapters.transport.merging import moved
from rerank_adapters.vectors import Vectors

MISSING_VECTORS = DocumentError("MISSING_VECTORS", "the row has no vectors of that name")
"""What is wrong with a row that has none of the vectors that rows are to be reranked by."""

_OF_WRONG_VECTORS = ("NOT_SUPPORTED_BY_MODEL", "INVALID_FIELD")
"""What the sidecar says of vectors that its model does not read, or of another dimension."""


class Sidecar(Protocol):
    """What the adapters need of a client: `RerankClient` has it, and so has the in-process twin."""

    def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
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
        documents: Iterable[str | Document],
        *,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> Awaitable[RerankResponse]:
        """Score documents against a query, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of a store in its order: what is read of them and, where it has them, its scores.

    `contents` are texts, or vectors where the `Rerank` names some; None where a row has none. A
    text that is missing is scored as an empty one; without vectors a row fails alone.
    """

    contents: tuple[str | Vectors | None, ...]
    store_scores: tuple[float | None, ...] | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Any],
        prop: Prop | None,
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
    the order is the store's. One that failed alone has its `error`, stands behind the others and
    has the worst of their scores.
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
    had no text, `missing_vectors` how many had not the vectors that they are reranked by.
    """

    rows: tuple[Placed, ...]
    response: RerankResponse | None = None
    missing_texts: int = 0
    missing_vectors: int = 0

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
        RerankCallError: the sidecar failed, and `on_error` is not `passthrough`; or the model
            cannot read the vectors of any row.
    """
    documents, options = _documents(rerank, candidates), _options(rerank)
    if not documents:
        return arrange(rerank, candidates, None)
    response = sidecar.rerank(query, documents, on_error=rerank.on_error, **options)
    return arrange(rerank, candidates, response)


async def rerank_candidates_async(
    sidecar: AsyncSidecar, rerank: Rerank, query: str, candidates: Candidates
) -> Arrangement:
    """Rerank the rows of a store; raises what `rerank_candidates` raises."""
    documents, options = _documents(rerank, candidates), _options(rerank)
    if not documents:
        return arrange(rerank, candidates, None)
    response = await sidecar.rerank(query, documents, on_error=rerank.on_error, **options)
    return arrange(rerank, candidates, response)


def arrange(rerank: Rerank, candidates: Candidates, response: RerankResponse | None) -> Arrangement:
    """Put rows in the order of an answer, fused with their own if that is wanted.

    Ties are in the store's order; rows that failed alone come last, in the store's order. Without
    an answer there was no row to ask about.

    Raises:
        RequestError: the model cannot read the vectors of any row.
    """
    rows = _asked(rerank, candidates)
    stores = candidates.store_scores or (None,) * len(candidates.contents)
    if response is not None and len(rows) < len(stores):
        of_rows = tuple(moved(each, rows[each.index]) for each in response.results)
        response = replace(response, results=of_rows)
    if response is not None and response.passed_through is not None:
        as_they_were = tuple(Placed(index, score, score) for index, score in enumerate(stores))
        return _explained(as_they_were, rerank, candidates, response)
    results = () if response is None else response.results
    _check_vectors(rerank, results)
    scores = _fused(rerank.fuse, stores, results)
    placed = [Placed(index, score, stores[index]) for index, score in scores.items()]
    worst = placed[-1].score if placed else 0.0
    errors = {each.index: each.error for each in results if each.error is not None}
    errors |= dict.fromkeys(set(range(len(stores))).difference(rows), MISSING_VECTORS)
    placed += [Placed(index, worst, stores[index], errors[index]) for index in sorted(errors)]
    return _explained(tuple(placed), rerank, candidates, response)


def _explained(
    placed: tuple[Placed, ...],
    rerank: Rerank,
    candidates: Candidates,
    response: RerankResponse | None,
) -> Arrangement:
    missing = candidates.contents.count(None)
    of_texts = rerank.vectors is None
    return Arrangement(placed, response, missing if of_texts else 0, 0 if of_texts else missing)


def _asked(rerank: Rerank, candidates: Candidates) -> list[int]:
    """Give the rows that the sidecar is asked about: all but those that lack their vectors."""
    contents = enumerate(candidates.contents)
    return [index for index, each in contents if each is not None or rerank.vectors is None]


def _check_vectors(rerank: Rerank, results: Sequence[RerankResult]) -> None:
    """Raise what is wrong with the vectors of all rows: that is no failure of single ones."""
    errors = [each.error for each in results if each.error is not None]
    if rerank.vectors is None or not errors or len(errors) < len(results):
        return
    if errors[0].reason in _OF_WRONG_VECTORS:
        kind, code = ERRORS[errors[0].reason]
        raise kind(code, errors[0].reason, errors[0].message)


def _documents(rerank: Rerank, candidates: Candidates) -> list[str | Document]:
    contents = (candidates.contents[index] for index in _asked(rerank, candidates))
    return [
        Document("", vectors=each) if isinstance(each, Vectors) else each or "" for each in contents
    ]


def _options(rerank: Rerank) -> RerankOptions:
    # All rows come back, because fusing and cutting to a page need them.
    options: RerankOptions = {
        "model": rerank.model,
        "normalization": "unit" if isinstance(rerank.fuse, WeightedSum) else None,
    }
    if rerank.query_vectors is not None:
        options["query_vectors"] = rerank.query_vectors
    return options


def _fused(
    fuse: Fuse, stores: Sequence[float | None], results: Sequence[RerankResult]
) -> dict[int, float]:
    """Give what each scored row stands in the new order by, best first, ties in store order."""
    scored = {each.index: each.score for each in results if each.score is not None}
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
