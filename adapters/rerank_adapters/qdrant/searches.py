"""A query to be reranked: what the store is asked for, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from qdrant_client.http import models
from qdrant_client.http.models import GroupsResult, Prefetch, QueryRequest, ScoredPoint

from rerank_adapters.candidates import Arrangement, Candidates
from rerank_adapters.qdrant.payloads import Selection, select, text_field
from rerank_adapters.qdrant.results import (
    RerankedGroup,
    RerankedGroupsResult,
    RerankedPoint,
    RerankedQueryResponse,
)
from rerank_adapters.qdrant.vectors import VectorSelection, select_vectors, vectors_of
from rerank_adapters.rerank import Rerank

Prefetches = list[Prefetch] | Prefetch | None

_DEFAULT_LIMIT = 10
"""Qdrant's own."""

# Only newer versions of Qdrant's client have these.
_TextQuery: Any = getattr(models, "TextQuery", ())
_RelevanceFeedbackQuery: Any = getattr(models, "RelevanceFeedbackQuery", ())


class Hit(NamedTuple):
    """A point and the position of the group that it was found in."""

    group: int
    point: ScoredPoint


@dataclass(frozen=True, slots=True)
class Search:
    """One query: the text to rerank by, the page that the caller wants, its payload and vectors."""

    rerank: Rerank
    text: str
    limit: int
    offset: int
    selection: Selection
    vectors: VectorSelection
    prefetch: Prefetches

    @classmethod
    def of(cls, rerank: Rerank, arguments: Mapping[str, Any]) -> Self:
        """Read the arguments of the caller's query.

        Raises:
            TypeError: `rerank` is no `Rerank`, or `with_payload` or `with_vectors` is none of what
                Qdrant's client takes.
            ValueError: neither the query nor `rerank` has a text, or a key is no key of a payload.
        """
        if not isinstance(rerank, Rerank):
            raise TypeError(f"rerank: must be a Rerank, not {type(rerank).__name__}")
        prefetch, limit = arguments["prefetch"], arguments["limit"]
        limit = _DEFAULT_LIMIT if limit is None else limit
        offset = arguments.get("offset") or 0
        candidates = rerank.candidates(limit, offset)
        return cls(
            rerank,
            rerank.query_text(query_text(arguments["query"], prefetch)),
            limit,
            offset,
            select(arguments["with_payload"], rerank.prop),
            select_vectors(arguments["with_vectors"], rerank),
            prefetch if rerank.oversample is None else _widened(prefetch, candidates),
        )

    @property
    def asked(self) -> dict[str, Any]:
        """Give the arguments that the store gets in place of the caller's, besides no offset."""
        return {
            "limit": self.rerank.candidates(self.limit, self.offset),
            "prefetch": self.prefetch,
            "with_payload": self.selection.asked,
            "with_vectors": self.vectors.asked,
        }

    def candidates(self, points: Sequence[ScoredPoint]) -> Candidates:
        """Read the points that the store found."""
        name = self.rerank.vectors
        if name is None:
            return Candidates.of(points, self.rerank.prop, _field, lambda point: point.score)
        stored = tuple(vectors_of(point, name) for point in points)
        return Candidates(stored, tuple(point.score for point in points))

    def response(
        self, points: Sequence[ScoredPoint], arrangement: Arrangement
    ) -> RerankedQueryResponse:
        """Make the result of the points that the store found."""
        page = arrangement.page(self.rerank, self.limit, self.offset)
        made = (self._kept(RerankedPoint.of(points[each.index], each)) for each in page)
        return RerankedQueryResponse.of(made, arrangement)

    def groups(
        self, found: GroupsResult, hits: Sequence[Hit], arrangement: Arrangement
    ) -> RerankedGroupsResult:
        """Make the result of the groups that the store found, the best of their hits deciding."""
        members: dict[int, list[RerankedPoint]] = {}
        for placed in arrangement.rows:
            hit = hits[placed.index]
            point = self._kept(RerankedPoint.of(hit.point, placed))
            members.setdefault(hit.group, []).append(point)
        count = min(self.limit, self.rerank.top_n or self.limit)
        best = list(members.items())[:count]
        made = (RerankedGroup.of(found.groups[index], points) for index, points in best)
        return RerankedGroupsResult.of(made, arrangement)

    def _kept(self, point: RerankedPoint) -> RerankedPoint:
        point.payload = self.selection.keep(point.payload)
        point.vector = self.vectors.keep(point.vector)
        return point


