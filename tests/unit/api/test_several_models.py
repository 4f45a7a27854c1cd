"""Several models behind the HTTP doors: what is told of them, and whom Weaviate's door refuses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from rerank_sidecar.api.doors import check_default
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.repository import ModelRepository
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import read_settings
from tests.unit.api.toy_engine import Toy, client_of
from tests.unit.engine.shelf import Shelf

TABLES = [
    {"name": "first", "source": "first", "aliases": ["rerank-*"], "normalization": "logit"},
    {"name": "org/second", "source": "listwise", "load": "lazy"},
]
TEXTS = {"query": "q", "documents": ["a", "b"]}
WEAVIATE = "/weaviate/rerank"
COHERE = "/cohere/v2/rerank"


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = read_settings(None, **{"models": TABLES, **settings})
    engine = Engine(chosen)
    repository = ModelRepository(Shelf().load, LexicalReranker())
    await repository.apply(chosen)
    engine.open(repository.registry)
    async with client_of(engine) as client:
        yield client
    await repository.close()


async def test_what_is_served_is_told_before_and_after_it_is_loaded() -> None:
    async with served() as client:
        for loaded in (False, True):
            ours = (await client.get("/api/v1/models")).json()["models"]
            assert [(each["model"]["name"], each["is_loaded"]) for each in ours] == [
                ("first", True),
                ("org/second", loaded),
                ("lexical", True),
            ]
            assert ours[0]["aliases"] == ["rerank-*"]
            assert ours[1]["score_kind"] == ("PROBABILITY" if loaded else None)
            cards = (await client.get("/v1/models")).json()["data"]
            assert [(each["id"], each["aliases"], each["is_loaded"]) for each in cards] == [
                ("first", ["rerank-*"], True),
                ("org/second", [], loaded),
                ("lexical", [], True),
            ]
            answer = await client.post(COHERE, json={**TEXTS, "model": "org/second"})
            assert answer.status_code == 200


async def test_a_models_own_limit_is_told() -> None:
    tables: list[Any] = [TABLES[0], {"name": "org/second", "source": "second", "max_documents": 5}]
    async with served(models=tables) as client:
        for name, limit in (("first", 10_000), ("org/second", 5)):
            info = (await client.get(f"/models/{name}/info")).json()
            assert info["max_client_batch_size"] == limit
            config = (await client.get(f"/v2/models/{name}/config")).json()
            assert config["max_batch_size"] == limit


async def test_a_lazy_model_is_described_wherever_clients_look() -> None:
    async with served() as client:
        for path in (
            "/meta",
            "/tei/info",
            "/v1/models/org/second",
            "/v2/models/org/second",
            "/llamacpp/v1/models",
            "/infinity/models",
            "/xinference/v1/models",
        ):
            assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize("model", ["first", "rerank-v3.5", "default", ""])
async def test_names_and_aliases_in_a_foreign_dialect(model: str) -> None:
    async with served() as client:
        answer = await client.post(COHERE, json={**TEXTS, "model": model})
        assert answer.status_code == 200
        native = {**TEXTS, "options": {"model": model}}
        summary = (await client.post("/api/v1/rerank", json=native)).json()["summary"]
        assert summary["model"]["name"] == "first"


async def test_a_name_that_nobody_has_is_an_error_or_the_default() -> None:
    async with served() as client:
        answer = await client.post(COHERE, json={**TEXTS, "model": "other"})
        assert answer.status_code == 404
        assert "first (also rerank-*), org/second, lexical" in answer.text
    async with served(unknown_model="default") as client:
        assert (await client.post(COHERE, json={**TEXTS, "model": "other"})).status_code == 200


async def test_the_scale_of_a_model_is_for_dialects_that_have_none_of_their_own() -> None:
    async with served() as client:
        native = (await client.post("/api/v1/rerank", json=TEXTS)).json()
        assert native["summary"]["normalization"] == "logit"
        assert native["results"][0]["score"]["value"] == 0.0  # the logit of 0.5
        weaviate = (await client.post(WEAVIATE, json=TEXTS)).json()
        assert [each["score"] for each in weaviate["scores"]] == [0.0, 0.0]
        cohere = (await client.post(COHERE, json={**TEXTS, "model": "first"})).json()
        assert [each["relevance_score"] for each in cohere["results"]] == [0.5, 0.5]


async def test_weaviates_door_refuses_a_model_that_needs_the_whole_search() -> None:
    async with served() as client:
        assert (await client.post(WEAVIATE, json=TEXTS)).status_code == 200
        refused = await client.post("/models/org/second" + WEAVIATE, json=TEXTS)
        assert refused.status_code == 422
        assert "org/second mean something only within one request" in refused.json()["error"]
        assert (await client.post("/models/org/second" + COHERE, json=TEXTS)).status_code == 200


def test_such_a_model_is_no_default_while_that_door_is_open() -> None:
    info = replace(Toy().info, name="listwise", comparable_across_requests=False)
    with pytest.raises(InvalidSetting, match=r"listwise.*disabled_doors"):
        check_default(read_settings(), info)
    check_default(read_settings(None, disabled_doors="weaviate"), info)
    check_default(read_settings(), Toy().info)
