"""A caller's vectors through the doors: over gRPC, in streams and as JSON, to the same scores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_app import build_http_app
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.rerankers.late_interaction import LateInteractionReranker
from rerank_sidecar.settings import Settings
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub
from tests.contract.grpc_toy import refused
from tests.unit.rerankers.test_late_interaction import CONFIG, DOCUMENTS, INFO, QUERY
from tests.unit.rerankers.toy_models import DIMENSION, ToyEncoder, bert_tokenizer, running

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

Array = npt.NDArray[np.float32]


@dataclass
class Served:
    """A late-interaction model behind both doors."""

    stub: RerankServiceAsyncStub
    http: httpx.AsyncClient
    encoder: ToyEncoder


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as each:
        yield each


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    settings = Settings.model_validate({"grpc_port": 0, "score_cache_bytes": 0})
    encoder, engine = ToyEncoder(), Engine(settings)
    server = GrpcServer(engine, settings)
    target = f"127.0.0.1:{await server.start()}"
    transport = httpx.ASGITransport(build_http_app(engine, settings))
    async with (
        running(encoder) as scheduler,
        grpc.aio.insecure_channel(target) as channel,
        httpx.AsyncClient(transport=transport, base_url="http://sidecar") as http,
    ):
        info = replace(INFO, vector_dimension=DIMENSION)
        tokenizer = TextTokenizer(bert_tokenizer())
        reranker = LateInteractionReranker(info, tokenizer, scheduler, CONFIG)
        engine.open(Registry([reranker], any_script=reranker))
        await server.set_serving(True)
        stub = cast("RerankServiceAsyncStub", RerankServiceStub(channel))
        try:
            yield Served(stub, http, encoder)
        finally:
            await server.stop(0)


def vectors_of(text: str) -> Array:
    tokenizer = TextTokenizer(bert_tokenizer())
    [encoded] = tokenizer.encode([text])
    return ToyEncoder().compute(tokenizer.single.wrap(encoded.token_ids))


def message(rows: Array) -> pb.Vectors:
    return pb.Vectors(dimension=rows.shape[1], values=rows.astype("<f4").tobytes())


GIVEN = [pb.Document(id=text, vectors=message(vectors_of(text))) for text in DOCUMENTS]
OF_QUERY = message(vectors_of(QUERY))


def by_index(response: pb.RerankResponse) -> dict[int, float]:
    return {each.index: each.score.value for each in response.results}


async def expected(served: Served) -> dict[int, float]:
    texts = [pb.Document(text=text) for text in DOCUMENTS]
    return by_index(await served.stub.Rerank(pb.RerankRequest(query=QUERY, documents=texts)))


async def test_over_grpc(served: Served) -> None:
    scores = await expected(served)
    ran = len(served.encoder.ran)
    request = pb.RerankRequest(query_vectors=OF_QUERY, documents=GIVEN)
    response = await served.stub.Rerank(request)
    assert by_index(response) == scores
    assert response.summary.usage.tokens == 0
    assert len(served.encoder.ran) == ran
    [model] = (await served.stub.ListModels(pb.ListModelsRequest())).models
    assert model.vector_dimension == DIMENSION


async def test_in_a_stream(served: Served) -> None:
    scores = await expected(served)
    call = served.stub.RerankStream()
    begin = pb.RerankStreamStart(query_vectors=OF_QUERY)
    await call.write(pb.RerankStreamRequest(start=begin))
    for each in GIVEN:
        documents = pb.RerankStreamDocuments(documents=[each])
        await call.write(pb.RerankStreamRequest(documents=documents))
    await call.done_writing()
    received = [each async for each in call]
    found = {each.result.index: each.result.score.value for each in received[:-1]}
    assert found == scores


async def test_as_json(served: Served) -> None:
    scores = await expected(served)
    body = {
        "query": "",
        "query_vectors": vectors_of(QUERY).tolist(),
        "documents": [{"text": "", "vectors": vectors_of(text).tolist()} for text in DOCUMENTS],
    }
    answer = (await served.http.post("/api/v1/rerank", json=body)).json()
    assert {each["index"]: each["score"]["value"] for each in answer["results"]} == scores
    assert answer["summary"]["usage"]["tokens"] == 0
    models = (await served.http.get("/api/v1/models")).json()
    assert models["models"][0]["vector_dimension"] == DIMENSION


@pytest.mark.parametrize(
    ("vectors", "field"),
    [
        (pb.Vectors(dimension=DIMENSION, values=b"\0" * 7), "query_vectors.values"),
        (message(np.ones((2, DIMENSION + 1), np.float32)), "query_vectors"),
        (message(np.full((1, DIMENSION), np.nan, np.float32)), "query_vectors.values"),
    ],
    ids=["a part", "another dimension", "not finite"],
)
async def test_a_querys_vectors_that_are_none_of_the_models_are_refused(
    served: Served, vectors: pb.Vectors, field: str
) -> None:
    request = pb.RerankRequest(query_vectors=vectors, documents=GIVEN)
    failure = await refused(served.stub.Rerank(request))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (failure.info.reason, failure.field) == ("INVALID_FIELD", field)


async def test_a_document_with_vectors_of_another_model_fails_alone(served: Served) -> None:
    other = pb.Document(vectors=message(np.ones((2, 3), np.float32)))
    request = pb.RerankRequest(query_vectors=OF_QUERY, documents=[*GIVEN[:1], other])
    good, bad = (await served.stub.Rerank(request)).results
    assert good.HasField("score")
    assert (bad.index, bad.error.reason) == (1, "INVALID_FIELD")


async def test_vectors_of_nothing_but_zeros_score_zero(served: Served) -> None:
    zeros: dict[str, Any] = {"vectors": message(np.zeros((2, DIMENSION), np.float32))}
    request = pb.RerankRequest(query_vectors=OF_QUERY, documents=[pb.Document(**zeros)])
    [only] = (await served.stub.Rerank(request)).results
    assert only.score.value == 0.0
