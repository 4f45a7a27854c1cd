"""Combinations from a settings file to an answer, by the engine that every door asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from rerank_sidecar.app import build_engine
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import InvalidSetting, NotSupportedByModel, RemoteFailed
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, RerankResult
from tests.unit.rerankers.remote.stand_in import WAIT_S, says, standing_in

TEXTS = (
    "Bread is baked from flour.",
    "Paris is the capital of France.",
    "France has many rivers.",
    "The capital of Italy is Rome.",
)
QUERY = "What is the capital of France?"

MEMBERS = """
[[models]]
name = "words"
source = "lexical"

[[models]]
name = "vectors"
source = "embedded"

[[models]]
name = "gone"
source = "listwise:http://127.0.0.1:9/v1#nobody"
family_options = { max_tries = 1 }
"""


def combination(source: str, *members: str, options: str = "{}") -> str:
    return f"""{MEMBERS}
[[models]]
name = "both"
source = "{source}"
members = {list(members)}
family_options = {options}
"""


@asynccontextmanager
async def engine_of(folder: Path, tables: str) -> AsyncIterator[Engine]:
    file = folder / "rerank.toml"
    file.write_text(tables, "utf-8")
    async with build_engine(read_settings(file)) as engine:
        yield engine


async def ask(engine: Engine, model: str, *, is_chunk: bool = False) -> RerankResult:
    documents = tuple(map(Document, TEXTS))
    return await engine.rerank(
        RerankRequest(QUERY, documents, RerankOptions(model=model, is_chunk=is_chunk))
    )


def order(result: RerankResult) -> list[int]:
    return [each.index for each in result.results]


async def test_a_cascade(tmp_path: Path) -> None:
    tables = combination("cascade", "words", "vectors", options="{ keep = 2 }")
    async with engine_of(tmp_path, tables) as engine:
        cheap, dear = order(await ask(engine, "words")), order(await ask(engine, "vectors"))
        result = await ask(engine, "both")
        best = [index for index in dear if index in cheap[:2]]
        assert order(result) == best + cheap[2:]
        assert [each.score.value for each in result.results if each.score] == [1, 2, 3, 4]
        assert result.summary.score_kind is ScoreKind.RANK
        assert result.summary.usage.pairs == 6
        with pytest.raises(NotSupportedByModel):
            await ask(engine, "both", is_chunk=True)


async def test_an_ensemble(tmp_path: Path) -> None:
    tables = combination("ensemble", "words", "vectors", options="{ weights = [1, 1e6] }")
    async with engine_of(tmp_path, tables) as engine:
        result = await ask(engine, "both")
        assert order(result) == order(await ask(engine, "vectors"))
        assert result.summary.usage.pairs == 8


async def test_a_fallback(tmp_path: Path) -> None:
    async with engine_of(tmp_path, combination("fallback", "gone", "words")) as engine:
        alone, result = await ask(engine, "words"), await ask(engine, "both")
        assert result.results == alone.results
        assert result.summary.model.name == "words"
        assert result.summary.fallback_for == "both"
        assert result.summary.score_kind is ScoreKind.LEXICAL
        assert result.summary.usage.remote_calls == 1


async def test_a_fallback_reads_what_any_of_its_members_does(tmp_path: Path) -> None:
    async with engine_of(tmp_path, combination("fallback", "vectors", "words")) as engine:
        documents = (Document("城堡 石头"), Document("河"))
        options = RerankOptions(model="both")
        result = await engine.rerank(RerankRequest("城堡是什么", documents, options))
        assert result.summary.model.name == "words"
        assert result.summary.fallback_for == "both"
        result = await engine.rerank(RerankRequest("what", documents, options))
        assert result.summary.fallback_for is None


async def test_a_fallback_of_comparable_models_answers_chunks(tmp_path: Path) -> None:
    async with engine_of(tmp_path, combination("fallback", "vectors", "words")) as engine:
        result = await ask(engine, "both", is_chunk=True)
        assert result.results == (await ask(engine, "vectors")).results
        assert result.summary.fallback_for is None


async def test_a_shadow(tmp_path: Path) -> None:
    def asked() -> float:
        samples = REGISTRY.collect()
        shadows = (each for each in samples if each.name == "rerank_sidecar_shadow_requests")
        return sum(sample.value for each in shadows for sample in each.samples)

    before = asked()
    tables = combination("shadow", "words", "vectors", options="{ share = 1 }")
    async with engine_of(tmp_path, tables) as engine:
        result = await ask(engine, "both")
        assert result.results == (await ask(engine, "words")).results
        while asked() == before:
            await ask(engine, "words")


async def test_combinations_of_combinations(tmp_path: Path) -> None:
    tables = (
        combination("cascade", "words", "safe", options="{ keep = 2 }")
        + """
