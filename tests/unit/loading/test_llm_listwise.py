"""A chat model from its source to an answer."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import InvalidSetting, MissingExtra, NotSupportedByModel
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, RerankResult
from tests.unit.rerankers.chat_server import chat_server, says


@asynccontextmanager
async def engine_of(source: str, **options: Any) -> AsyncIterator[Engine]:
    settings = read_settings(model=source, family_options=options)
    async with build_engine(settings) as engine:
        yield engine


async def ask(engine: Engine, *texts: str, is_chunk: bool = False) -> RerankResult:
    options = RerankOptions(is_chunk=is_chunk)
    return await engine.rerank(RerankRequest("q", tuple(map(Document, texts)), options))


async def test_a_model_of_ones_own_server_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-public")
    reply = says("[3] > [1]", prompt_tokens=50, completion_tokens=5)
    async with chat_server(reply) as chat, engine_of(f"listwise:{chat.url}#qwen3:8b") as engine:
        result = await ask(engine, "a", "b", "c")
        [model, *_] = engine.models()
        with pytest.raises(NotSupportedByModel):
            await ask(engine, "a", is_chunk=True)
    assert [each.index for each in result.results] == [2, 0, 1]
    assert (result.summary.usage.tokens, result.summary.usage.remote_calls) == (55, 1)
    assert result.summary.score_kind is ScoreKind.RANK
    assert model.family == "llm_listwise"
    assert not model.comparable_across_requests
    [asked] = chat.asked
    assert asked.body["model"] == "qwen3:8b"
    assert "sk-public" not in str(asked.headers)


async def test_a_key_is_sent_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " sk-mine\n")
    async with (
        chat_server(says("[1] > [2]")) as chat,
        engine_of(
            f"listwise:{chat.url}#m", api_key_env="MY_KEY", extra_body={"seed": 1}, window=2, step=1
        ) as engine,
    ):
        await ask(engine, "a", "b", "c")
    assert [asked.headers["authorization"] for asked in chat.asked] == ["Bearer sk-mine"] * 2
    assert chat.asked[0].body["seed"] == 1


async def test_the_public_api_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-public")
    async with engine_of("listwise:gpt-4.1-mini") as engine:
        [model, *_] = engine.models()
    assert model.engine == "chat at api.openai.com"
    assert model.source == "listwise:gpt-4.1-mini"


async def test_what_is_sent_is_never_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", "sk-mine")
    async with chat_server(says("[1] > [2]")) as chat:
        source = f"listwise:{chat.url}#m"
        async with engine_of(source, api_key_env="MY_KEY") as engine:
            await ask(engine, "secret words", "b")
    assert "secret words" not in caplog.text
    assert "sk-mine" not in caplog.text


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("listwise:", {}, "listwise:MODEL"),
        ("listwise:http://host/v1", {}, "listwise:MODEL"),
        ("listwise:http://user:word@host/v1#m", {}, "api_key_env"),
        ("listwise:http://host/v1?key=word#m", {}, "api_key_env"),
        ("listwise:http://:80/v1#m", {}, "URL"),
        ("listwise:http://host:port/v1#m", {}, "URL"),
        ("listwise:gpt-4.1-mini", {}, "OPENAI_API_KEY"),
        ("listwise:http://host/v1#m", {"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
        ("listwise:http://host/v1#m", {"step": 21}, "step"),
        ("listwise:http://host/v1#m", {"window": 1}, "window"),
        ("listwise:http://host/v1#m", {"max_calls": 0}, "max_calls"),
        ("listwise:http://host/v1#m", {"windows": 3}, "windows"),
    ],
)
async def test_what_is_wrong_is_told_at_the_start(
    source: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InvalidSetting, match=message) as raised:
        async with engine_of(source, **options):
            pass
    assert "word" not in raised.value.message


async def test_a_missing_extra_is_told_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"rerank-sidecar\[listwise\]"):
        async with engine_of("listwise:http://host/v1#m"):
            pass
