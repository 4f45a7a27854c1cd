"""LlamaIndex's node postprocessor in LlamaIndex's own engines."""

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import ReciprocalRank, RerankClient, Unavailable, WeightedSum
from rerank_adapters.llama_index import SidecarRerank
from tests.contract.conftest import Running
from tests.integration.frameworks import LLAMA_INDEX, NOBODY, QUERY, TEXTS, both_ways


class LabelledEmbedding(BaseEmbedding):
    def _get_query_embedding(self, query: str) -> list[float]:
        return vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vector(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return vector(text)


class Recorder(BaseCallbackHandler):
    """Keeps the events RERANKING that callbacks hear of."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.started: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **others: Any,
    ) -> str:
        if event_type is CBEventType.RERANKING:
            self.started.append(payload or {})
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **others: Any,
    ) -> None:
        if event_type is CBEventType.RERANKING:
            self.ended.append(payload or {})

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing to do."""

    def end_trace(
        self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None
    ) -> None:
        """Nothing to do."""


class Listener(BaseEventHandler):
    """Keeps the events of reranking that instrumentation dispatches."""

    heard: list[BaseEvent] = []  # noqa: RUF012 - pydantic copies it

    def handle(self, event: BaseEvent, **others: Any) -> None:
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.heard.append(event)


@pytest.fixture
def target(sidecar: Running) -> str:
    return f"127.0.0.1:{sidecar.grpc_port}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    root, listener = get_dispatcher(), Listener()
    root.add_event_handler(listener)
    yield listener
    root.event_handlers.remove(listener)


@pytest.fixture(scope="module")
def retriever() -> BaseRetriever:
    nodes = [TextNode(text=text, id_=str(index)) for index, text in enumerate(DOCUMENTS)]
    index = VectorStoreIndex(nodes, embed_model=LabelledEmbedding())
    return index.as_retriever(similarity_top_k=10)


@both_ways
async def test_a_query_engine_finds_more_right_answers(
    retriever: BaseRetriever, target: str, is_async: bool
) -> None:
    rerank = SidecarRerank(target=target, top_n=3)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[rerank])
    before = [int(retriever.retrieve(query)[0].node.node_id) for query, _ in QUERIES]
    answers = [
        await engine.aquery(query) if is_async else engine.query(query) for query, _ in QUERIES
    ]
    assert [len(answer.source_nodes) for answer in answers] == [3] * len(QUERIES)
    after = [int(answer.source_nodes[0].node.node_id) for answer in answers]
    assert precision_at_1(after) > precision_at_1(before)
    await rerank.aclose()


@both_ways
async def test_both_kinds_of_observers_hear_of_it(
    target: str, listener: Listener, is_async: bool
) -> None:
    recorder = Recorder()
    rerank = SidecarRerank(
        target=target, top_n=2, model="embedded", callback_manager=CallbackManager([recorder])
    )
    nodes = LLAMA_INDEX.rows(TEXTS)
    found = await LLAMA_INDEX.ask(is_async, rerank, nodes)
    assert recorder.started == [
        {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: "embedded",
            EventPayload.QUERY_STR: QUERY,
            EventPayload.TOP_K: 2,
        }
    ]
    assert recorder.ended == [{EventPayload.NODES: found}]
    start, end = listener.heard
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert isinstance(start.query, QueryBundle)
    assert (start.query.query_str, start.nodes) == (QUERY, nodes)
    assert (start.top_n, start.model_name) == (2, "embedded")
    assert end.nodes == found
    await rerank.aclose()


@both_ways
async def test_observers_hear_of_a_failure(listener: Listener, is_async: bool) -> None:
    recorder = Recorder()
    rerank = SidecarRerank(target=NOBODY, callback_manager=CallbackManager([recorder]))
    with pytest.raises(Unavailable):
        await LLAMA_INDEX.ask(is_async, rerank, LLAMA_INDEX.rows(TEXTS))
    assert [each[EventPayload.TOP_K] for each in recorder.started] == [len(TEXTS)]
    assert len(recorder.ended) == 1
    assert EventPayload.NODES not in recorder.ended[0]
    assert [type(event) for event in listener.heard] == [ReRankStartEvent]


