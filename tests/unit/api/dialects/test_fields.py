"""What several dialects do alike."""

import math

import pytest

from rerank_sidecar.api.dialects.fields import (
    as_bool,
    placed,
    positive,
    refuse_too_long,
    renamed,
    text_document,
)
from rerank_sidecar.errors import (
    BackendFailed,
    InvalidField,
    LimitExceeded,
    MalformedBody,
    NonFiniteScore,
    Overloaded,
    RequestError,
    RerankError,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Document,
    ModelReference,
    Normalization,
    RankedDocument,
    RerankResult,
    RerankSummary,
    Score,
)


def result(
    *results: RankedDocument,
    kind: ScoreKind = ScoreKind.MAXSIM,
    normalization: Normalization = Normalization.UNIT,
) -> RerankResult:
    return RerankResult(results, RerankSummary(ModelReference("m", "1"), kind, normalization))


def scored(index: int, value: float) -> RankedDocument:
    return RankedDocument(index, score=Score(value))


def failed(index: int, error: RerankError) -> RankedDocument:
    return RankedDocument(index, error=error)


BROKEN = failed(1, BackendFailed("the forward pass failed"))


def test_every_document_has_a_place_and_those_that_failed_the_last() -> None:
    places = placed(result(scored(2, 0.9), scored(0, 0.1), BROKEN))
    assert [(each.index, each.score) for each in places] == [(2, 0.9), (0, 0.1), (1, 0.0)]
    assert [each.error for each in places] == [None, None, BROKEN.error]


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 0), (1, 1), (3, 3), (9, 3)])
def test_no_more_places_than_were_asked_for(top_n: int | None, count: int) -> None:
    places = placed(result(scored(2, 0.9), scored(0, 0.1), BROKEN), top_n)
    assert len(places) == count


def test_no_documents_have_no_places() -> None:
    assert placed(result()) == []


def test_if_all_failed_the_first_documents_error_is_the_calls() -> None:
    first = failed(0, NonFiniteScore("the model gave no finite score"))
    with pytest.raises(NonFiniteScore):
        placed(result(BROKEN, first))


@pytest.mark.parametrize("kind", ScoreKind)
@pytest.mark.parametrize("normalization", Normalization)
def test_who_failed_is_never_better_than_who_did_not(
    kind: ScoreKind, normalization: Normalization
) -> None:
    # The worst score of each kind, and the logit of the least probability.
    worst = {ScoreKind.RAW_LOGIT: -1000.0, ScoreKind.MAXSIM: -1.0, ScoreKind.COSINE: -1.0}
    value = worst.get(kind, 0.0)
    if normalization is Normalization.UNIT:
        value = 0.0
    elif kind is ScoreKind.RANK:
        value = -1.0 if normalization is Normalization.LOGIT else 1.0
    elif normalization is Normalization.LOGIT and kind is ScoreKind.PROBABILITY:
        value = -744.5
    good, bad = placed(result(scored(0, value), BROKEN, kind=kind, normalization=normalization))
    assert math.isfinite(bad.score)
    lower_is_better = kind is ScoreKind.RANK and normalization is Normalization.NONE
    assert bad.score > good.score if lower_is_better else bad.score <= good.score


@pytest.mark.parametrize(
    ("given", "value"),
    [
        *((each, True) for each in (True, "true", "True", " TRUE ", "1", "yes", "on")),
        *((each, False) for each in (False, "false", "False", "0", "no", "off", "", " ")),
    ],
)
def test_booleans_are_understood_as_strings(given: bool | str, value: bool) -> None:
    assert as_bool(given, "return_documents") is value
    assert as_bool(given, "return_documents", default=not value) is value


@pytest.mark.parametrize("default", [True, False])
def test_a_boolean_that_is_not_sent_is_its_default(default: bool) -> None:
    assert as_bool(None, "truncate", default) is default


@pytest.mark.parametrize("given", ["maybe", "yess", "2", "null"])
def test_other_strings_are_no_booleans_and_are_not_quoted(given: str) -> None:
    with pytest.raises(InvalidField) as raised:
        as_bool(given, "return_documents")
    assert raised.value.field == "return_documents"
    assert raised.value.message.startswith("return_documents: ")
    assert given not in raised.value.message


@pytest.mark.parametrize(("given", "value"), [(None, None), (0, None), (-1, None), (1, 1), (7, 7)])
def test_a_count_that_is_not_positive_is_no_limit(given: int | None, value: int | None) -> None:
    assert positive(given) == value


def test_a_document_is_a_text_or_has_one() -> None:
    assert text_document("sky", "documents[0]") == Document("sky")
    assert text_document({"text": "", "id": 7}, "documents[0]") == Document("")
    for given in ({}, {"text": None}, {"text": 5}, {"Text": "sky"}):
        with pytest.raises(InvalidField) as raised:
            text_document(given, "documents[3]")
        assert raised.value.field == "documents[3].text"
        assert raised.value.message.startswith("documents[3].text: ")


NAMES = {"documents": "texts", "top_n": "top_k", "model": "model_name"}


@pytest.mark.parametrize(
    ("field", "message", "theirs", "told"),
    [
        ("documents", "documents: more than 3", "texts", "texts: more than 3"),
        ("documents[3]", "documents[3]: too long", "texts[3]", "texts[3]: too long"),
        ("documents[3].text", "documents[3].text: no", "texts[3].text", "texts[3].text: no"),
        ("top_n", "top_n: must be at least 1", "top_k", "top_k: must be at least 1"),
        ("documents", "there are none", "texts", "there are none"),
        ("documents_of_mine", "documents_of_mine: no", "documents_of_mine", None),
        ("query", "query: missing", "query", None),
        ("options.top_n", "options.top_n: no", "options.top_n", None),
    ],
)
def test_a_field_is_told_in_the_clients_words(
    field: str, message: str, theirs: str, told: str | None
) -> None:
    for kind in (InvalidField, LimitExceeded, MalformedBody):
        error = renamed(kind(message, field), NAMES)
        assert type(error) is kind
        assert isinstance(error, RequestError)
        assert (error.field, error.message) == (theirs, told or message)


@pytest.mark.parametrize("error", [MalformedBody("documents"), Overloaded("documents: many", 3.0)])
def test_an_error_about_no_field_is_left_alone(error: RerankError) -> None:
    assert renamed(error, NAMES) is error


def test_a_document_over_a_limit_fails_a_call_that_forbids_cutting() -> None:
    too_long = LimitExceeded("documents[1]: 9 tokens", "documents[1]")
    with pytest.raises(LimitExceeded) as raised:
        refuse_too_long(result(scored(0, 0.5), failed(1, too_long)))
    assert raised.value is too_long
    refuse_too_long(result(scored(0, 0.5), BROKEN))
