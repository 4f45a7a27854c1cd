"""LangChain's document compressor in LangChain's own chains."""

import pickle
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core._api import LangChainBetaWarning
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps, loads
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import ReciprocalRank, RerankClient, Unavailable, WeightedSum
from rerank_adapters.langchain import SidecarRerank
from tests.contract.conftest import Running
from tests.integration.frameworks import NOBODY, QUERY, TEXTS


class LabelledEmbeddings(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return vector(text)


class Recorder(BaseCallbackHandler):
    """Keeps the runs that LangChain reports: what began, what came of it."""

    def __init__(self) -> None:
        self.began: list[tuple[str, Any, UUID | None]] = []
        self.outputs: list[Any] = []
        self.errors: list[BaseException] = []

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        parent_run_id: UUID | None = None,
        **others: Any,
    ) -> None:
        self.began.append((others["name"], inputs, parent_run_id))

    def on_chain_end(self, outputs: Any, **others: Any) -> None:
        self.outputs.append(outputs)

    def on_chain_error(self, error: BaseException, **others: Any) -> None:
        self.errors.append(error)


@pytest.fixture
def rerank(sidecar: Running) -> Iterator[SidecarRerank]:
    rerank = SidecarRerank(target=f"127.0.0.1:{sidecar.grpc_port}", top_n=3)
    yield rerank
    rerank.close()


@pytest.fixture(scope="module")
def store() -> InMemoryVectorStore:
    store = InMemoryVectorStore(LabelledEmbeddings())
    metadata = [{"at": index} for index in range(len(DOCUMENTS))]
    store.add_texts(DOCUMENTS, metadata)
    return store


@pytest.fixture
def retriever(store: InMemoryVectorStore, rerank: SidecarRerank) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(
        base_compressor=rerank, base_retriever=store.as_retriever(search_kwargs={"k": 10})
    )


def test_it_is_a_document_compressor(rerank: SidecarRerank) -> None:
    assert isinstance(rerank, BaseDocumentCompressor)


async def test_a_retriever_finds_more_right_answers(
    store: InMemoryVectorStore, retriever: ContextualCompressionRetriever
) -> None:
    before = [store.similarity_search(query, 1)[0].metadata["at"] for query, _ in QUERIES]
    after = [retriever.invoke(query) for query, _ in QUERIES]
    best = [found[0].metadata["at"] for found in after]
    assert precision_at_1(best) > precision_at_1(before)
    assert [len(found) for found in after] == [3] * len(QUERIES)
    awaited = [await retriever.ainvoke(query) for query, _ in QUERIES]
    assert awaited == after


async def test_it_works_in_a_pipeline_of_compressors(rerank: SidecarRerank) -> None:
    pipeline = DocumentCompressorPipeline(
        transformers=[rerank, rerank.model_copy(update={"top_n": 1})]
    )
    documents = [Document(text) for text in TEXTS]
    (best,) = pipeline.compress_documents(documents, QUERY)
    assert best.page_content == rerank.compress_documents(documents, QUERY)[0].page_content
    assert list(await pipeline.acompress_documents(documents, QUERY)) == [best]


def test_documents_come_back_as_copies_with_all_they_had(rerank: SidecarRerank) -> None:
    class Dated(Document):
        year: int = 2020

    document = Dated(page_content="an apple", id="7", metadata={"a": 1}, year=2021)
    (found,) = rerank.compress_documents([document], QUERY)
    assert isinstance(found, Dated)
    assert (found.id, found.year, found.metadata["a"]) == ("7", 2021, 1)
    assert document.metadata == {"a": 1}


async def test_callbacks_hear_of_a_run(retriever: ContextualCompressionRetriever) -> None:
    recorder = Recorder()
    found = retriever.invoke(QUERY, {"callbacks": [recorder]})
    assert await retriever.ainvoke(QUERY, {"callbacks": [recorder]}) == found
    assert [(name, inputs["query"]) for name, inputs, _ in recorder.began] == [
        ("SidecarRerank", QUERY)
    ] * 2
    assert [len(inputs["documents"]) for _, inputs, _ in recorder.began] == [10] * 2
    assert all(parent is not None for _, _, parent in recorder.began)
    assert recorder.outputs == [found, found]


async def test_callbacks_hear_of_a_failure() -> None:
    rerank, recorder = SidecarRerank(target=NOBODY), Recorder()
    documents = [Document(text) for text in TEXTS]
    with pytest.raises(Unavailable):
        rerank.compress_documents(documents, QUERY, [recorder])
    with pytest.raises(Unavailable):
        await rerank.acompress_documents(documents, QUERY, [recorder])
    assert len(recorder.errors) == 2
    assert all(isinstance(error, Unavailable) for error in recorder.errors)


@pytest.mark.parametrize("fuse", ["none", "reciprocal_rank", ReciprocalRank(7)])
def test_a_dump_makes_an_equal_one(fuse: Any) -> None:
    rerank = SidecarRerank(target=[NOBODY, "127.0.0.1:2"], top_n=3, model="m", fuse=fuse)
    assert SidecarRerank.model_validate_json(rerank.model_dump_json()) == rerank
    assert SidecarRerank.model_validate(rerank.model_dump()) == rerank
    assert pickle.loads(pickle.dumps(rerank)) == rerank  # noqa: S301


def test_langchain_dumps_and_loads_it_without_its_token() -> None:
    rerank = SidecarRerank(
        target=NOBODY,
        token="a-token",  # noqa: S106
        fuse=WeightedSum(0.5, "cosine"),
        store_score_key="score",
    )
    dumped = dumps(rerank)
    assert "a-token" not in dumped + rerank.model_dump_json() + repr(rerank)
    with pytest.warns(LangChainBetaWarning):
        loaded = loads(
            dumped,
            allowed_objects=[SidecarRerank],
            valid_namespaces=["rerank_adapters"],
            secrets_map={"RERANK_SIDECAR_TOKEN": "a-token"},
        )
    assert loaded == rerank


def test_a_given_sidecar_makes_no_dump_that_asks_another() -> None:
    with RerankClient(NOBODY) as client:
        rerank = SidecarRerank(sidecar=client)
        assert '"type": "not_implemented"' in dumps(rerank)
        with pytest.raises(ValueError, match="target: needed where no sidecar is given"):
            SidecarRerank.model_validate_json(rerank.model_dump_json())
        assert rerank == SidecarRerank(sidecar=client)
        assert rerank != SidecarRerank()


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="top_k"):
        SidecarRerank(top_k=3)  # type: ignore[call-arg]


def test_a_weighted_sum_needs_to_know_where_the_scores_are() -> None:
    with pytest.raises(ValueError, match="store_score_key: a WeightedSum needs it"):
        SidecarRerank(fuse=WeightedSum(0.5, "unit"))
    rerank = SidecarRerank(fuse=WeightedSum(0.5, "unit"), store_score_key="score")
    for metadata in ({}, {"score": None}):
        with pytest.raises(ValueError, match="not every document has a score in metadata 'score'"):
            rerank.compress_documents([Document("an apple", metadata=metadata)], QUERY)


def test_a_copy_with_another_target_asks_that_one(rerank: SidecarRerank) -> None:
    documents = [Document(text) for text in TEXTS]
    assert len(rerank.compress_documents(documents, QUERY)) == 3
    elsewhere = rerank.model_copy(update={"target": NOBODY})
    with pytest.raises(Unavailable):
        elsewhere.compress_documents(documents, QUERY)
