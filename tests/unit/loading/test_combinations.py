"""Combinations from a settings file to an answer, by the engine that every door asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from rerank_sidecar.app import build_engine
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import InvalidSetting, NotSupportedByModel
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, RerankResult

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


async def test_options_that_are_lists_may_be_texts(tmp_path: Path) -> None:
    options = '{ weights = "1e6, 1", fusion = "rank" }'
    tables = combination("ensemble", "words", "vectors", options=options)
    async with engine_of(tmp_path, tables) as engine:
        assert order(await ask(engine, "both")) == order(await ask(engine, "words"))