async def test_without_a_query_there_is_nothing_to_compare_with() -> None:
    rerank = SidecarRerank()
    with pytest.raises(ValueError, match="query_bundle"):
        rerank.postprocess_nodes(LLAMA_INDEX.rows(TEXTS))
    with pytest.raises(ValueError, match="query_bundle"):
        await rerank.apostprocess_nodes([])
    assert rerank.postprocess_nodes([], query_str=QUERY) == []


@both_ways
async def test_the_model_reads_what_the_mode_says(target: str, is_async: bool) -> None:
    node = TextNode(text="an apple", metadata={"secret": "red fruit", "taste": "sour"})
    node.excluded_embed_metadata_keys = ["secret"]
    read = {
        MetadataMode.NONE: "an apple",
        MetadataMode.EMBED: "taste: sour\n\nan apple",
        MetadataMode.ALL: "secret: red fruit\ntaste: sour\n\nan apple",
    }
    with RerankClient(target) as client:
        scores = {
            mode: client.rerank(QUERY, [text]).results[0].score for mode, text in read.items()
        }
    assert len(set(scores.values())) == 3
    nodes = [NodeWithScore(node=node)]
    for mode, score in scores.items():
        rerank = SidecarRerank(target=target, metadata_mode=mode)
        (found,) = await LLAMA_INDEX.ask(is_async, rerank, nodes)
        assert found.score == score
        await rerank.aclose()
    assert SidecarRerank().metadata_mode is MetadataMode.EMBED


def test_the_score_of_the_retriever_is_kept_where_no_model_reads_it(target: str) -> None:
    nodes = LLAMA_INDEX.rows(TEXTS)
    found = SidecarRerank(target=target, keep_retrieval_score=True).postprocess_nodes(
        nodes, query_str=QUERY
    )
    for row in found:
        assert row.metadata["retrieval_score"] == nodes[int(row.node_id)].score
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert row.get_content(mode) == nodes[int(row.node_id)].get_content(mode)
    assert not any(row.metadata for row in nodes)
    plain = SidecarRerank(target=target).postprocess_nodes(nodes, query_str=QUERY)
    assert [row.node for row in plain] == [nodes[int(row.node_id)].node for row in plain]


def test_nodes_without_scores_are_reranked(target: str) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    found = SidecarRerank(target=target).postprocess_nodes(nodes, query_str=QUERY)
    assert all(isinstance(row.score, float) for row in found)
    assert {row.score for row in nodes} == {None}


@pytest.mark.parametrize("fuse", ["none", ReciprocalRank(7), WeightedSum(0.5, "cosine")])
def test_a_dump_makes_an_equal_one(fuse: Any) -> None:
    rerank = SidecarRerank(
        target=[NOBODY],
        token="a-token",  # noqa: S106
        fuse=fuse,
        top_n=3,
        metadata_mode=MetadataMode.LLM,
    )
    written = rerank.to_json()
    assert json.loads(written)["class_name"] == SidecarRerank.class_name() == "SidecarRerank"
    assert "a-token" not in written + repr(rerank)
    for other in (
        SidecarRerank.from_json(written, token="a-token"),  # noqa: S106
        SidecarRerank.from_dict(rerank.to_dict(), token="a-token"),  # noqa: S106
        pickle.loads(pickle.dumps(rerank)),  # noqa: S301
    ):
        assert other.model_copy(update={"callback_manager": rerank.callback_manager}) == rerank


def test_a_given_sidecar_makes_no_dump_that_asks_another() -> None:
    with RerankClient(NOBODY) as client:
        rerank = SidecarRerank(sidecar=client, top_n=3)
        written = rerank.to_dict()
        with pytest.raises(ValueError, match="target: needed where no sidecar is given"):
            SidecarRerank.from_dict(written)
        assert SidecarRerank.from_dict(written, sidecar=client).top_n == 3
        with pytest.raises(TypeError, match="sidecar: cannot be pickled"):
            pickle.dumps(rerank)


def test_it_is_a_node_postprocessor_that_takes_no_prompts() -> None:
    rerank = SidecarRerank()
    assert isinstance(rerank, BaseNodePostprocessor)
    assert rerank._get_prompts() == {}
