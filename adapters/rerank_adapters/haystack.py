"""Haystack: `SidecarRanker`, a component for pipelines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rerank_adapters.candidates import (
    Arrangement,
    AsyncSidecar,
    Candidates,
    Sidecar,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.component import ERROR_KEY, RETRIEVAL_SCORE_KEY, Reranked, reranked_rows
from rerank_adapters.connection import Address, Connection
from rerank_adapters.rerank import Fuse, ReciprocalRank, Rerank, WeightedSum
from rerank_adapters.transport.channel import DEFAULT_TARGET
from rerank_adapters.transport.policy import DEFAULT_TIMEOUT_S

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.core.errors import SerializationError
    from haystack.utils import Secret
except ImportError as error:
    raise ImportError(
        "rerank_adapters.haystack needs Haystack: pip install 'rerank-sidecar[haystack]'"
    ) from error


@component
class SidecarRanker:
    """Reranks what a retriever found, between it and the prompt builder of a pipeline.

    It is told where a sidecar is, or given `sidecar`, `async_sidecar` or both: clients, or what
    else has their `rerank`; a given one cannot be serialised. `target` is as `RerankClient` takes
    it, by default `localhost:50051`, or the URL of the HTTP door, `token` what the sidecar wants to
    be shown, `timeout_s` the deadline of a call in seconds. `model` names one of its models.
    `top_k` is how many documents come back, None: all. `fuse` says whether the order of the
    retriever counts, too. `lost_in_the_middle` puts the best documents first and last, which is
    where a language model looks. `keep_retrieval_score` leaves the retriever's score in
    `meta["retrieval_score"]`. With `raise_on_failure` False a call that fails gives the documents
    back in their order, each with the reason in `meta["rerank_error"]`; a `RequestError` is raised
    all the same, being the pipeline's own mistake.

    Raises:
        ValueError: an argument cannot be used; the message names it.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        target: str | Sequence[str] | None = None,
        *,
        token: Secret | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        model: str | None = None,
        top_k: int | None = None,
        fuse: Fuse = "none",
        lost_in_the_middle: bool = False,
        keep_retrieval_score: bool = False,
        raise_on_failure: bool = True,
        sidecar: Sidecar | None = None,
        async_sidecar: AsyncSidecar | None = None,
    ) -> None:
        if sidecar is None and async_sidecar is None:
            target = DEFAULT_TARGET if target is None else target
        self.target = target if target is None or isinstance(target, str) else list(target)
        self.token = token
        self.timeout_s = timeout_s
        self.model = model
        self.top_k = top_k
        self.fuse = fuse
        self.lost_in_the_middle = lost_in_the_middle
        self.keep_retrieval_score = keep_retrieval_score
        self.raise_on_failure = raise_on_failure
        self.sidecar = sidecar
        self.async_sidecar = async_sidecar
        self._connection = Connection(sidecar, async_sidecar)
        self._address: Address | None = None
        self._check()

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Rerank documents; of those with the same id the one with the best score counts.

        Documents come back as copies, best first, with the score of the model; one without text
        is scored as empty. `top_k` goes before that of the component.

        Raises:
            RerankCallError: the sidecar failed, and `raise_on_failure` is not False.
            TypeError: only an asynchronous sidecar was given.
            ValueError: `top_k` is not positive, or a document lacks the score that `fuse` needs.
        """
        rerank, unique = self._rerank(top_k), _without_duplicates(documents)
        sidecar = self._connection.blocking(self._resolved())
        arrangement = rerank_candidates(sidecar, rerank, query, _candidates(unique))
        return {"documents": self._reranked(unique, rerank, arrangement)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Rerank documents, as `run` does, without blocking the event loop."""
        rerank, unique = self._rerank(top_k), _without_duplicates(documents)
        sidecar = self._connection.asynchronous(self._resolved())
        arrangement = await rerank_candidates_async(sidecar, rerank, query, _candidates(unique))
        return {"documents": self._reranked(unique, rerank, arrangement)}

    def warm_up(self) -> None:
        """Make the client that `run` uses; it connects at its first call.

        Raises:
            ValueError: the environment lacks the token, or it is no token.
        """
        self._connection.blocking(self._resolved())

    async def warm_up_async(self) -> None:
        """Make the client that `run_async` uses, as `warm_up` does."""
        self._connection.asynchronous(self._resolved())

    def close(self) -> None:
        """Close the client of `run`; the next call opens another."""
        self._address = None
        self._connection.close()

    async def close_async(self) -> None:
        """Close the clients of `run` and `run_async`; the next call opens others."""
        self._address = None
        await self._connection.close_async()

    def to_dict(self) -> dict[str, Any]:
        """Give what `from_dict` makes an equal component of.

        Raises:
            SerializationError: it has a given sidecar.
            ValueError: the token is not from an environment variable.
        """
        if self._connection.is_given:
            raise SerializationError("sidecar: cannot be serialised; give a target instead")
        return default_to_dict(
            self,
            target=self.target,
            token=self.token,
            timeout_s=self.timeout_s,
            model=self.model,
            top_k=self.top_k,
            fuse=self.fuse if isinstance(self.fuse, str) else asdict(self.fuse),
            lost_in_the_middle=self.lost_in_the_middle,
            keep_retrieval_score=self.keep_retrieval_score,
            raise_on_failure=self.raise_on_failure,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SidecarRanker:
        """Make a component of what `to_dict` gave."""
        parameters = dict(data.get("init_parameters", {}))
        if isinstance(fuse := parameters.get("fuse"), Mapping):
            parameters["fuse"] = (WeightedSum if "weight" in fuse else ReciprocalRank)(**fuse)
        if isinstance(token := parameters.get("token"), Mapping):
            parameters["token"] = Secret.from_dict(dict(token))
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    def _check(self) -> None:
        self._rerank(None)
        self._connection.check(self.target, self.token)
        if (address := Address.of(self.target, None, self.timeout_s)) is not None:
            address.client()  # which refuses what cannot be used, and connects to nothing yet

    def _rerank(self, top_k: int | None) -> Rerank:
        top_n = self.top_k if top_k is None else top_k
        if top_n is not None and top_n <= 0:
            raise ValueError(f"top_k: must be > 0, not {top_n}")
        return Rerank(
            "content",
            top_n=top_n,
            model=self.model,
            fuse=self.fuse,
            on_error="raise" if self.raise_on_failure else "passthrough",
        )

    def _resolved(self) -> Address | None:
        if self._address is None:
            token = None if self.token is None else self.token.resolve_value()
            self._address = Address.of(self.target, token, self.timeout_s)
        return self._address

    def _reranked(
        self, documents: Sequence[Document], rerank: Rerank, arrangement: Arrangement
    ) -> list[Document]:
        rows = reranked_rows(arrangement, rerank, for_prompt=self.lost_in_the_middle)
        return [self._with_outcome(documents[row.index], row) for row in rows]

    def _with_outcome(self, document: Document, row: Reranked) -> Document:
        meta = {key: value for key, value in document.meta.items() if key != ERROR_KEY}
        if self.keep_retrieval_score:
            meta[RETRIEVAL_SCORE_KEY] = document.score
        if row.error is not None:
            meta[ERROR_KEY] = row.error
        score = document.score if row.score is None else row.score
        return replace(document, score=score, meta=meta)


def _without_duplicates(documents: Sequence[Document]) -> list[Document]:
    best: dict[str, Document] = {}
    for document in documents:
        other = best.get(document.id)
        if other is None or _score(document) > _score(other):
            best[document.id] = document
    return list(best.values())


def _score(document: Document) -> float:
    return -math.inf if document.score is None else document.score


def _candidates(documents: Sequence[Document]) -> Candidates:
    texts = tuple(each.content for each in documents)
    scores = tuple(each.score for each in documents if each.score is not None)
    return Candidates(texts, scores if len(scores) == len(texts) else None)
