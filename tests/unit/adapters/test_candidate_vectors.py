"""What becomes of a store's rows that are reranked by the vectors that it has of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Unpack

import pytest

from rerank_adapters import (
    Document,
    DocumentError,
    InvalidField,
    NotSupportedByModel,
    Rerank,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Usage,
    Vectors,
    WeightedSum,
)
from rerank_adapters.candidates import (
    MISSING_VECTORS,
    Arrangement,
    Candidates,
    rerank_candidates,
)
from rerank_adapters.rerank import OnError
from rerank_adapters.transport.merging import passed_through
from tests.unit.adapters.every_client import error_of_reason

BY_VECTORS = Rerank(vectors="colbert", query="red")


class ByFirstNumber:
    """A sidecar that scores vectors by their first number, or says what is wrong with each."""

    def __init__(self, *reasons: str, passes_through: bool = False) -> None:
        self.reasons = reasons
        self.passes_through = passes_through
        self.asked: list[tuple[list[str | Document], RerankOptions]] = []

    def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        taken = list(documents)
        self.asked.append((taken, options))
        if self.passes_through:
            return passed_through(taken, options, error_of_reason("NOT_READY"))
        results = [self.result(*each) for each in enumerate(taken)]
        results.sort(key=lambda each: -(each.score or -9.0))
        usage, timing = Usage(0, 0, 0), Timing(0, 0, 0, 0)
        return RerankResponse(
            tuple(results),
            "m",
            "1",
            "MAXSIM",
            "none",
            query_truncated=False,
            usage=usage,
            timing=timing,
        )

    def result(self, index: int, document: str | Document) -> RerankResult:
        assert isinstance(document, Document)
        assert isinstance(document.vectors, Vectors)
        score: float | None = document.vectors.rows()[0][0]
        error = None
        if index < len(self.reasons) and self.reasons[index]:
            score = None
            error = DocumentError(self.reasons[index], f"documents[{index}].vectors: why")
        return RerankResult(index, None, score, error, None, False, 1, None)


def rows(*numbers: float | None) -> Candidates:
    vectors = tuple(None if each is None else Vectors.of([each, 0.0]) for each in numbers)
    return Candidates(vectors, tuple(1 - at / 10 for at in range(len(numbers))))


def placed(arrangement: Arrangement) -> list[tuple[int, float | None, DocumentError | None]]:
    return [(each.index, each.score, each.error) for each in arrangement.rows]


def test_rows_without_vectors_fail_alone_and_are_counted() -> None:
    sidecar = ByFirstNumber()
    found = rerank_candidates(sidecar, BY_VECTORS, "red", rows(None, 1.0, None, 3.0, 2.0))
    assert placed(found) == [
        (3, 3.0, None),
        (4, 2.0, None),
        (1, 1.0, None),
        (0, 1.0, MISSING_VECTORS),
        (2, 1.0, MISSING_VECTORS),
    ]
    assert (found.missing_vectors, found.missing_texts) == (2, 0)
    [(documents, options)] = sidecar.asked
    assert documents == [Document("", vectors=[number, 0.0]) for number in (1.0, 3.0, 2.0)]
    assert "query_vectors" not in options
    assert found.response is not None
    assert [each.index for each in found.response.results] == [3, 4, 1]


def test_where_no_row_has_vectors_nobody_is_asked() -> None:
    sidecar = ByFirstNumber()
    found = rerank_candidates(sidecar, BY_VECTORS, "red", rows(None, None))
    assert placed(found) == [(0, 0.0, MISSING_VECTORS), (1, 0.0, MISSING_VECTORS)]
    assert (found.missing_vectors, found.response, sidecar.asked) == (2, None, [])


def test_the_querys_vectors_go_along() -> None:
    sidecar = ByFirstNumber()
    asked = replace(BY_VECTORS, query_vectors=[[1.0, 0.0]], query=None)
    rerank_candidates(sidecar, asked, "", rows(1.0))
    assert sidecar.asked[0][1]["query_vectors"] == Vectors.of([1.0, 0.0])


def test_fusing_counts_the_stores_own_places() -> None:
    asked = replace(BY_VECTORS, fuse=WeightedSum(0.5, "unit"))
    found = rerank_candidates(ByFirstNumber(), asked, "red", rows(None, 0.5, 0.1))
    assert [each.index for each in found.rows] == [1, 2, 0]
    scores = [0.5 * 0.5 + 0.5 * 0.9, 0.5 * 0.1 + 0.5 * 0.8]
    assert [each.score for each in found.rows[:2]] == pytest.approx(scores)


def test_a_row_of_its_own_error_is_named_as_the_stores_row() -> None:
    found = rerank_candidates(
        ByFirstNumber("", "INVALID_FIELD"), BY_VECTORS, "red", rows(None, 1.0, 2.0)
    )
    error = found.rows[-1].error
    assert found.rows[-1].index == 2
    assert error == DocumentError("INVALID_FIELD", "documents[2].vectors: why")
    assert found.rows[1].error == MISSING_VECTORS


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("NOT_SUPPORTED_BY_MODEL", NotSupportedByModel), ("INVALID_FIELD", InvalidField)],
)
def test_what_is_wrong_with_every_row_is_raised(reason: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="why"):
        rerank_candidates(ByFirstNumber(reason, reason), BY_VECTORS, "red", rows(1.0, 2.0))
    found = rerank_candidates(ByFirstNumber("BACKEND_FAILED"), BY_VECTORS, "red", rows(1.0))
    assert found.rows[0].error is not None


def test_what_passes_through_is_the_stores_own() -> None:
    sidecar = ByFirstNumber(passes_through=True)
    found = rerank_candidates(sidecar, BY_VECTORS, "red", rows(None, 1.0, 2.0))
    assert placed(found) == [(0, 1.0, None), (1, 0.9, None), (2, 0.8, None)]
    assert found.missing_vectors == 1
    assert found.response is not None
    assert [each.index for each in found.response.results] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prop": "body", "vectors": "colbert"}, "vectors: they are read in place of prop"),
        ({"vectors": 1}, "vectors: must be a name"),
        ({}, "prop: must name"),
        ({"query_vectors": [1.0]}, "prop: must name"),
    ],
)
def test_prop_and_vectors_exclude_each_other(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Rerank(**arguments)  # type: ignore[arg-type]
