"""LangChain: `SidecarRerank`, a document compressor that goes behind any retriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypedDict, Unpack

from rerank_adapters.candidates import (
    Arrangement,
    AsyncSidecar,
    Candidates,
    Sidecar,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.component import ERROR_KEY, ComponentOptions, Reranked, reranked_rows
from rerank_adapters.connection import Address, Connection
from rerank_adapters.rerank import Fuse, OnError, Rerank, WeightedSum
from rerank_adapters.transport.channel import DEFAULT_TARGET
from rerank_adapters.transport.policy import DEFAULT_TIMEOUT_S

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.load.serializable import (
        Serializable,
        SerializedConstructor,
        SerializedNotImplemented,
    )
    from langchain_core.runnables import RunnableLambda
    from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
except ImportError as error:
    raise ImportError(
        "rerank_adapters.langchain needs LangChain: pip install 'rerank-sidecar[langchain]'"
    ) from error

SCORE_KEY = "relevance_score"
"""Where LangChain's rerankers leave a document's score in its metadata."""


class Options(ComponentOptions, total=False):
    """The keyword arguments of `SidecarRerank`; `ComponentOptions` explains the others.

    `token` is what the sidecar wants to be shown. `store_score_key` names the metadata that hold
    the store's score, which a `WeightedSum` needs.
    """

    token: SecretStr | str | None
    store_score_key: str | None


class _Asked(TypedDict):
    documents: Sequence[Document]
    query: str


class SidecarRerank(BaseDocumentCompressor, Serializable):
    """Reranks what a retriever found, for `ContextualCompressionRetriever` and its like.

    It is told where a sidecar is, or given `sidecar`, `async_sidecar` or both: clients, or what
    else has their `rerank`. `Options` lists the other arguments. Documents come back as copies,
    best first, with their score in `metadata["relevance_score"]`. Each call reports to LangChain's
    callbacks as a run of its own. The token is part of no dump, a given sidecar makes one that
    cannot be loaded.

    Raises:
        ValueError: an argument cannot be used; the message names it.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        hide_input_in_errors=True,  # or they would show the token
    )

    target: str | tuple[str, ...] | None = DEFAULT_TARGET
    token: SecretStr | None = Field(default=None, exclude=True)
    timeout_s: float = DEFAULT_TIMEOUT_S
    model: str | None = None
    top_n: int | None = None
    on_error: OnError | None = None
    fuse: Fuse = "none"
    store_score_key: str | None = None
    lost_in_the_middle: bool = False
    _connection: Connection = PrivateAttr()

    def __init__(
        self,
        *,
        sidecar: Sidecar | None = None,
        async_sidecar: AsyncSidecar | None = None,
        **options: Unpack[Options],
    ) -> None:
        connection = Connection(sidecar, async_sidecar)
        options.setdefault("target", None if connection.is_given else DEFAULT_TARGET)
        connection.check(options["target"], options.get("token"))
        super().__init__(**options)
        self._connection = connection

    @model_validator(mode="after")
    def _check(self) -> SidecarRerank:
        self._rerank()
        if (address := self._address()) is not None:
            address.client()  # which refuses what cannot be used, and connects to nothing yet
        if isinstance(self.fuse, WeightedSum) and self.store_score_key is None:
            raise ValueError("store_score_key: a WeightedSum needs it")
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Rerank documents.

        Raises:
            RerankCallError: the sidecar failed, and `on_error` is not "passthrough".
            TypeError: only an asynchronous sidecar was given.
            ValueError: a document lacks the score that `fuse` needs.
        """
        asked = _Asked(documents=documents, query=query)
        return self._run().invoke(asked, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Rerank documents, as `compress_documents` does, without blocking the event loop."""
        asked = _Asked(documents=documents, query=query)
        return await self._run().ainvoke(asked, {"callbacks": callbacks})

    def close(self) -> None:
        """Close the blocking client that was opened here; the next call opens another."""
        self._connection.close()

    async def aclose(self) -> None:
        """Close both clients that were opened here; the next call opens others."""
        await self._connection.close_async()

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Tell LangChain that `dumps` can write it; `loads` needs to be told that it may."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Name the secret that stands for the token in what `dumps` writes."""
        return {"token": "RERANK_SIDECAR_TOKEN"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Give what `dumps` could not write as it stands."""
        return {} if isinstance(self.fuse, str) else {"fuse": asdict(self.fuse)}

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """Give what `dumps` writes; a given sidecar cannot be written."""
        if self._connection.is_given:
            return self.to_json_not_implemented()
        return super().to_json()

    def _run(self) -> RunnableLambda[_Asked, list[Document]]:
        return RunnableLambda(self._compress, self._acompress, name=type(self).__name__)

    def _compress(self, asked: _Asked) -> list[Document]:
        candidates, rerank = self._candidates(asked["documents"]), self._rerank()
        sidecar = self._connection.blocking(self._address())
        arrangement = rerank_candidates(sidecar, rerank, asked["query"], candidates)
        return self._reranked(asked["documents"], rerank, arrangement)

    async def _acompress(self, asked: _Asked) -> list[Document]:
        candidates, rerank = self._candidates(asked["documents"]), self._rerank()
        sidecar = self._connection.asynchronous(self._address())
        arrangement = await rerank_candidates_async(sidecar, rerank, asked["query"], candidates)
        return self._reranked(asked["documents"], rerank, arrangement)

    def _candidates(self, documents: Sequence[Document]) -> Candidates:
        texts = tuple(each.page_content for each in documents)
        key = self.store_score_key
        if key is None:
            return Candidates(texts)
        if any(each.metadata.get(key) is None for each in documents):
            raise ValueError(f"store_score_key: not every document has a score in metadata {key!r}")
        return Candidates(texts, tuple(float(each.metadata[key]) for each in documents))

    def _rerank(self) -> Rerank:
        return Rerank(
            "page_content",
            top_n=self.top_n,
            model=self.model,
            fuse=self.fuse,
            on_error=self.on_error,
        )

    def _reranked(
        self, documents: Sequence[Document], rerank: Rerank, arrangement: Arrangement
    ) -> list[Document]:
        rows = reranked_rows(arrangement, rerank, for_prompt=self.lost_in_the_middle)
        return [_with_outcome(documents[row.index], row) for row in rows]

    def _address(self) -> Address | None:
        token = None if self.token is None else self.token.get_secret_value()
        return Address.of(self.target, token, self.timeout_s)


def _with_outcome(document: Document, row: Reranked) -> Document:
    metadata = {key: value for key, value in document.metadata.items() if key != ERROR_KEY}
    if row.error is not None:
        metadata[ERROR_KEY] = row.error
    if row.score is not None:
        metadata[SCORE_KEY] = row.score
    return document.model_copy(update={"metadata": metadata})
