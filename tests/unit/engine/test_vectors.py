"""The engine hands vectors on to models that read them, keeps no scores of them, refuses others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rerank_sidecar.errors import InvalidField, NotSupportedByModel
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, Vectors
from tests.unit.engine.toys import Model, engine_over

DIMENSION = 4


def rows(count: int, dimension: int = DIMENSION) -> Vectors:
    return np.ones((count, dimension), dtype=np.float32)


def model_that_reads(dimension: int | None) -> Model:
    model = Model()
    model.info = replace(model.info, vector_dimension=dimension)
    return model


async def test_vectors_reach_the_model_and_no_score_is_kept() -> None:
    model = model_that_reads(DIMENSION)
    engine = engine_over(model)
    request = RerankRequest("q", (Document("a", vectors=rows(3)), Document("b")))
    for _ in range(2):
        result = await engine.rerank(request)
        assert result.summary.usage.cache_hits == 0
    assert model.texts == ["a", "b"] * 2
    by_text = await engine.rerank(RerankRequest("q", (Document("b"),)))
    again = await engine.rerank(RerankRequest("q", (Document("b"),)))
    assert [each.summary.usage.cache_hits for each in (by_text, again)] == [0, 1]


async def test_scores_for_a_querys_vectors_are_not_kept_under_its_text() -> None:
    model = model_that_reads(DIMENSION)
    engine = engine_over(model)
    given = RerankRequest("q", (Document("a"),), RerankOptions(query_vectors=rows(2)))
    for _ in range(2):
        await engine.rerank(given)
    await engine.rerank(RerankRequest("q", (Document("a"),)))
    assert model.texts == ["a"] * 3
    assert [each.query_vectors is None for each in model.calls] == [False, False, True]


async def test_a_document_whose_vectors_cannot_be_read_fails_alone() -> None:
    for dimension, error in ((None, NotSupportedByModel), (DIMENSION + 1, InvalidField)):
        engine = engine_over(model_that_reads(dimension))
        result = await engine.rerank(
            RerankRequest("q", (Document("a"), Document("b", vectors=rows(2))))
        )
        good, bad = result.results
        assert (good.index, good.error) == (0, None)
        assert isinstance(bad.error, error)
        assert bad.error.field == "documents[1].vectors"


async def test_a_query_whose_vectors_cannot_be_read_is_refused() -> None:
    for dimension, error in ((None, NotSupportedByModel), (DIMENSION + 1, InvalidField)):
        engine = engine_over(model_that_reads(dimension))
        with pytest.raises(error) as raised:
            await engine.rerank(
                RerankRequest("q", (Document("a"),), RerankOptions(query_vectors=rows(2)))
            )
        assert raised.value.field == "query_vectors"


async def test_the_model_tells_the_dimension() -> None:
    for dimension in (None, DIMENSION):
        [description] = engine_over(model_that_reads(dimension)).models()
        assert description.vector_dimension == dimension
