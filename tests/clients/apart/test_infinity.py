"""Infinity's own client, under the mount and on its bare path."""

import pytest
from infinity_client import AuthenticatedClient, Client
from infinity_client.api.default import health, models, rerank
from infinity_client.models import RerankInput, ReRankResult

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

places = pytest.mark.parametrize(("mount", "door"), [("/infinity", "infinity"), ("", "generic")])


def ranking(answer: object) -> Ranking:
    assert isinstance(answer, ReRankResult)
    return [(each.index, each.relevance_score) for each in answer.results]


@places
def test_rerank(sidecar: RunningDoor, mount: str, door: str) -> None:
    body = RerankInput(QUERY, TEXTS, top_n=3, model="bge-reranker-base")
    with Client(base_url=sidecar.url + mount) as client, sidecar.hears(door):
        answer = rerank.sync(client=client, body=body)
    sidecar.expects(ranking(answer), top_n=3)
    assert answer.model == "embedded"
    assert answer.usage.total_tokens >= 0


def test_documents_are_texts(sidecar: RunningDoor) -> None:
    body = RerankInput(QUERY, TEXTS, return_documents=True)
    with Client(base_url=f"{sidecar.url}/infinity") as client:
        answer = rerank.sync(client=client, body=body)
    assert [each.document for each in answer.results] == [TEXTS[i] for i in sidecar.order]


@places
def test_raw_scores(sidecar: RunningDoor, mount: str, door: str) -> None:
    with Client(base_url=sidecar.url + mount) as client, sidecar.hears(door):
        answer = rerank.sync(client=client, body=RerankInput(QUERY, TEXTS, raw_scores=True))
    sidecar.expects(ranking(answer), "logit")


@places
async def test_async(sidecar: RunningDoor, mount: str, door: str) -> None:
    async with Client(base_url=sidecar.url + mount) as client:
        with sidecar.hears(door):
            answer = await rerank.asyncio(client=client, body=RerankInput(QUERY, TEXTS))
    sidecar.expects(ranking(answer))


def test_what_a_server_tells(sidecar: RunningDoor) -> None:
    with Client(base_url=f"{sidecar.url}/infinity") as client:
        listed = models.sync(client=client)
        assert "embedded" in [each.id for each in listed.data]
        assert health.sync(client=client)


def test_keys(guarded: RunningDoor) -> None:
    url, body = f"{guarded.url}/infinity", RerankInput(QUERY, TEXTS)
    with AuthenticatedClient(base_url=url, token=KEY) as client:
        guarded.expects(ranking(rerank.sync(client=client, body=body)))
    with (
        AuthenticatedClient(base_url=url, token=WRONG_KEY) as client,
        guarded.hears("infinity", outcome="UNAUTHENTICATED"),
    ):
        assert rerank.sync_detailed(client=client, body=body).status_code == 401
