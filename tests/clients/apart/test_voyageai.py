"""Voyage's SDK, under the mount and on its bare path."""

import pytest
from voyageai import AsyncClient, Client
from voyageai.error import AuthenticationError
from voyageai.object import RerankingObject

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

MODEL = "rerank-2.5"

# The SDK always sends `truncation`, by which its calls are known on a path that others use, too.
places = pytest.mark.parametrize("base", ["/voyage/v1", "/v1"])


def ranking(answer: RerankingObject) -> Ranking:
    return [(each.index, each.relevance_score) for each in answer.results]


@places
@pytest.mark.parametrize("truncation", [True, False])
def test_rerank(sidecar: RunningDoor, base: str, truncation: bool) -> None:
    client = Client(KEY, base_url=sidecar.url + base)
    with sidecar.hears("voyage"):
        answer = client.rerank(QUERY, TEXTS, MODEL, top_k=3, truncation=truncation)
    sidecar.expects(ranking(answer), top_n=3)
    assert [each.document for each in answer.results] == [TEXTS[i] for i in sidecar.order[:3]]
    assert answer.total_tokens >= 0


@places
async def test_async(sidecar: RunningDoor, base: str) -> None:
    client = AsyncClient(KEY, base_url=sidecar.url + base)
    with sidecar.hears("voyage"):
        sidecar.expects(ranking(await client.rerank(QUERY, TEXTS, MODEL)))


def test_keys(guarded: RunningDoor) -> None:
    base = f"{guarded.url}/voyage/v1"
    guarded.expects(ranking(Client(KEY, base_url=base).rerank(QUERY, TEXTS, MODEL)))
    with (
        guarded.hears("voyage", outcome="UNAUTHENTICATED"),
        pytest.raises(AuthenticationError, match="token"),
    ):
        Client(WRONG_KEY, base_url=base).rerank(QUERY, TEXTS, MODEL)
