"""Xinference's own client, under the mount and on its bare path."""

import pytest
from xinference_client import AsyncRESTfulClient, RESTfulClient

from tests.clients.running_door import KEY, QUERY, TEXTS, WRONG_KEY, Ranking, RunningDoor

places = pytest.mark.parametrize(
    ("mount", "door"), [("/xinference", "xinference"), ("", "generic")]
)


def ranking(answer: dict[str, list[dict[str, float]]]) -> Ranking:
    return [(int(each["index"]), each["relevance_score"]) for each in answer["results"]]


@places
def test_a_model_of_any_name(sidecar: RunningDoor, mount: str, door: str) -> None:
    model = RESTfulClient(sidecar.url + mount).get_model("bge-reranker-base")
    with sidecar.hears(door):
        answer = model.rerank(TEXTS, QUERY, top_n=3, return_documents=True, return_len=True)
    sidecar.expects(ranking(answer), top_n=3)
    assert [each["document"] for each in answer["results"]] == [
        {"text": TEXTS[index]} for index in sidecar.order[:3]
    ]
    assert answer["meta"]["tokens"].keys() == {"input_tokens", "output_tokens"}


@places
def test_nulls_for_all_that_is_left_out(sidecar: RunningDoor, mount: str, door: str) -> None:
    model = RESTfulClient(sidecar.url + mount).get_model("embedded")
    with sidecar.hears(door):
        sidecar.expects(ranking(model.rerank(TEXTS, QUERY)))


@places
async def test_async(sidecar: RunningDoor, mount: str, door: str) -> None:
    client = AsyncRESTfulClient(sidecar.url + mount)
    model = await client.get_model("embedded")
    with sidecar.hears(door):
        sidecar.expects(ranking(await model.rerank(TEXTS, QUERY, top_n=2)), top_n=2)
    await model.close()
    await client.close()


def test_models(sidecar: RunningDoor) -> None:
    models = RESTfulClient(f"{sidecar.url}/xinference").list_models()
    assert models["embedded"]["model_type"] == "rerank"


def test_keys(guarded: RunningDoor) -> None:
    url = f"{guarded.url}/xinference"
    guarded.expects(ranking(RESTfulClient(url, KEY).get_model("embedded").rerank(TEXTS, QUERY)))
    with pytest.raises(RuntimeError, match="token"):
        RESTfulClient(url, WRONG_KEY).get_model("embedded")
