"""LlamaIndex: `SidecarRerank`, a node postprocessor for query engines and retrievers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from rerank_adapters.candidates import (
    Arrangement,
    AsyncSidecar,
    Candidates,
    Sidecar,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.component import (
    ERROR_KEY,
    RETRIEVAL_SCORE_KEY,
    ComponentOptions,
    Reranked,
    reranked_rows,
)
from rerank_adapters.connection import Address, Connection
from rerank_adapters.rerank import Fuse, OnError, Rerank
from rerank_adapters.transport.channel import DEFAULT_TARGET
from rerank_adapters.transport.policy import DEFAULT_TIMEOUT_S

try:
    from llama_index.core.bridge.pydantic import (
        ConfigDict,
        Field,
        PrivateAttr,
        SecretStr,
        model_validator,
    )
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise ImportError(
        "rerank_adapters.llama_index needs LlamaIndex: pip install 'rerank-sidecar[llama-index]'"
    ) from error

dispatcher = get_dispatcher(__name__)


class Options(ComponentOptions, total=False):
    """The keyword arguments of `SidecarRerank`; `ComponentOptions` explains the others.

    `token` is what the sidecar wants to be shown. `metadata_mode` says what of a node's metadata
    the model reads, and is as for embedding by default. `keep_retrieval_score` leaves the score of
    the retriever in `metadata["retrieval_score"]`. `callback_manager` is LlamaIndex's.
    """

    token: SecretStr | str | None
    metadata_mode: MetadataMode
    keep_retrieval_score: bool
    callback_manager: CallbackManager


class SidecarRerank(BaseNodePostprocessor):
    """Reranks what a retriever found, as one of a query engine's `node_postprocessors`.

    It is told where a sidecar is, or given `sidecar`, `async_sidecar` or both: clients, or what
    else has their `rerank`. `Options` lists the other arguments. Nodes come back best first, in new
    `NodeWithScore` with the score of the model. Each call is an event RERANKING for callbacks, and
    a `ReRankStartEvent` and `ReRankEndEvent` for instrumentation. The token is part of no dump, a
    given sidecar makes one that cannot be loaded.

    Raises:
        ValueError: an argument cannot be used; the message names it.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        hide_input_in_errors=True,  # or they would show the token
    )

    target: str | tuple[str, ...] | None = Field(DEFAULT_TARGET, description="Where it listens.")
    token: SecretStr | None = Field(None, description="What it is shown.", exclude=True)
    timeout_s: float = Field(DEFAULT_TIMEOUT_S, description="Deadline of a call, in seconds.")
    model: str | None = Field(None, description="One of its models; None: its default.")
    top_n: int | None = Field(None, description="How many nodes come back; None: all.")
    on_error: OnError | None = Field(None, description="What becomes of a call that fails.")
    fuse: Fuse = Field("none", description="Whether the retriever's order counts, too.")
    lost_in_the_middle: bool = Field(False, description="Whether the worst are in the middle.")
    metadata_mode: MetadataMode = Field(MetadataMode.EMBED, description="What the model reads.")
    keep_retrieval_score: bool = Field(False, description="Whether to keep it in the metadata.")
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
        return self

    @classmethod
    def class_name(cls) -> str:
        """Give the name that dumps have it under."""
        return "SidecarRerank"

    def __getstate__(self) -> dict[str, Any]:
        """Give what is pickled; a given sidecar that cannot be is an error, and not left out."""
        state: dict[str, Any] = super().__getstate__()
        if "_connection" not in state["__pydantic_private__"]:
            raise TypeError("sidecar: cannot be pickled; give a target instead")
        return state

    def close(self) -> None:
        """Close the blocking client that was opened here; the next call opens another."""
        self._connection.close()

    async def aclose(self) -> None:
        """Close both clients that were opened here; the next call opens others."""
        await self._connection.close_async()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _present(query_bundle)
        if not nodes:
            return []
        candidates, rerank = self._candidates(nodes), self._rerank()
        with self._reported(nodes, query) as reranked:
            sidecar = self._connection.blocking(self._address())
            arrangement = rerank_candidates(sidecar, rerank, query.query_str, candidates)
            reranked.extend(self._reranked(nodes, rerank, arrangement))
        return reranked

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _present(query_bundle)
        if not nodes:
            return []
        candidates, rerank = self._candidates(nodes), self._rerank()
        with self._reported(nodes, query) as reranked:
            sidecar = self._connection.asynchronous(self._address())
            arrangement = await rerank_candidates_async(
                sidecar, rerank, query.query_str, candidates
            )
            reranked.extend(self._reranked(nodes, rerank, arrangement))
        return reranked

    @contextmanager
    def _reported(
        self, nodes: list[NodeWithScore], query: QueryBundle
    ) -> Generator[list[NodeWithScore]]:
        """Tell who listens that nodes are reranked, and of those that are put into the list."""
        reranked: list[NodeWithScore] = []
        top_n, model = self.top_n or len(nodes), self.model or "default"
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield reranked
            event.on_end(payload={EventPayload.NODES: reranked})
        dispatcher.event(ReRankEndEvent(nodes=reranked))

    def _candidates(self, nodes: Sequence[NodeWithScore]) -> Candidates:
        texts = (each.node.get_content(metadata_mode=self.metadata_mode) for each in nodes)
        scores = tuple(each.score for each in nodes if each.score is not None)
        return Candidates(tuple(texts), scores if len(scores) == len(nodes) else None)

    def _rerank(self) -> Rerank:
        return Rerank(
            "content",
            top_n=self.top_n,
            model=self.model,
            fuse=self.fuse,
            on_error=self.on_error,
        )

    def _reranked(
        self, nodes: Sequence[NodeWithScore], rerank: Rerank, arrangement: Arrangement
    ) -> list[NodeWithScore]:
        rows = reranked_rows(arrangement, rerank, for_prompt=self.lost_in_the_middle)
        return [self._with_outcome(nodes[row.index], row) for row in rows]

    def _with_outcome(self, found: NodeWithScore, row: Reranked) -> NodeWithScore:
        notes: dict[str, object] = {}
        if self.keep_retrieval_score:
            notes[RETRIEVAL_SCORE_KEY] = found.score
        if row.error is not None:
            notes[ERROR_KEY] = row.error
        score = found.score if row.score is None else row.score
        return found.model_copy(update={"node": _noted(found.node, notes), "score": score})

    def _address(self) -> Address | None:
        token = None if self.token is None else self.token.get_secret_value()
        return Address.of(self.target, token, self.timeout_s)


def _present(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise ValueError("query_bundle: needed, because nodes are compared with the query")
    return query


def _noted(node: BaseNode, notes: dict[str, object]) -> BaseNode:
    """Give a copy that has notes in its metadata, which no model gets to read."""
    kept = {key: value for key, value in node.metadata.items() if key != ERROR_KEY}
    if not notes and len(kept) == len(node.metadata):
        return node
    update = {
        "metadata": {**kept, **notes},
        "excluded_embed_metadata_keys": _with(node.excluded_embed_metadata_keys, notes),
        "excluded_llm_metadata_keys": _with(node.excluded_llm_metadata_keys, notes),
    }
    return node.model_copy(update=update)


def _with(keys: Sequence[str], more: dict[str, object]) -> list[str]:
    return list(dict.fromkeys((*keys, *more)))
