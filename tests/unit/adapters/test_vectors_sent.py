"""Vectors in place of texts, sent by every client, and what is told of models that read them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from rerank_adapters import (
    AsyncRerankClient,
    Document,
    InvalidField,
    NotSupportedByModel,
    RerankClient,
    Vectors,
)
from rerank_sidecar.in_process import InProcessRerankClient
from rerank_sidecar.settings import Settings
from tests.unit.adapters.every_client import (
    GRPC,
    HTTP,
    IN_PROCESS,
    Ask,
    asking,
    failure,
    in_thread,
    listening,
)
from tests.unit.adapters.toy_vectors import StandIn, ToyMaxSim, encode

TOKENS: list[Any] = [
    np.asarray([[0.6, 0.8], [1 / 3, 0.1]]),
    [[0.0, 1.0], [1.0, 0.0]],
    np.asarray([[1.0, 0.0]], np.float32),
]


@pytest.fixture
def toy() -> ToyMaxSim:
    return ToyMaxSim()


@pytest.fixture(params=[*GRPC, *HTTP])
async def ask(request: pytest.FixtureRequest, toy: ToyMaxSim) -> AsyncIterator[Ask]:
    async with listening(reranker=toy) as sidecar, asking(request.param, sidecar) as opened:
        yield opened


async def test_vectors_arrive_as_the_float32_that_they_are(ask: Ask, toy: ToyMaxSim) -> None:
    documents = [Document("", str(at), each) for at, each in enumerate(TOKENS)]
    response = await ask("rerank", "red fruit", [*documents, "red"])
    assert toy.queries == [None]
    assert toy.documents[-1] is None
    for arrived, sent in zip(toy.documents, TOKENS, strict=False):
        assert arrived is not None
        assert arrived.tolist() == np.asarray(sent, np.float32).tolist()
    scores = {each.index: each.score for each in response.results}
    assert scores == pytest.approx({1: 1.0, 0: (0.957826 + 0.8) / 2, 2: 0.5, 3: 0.5}, abs=1e-5)
    assert [each.index for each in response.results] == [1, 0, 2, 3]
    assert [each.id for each in response.results] == ["1", "0", "2", None]


async def test_vectors_of_the_query(ask: Ask, toy: ToyMaxSim) -> None:
    documents = ["red", Document("read no more", vectors=[0.0, 1.0])]
    response = await ask("rerank", "", documents, query_vectors=[[0.0, 2.0]])
    assert [each.index for each in response.results] == [1, 0]
    [arrived] = toy.queries
    assert arrived is not None
    assert arrived.tolist() == [[0.0, 2.0]]


async def test_documents_come_back_without_their_vectors(ask: Ask) -> None:
    sent = Document("shown", "a", [1.0, 0.0])
    response = await ask("rerank", "red", [sent], return_documents=True)
    assert response.results[0].document == Document("shown", "a")


async def test_a_document_of_another_dimension_fails_alone(ask: Ask) -> None:
    documents = [Document("", vectors=[1.0, 0.0, 0.0]), Document("", vectors=[1.0, 0.0])]
    response = await ask("rerank", "red", documents)
    assert [each.index for each in response.results] == [1, 0]
    error = response.results[1].error
    assert error.reason == "INVALID_FIELD"
    assert error.message == "documents[0].vectors: 3 numbers each, where toy-maxsim has 2"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_numbers_that_are_not_finite_are_refused(ask: Ask, number: float) -> None:
    documents = ["red", Document("", vectors=[[1.0, 0.0], [number, 0.0]])]
    error = await failure(ask("rerank", "red", documents, on_error="passthrough"))
    assert isinstance(error, InvalidField)
    assert (error.field or "").startswith("documents[1].vectors")
    assert "every number must be finite" in error.message
    error = await failure(ask("rerank", "", ["red"], query_vectors=[number, 0.0]))
    assert isinstance(error, InvalidField)
    assert (error.field or "").startswith("query_vectors")


async def test_a_query_of_another_dimension_is_refused(ask: Ask) -> None:
    error = await failure(ask("rerank", "", ["red"], query_vectors=[1.0]))
    assert isinstance(error, InvalidField)
    assert error.message == "query_vectors: 1 numbers each, where toy-maxsim has 2"


@pytest.mark.parametrize("given", ["red", [["red"]], [1, [2]]])
async def test_what_is_no_vectors_is_not_sent(ask: Ask, toy: ToyMaxSim, given: Any) -> None:
    with pytest.raises(TypeError, match=r"^vectors: "):
        await ask("rerank", "", ["red"], query_vectors=given)
    assert not toy.queries


async def test_models_tell_the_dimension(ask: Ask) -> None:
    dimensions = {each.name: each.vector_dimension for each in await ask("models")}
    assert dimensions == {"toy-maxsim": 2, "lexical": None}


@pytest.mark.parametrize("kind", [*GRPC, *HTTP])
async def test_who_answered_for_whom_and_how_many_calls_it_took(kind: str) -> None:
    async with (
        listening(reranker=StandIn()) as sidecar,
        asking(kind, sidecar, max_documents_per_call=2) as ask,
    ):
        whole = await ask("rerank", "red", ["red", "fruit"])
        assert (whole.model, whole.fallback_for) == ("toy-maxsim", "primary")
        assert whole.usage.remote_calls == 3


@pytest.mark.parametrize("kind", [*GRPC, *HTTP])
async def test_vectors_of_a_call_in_parts(kind: str, toy: ToyMaxSim) -> None:
    async with (
        listening(reranker=toy) as sidecar,
        asking(kind, sidecar, max_documents_per_call=2) as ask,
    ):
        documents = [Document("", vectors=[number, 1.0]) for number in (0.0, 1.0, 4.0, 2.0, 8.0)]
        response = await ask("rerank", "", documents, query_vectors=[1.0, 0.0], top_n=3)
        assert [each.index for each in response.results] == [4, 2, 3]
        assert len(toy.queries) == 3
        assert response.usage.remote_calls == 0
        assert response.fallback_for is None


@pytest.mark.parametrize("kind", GRPC)
async def test_streams(kind: str, toy: ToyMaxSim) -> None:
    arriving: list[Any] = [
        Document("", vectors=[1.0, 0.0]),
        ["fruit", Document("", vectors=[0.0, 1.0])],
        Document("", vectors=[3.0]),
    ]
    async with listening(reranker=toy) as sidecar:
        options: Any = {"query_vectors": Vectors.of(encode("fruit"))}
        if kind == "grpc":
            with RerankClient(sidecar.target) as client:
                stream = client.rerank_stream("", arriving, **options)
                await in_thread(list, stream)
                response = stream.response
        else:
            async with AsyncRerankClient(sidecar.target) as waiting:
                stream_async = waiting.rerank_stream("", iter(arriving), **options)
                assert len([each async for each in stream_async]) == 4
                response = stream_async.response
    assert [each.index for each in response.results] == [1, 2, 0, 3]
    assert response.results[3].error is not None
    assert response.results[3].error.message.startswith("documents[3].vectors: 1 numbers")
    assert [None if each is None else each.tolist() for each in toy.queries] == [[[0.0, 1.0]]]


@pytest.mark.parametrize("kind", [*GRPC, *HTTP, *IN_PROCESS])
async def test_a_model_of_texts_refuses_vectors(kind: str) -> None:
    async with listening() as sidecar, asking(kind, sidecar) as ask:
        documents = ["red fruit", Document("red fruit", vectors=[1.0])]
        response = await ask("rerank", "red fruit", documents)
        assert [each.index for each in response.results] == [0, 1]
        assert response.results[1].error.reason == "NOT_SUPPORTED_BY_MODEL"
        error = await failure(ask("rerank", "red", ["red"], query_vectors=[1.0]))
        assert isinstance(error, NotSupportedByModel)
        assert error.field == "query_vectors"
        assert [each.vector_dimension for each in await ask("models")] == [None]


@asynccontextmanager
async def opened() -> AsyncIterator[InProcessRerankClient]:
    client = InProcessRerankClient(Settings(model="lexical"))
    yield client
    await in_thread(client.close)


async def test_a_stream_in_process_reads_vectors_as_the_server_does() -> None:
    documents: list[Any] = ["red fruit", Document("", vectors=[float("nan")])]
    async with opened() as client:
        with pytest.raises(NotSupportedByModel):
            await in_thread(list, client.rerank_stream("", ["red"], query_vectors=[1.0]))
        with pytest.raises(InvalidField) as caught:
            await in_thread(list, client.rerank_stream("red fruit", iter(documents)))
        assert caught.value.field == "documents[1].vectors.values"
