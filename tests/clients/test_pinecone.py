"""Pinecone's SDK, under the mount and on its bare path."""

import pytest
from pinecone import AsyncPinecone, Pinecone
from pinecone.errors import UnauthorizedError
from pinecone.models.inference.rerank import RerankResult

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

MODEL = "bge-reranker-v2-m3"

places = pytest.mark.parametrize("mount", ["/pinecone", ""])


def ranking(answer: RerankResult) -> Ranking:
    return [(each.index, each.score) for each in answer.data]


@places
def test_texts(sidecar: RunningDoor, mount: str) -> None:
    with Pinecone(api_key=KEY, host=sidecar.url + mount) as client, sidecar.hears("pinecone"):
        answer = client.inference.rerank(model=MODEL, query=QUERY, documents=TEXTS, top_n=3)
    sidecar.expects(ranking(answer), top_n=3)
    assert [each.document for each in answer.data] == [
        {"text": TEXTS[index]} for index in sidecar.order[:3]
    ]
    assert (answer.model, answer.usage.rerank_units) == ("embedded", 1)


@places
def test_objects_are_ranked_by_their_fields(sidecar: RunningDoor, mount: str) -> None:
    documents = [{"id": str(index), "summary": text} for index, text in enumerate(TEXTS)]
    with Pinecone(api_key=KEY, host=sidecar.url + mount) as client:
        answer = client.inference.rerank(
            model=MODEL,
            query=QUERY,
            documents=documents,
            rank_fields=["summary"],
            parameters={"truncate": "END"},
        )
    sidecar.expects(ranking(answer))
    assert [each.document for each in answer.data] == [documents[i] for i in sidecar.order]


@places
async def test_async(sidecar: RunningDoor, mount: str) -> None:
    async with AsyncPinecone(api_key=KEY, host=sidecar.url + mount) as client:
        with sidecar.hears("pinecone"):
            answer = await client.inference.rerank(
                model=MODEL, query=QUERY, documents=TEXTS, return_documents=False
            )
    sidecar.expects(ranking(answer))
    assert {each.document for each in answer.data} == {None}


def test_keys(guarded: RunningDoor) -> None:
    with Pinecone(api_key=KEY, host=f"{guarded.url}/pinecone") as client:
        guarded.expects(ranking(client.inference.rerank(MODEL, QUERY, TEXTS)))
    with (
        Pinecone(api_key=WRONG_KEY, host=f"{guarded.url}/pinecone") as client,
        guarded.hears("pinecone", outcome="UNAUTHENTICATED"),
        pytest.raises(UnauthorizedError, match="token"),
    ):
        client.inference.rerank(MODEL, QUERY, TEXTS)
