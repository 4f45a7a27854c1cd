"""What every HTTP path has in common: methods, limits, deadlines, and answers about itself."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from rerank_sidecar import __version__
from rerank_sidecar.api.doors import Door
from rerank_sidecar.telemetry.metrics import REQUESTS
from tests.unit.api.every_door import CALLERS, DOORS, Caller, concrete, is_error_of
from tests.unit.api.toy_engine import CRASHES, Toy, client_of, engine_with, unready_engine

every_door = pytest.mark.parametrize("door", DOORS, ids=lambda each: each.path)
without_model = pytest.mark.parametrize(
    "caller", [each for each in CALLERS if "{model" not in each.door.path], ids=str
)
every_caller = pytest.mark.parametrize("caller", CALLERS, ids=str)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine_with(Toy())) as each:
        yield each


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


@pytest.mark.parametrize("path", ["/rerank/", "/nope", "/api/v1/nope", "/models/toy/nope"])
async def test_unknown_paths_are_404_in_json(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={})
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)


@every_door
async def test_wrong_methods_are_405_in_the_dialects_form(
    client: httpx.AsyncClient, door: Door
) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        response = await client.request(method, concrete(door.path))
        assert response.status_code == 405
        assert response.headers["Allow"] == "POST"
        assert is_error_of(door.dialects[0], response)


@without_model
async def test_wrong_methods_behind_the_name_of_a_model_are_405_in_the_dialects_form(
    client: httpx.AsyncClient, caller: Caller
) -> None:
    response = await client.put(f"/models/org/toy{caller.path}")
    assert response.status_code == 405
    assert is_error_of(caller.door.dialects[0], response)


async def test_what_is_only_read_takes_no_post(client: httpx.AsyncClient) -> None:
    got = await client.post("/meta", json={})
    assert (got.status_code, "GET" in got.headers["Allow"]) == (405, True)
    assert isinstance(got.json()["error"], str)


async def test_weaviates_405_is_a_string(client: httpx.AsyncClient) -> None:
    assert isinstance((await client.get("/rerank")).json()["error"], str)


@every_door
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413(door: Door, declared: bool) -> None:
    pieces_taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_taken
        for _ in range(1000):
            pieces_taken += 1
            yield b"x" * 100

    async with client_of(engine_with(Toy(), max_body_bytes=1000)) as client:
        content: Any = b"x" * 1001 if declared else pieces()
        response = await client.post(concrete(door.path), content=content)
        assert response.status_code == 413
        assert is_error_of(door.dialects[0], response)
        assert "1000" in response.text
        assert pieces_taken <= 12
        at_limit = await client.post(concrete(door.path), content=b"x" * 1000)
        assert at_limit.status_code in {400, 422}
        assert is_error_of(door.dialects[0], at_limit)


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


@every_caller
async def test_every_door_answers_each_of_its_dialects(
    client: httpx.AsyncClient, caller: Caller
) -> None:
    counted = REQUESTS.labels(door=caller.dialect.name, outcome="OK")
    before = counted._value.get()
    good = await client.post(caller.path, content=caller.body, headers=caller.headers)
    assert good.status_code == 200, good.text
    msgspec.json.decode(good.content, type=caller.dialect.answer_type)
    assert counted._value.get() == before + 1


@without_model
async def test_a_model_before_the_path_wins_over_one_in_the_body(caller: Caller) -> None:
    async with client_of(engine_with(Toy(), unknown_model="error")) as client:

        async def ask(name: str) -> httpx.Response:
            path = f"/models/{name}{caller.path}"
            return await client.post(path, content=caller.body, headers=caller.headers)

        assert [(await ask(name)).status_code for name in ("toy", "default")] == [200, 200]
        unknown = await ask("org/nope")
        assert unknown.status_code in {400, 404}
        assert is_error_of(caller.dialect, unknown)
        assert "toy" in unknown.text


@every_caller
async def test_answers_tell_where_their_time_went(
    client: httpx.AsyncClient, caller: Caller
) -> None:
    good = await client.post(caller.path, content=caller.body, headers=caller.headers)
    duration = r"dur=\d+\.\d+"
    stages = (f"{stage};{duration}" for stage in ("queue", "tokenise", "infer", "total"))
    assert re.fullmatch(", ".join(stages), good.headers["Server-Timing"])
    bad = await client.post(caller.path, content=b"no")
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


async def test_slashes_that_clients_double_are_one(client: httpx.AsyncClient) -> None:
    body = {"model": "toy", "query": "q", "documents": ["1", "2"]}
    for path in ("//v2/rerank", "/cohere//v2/rerank", "/models/toy//v2/rerank"):
        answer = await client.post(f"http://sidecar{path}", json=body)
        assert [each["index"] for each in answer.json()["results"]] == [1, 0], path
