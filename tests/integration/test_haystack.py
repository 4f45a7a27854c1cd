"""Haystack's component in Haystack's own pipelines."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.core.component import Component
from haystack.core.errors import DeserializationError, PipelineRuntimeError, SerializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import ReciprocalRank, RerankClient, Unavailable, WeightedSum
from rerank_adapters.haystack import SidecarRanker
from tests.contract.conftest import Running
from tests.contract.grpc_toy import serving
from tests.integration.frameworks import HAYSTACK, NOBODY, QUERY, TEXTS, both_ways

ALLOWED = ["rerank_adapters.*"]


@pytest.fixture
def target(sidecar: Running) -> str:
    return f"127.0.0.1:{sidecar.grpc_port}"


@pytest.fixture
def pipeline(target: str) -> Iterator[Pipeline]:
    """A store, its retriever and the ranker."""
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(
        [
            Document(id=str(index), content=text, embedding=vector(text))
            for index, text in enumerate(DOCUMENTS)
        ]
    )
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=10))
    pipeline.add_component("ranker", SidecarRanker(target, top_k=3))
    pipeline.connect("retriever.documents", "ranker.documents")
    yield pipeline
    pipeline.close()


def asked(query: str) -> dict[str, Any]:
    return {"retriever": {"query_embedding": vector(query)}, "ranker": {"query": query}}


@both_ways
async def test_a_pipeline_finds_more_right_answers(pipeline: Pipeline, is_async: bool) -> None:
    before, after = [], []
    for query, _ in QUERIES:
        wanted = asked(query), {"retriever"}
        found = await pipeline.run_async(*wanted) if is_async else pipeline.run(*wanted)
        assert len(found["ranker"]["documents"]) == 3
        before.append(int(found["retriever"]["documents"][0].id))
        after.append(int(found["ranker"]["documents"][0].id))
    assert precision_at_1(after) > precision_at_1(before)
    await pipeline.close_async()


def test_a_loaded_pipeline_answers_the_same(target: str) -> None:
    only = Pipeline()
    only.add_component("ranker", SidecarRanker(target, top_k=3, model="embedded"))
    dumped = only.dumps()
    with pytest.raises(DeserializationError, match="rerank_adapters"):
        Pipeline.loads(dumped)
    loaded = Pipeline.loads(dumped, allowed_modules=ALLOWED)
    wanted = {"ranker": {"query": QUERY, "documents": HAYSTACK.rows(TEXTS)}}
    assert loaded.run(wanted) == only.run(wanted)
    assert loaded.dumps() == dumped


def test_modules_can_be_allowed_for_the_whole_process(target: str) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", SidecarRanker(target))
    program = """