[[models]]
name = "safe"
source = "fallback"
members = ["gone", "vectors"]
"""
    )
    async with engine_of(tmp_path, tables) as engine:
        dear = order(await ask(engine, "vectors"))
        cheap = order(await ask(engine, "words"))
        best = [index for index in dear if index in cheap[:2]]
        assert order(await ask(engine, "both")) == best + cheap[2:]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (combination("cascade", "words"), "at least two"),
        (combination("shadow", "words", "vectors", "words"), "2 of the other"),
        (combination("cascade", "words", "vectors", options="{ keep = 0 }"), "keep"),
        (combination("cascade", "words", "vectors", options="{ keep = [9, 3] }"), "keep"),
        (combination("cascade", "words", "vectors", options="{ kept = 3 }"), "kept"),
        (combination("ensemble", "words", "vectors", options="{ weights = [1] }"), "weights"),
        (combination("ensemble", "words", "vectors", options="{ weights = [1, -1] }"), "weights"),
        (combination("ensemble", "words", "vectors", options="{ weights = [1, inf] }"), "weights"),
        (combination("fallback", "words", "vectors", options="{ timeout_s = 0 }"), "timeout_s"),
        (combination("shadow", "words", "vectors", options="{ share = 2 }"), "share"),
    ],
)
async def test_what_cannot_be_combined_is_told_at_the_start(
    tmp_path: Path, tables: str, message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        async with engine_of(tmp_path, tables):
            pass


async def test_a_wrong_option_is_told_with_the_name_of_its_model(tmp_path: Path) -> None:
    tables = combination("cascade", "words", "vectors", options="{ kept = 3 }")
    with pytest.raises(InvalidSetting, match=r"^both: family_options\.kept: "):
        async with engine_of(tmp_path, tables):
            pass
    with pytest.raises(InvalidSetting, match=r"^family_options\.kept: "):
        async with engine_of(tmp_path, "family_options = { kept = 3 }"):
            pass


async def test_options_that_are_lists_may_be_texts(tmp_path: Path) -> None:
    options = '{ weights = "1e6, 1", fusion = "rank" }'
    tables = combination("ensemble", "words", "vectors", options=options)
    async with engine_of(tmp_path, tables) as engine:
        assert order(await ask(engine, "both")) == order(await ask(engine, "words"))


def with_far(url: str, source: str, *members: str, options: str = "{}") -> str:
    """Give the tables of a combination that may have a provider's API as a member."""
    return (
        combination(source, *members, options=options)
        + f"""
[[models]]
name = "far"
source = "cohere:{url}#m"
family_options = {{ max_tries = 1 }}
"""
    )


async def by_length(request: web.Request) -> web.StreamResponse:
    texts = json.loads(await request.read())["documents"]
    scores = [{"index": i, "relevance_score": 1 / (1 + len(text))} for i, text in enumerate(texts)]
    return web.json_response({"results": scores})


@pytest.mark.parametrize("source", ["cascade", "ensemble", "fallback"])
async def test_each_member_reads_long_documents_in_its_own_way(tmp_path: Path, source: str) -> None:
    # The embedded model reads all of a document, which Cohere's API cannot be told to.
    async with standing_in(by_length) as server:
        tables = with_far(server.url, source, "far", "vectors")
        async with engine_of(tmp_path, tables) as engine:
            assert len((await ask(engine, "both")).results) == len(TEXTS)
    assert len(server.posts) == 1


async def test_a_member_that_took_too_long_is_hung_up_on(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def stalls(_: web.Request) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            hung_up.set()
        raise AssertionError

    async with standing_in(stalls) as server:
        tables = with_far(server.url, "fallback", "far", "words", options="{ timeout_s = 0.2 }")
        async with engine_of(tmp_path, tables) as engine:
            assert (await ask(engine, "both")).summary.fallback_for == "both"
            async with asyncio.timeout(WAIT_S):
                await hung_up.wait()


async def test_chunks_of_a_search_never_mix_two_models(tmp_path: Path) -> None:
    async with standing_in(says("", 500), by_length) as server:
        tables = with_far(server.url, "fallback", "far", "words")
        async with engine_of(tmp_path, tables) as engine:
            first = await ask(engine, "both", is_chunk=True)
            assert first.summary.fallback_for is None
            with pytest.raises(RemoteFailed):
                await ask(engine, "both", is_chunk=True)
            assert (await ask(engine, "both")).summary.fallback_for == "both"
