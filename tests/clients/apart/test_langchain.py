"""LangChain's document compressors; those whose address is fixed are rerouted."""

from collections.abc import Sequence
from typing import Any

import pytest
from infinity_client import Client
from langchain_cohere import CohereRerank
from langchain_community.document_compressors import InfinityRerank, JinaRerank
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_nvidia_ai_endpoints import NVIDIARerank
from langchain_voyageai import VoyageAIRerank
from langchain_xinference.reranks import XinferenceRerank
from mixedbread_ai_langchain import MixedbreadReranker

from tests.clients.apart.rerouted import Rerouted
from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

DOCUMENTS = [Document(text, metadata={"at": index}) for index, text in enumerate(TEXTS)]
TOP_N = 3


def ranking(answer: Sequence[Document], score: str = "relevance_score") -> Ranking:
    return [(each.metadata["at"], each.metadata[score]) for each in answer]


def cohere(url: str, key: str) -> CohereRerank:
    return CohereRerank(model="rerank-v3.5", cohere_api_key=key, base_url=url, top_n=TOP_N)


def jina(url: str, key: str) -> JinaRerank:
    ranker = JinaRerank(jina_api_key=key, top_n=TOP_N)
    ranker.session.mount("https://api.jina.ai/", Rerouted(url))
    return ranker


def nvidia(url: str, key: str) -> NVIDIARerank:
    return NVIDIARerank(model="nvidia/any", base_url=f"{url}/v1", api_key=key, top_n=TOP_N)


def voyage(url: str, key: str) -> VoyageAIRerank:
    return VoyageAIRerank(model="rerank-2.5", api_key=key, base_url=f"{url}/v1", top_k=TOP_N)


def infinity(url: str, key: str) -> InfinityRerank:
    client = Client(base_url=url, headers={"Authorization": f"Bearer {key}"})
    return InfinityRerank(client=client, top_n=TOP_N)


def xinference(url: str, key: str) -> XinferenceRerank:
    return XinferenceRerank(server_url=url, model_uid="embedded", api_key=key)


def mixedbread(url: str, key: str) -> MixedbreadReranker:
    return MixedbreadReranker(api_key=key, base_url=url, top_k=TOP_N)


EVERY = [
    (cohere, "/cohere", "cohere_v2"),
    (cohere, "", "cohere_v2"),
    (jina, "/jina", "jina"),
    (jina, "", "generic"),
    (nvidia, "/nvidia", "nvidia"),
    (nvidia, "", "nvidia"),
    (voyage, "/voyage", "voyage"),
    (voyage, "", "voyage"),
    (infinity, "/infinity", "infinity"),
    (infinity, "", "generic"),
    (xinference, "/xinference", "xinference"),
    (xinference, "", "generic"),
    (mixedbread, "/mixedbread", "mixedbread"),
    (mixedbread, "", "mixedbread"),
]

every = pytest.mark.parametrize(("made", "mount", "door"), EVERY)


def expect(sidecar: RunningDoor, made: Any, answer: Sequence[Document]) -> None:
    scale = "logit" if made is nvidia else "unit"
    score = "rerank_score" if made is mixedbread else "relevance_score"
    sidecar.expects(ranking(answer, score), scale, TOP_N)


@every
def test_compress(guarded: RunningDoor, made: Any, mount: str, door: str) -> None:
    ranker: BaseDocumentCompressor = made(guarded.url + mount, KEY)
    with guarded.hears(door):
        answer = ranker.compress_documents(DOCUMENTS, QUERY)
    expect(guarded, made, answer)


@every
async def test_compress_async(guarded: RunningDoor, made: Any, mount: str, door: str) -> None:
    ranker: BaseDocumentCompressor = made(guarded.url + mount, KEY)
    with guarded.hears(door):
        answer = await ranker.acompress_documents(DOCUMENTS, QUERY)
    expect(guarded, made, answer)


@pytest.mark.parametrize(
    ("made", "mount"),
    [(cohere, "/cohere"), (jina, "/jina"), (nvidia, "/nvidia"), (voyage, "/voyage")],
)
def test_wrong_keys(guarded: RunningDoor, made: Any, mount: str) -> None:
    ranker = made(guarded.url + mount, WRONG_KEY)
    with pytest.raises(Exception, match=r"(?i)token|401|unauthorized"):
        ranker.compress_documents(DOCUMENTS, QUERY)


def test_nvidia_finds_the_model_by_itself(sidecar: RunningDoor) -> None:
    with pytest.warns(UserWarning, match="Default model is set as: embedded"):
        ranker = NVIDIARerank(base_url=f"{sidecar.url}/nvidia/v1", top_n=TOP_N)
    expect(sidecar, nvidia, ranker.compress_documents(DOCUMENTS, QUERY))
