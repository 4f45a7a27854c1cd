"""Cohere's SDK, in both of its versions, under the mount and on bare paths."""

import pytest
from cohere import AsyncClient, AsyncClientV2, Client, ClientV2
from cohere.errors import BadRequestError, UnauthorizedError

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

MODEL = "rerank-v3.5"
"""What everybody sends; it is answered by the default model."""

places = pytest.mark.parametrize("mount", ["/cohere", ""])


def ranking(answer: object) -> Ranking:
    return [(each.index, each.relevance_score) for each in answer.results]  # type: ignore[attr-defined]


def door(mount: str) -> str:
    return "cohere_v1" if mount else "generic"


@places
def test_version_1(sidecar: RunningDoor, mount: str) -> None:
    with Client(KEY, base_url=sidecar.url + mount) as client, sidecar.hears(door(mount)):
        answer = client.rerank(
            model=MODEL, query=QUERY, documents=TEXTS, top_n=3, return_documents=True
        )
    sidecar.expects(ranking(answer), top_n=3)
    assert [each.document.text for each in answer.results] == [
        TEXTS[index] for index in sidecar.order[:3]
    ]
    assert answer.id
    assert answer.meta.billed_units.search_units == 1


@places
def test_version_1_without_documents_and_a_top(sidecar: RunningDoor, mount: str) -> None:
    with Client(KEY, base_url=sidecar.url + mount) as client, sidecar.hears(door(mount)):
        answer = client.rerank(query=QUERY, documents=TEXTS)
    sidecar.expects(ranking(answer))
    assert {each.document for each in answer.results} == {None}


@places
def test_version_1_objects_are_ranked_by_their_fields(sidecar: RunningDoor, mount: str) -> None:
    documents = [{"text": "a boat", "title": text} for text in TEXTS]
    with Client(KEY, base_url=sidecar.url + mount) as client:
        answer = client.rerank(
            query=QUERY, documents=documents, rank_fields=["title"], return_documents=True
        )
    sidecar.expects(ranking(answer))
    assert [each.document.model_dump() for each in answer.results] == [
        documents[index] for index in sidecar.order
    ]


@places
async def test_version_1_async(sidecar: RunningDoor, mount: str) -> None:
    async with AsyncClient(KEY, base_url=sidecar.url + mount) as client:
        with sidecar.hears(door(mount)):
            answer = await client.rerank(model=MODEL, query=QUERY, documents=TEXTS, top_n=2)
    sidecar.expects(ranking(answer), top_n=2)


@places
def test_version_2(sidecar: RunningDoor, mount: str) -> None:
    with ClientV2(KEY, base_url=sidecar.url + mount) as client, sidecar.hears("cohere_v2"):
        answer = client.rerank(
            model=MODEL, query=QUERY, documents=TEXTS, top_n=3, max_tokens_per_doc=100
        )
    sidecar.expects(ranking(answer), top_n=3)
    assert answer.id
    assert answer.meta.billed_units.search_units == 1


@places
async def test_version_2_async(sidecar: RunningDoor, mount: str) -> None:
    async with AsyncClientV2(KEY, base_url=sidecar.url + mount) as client:
        with sidecar.hears("cohere_v2"):
            answer = await client.rerank(model=MODEL, query=QUERY, documents=TEXTS)
    sidecar.expects(ranking(answer))


def test_a_model_of_the_path(sidecar: RunningDoor) -> None:
    with ClientV2(KEY, base_url=f"{sidecar.url}/models/embedded/cohere") as client:
        answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    sidecar.expects(ranking(answer))


@pytest.mark.parametrize(("kind", "name"), [(Client, "cohere_v1"), (ClientV2, "cohere_v2")])
def test_keys(guarded: RunningDoor, kind: type[Client | ClientV2], name: str) -> None:
    asked = {"model": MODEL, "query": QUERY, "documents": TEXTS}
    with kind(KEY, base_url=f"{guarded.url}/cohere") as client, guarded.hears(name):
        guarded.expects(ranking(client.rerank(**asked)))
    with (
        kind(WRONG_KEY, base_url=f"{guarded.url}/cohere") as client,
        guarded.hears(name, outcome="UNAUTHENTICATED"),
        pytest.raises(UnauthorizedError) as caught,
    ):
        client.rerank(**asked)
    assert "token" in caught.value.body["message"]


def test_a_wrong_request(sidecar: RunningDoor) -> None:
    with (
        Client(KEY, base_url=f"{sidecar.url}/cohere") as client,
        pytest.raises(BadRequestError) as caught,
    ):
        client.rerank(query=QUERY, documents=[{"title": "no text"}])
    assert caught.value.body["message"].startswith("documents[0]")
