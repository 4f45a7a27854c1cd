"""What the dialects that grew out of Cohere's share: documents that are objects, units, tokens."""

from typing import Any

import pytest

from rerank_sidecar.api.dialects.fields import ranked_document
from rerank_sidecar.api.dialects.ranking import Candidates, billed_units, ranking_meta
from rerank_sidecar.errors import InvalidField
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import ModelReference, RerankResult, RerankSummary, Usage

BOOK: dict[str, Any] = {
    "text": "a red fruit",
    "title": "apple",
    "year": 1905,
    "tags": ["é", None],
    "author": None,
    "note": "",
}


@pytest.mark.parametrize(
    ("rank_fields", "text"),
    [
        (None, "a red fruit"),
        ([], "a red fruit"),
        (["title"], "apple"),
        (["title", "text"], "apple\na red fruit"),
        (["text", "title"], "a red fruit\napple"),
        (["author", "title", "nothing"], "apple"),
        (["title", "year", "tags"], 'apple\n1905\n["é",null]'),
        (["note"], ""),
    ],
)
def test_objects_are_ranked_by_the_fields_that_are_named(
    rank_fields: list[str] | None, text: str
) -> None:
    assert ranked_document(BOOK, "documents[0]", rank_fields).text == text
    assert ranked_document("a text", "documents[0]", rank_fields).text == "a text"


@pytest.mark.parametrize(
    ("given", "rank_fields", "field"),
    [
        (BOOK, ["author", "secret"], "documents[3]"),
        ({"image": "https://example.com/apple.png"}, None, "documents[3].text"),
        ({"text": 5}, None, "documents[3].text"),
    ],
)
def test_an_object_without_a_text_is_refused(
    given: dict[str, Any], rank_fields: list[str] | None, field: str
) -> None:
    with pytest.raises(InvalidField) as raised:
        ranked_document(given, "documents[3]", rank_fields)
    assert raised.value.field == field
    assert raised.value.message.startswith(f"{field}: ")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("given", "rank_fields", "echo"),
    [
        ("sky", None, {"text": "sky"}),
        (BOOK, ["title"], BOOK),
        ({"title": "apple", "id": 7}, ["title"], {"text": "apple", "title": "apple", "id": 7}),
    ],
)
def test_a_document_is_given_back_whole_and_with_a_text(
    given: str | dict[str, Any], rank_fields: list[str] | None, echo: dict[str, Any]
) -> None:
    assert Candidates([given], rank_fields).echo(0) == echo


@pytest.mark.parametrize(("count", "units"), [(0, 0), (1, 1), (100, 1), (101, 2), (1000, 10)])
def test_a_hundred_documents_are_a_unit(count: int, units: int) -> None:
    assert billed_units(count) == units


def test_tokens_are_those_that_the_model_read() -> None:
    summary = RerankSummary(ModelReference("m", "1"), ScoreKind.RAW_LOGIT, usage=Usage(tokens=30))
    meta = ranking_meta(Candidates(["a"]), RerankResult((), summary), version="2")
    assert (meta.tokens.input_tokens, meta.tokens.output_tokens) == (30, 0)
