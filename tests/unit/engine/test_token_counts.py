"""Tokens of single documents: told only when asked for, whether or not a cache knew the score."""

from collections.abc import Sequence

import pytest

from rerank_sidecar.errors import NotSupportedByModel
from rerank_sidecar.rerankers.base import ScoreOptions
from rerank_sidecar.types import Document, RerankOptions, RerankRequest
from tests.unit.engine.toys import Model, engine_over

COUNTED = RerankOptions(count_tokens=True)


class CountingModel(Model):
    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        return [len(query) + len(document.text) for document in documents]


def request(options: RerankOptions) -> RerankRequest:
    return RerankRequest("query", (Document("a"), Document("bb")), options)


async def test_a_document_that_is_known_is_counted_too() -> None:
    model = CountingModel()
    engine = engine_over(model)
    for _ in range(2):
        result = await engine.rerank(request(COUNTED))
        assert {each.index: each.token_count for each in result.results} == {0: 6, 1: 7}
    assert model.texts == ["a", "bb"]  # the second time the cache knew both


async def test_nothing_is_counted_unless_asked_for() -> None:
    result = await engine_over(CountingModel()).rerank(request(RerankOptions()))
    assert [each.token_count for each in result.results] == [None, None]


async def test_a_model_that_cannot_count_says_so() -> None:
    with pytest.raises(NotSupportedByModel):
        await engine_over(Model()).rerank(request(COUNTED))
