"""LlamaIndex's postprocessors; Voyage's, whose address is fixed, is rerouted."""

from typing import Any

import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.mixedbreadai_rerank import MixedbreadAIRerank
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank
from llama_index.postprocessor.xinference_rerank import XinferenceRerank

from tests.clients.apart.rerouted import reroute_voyage
from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

TOP_N = 3


def cohere(url: str, key: str) -> CohereRerank:
    return CohereRerank(top_n=TOP_N, model="rerank-v3.5", api_key=key, base_url=url)


def jina(url: str, key: str) -> JinaRerank:
    return JinaRerank(top_n=TOP_N, base_url=f"{url}/v1", api_key=key)


def nvidia(url: str, key: str) -> NVIDIARerank:
    return NVIDIARerank(model="embedded", base_url=f"{url}/v1", api_key=key, top_n=TOP_N)


def tei(url: str, key: str) -> TextEmbeddingInference:
    return TextEmbeddingInference(top_n=TOP_N, base_url=url, auth_token=f"Bearer {key}")


def mixedbread(url: str, key: str) -> MixedbreadAIRerank:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXEDBREAD_BASE_URL", url)
        return MixedbreadAIRerank(top_n=TOP_N, api_key=key)


def voyage(url: str, key: str) -> VoyageAIRerank:
    reroute_voyage(url)
    return VoyageAIRerank(model="rerank-2.5", api_key=key, top_n=TOP_N)


every = pytest.mark.parametrize(
    ("made", "mount", "door"),
    [
        (cohere, "/cohere", "cohere_v2"),
        (cohere, "", "cohere_v2"),
        (jina, "/jina", "jina"),
        (jina, "", "generic"),
        (nvidia, "/nvidia", "nvidia"),
        (nvidia, "", "nvidia"),
        (tei, "/tei", "tei"),
        (tei, "", "tei"),
        (mixedbread, "/mixedbread", "mixedbread"),
        (mixedbread, "", "mixedbread"),
        (voyage, "/voyage", "voyage"),
        (voyage, "", "voyage"),
    ],
)


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(index), text=text), score=0.5)
        for index, text in enumerate(TEXTS)
    ]


def ranking(answer: list[NodeWithScore]) -> Ranking:
    return [(int(each.node.node_id), each.score or 0.0) for each in answer]


@every
def test_postprocess(guarded: RunningDoor, made: Any, mount: str, door: str) -> None:
    ranker: BaseNodePostprocessor = made(guarded.url + mount, KEY)
    with guarded.hears(door):
        answer = ranker.postprocess_nodes(nodes(), query_str=QUERY)
    guarded.expects(ranking(answer), "logit" if made is nvidia else "unit", TOP_N)


@pytest.mark.parametrize(
    ("made", "mount"),
    [(cohere, "/cohere"), (jina, "/jina"), (mixedbread, "/mixedbread"), (voyage, "/voyage")],
)
def test_wrong_keys(guarded: RunningDoor, made: Any, mount: str) -> None:
    with pytest.raises(Exception, match="token"):
        made(guarded.url + mount, WRONG_KEY).postprocess_nodes(nodes(), query_str=QUERY)


@pytest.mark.parametrize(("mount", "door"), [("/xinference", "xinference"), ("", "generic")])
def test_xinference_which_has_no_key(sidecar: RunningDoor, mount: str, door: str) -> None:
    ranker = XinferenceRerank(base_url=sidecar.url + mount, top_n=TOP_N)
    with sidecar.hears(door):
        answer = ranker.postprocess_nodes(nodes(), query_str=QUERY)
    sidecar.expects(ranking(answer), top_n=TOP_N)


def test_nvidia_knows_what_is_served(sidecar: RunningDoor) -> None:
    base = f"{sidecar.url}/nvidia/v1"
    assert "embedded" in [
        each.id for each in NVIDIARerank("embedded", base_url=base).available_models
    ]
    with pytest.raises(ValueError, match="No locally hosted"):
        NVIDIARerank("not-served", base_url=base)
