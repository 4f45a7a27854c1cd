"""Mixedbread's SDK, under the mount and on its bare path."""

import pytest
from mixedbread import AsyncMixedbread, AuthenticationError, Mixedbread
from mixedbread.types import RerankResponse

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

MODEL = "mixedbread-ai/mxbai-rerank-large-v2"

places = pytest.mark.parametrize("mount", ["/mixedbread", ""])


def ranking(answer: RerankResponse) -> Ranking:
    return [(each.index, each.score) for each in answer.data]


@places
def test_texts(sidecar: RunningDoor, mount: str) -> None:
    with (
        Mixedbread(api_key=KEY, base_url=sidecar.url + mount) as client,
        sidecar.hears("mixedbread"),
    ):
        answer = client.rerank(model=MODEL, query=QUERY, input=TEXTS, top_k=3, return_input=True)
    sidecar.expects(ranking(answer), top_n=3)
    assert [each.input for each in answer.data] == [TEXTS[index] for index in sidecar.order[:3]]
    assert {each.object for each in answer.data} == {"rank_result"}
    assert (answer.model, answer.object, answer.top_k) == ("embedded", "list", 3)
    assert answer.return_input


@places
def test_objects_are_ranked_by_their_fields(sidecar: RunningDoor, mount: str) -> None:
    documents = [{"text": "a boat", "title": text} for text in TEXTS]
    with Mixedbread(api_key=KEY, base_url=sidecar.url + mount) as client:
        answer = client.rerank(query=QUERY, input=documents, rank_fields=["title"])
    sidecar.expects(ranking(answer))


@places
async def test_async(sidecar: RunningDoor, mount: str) -> None:
    async with AsyncMixedbread(api_key=KEY, base_url=sidecar.url + mount) as client:
        with sidecar.hears("mixedbread"):
            answer = await client.rerank(query=QUERY, input=TEXTS)
    sidecar.expects(ranking(answer))
    assert {each.input for each in answer.data} == {None}
    assert not answer.return_input


def test_keys(guarded: RunningDoor) -> None:
    with Mixedbread(api_key=KEY, base_url=f"{guarded.url}/mixedbread") as client:
        guarded.expects(ranking(client.rerank(query=QUERY, input=TEXTS)))
    with (
        Mixedbread(api_key=WRONG_KEY, base_url=f"{guarded.url}/mixedbread") as client,
        guarded.hears("mixedbread", outcome="UNAUTHENTICATED"),
        pytest.raises(AuthenticationError),
    ):
        client.rerank(query=QUERY, input=TEXTS)
