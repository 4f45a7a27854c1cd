"""Weaviate's own listener beside the public one, and what the log says of who gets in."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.api.listeners import Listener, make_listeners
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.settings import read_settings
from tests.unit.api.certificates import PemFiles, server_certificate, trusting
from tests.unit.api.test_http_server import Connection
from tests.unit.api.toy_engine import Toy, engine_with

SETTINGS: dict[str, object] = {"auth_tokens": "token", "http_port": 0, "weaviate_port": 0}
REFUSED = "transformers module cannot show"


@asynccontextmanager
async def connected(
    which: str, trusted: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[Connection]:
    engine = engine_with(Toy(), **SETTINGS, **settings)
    listener: Listener = getattr(make_listeners(engine.settings), which)
    server = HttpServer(engine, engine.settings, listener)
    opened = await asyncio.open_connection("127.0.0.1", await server.start(), ssl=trusted)
    try:
        yield Connection(*opened)
    finally:
        opened[1].transport.abort()
        await server.stop(0)


async def status_of(connection: Connection, method: str, path: str, body: bytes = b"") -> int:
    head = f"{method} {path} HTTP/1.1\nHost: x\nContent-Length: {len(body)}"
    await connection.send(head, body)
    return (await connection.answer())[0]


async def test_weaviate_needs_no_token_on_its_own_listener() -> None:
    async with connected("weaviate") as connection:
        for _ in range(2):
            assert (await connection.ask("0.5"))[0] == 200
        for path, status in (("/.well-known/live", 204), ("/.well-known/ready", 204)):
            assert await status_of(connection, "GET", path) == status
        assert await status_of(connection, "GET", "/meta") == 200
        assert await status_of(connection, "POST", "/models/toy/rerank", BODY) == 200
    async with connected("http") as connection:
        assert (await connection.ask("0.5"))[0] == 401


BODY = b'{"query": "q", "documents": ["1"]}'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/rerank"),
        ("POST", "/v1/rerank"),
        ("POST", "/tei/rerank"),
        ("GET", "/api/v1/models"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/admin"),
    ],
)
async def test_nothing_else_is_served_there(method: str, path: str) -> None:
    async with connected("weaviate") as connection:
        assert await status_of(connection, method, path, BODY) == 404


async def test_only_weaviates_form_is_understood_there() -> None:
    async with connected("weaviate") as connection:
        body = b'{"query": "q", "texts": ["1"]}'
        assert await status_of(connection, "POST", "/rerank", body) in {400, 404}


async def test_it_is_encrypted_only_if_told_and_wants_no_client_certificate(tmp_path: Path) -> None:
    authority, files = trustme.CA(), PemFiles(tmp_path)
    files.write(server_certificate(authority))
    files.write_client_ca(authority)
    tls = files.settings(mutual=True)
    async with connected("weaviate", **tls) as plain:
        assert (await plain.ask("1"))[0] == 200
    async with connected("weaviate", trusting(authority), weaviate_tls=True, **tls) as encrypted:
        assert (await encrypted.ask("1"))[0] == 200


def test_it_listens_on_an_address_of_its_own() -> None:
    listeners = make_listeners(read_settings(None, **SETTINGS, host="0.0.0.0"))
    assert listeners.weaviate is not None
    assert (listeners.http.host, listeners.weaviate.host) == ("0.0.0.0", "127.0.0.1")


def test_there_is_none_without_a_port() -> None:
    assert make_listeners(read_settings()).weaviate is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"disabled_doors": ("weaviate",)}, "weaviate_port: disabled_doors"),
        ({"weaviate_tls": True}, "tls_certificate and tls_key: needed with weaviate_tls"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidSetting, match=complaint):
        make_listeners(read_settings(None, **SETTINGS, **settings))


@pytest.mark.parametrize(
    ("settings", "asked", "is_warned"),
    [
        ({}, "nothing", False),
        ({"auth_tokens": "token"}, "tokens", True),
        ({"auth_tokens": "token", "weaviate_port": 0}, "tokens", False),
        ({"auth_tokens": "token", "disabled_doors": ("weaviate",)}, "tokens", False),
    ],
)
def test_the_log_tells_what_is_asked_and_whom_it_keeps_out(
    settings: dict[str, object], asked: str, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make_listeners(read_settings(None, **settings))
    assert f"asked of callers: {asked}" in caplog.text
    assert (REFUSED in caplog.text) == is_warned
