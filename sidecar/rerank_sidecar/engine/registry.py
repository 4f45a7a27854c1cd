"""Which reranker answers: by the name that was asked for and by the query's script."""

from __future__ import annotations

from collections.abc import Sequence

from rerank_sidecar.errors import ModelNotFound
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.scripts import reads_query
from rerank_sidecar.types import ModelDescription, ModelReference

DEFAULT_NAME = "default"


class Registry:
    """The rerankers of a server by name, with a default.

    `any_script` answers queries that the chosen reranker does not read. It is chosen from the
    query alone, so that every chunk of one search is scored by the same reranker.
    """

    def __init__(self, rerankers: Sequence[Reranker], any_script: Reranker) -> None:
        self._default = rerankers[0]
        self._by_name = {reranker.info.name: reranker for reranker in rerankers}
        self._any_script = any_script

    @property
    def default(self) -> Reranker:
        """Give the reranker of requests that name none."""
        return self._default

    def choose(self, name: str | None, query: str) -> Reranker:
        """Find the reranker for a query; no name, an empty one and `default` mean the default.

        Raises:
            ModelNotFound: no model of that name is served; the message lists those that are.
        """
        named = self._default if name in (None, "", DEFAULT_NAME) else self._by_name.get(name or "")
        if named is None:
            served = ", ".join(sorted(self._by_name))
            raise ModelNotFound(f"no such model is served; served are: {served}", "model")
        return named if reads_query(query, named.info.scripts) else self._any_script

    def models(self) -> list[ModelDescription]:
        """Describe every reranker, the default first."""
        return [_describe(each, each is self._default) for each in self._by_name.values()]


def _describe(reranker: Reranker, is_default: bool) -> ModelDescription:
    info = reranker.info
    return ModelDescription(
        model=ModelReference(info.name, info.version),
        family=info.family,
        score_kind=info.score_kind,
        max_tokens=info.max_tokens,
        comparable_across_requests=info.comparable_across_requests,
        default_long_document_policy=info.default_long_document_policy,
        engine=info.engine,
        source=info.source,
        is_default=is_default,
    )