import sys
from haystack import Pipeline
from haystack.core.serialization import allow_deserialization_module
allow_deserialization_module("rerank_adapters.*")
print(type(Pipeline.loads(sys.stdin.read()).get_component("ranker")).__name__)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=pipeline.dumps(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "SidecarRanker\n", ran.stderr


@pytest.mark.parametrize("fuse", ["none", ReciprocalRank(7), WeightedSum(0.5, "cosine")])
def test_a_dump_makes_an_equal_one(fuse: Any) -> None:
    ranker = SidecarRanker(
        [NOBODY],
        token=Secret.from_env_var("RERANK_TOKEN"),
        timeout_s=3.0,
        model="m",
        top_k=3,
        fuse=fuse,
        lost_in_the_middle=True,
        keep_retrieval_score=True,
        raise_on_failure=False,
    )
    written = yaml.safe_dump(ranker.to_dict())
    read = yaml.safe_load(written)
    other = SidecarRanker.from_dict(read)
    assert other.to_dict() == ranker.to_dict() == read
    names = "target token timeout_s model top_k fuse raise_on_failure keep_retrieval_score"
    for name in (*names.split(), "lost_in_the_middle"):
        assert getattr(other, name) == getattr(ranker, name), name


def test_neither_a_token_nor_a_sidecar_is_written() -> None:
    with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
        SidecarRanker(token=Secret.from_token("a-token")).to_dict()
    with RerankClient(NOBODY) as client:
        ranker = SidecarRanker(sidecar=client)
        assert ranker.target is None
        with pytest.raises(SerializationError, match="sidecar"):
            ranker.to_dict()


@both_ways
async def test_the_environments_token_is_read_when_it_warms_up(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    async with serving(auth_tokens="a-token") as server:
        ranker = SidecarRanker(server.target, token=Secret.from_env_var("RERANK_TOKEN"))
        with pytest.raises(ValueError, match="RERANK_TOKEN"):
            ranker.warm_up()
        with pytest.raises(ValueError, match="RERANK_TOKEN"):
            await ranker.warm_up_async()
        monkeypatch.setenv("RERANK_TOKEN", "a-token")
        await ranker.warm_up_async()
        ranker.warm_up()
        monkeypatch.delenv("RERANK_TOKEN")
        found = await HAYSTACK.ask(is_async, ranker, HAYSTACK.rows(["1", "2"]))
        await ranker.close_async()
    assert HAYSTACK.texts(found) == ["2", "1"]


@both_ways
async def test_of_documents_with_the_same_id_the_best_counts(
    target: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    documents = [
        Document(id="a", content="an apple"),
        Document(id="b", content=None, score=0.2),
        Document(id="a", content="an apple", score=0.3),
        Document(id="a", content="an apple", score=0.1),
    ]
    ranker = SidecarRanker(target, keep_retrieval_score=True)
    with caplog.at_level(logging.WARNING, "rerank_adapters"):
        found = await HAYSTACK.ask(is_async, ranker, documents)
    assert [(each.id, each.meta) for each in found] == [
        ("a", {"retrieval_score": 0.3}),
        ("b", {"retrieval_score": 0.2}),
    ]
    assert "1 documents without text were scored as empty" in caplog.text
    await ranker.close_async()


@both_ways
async def test_a_calls_top_k_goes_before_the_components(target: str, is_async: bool) -> None:
    ranker, documents = SidecarRanker(target, top_k=1), HAYSTACK.rows(TEXTS)
    answer = (
        await ranker.run_async(QUERY, documents, 2)
        if is_async
        else ranker.run(QUERY, documents, top_k=2)
    )
    assert len(answer["documents"]) == 2
    for top_k in (0, -1):
        with pytest.raises(ValueError, match="top_k: must be > 0"):
            ranker.run(QUERY, documents, top_k)
        with pytest.raises(ValueError, match="top_k: must be > 0"):
            await ranker.run_async(QUERY, documents, top_k)
    await ranker.close_async()


def test_copies_keep_all_that_the_document_had(target: str) -> None:
    document = Document(content="an apple", meta={"a": 1}, embedding=[1.0, 2.0], score=0.5)
    [found] = SidecarRanker(target).run(QUERY, [document])["documents"]
    assert (found.id, found.meta, found.embedding) == (document.id, {"a": 1}, [1.0, 2.0])
    assert document.score == 0.5
    assert found.score != 0.5


def alone(ranker: SidecarRanker) -> list[Document]:
    """Run a pipeline of nothing but a ranker."""
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    wanted = {"ranker": {"query": QUERY, "documents": HAYSTACK.rows(TEXTS)}}
    found: list[Document] = pipeline.run(wanted)["ranker"]["documents"]
    return found


def test_a_pipeline_fails_without_the_sidecar() -> None:
    with pytest.raises(PipelineRuntimeError, match="UNAVAILABLE") as caught:
        alone(SidecarRanker(NOBODY))
    assert isinstance(caught.value.__cause__, Unavailable)
    assert not any(text in str(caught.value) for text in (QUERY, *TEXTS))


def test_or_it_goes_on_if_it_may() -> None:
    found = alone(SidecarRanker(NOBODY, raise_on_failure=False))
    assert [each.score for each in found] == [each.score for each in HAYSTACK.rows(TEXTS)]
    assert {each.meta["rerank_error"] for each in found} == {"UNAVAILABLE"}


def test_it_is_a_component_that_haystack_runs_both_ways() -> None:
    ranker = SidecarRanker()
    assert isinstance(ranker, Component)
    assert ranker.__haystack_supports_async__  # type: ignore[attr-defined]
    assert ranker.target == "localhost:50051"