def searches_of(
    rerank: Rerank | Sequence[Rerank], requests: Sequence[QueryRequest]
) -> tuple[list[Search], list[QueryRequest]]:
    """Read the requests of a batch, and give those that the store gets in place of them.

    Raises:
        TypeError: one is no `QueryRequest`, or what `Search.of` raises it for.
        ValueError: there are not as many `rerank` as requests, or what `Search.of` raises it for.
    """
    each = [rerank] * len(requests) if isinstance(rerank, Rerank) else rerank
    if len(each) != len(requests):
        raise ValueError(f"rerank: there are {len(each)} for {len(requests)} requests")
    for request in requests:
        if not isinstance(request, QueryRequest):
            raise TypeError(f"requests: must be QueryRequests, not {type(request).__name__}")
    searches = [Search.of(*pair) for pair in zip(each, map(_arguments, requests), strict=True)]
    updates = [{**search.asked, "offset": None} for search in searches]
    for update in updates:
        update["with_vector"] = update.pop("with_vectors")
    pairs = zip(requests, updates, strict=True)
    return searches, [request.model_copy(update=update) for request, update in pairs]


def _arguments(request: QueryRequest) -> dict[str, Any]:
    """Name the fields of a request as the arguments of `query_points` are named."""
    return {**dict(request), "with_vectors": request.with_vector}


def query_text(query: object, prefetch: Prefetches) -> str | None:
    """Give the text that a query searches for: its own, or the one that all its prefetches have."""
    own = _text(query)
    if own is not None:
        return own
    texts = set(_texts(prefetch))
    return texts.pop() if len(texts) == 1 else None


def store_order(found: GroupsResult) -> list[Hit]:
    """Put the hits of all groups in one order, best first, by the store's scores.

    Whether higher or lower is better depends on the collection: it is what gives these groups.
    """
    hits = [Hit(at, point) for at, group in enumerate(found.groups) for point in group.hits]
    for sign in (-1, 1):
        order = sorted(range(len(hits)), key=lambda at: sign * hits[at].point.score)
        heads = list(dict.fromkeys(hits[at].group for at in order))
        regrouped = sorted(order, key=lambda at: hits[at].group)
        if regrouped == list(range(len(hits))) and heads == sorted(heads):
            return [hits[at] for at in order]
    return hits


def _field(point: ScoredPoint, key: str) -> str | None:
    return text_field(point.payload, key)


def _text(query: object) -> str | None:
    if isinstance(query, models.Document):
        return query.text
    if isinstance(query, models.NearestQuery):
        return _text(query.nearest)
    if isinstance(query, models.DiscoverQuery):
        return _text(query.discover.target)
    if isinstance(query, _RelevanceFeedbackQuery):
        return _text(query.relevance_feedback.target)
    if isinstance(query, _TextQuery):
        return query.text if isinstance(query.text, str) else str(query.text.query)
    return None


def _texts(prefetch: Prefetches) -> Iterator[str]:
    for each in prefetch if isinstance(prefetch, list) else [prefetch]:
        if isinstance(each, Prefetch):
            text = query_text(each.query, each.prefetch)
            yield from [] if text is None else [text]


def _widened(prefetch: Prefetches, count: int) -> Prefetches:
    """Have each prefetch that says no limit find as many as the query shall find."""
    if isinstance(prefetch, list):
        return [_widened_one(each, count) for each in prefetch]
    return None if prefetch is None else _widened_one(prefetch, count)


def _widened_one(prefetch: Prefetch, count: int) -> Prefetch:
    if not isinstance(prefetch, Prefetch):
        return prefetch  # the form for gRPC, which Qdrant's client takes, too
    limit = count if prefetch.limit is None else prefetch.limit
    inner = _widened(prefetch.prefetch, count)
    return prefetch.model_copy(update={"limit": limit, "prefetch": inner})
