"""The description of the HTTP door says what is served, and is whole."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.api.doors import MODEL_MOUNT, make_doors, open_dialects
from rerank_sidecar.api.http_app import build_http_app
from rerank_sidecar.api.openapi import openapi_document
from rerank_sidecar.settings import Settings, read_settings
from tests.unit.api.every_door import CALLERS, DOORS, Caller
from tests.unit.api.toy_engine import Toy, client_of, engine_with, unready_engine

DOCUMENT = openapi_document(DIALECTS, DOORS)


def described(settings: Settings) -> set[tuple[str, str]]:
    dialects = open_dialects(settings)
    document = openapi_document(dialects, make_doors(dialects, settings))
    return {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }


def served(settings: Settings) -> set[tuple[str, str]]:
    routes: list[Any] = build_http_app(unready_engine(), settings).routes
    return {
        (each.path.replace(":path}", "}"), method)
        for each in routes
        for method in each.methods - {"HEAD"}
        if not each.path.startswith(MODEL_MOUNT)
    }


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"disabled_doors": tuple(each.name for each in DIALECTS if each.name != "native")},
        {"pinned_paths": {"/rerank": "weaviate"}},
    ],
)
def test_every_route_is_described_and_nothing_else(given: dict[str, Any]) -> None:
    settings = read_settings(**given)
    assert described(settings) == served(settings)


def test_every_door_is_there_once_more_behind_the_name_of_a_model() -> None:
    routes: list[Any] = build_http_app(unready_engine(), read_settings()).routes
    behind = {each.path for each in routes if "POST" in each.methods}
    paths = {door.path for door in DOORS}
    unnamed = {MODEL_MOUNT + path for path in paths if "{model" not in path}
    assert behind == paths | unnamed


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from [each] if name == "$ref" else _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def test_every_reference_of_the_description_resolves() -> None:
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(_references(DOCUMENT)) <= schemas


def test_messages_of_dialects_have_names_of_their_own() -> None:
    names = [each.message_type.__name__ for each in DIALECTS]
    assert len(names) == len(set(names))
    assert set(names) <= set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("caller", CALLERS, ids=str)
def test_every_dialect_of_a_door_is_shown_with_its_example(caller: Caller) -> None:
    path = caller.door.path.replace(":path}", "}")
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert content["examples"][caller.dialect.name] == {"value": dict(caller.dialect.example)}
    message = f"#/components/schemas/{caller.dialect.message_type.__name__}"
    assert message in set(_references(content["schema"]))


def test_every_place_in_a_path_is_a_parameter() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            given = [each for each in operation.get("parameters", []) if each["in"] == "path"]
            assert [each["name"] for each in given] == re.findall(r"{(\w+)}", path)


async def test_the_docs_page_needs_nobody_else() -> None:
    async with client_of(engine_with(Toy())) as client:
        page: httpx.Response = await client.get("/docs")
        assert (await client.get("/openapi.json")).json() == msgspec.to_builtins(DOCUMENT)
    assert page.headers["content-type"].startswith("text/html")
    for path in DOCUMENT["paths"]:
        assert f" {path}<" in page.text
    assert not re.search(r"<script|<link|src=|https?://(?!localhost)", page.text)
