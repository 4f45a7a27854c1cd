"""Haystack's rankers; the one for text-embeddings-inference also over gRPC, by reflection."""

from typing import Any, cast

import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import (
    HuggingFaceTEIRanker,
    TruncationDirection,
)
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.nvidia import NvidiaRanker
from haystack_integrations.components.rankers.voyage import VoyageRanker
from mixedbread_ai_haystack import MixedbreadReranker

from tests.clients.apart.rerouted import reroute_voyage
from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

TOP_K = 3
TOKEN = Secret.from_token(KEY)


def documents() -> list[Document]:
    return [Document(id=str(index), content=text) for index, text in enumerate(TEXTS)]


def cohere(url: str) -> CohereRanker:
    return CohereRanker(top_k=TOP_K, api_key=TOKEN, api_base_url=url)


def jina(url: str) -> JinaRanker:
    return JinaRanker(top_k=TOP_K, api_key=TOKEN, base_url=f"{url}/v1/rerank")


def nvidia(url: str) -> NvidiaRanker:
    return NvidiaRanker(
        model="any", top_k=TOP_K, api_key=TOKEN, api_url=f"{url}/v1", truncate="END"
    )


def tei(url: str) -> HuggingFaceTEIRanker:
    return HuggingFaceTEIRanker(url=url, top_k=TOP_K, token=TOKEN)


def mixedbread(url: str) -> MixedbreadReranker:
    return MixedbreadReranker(top_k=TOP_K, api_key=TOKEN, base_url=url)


def voyage(url: str) -> VoyageRanker:
    reroute_voyage(url)
    return VoyageRanker(model="rerank-2.5", top_k=TOP_K, api_key=TOKEN)


EVERY = [
    (cohere, "/cohere", "cohere_v2"),
    (cohere, "", "cohere_v2"),
    (jina, "/jina", "jina"),
    (jina, "", "generic"),
    (nvidia, "/nvidia", "nvidia"),
    (nvidia, "", "nvidia"),
    (tei, "", "tei"),  # it drops the path of its URL
    (mixedbread, "/mixedbread", "mixedbread"),
    (mixedbread, "", "mixedbread"),
    (voyage, "/voyage", "voyage"),
    (voyage, "", "voyage"),
]


def ranking(answer: dict[str, list[Document]]) -> Ranking:
    # Mixedbread's ranker has a place of its own for scores.
    return [
        (int(each.id), cast("float", each.meta.get("rerank_score", each.score)))
        for each in answer["documents"]
    ]


def expect(guarded: RunningDoor, made: Any, answer: dict[str, list[Document]]) -> None:
    guarded.expects(ranking(answer), "logit" if made is nvidia else "unit", TOP_K)


@pytest.mark.parametrize(("made", "mount", "door"), EVERY)
def test_run(guarded: RunningDoor, made: Any, mount: str, door: str) -> None:
    ranker = made(guarded.url + mount)
    with guarded.hears(door):
        answer = ranker.run(query=QUERY, documents=documents())
    expect(guarded, made, answer)


@pytest.mark.parametrize(
    ("made", "mount", "door"), [each for each in EVERY if each[0] not in (nvidia, voyage)]
)
async def test_run_async(guarded: RunningDoor, made: Any, mount: str, door: str) -> None:
    ranker = made(guarded.url + mount)
    with guarded.hears(door):
        answer = await ranker.run_async(query=QUERY, documents=documents())
    expect(guarded, made, answer)


@pytest.mark.parametrize("raw_scores", [False, True])
def test_tei_over_grpc(guarded: RunningDoor, raw_scores: bool) -> None:
    ranker = HuggingFaceTEIRanker(
        url=f"127.0.0.1:{guarded.grpc_port}",
        top_k=TOP_K,
        token=TOKEN,
        use_grpc=True,
        raw_scores=raw_scores,
    )
    with guarded.hears("grpc_tei"):
        answer = ranker.run(QUERY, documents(), truncation_direction=TruncationDirection.LEFT)
    ranker.close()
    guarded.expects(ranking(answer), "logit" if raw_scores else "unit", TOP_K)


def test_a_wrong_token_is_told_by_tei(guarded: RunningDoor) -> None:
    ranker = HuggingFaceTEIRanker(url=guarded.url, token=Secret.from_token(WRONG_KEY))
    # Who may not come in is not asked what it speaks: the path's first dialect counts it.
    with (
        guarded.hears("weaviate", outcome="UNAUTHENTICATED"),
        pytest.raises(RuntimeError, match="401"),
    ):
        ranker.run(QUERY, documents())
