"""What every combination does when it asks a member."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
import pytest

from rerank_sidecar.errors import InternalError, NonFiniteScore, NotSupportedByModel
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, ScoreOptions
from rerank_sidecar.rerankers.members import ask, joint_info
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.toy_members import ToyMember

VECTORS = np.ones((2, 4), np.float32)
BOTH, VECTORS_ALONE = Document("1", vectors=VECTORS), Document("", vectors=VECTORS)


class Seeing(ToyMember):
    """Keeps the documents that it was given; scores those that have a text."""

    def __init__(self, dimension: int | None) -> None:
        super().__init__(described={"vector_dimension": dimension}, scored=len)
        self.seen: list[Document] = []

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        async def noting() -> AsyncIterator[IndexedDocuments]:
            async for group in documents:
                self.seen.extend(document for _, document in group)
                yield group

        async for indexed in super().score(query, noting(), options):
            yield indexed


@pytest.mark.parametrize("dimension", [None, 3])
async def test_vectors_that_are_another_members_are_taken_away(dimension: int | None) -> None:
    member, options = Seeing(dimension), ScoreOptions(query_vectors=VECTORS)
    answer = await ask(member, "q", [(5, BOTH), (2, VECTORS_ALONE)], options)
    assert answer.outcomes[5] == Score(1.0)
    assert isinstance(answer.outcomes[2], NotSupportedByModel)
    assert [each.vectors for each in member.seen] == [None]
    assert member.told[0].query_vectors is None
    with pytest.raises(NotSupportedByModel):
        await ask(member, "", [(5, BOTH)], options)


async def test_vectors_that_a_member_reads_reach_it() -> None:
    member, options = Seeing(4), ScoreOptions(query_vectors=VECTORS)
    await ask(member, "", [(0, BOTH), (1, VECTORS_ALONE)], options)
    assert [each.vectors is VECTORS for each in member.seen] == [True, True]
    assert member.told[0].query_vectors is VECTORS


async def test_a_document_that_a_member_loses_is_told() -> None:
    class Losing(ToyMember):
        def _outcomes(self, given: IndexedDocuments) -> list[tuple[int, Outcome]]:
            return super()._outcomes(given)[1:]

    answer = await ask(Losing(), "q", [(0, Document("1")), (1, Document("2"))], ScoreOptions())
    assert isinstance(answer.outcomes[0], InternalError)
    assert answer.outcomes[1] == Score(2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_a_score_that_has_no_place_in_an_order_is_an_error(value: float) -> None:
    member = ToyMember(scored=lambda text: value if text == "2" else 1.0)
    documents = [(index, Document(str(index))) for index in range(4)]
    answer = await ask(member, "q", documents, ScoreOptions())
    assert isinstance(answer.outcomes[2], NonFiniteScore)
    assert answer.best_first() == [0, 1, 3]


async def test_what_a_member_cost_is_added_even_if_it_fails() -> None:
    options = ScoreOptions()
    with pytest.raises(ZeroDivisionError):
        await ask(ToyMember(error=ZeroDivisionError()), "q", [(0, Document("1"))], options)
    assert options.meter.tokens == 100


@pytest.mark.parametrize(
    ("dimensions", "joint"),
    [((None, None), None), ((4, None), 4), ((4, 4), 4), ((4, 3), None)],
)
def test_a_combination_takes_vectors_of_one_kind(
    dimensions: tuple[int | None, ...], joint: int | None
) -> None:
    info = joint_info("both", "cascade", [Seeing(each) for each in dimensions])
    assert info.vector_dimension == joint
