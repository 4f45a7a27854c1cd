"""What every HTTP path has in common: methods, limits, deadlines, and answers about itself."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.api.http_app import build_http_app
from rerank_sidecar.api.openapi import openapi_document
from rerank_sidecar.telemetry.metrics import REQUESTS
from tests.unit.api.toy_engine import CRASHES, Toy, client_of, engine_with, unready_engine

RERANK_PATHS = [path for dialect in DIALECTS for path in dialect.paths]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine_with(Toy())) as each:
        yield each


def test_paths_do_not_overlap() -> None:
    assert len(RERANK_PATHS) == len(set(RERANK_PATHS))
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)


async def test_live_and_ready(client: httpx.AsyncClient) -> None:
    for path in ("/.well-known/live", "/.well-known/ready"):
        response = await client.get(path)
        assert (response.status_code, response.content) == (204, b"")


async def test_live_but_not_ready_before_the_model_is_loaded() -> None:
    async with client_of(unready_engine()) as client:
        assert (await client.get("/.well-known/live")).status_code == 204
        ready = await client.get("/.well-known/ready")
        assert ready.status_code == 503
        assert isinstance(ready.json()["error"], str)
        meta = await client.get("/meta")
        assert (meta.status_code, meta.json()["model"]) == (200, None)


async def test_not_ready_while_draining() -> None:
    engine = engine_with(Toy())
    await engine.drain(0.1)
    async with client_of(engine) as client:
        assert (await client.get("/.well-known/ready")).status_code == 503
        response = await client.post("/rerank", json={"query": "q", "documents": ["1"]})
        assert (response.status_code, list(response.json())) == (503, ["error"])


async def test_meta_names_model_kind_engine_and_versions(client: httpx.AsyncClient) -> None:
    meta = (await client.get("/meta")).json()
    assert meta["version"] == __version__
    assert meta["model"]["name"] == "toy"
    assert meta["model"]["version"] == "1"
    assert meta["model"]["family"] == "toy"
    assert meta["model"]["score_kind"] == "RAW_LOGIT"
    assert meta["model"]["engine"] == "python"
    assert {"python", "openvino", "tokenizers", "numpy"} <= set(meta["versions"])


async def test_calls_are_counted_by_door_and_outcome(client: httpx.AsyncClient) -> None:
    async def counts() -> str:
        return (await client.get("/metrics")).text

    good = REQUESTS.labels(door="weaviate", outcome="OK")._value.get()
    bad = REQUESTS.labels(door="native", outcome="MALFORMED_BODY")._value.get()
    await client.post("/rerank", json={"query": "q", "documents": ["1"]})
    await client.post("/api/v1/rerank", content=b"no")
    name = "rerank_sidecar_requests_total"
    text = await counts()
    assert f'{name}{{door="weaviate",outcome="OK"}} {good + 1}' in text
    assert f'{name}{{door="native",outcome="MALFORMED_BODY"}} {bad + 1}' in text


@pytest.mark.parametrize("path", ["/", "/rerank/", "/nope", "/api/v1/nope"])
async def test_unknown_paths_are_404_in_json(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={})
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_wrong_methods_are_405_in_the_dialects_form(
    client: httpx.AsyncClient, path: str
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        response = await client.request(method, path)
        assert response.status_code == 405
        assert response.headers["Allow"] == "POST"
        assert response.json()["error"]
    got = await client.post("/meta", json={})
    assert (got.status_code, "GET" in got.headers["Allow"]) == (405, True)
    assert isinstance(got.json()["error"], str)


async def test_weaviates_405_is_a_string(client: httpx.AsyncClient) -> None:
    assert isinstance((await client.get("/rerank")).json()["error"], str)


@pytest.mark.parametrize("path", RERANK_PATHS)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413(path: str, declared: bool) -> None:
    pieces_taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_taken
        for _ in range(1000):
            pieces_taken += 1
            yield b"x" * 100

    async with client_of(engine_with(Toy(), max_body_bytes=1000)) as client:
        content: Any = b"x" * 1001 if declared else pieces()
        response = await client.post(path, content=content)
        assert response.status_code == 413
        assert "1000" in str(response.json()["error"])
        assert pieces_taken <= 12
        at_limit = await client.post(path, content=b"x" * 1000)
        assert at_limit.status_code == 400


async def test_the_callers_time_limit_is_the_requests() -> None:
    toy = Toy()
    body = {"query": "q", "documents": ["1"]}
    async with client_of(engine_with(toy)) as client:
        await client.post("/rerank", json=body)
        await client.post("/rerank", json=body, headers={"X-Request-Timeout-Ms": "10000000"})
    deadlines = [options.deadline for options in toy.options]
    assert None not in deadlines
    first, second = (deadline or 0.0 for deadline in deadlines)
    assert 9_900 < second - first < 10_000


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon", "²", "1" * 40])
async def test_a_time_limit_that_is_none_is_refused(client: httpx.AsyncClient, value: str) -> None:
    headers = [(b"X-Request-Timeout-Ms", value.encode())]
    response = await client.post("/rerank", json={"query": "q"}, headers=headers)
    assert response.status_code == 400
    assert "X-Request-Timeout-Ms" in response.json()["error"]


async def test_big_bodies_are_parsed_like_small_ones(client: httpx.AsyncClient) -> None:
    documents = ["1", "x" * 600_000, "2"]
    response = await client.post("/rerank", json={"query": "q", "documents": documents})
    assert [each["score"] for each in response.json()["scores"]] == [1.0, 600_000.0, 2.0]
    bad = await client.post("/rerank", json={"query": "q", "documents": [*documents, 5]})
    assert (bad.status_code, "documents[3]" in bad.json()["error"]) == (400, True)


@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_answers_tell_where_their_time_went(client: httpx.AsyncClient, path: str) -> None:
    good = await client.post(path, json={"query": "q", "documents": ["1", "2"]})
    duration = r"dur=\d+\.\d+"
    stages = (f"{stage};{duration}" for stage in ("queue", "tokenise", "infer", "total"))
    assert re.fullmatch(", ".join(stages), good.headers["Server-Timing"])
    bad = await client.post(path, content=b"no")
    assert "Server-Timing" not in bad.headers


async def test_server_timing_is_the_summarys_in_milliseconds(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/v1/rerank", json={"query": "q", "documents": ["1"]})
    total_us = response.json()["summary"]["timing"]["total_us"]
    assert response.headers["Server-Timing"].endswith(f"total;dur={total_us / 1000}")


async def test_many_documents_are_answered_like_few(client: httpx.AsyncClient) -> None:
    documents = [str(number) for number in range(2000)]
    response = await client.post("/rerank", json={"query": "q", "documents": documents})
    assert [each["document"] for each in response.json()["scores"]] == documents


async def test_no_text_reaches_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"query": "the secret query", "documents": ["the secret document", 5]}
    for content in (body, {**body, "documents": ["the secret document", CRASHES]}):
        assert (await client.post("/rerank", json=content)).status_code >= 400
    assert "the secret" not in caplog.text


def test_every_route_is_described() -> None:
    described = {
        (path, method.upper())
        for path, methods in openapi_document()["paths"].items()
        for method in methods
    }
    routes: list[Any] = build_http_app(unready_engine(), unready_engine().settings).routes
    served = {(each.path, method) for each in routes for method in each.methods - {"HEAD"}}
    assert described == served


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from [each] if name == "$ref" else _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def test_every_reference_of_the_description_resolves() -> None:
    document = openapi_document()
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(_references(document)) <= schemas


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
async def test_the_examples_of_the_description_work(
    client: httpx.AsyncClient, dialect: Any
) -> None:
    for path in dialect.paths:
        assert (await client.post(path, json=dialect.example)).status_code == 200


async def test_the_docs_page_needs_nobody_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert (await client.get("/openapi.json")).json() == openapi_document()
    for path in openapi_document()["paths"]:
        assert f" {path}<" in page.text
    assert not re.search(r"<script|<link|src=|https?://(?!localhost)", page.text)
