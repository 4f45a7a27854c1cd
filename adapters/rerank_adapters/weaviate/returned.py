"""Reranking what Weaviate has found, where no module of it does so: the application asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, overload

from weaviate.outputs.query import Group, GroupByObject, GroupByReturn, QueryReturn

from rerank_adapters.candidates import (
    Arrangement,
    AsyncSidecar,
    Candidates,
    Placed,
    Sidecar,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.rerank import Rerank, StoreScale, WeightedSum
from rerank_adapters.vectors import packed
from rerank_adapters.weaviate.results import (
    P,
    R,
    Reranked,
    RerankedGroupByMetadata,
    RerankedGroupByReturn,
    RerankedQueryReturn,
    Returned,
    plain,
)

_Row = Any
"""An `Object` or a `GroupByObject`."""

_OF_SCALE: Mapping[StoreScale, tuple[str, ...]] = MappingProxyType(
    {
        "unit": ("certainty", "score"),
        "cosine": ("score",),
        "logistic": ("score",),
        "cosine_distance": ("distance",),
        "distance": ("distance",),
    }
)
"""In which fields of an object's metadata a score of each scale is."""


@overload
def rerank_query_return(
    returned: QueryReturn[P, R], rerank: Rerank, sidecar: Sidecar
) -> RerankedQueryReturn[P, R]: ...
@overload
def rerank_query_return(
    returned: GroupByReturn[P, R], rerank: Rerank, sidecar: Sidecar
) -> RerankedGroupByReturn[P, R]: ...
def rerank_query_return(returned: Returned, rerank: Rerank, sidecar: Sidecar) -> Reranked:
    """Rerank the objects of a finished query, which needs no module in Weaviate.

    Gives new objects with `metadata.rerank_score`, the best first, and `top_n` of them if that is
    set; the store's own score, distance and certainty are as they were, and `returned` is not
    changed. Where the query grouped, the objects of each group are reordered and the groups stand
    by their first object; `top_n` then counts groups. `fuse` with a `WeightedSum` needs the store's
    own score: ask for it with `return_metadata`. `vectors` need those: ask with `include_vector`.

    Raises:
        RerankCallError: the sidecar failed, and `on_error` is not "passthrough".
        TypeError: `returned` is something else, or a text was generated from all of it.
        ValueError: `rerank` has no query, oversamples a query that is over, or fuses with a score
            that the objects do not have.
    """
    found = _finished(returned, rerank)
    candidates = candidates_of(found, rerank)
    arrangement = rerank_candidates(sidecar, rerank, rerank.query_text(), candidates)
    return arranged(found, arrangement, rerank.top_n)


@overload
async def rerank_query_return_async(
    returned: QueryReturn[P, R], rerank: Rerank, sidecar: AsyncSidecar
) -> RerankedQueryReturn[P, R]: ...
@overload
async def rerank_query_return_async(
    returned: GroupByReturn[P, R], rerank: Rerank, sidecar: AsyncSidecar
) -> RerankedGroupByReturn[P, R]: ...
async def rerank_query_return_async(
    returned: Returned, rerank: Rerank, sidecar: AsyncSidecar
) -> Reranked:
    """Rerank the objects of a finished query, as `rerank_query_return` does."""
    found = _finished(returned, rerank)
    candidates = candidates_of(found, rerank)
    query = rerank.query_text()
    arrangement = await rerank_candidates_async(sidecar, rerank, query, candidates)
    return arranged(found, arrangement, rerank.top_n)


def candidates_of(returned: Returned, rerank: Rerank) -> Candidates:
    """Read the texts or vectors of the objects, those of groups one group after the other.

    Raises:
        ValueError: the store's own score is needed, and an object has none.
    """
    fuse = rerank.fuse
    score = partial(_store_score, fuse.store_scale) if isinstance(fuse, WeightedSum) else None
    rows: Sequence[_Row] = returned.objects
    name = rerank.vectors
    if name is None:
        return Candidates.of(rows, rerank.prop, _field, score)
    stored = tuple(packed(row.vector.get(name) or None) for row in rows)
    return Candidates(stored, None if score is None else tuple(map(score, rows)))


def arranged(
    returned: Returned, arrangement: Arrangement, count: int | None = None, offset: int = 0
) -> Reranked:
    """Make a new answer of the candidates: `count` objects, or groups, after `offset` of them."""
    page = slice(offset, None if count is None else offset + count)
    if isinstance(returned, GroupByReturn):
        return _arranged_groups(returned, arrangement, page)
    rows = arrangement.rows[page]
    objects = [_reranked(returned.objects[row.index], row, arrangement) for row in rows]
    outcome = _outcome(arrangement, zip(objects, rows, strict=True))
    return RerankedQueryReturn(**{**vars(returned), "objects": objects, **outcome})


def _arranged_groups(
    returned: GroupByReturn[Any, Any], arrangement: Arrangement, page: slice
) -> RerankedGroupByReturn[Any, Any]:
    hits: dict[str, list[tuple[_Row, Placed]]] = {}
    for row in arrangement.rows:
        hit = returned.objects[row.index]
        pair = (_reranked(hit, row, arrangement), row)
        hits.setdefault(hit.belongs_to_group, []).append(pair)
    shown = {name: hits[name] for name in list(hits)[page]}
    groups = {name: _group(returned.groups[name], hits[name], arrangement) for name in shown}
    objects = [hit for group in groups.values() for hit in group.objects]
    outcome = _outcome(arrangement, chain.from_iterable(shown.values()))
    changed = {"objects": objects, "groups": groups, **outcome}
    return RerankedGroupByReturn(**{**vars(returned), **changed})


def _group(
    group: Group[Any, Any], hits: Sequence[tuple[_Row, Placed]], arrangement: Arrangement
) -> Group[Any, Any]:
    objects = [hit for hit, _ in hits]
    if arrangement.passed_through is not None:
        return replace(group, objects=objects)
    return replace(group, objects=objects, rerank_score=hits[0][1].score)


def _reranked(row: _Row, placed: Placed, arrangement: Arrangement) -> _Row:
    """Copy an object, with its score unless there is none because the call was passed through."""
    new = copy(row)  # not `replace`: what `near_vector` returns cannot be made of its fields
    if arrangement.passed_through is None:
        own = row.metadata
        if isinstance(row, GroupByObject):
            own = RerankedGroupByMetadata(**vars(own))
        new.metadata = replace(own, rerank_score=placed.score)
    return new


def _outcome(arrangement: Arrangement, shown: Iterable[tuple[_Row, Placed]]) -> dict[str, object]:
    return {
        "passed_through": arrangement.passed_through,
        "response": arrangement.response,
        "missing_texts": arrangement.missing_texts,
        "missing_vectors": arrangement.missing_vectors,
        "errors": {row.uuid: placed.error for row, placed in shown if placed.error is not None},
    }


def _field(row: _Row, name: str) -> object:
    return row.properties.get(name)


def _store_score(scale: StoreScale, row: _Row) -> float:
    names = _OF_SCALE[scale]
    scores = (getattr(row.metadata, name, None) for name in names)
    score: float | None = next((each for each in scores if each is not None), None)
    if score is None:
        raise ValueError(
            f"fuse: the scale {scale!r} is one of metadata.{' or '.join(names)}, and these objects "
            "have none; ask for it with return_metadata"
        )
    return score


def _finished(returned: Returned, rerank: Rerank) -> Returned:
    if rerank.oversample is not None:
        raise ValueError(
            "oversample: the query is over; give it a higher limit, and Rerank a top_n"
        )
    return plain(returned)
