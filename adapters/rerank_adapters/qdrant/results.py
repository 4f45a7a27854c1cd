"""What a reranked query gives: Qdrant's own types, with what the sidecar adds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, PrivateAttr
from qdrant_client.http.models import GroupsResult, PointGroup, QueryResponse, ScoredPoint

from rerank_adapters.candidates import Arrangement, Placed
from rerank_adapters.errors import RerankCallError
from rerank_adapters.messages import DocumentError, RerankResponse


class RerankedPoint(ScoredPoint):
    """A point in its new place, with both scores.

    `score` is what it stands here by: the model's or, with `fuse`, the fused one, and higher is
    better; the store's own where the order is the store's. `store_score` is Qdrant's. `error` says
    why this point alone could not be scored: it stands last, with the worst score.
    """

    store_score: float
    error: DocumentError | None = None

    @classmethod
    def of(cls, point: ScoredPoint, placed: Placed) -> RerankedPoint:
        """Make a new point of one of the store's."""
        score = point.score if placed.score is None else placed.score
        added = {"score": score, "store_score": point.score, "error": placed.error}
        names = point.model_fields_set | added.keys()
        return cls.model_construct(names, **{**dict(point), **added})


class Reranked(BaseModel):
    """How the order of a result came about.

    `missing_texts` is how many of the candidates had no text to read; they were scored as empty.
    `missing_vectors` is how many had no vectors to be reranked by; each has an `error`.
    """

    missing_texts: int = 0
    missing_vectors: int = 0
    _response: RerankResponse | None = PrivateAttr(default=None)

    @property
    def response(self) -> RerankResponse | None:
        """Give the sidecar's answer about all candidates; None if the store found none."""
        return self._response

    @property
    def passed_through(self) -> RerankCallError | None:
        """Give the error for which the order is the store's own; None: it was reranked."""
        return None if self._response is None else self._response.passed_through

    def _explained(self, arrangement: Arrangement) -> Self:
        self.missing_texts = arrangement.missing_texts
        self.missing_vectors = arrangement.missing_vectors
        self._response = arrangement.response
        return self


class RerankedQueryResponse(Reranked, QueryResponse):
    """The points of a query, best first."""

    points: list[RerankedPoint]  # type: ignore[assignment]  # they are the store's points, too

    @classmethod
    def of(cls, points: Iterable[RerankedPoint], arrangement: Arrangement) -> RerankedQueryResponse:
        """Make a result of points in their new order."""
        return cls.model_construct(points=list(points))._explained(arrangement)


class RerankedGroup(PointGroup):
    """A group, its hits best first."""

    hits: list[RerankedPoint]  # type: ignore[assignment]  # they are the store's points, too

    @classmethod
    def of(cls, group: PointGroup, hits: Iterable[RerankedPoint]) -> RerankedGroup:
        """Make a new group of one of the store's."""
        return cls.model_construct(group.model_fields_set, **{**dict(group), "hits": list(hits)})


class RerankedGroupsResult(Reranked, GroupsResult):
    """The groups of a query, those with the best hits first."""

    groups: list[RerankedGroup]  # type: ignore[assignment]  # they are the store's groups, too

    @classmethod
    def of(cls, groups: Iterable[RerankedGroup], arrangement: Arrangement) -> RerankedGroupsResult:
        """Make a result of groups in their new order."""
        return cls.model_construct(groups=list(groups))._explained(arrangement)
