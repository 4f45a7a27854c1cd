"""Bodies as clients really send them: legal JSON is read, everything else is refused politely."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.api.json_body import parse_json
from rerank_sidecar.errors import InvalidField, MalformedBody


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    top_n: int | None = None


class Message(msgspec.Struct):
    query: str
    documents: list[str] | None = None
    options: Options = Options()


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@given(query=ANY_TEXT, documents=st.lists(ANY_TEXT), escaped=st.booleans())
def test_every_json_string_is_read(query: str, documents: list[str], escaped: bool) -> None:
    body = json.dumps({"query": query, "documents": documents}, ensure_ascii=True)
    if not escaped:
        body = json.dumps(json.loads(body), ensure_ascii=False)
        query, documents = _replaced(query), [_replaced(each) for each in documents]
        body = _replaced(body)
    message = parse_json(body.encode(), Message)
    assert message.query == _replaced(query)
    assert message.documents == [_replaced(each) for each in documents]


def _replaced(text: str) -> str:
    joined = json.loads(json.dumps(text))  # a pair of halves is one character in JSON
    return "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in joined)


@pytest.mark.parametrize(
    ("body", "query"),
    [
        (rb'{"query": "a \ud800 b"}', "a \ufffd b"),
        (rb'{"query": "\udc00\ud800"}', "\ufffd\ufffd"),
        (rb'{"query": "\ud83d\ude00"}', "😀"),
        (rb'{"query": "\ud83d\ude00\ud83d"}', "😀\ufffd"),
        (b'\xef\xbb\xbf{"query": "after a byte order mark"}', "after a byte order mark"),
        (rb'{"query": "\u0000\u2028\u003c"}', "\0\u2028<"),
        (rb'{"extra": {"\udbff": [1e999, "\ud800"]}, "query": "extra keys"}', "extra keys"),
        (b'{"query": "first", "query": "last"}', "last"),
    ],
)
def test_legal_json_that_fast_parsers_dislike(body: bytes, query: str) -> None:
    assert parse_json(body, Message).query == query


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b'{"query": "a", "options": {"topn": "secret"}}', "options.topn: no such field"),
        (b'{"query": "a"', "line 1"),
        (b'{"query": "a"} secret', "not JSON"),
        (b'{"query": "sec\nret"}', "not JSON"),
        (b'{"query": "a", "x": NaN}', "NaN"),
        (b'{"query": "a", "x": [-Infinity]}', "Infinity"),
        (b'{"query": "\xff secret"}', "UTF-8"),
        (b'{"query": "\xed\xa0\x80 secret"}', "UTF-8"),
        ('{"query": "secret"}'.encode("utf-16"), "UTF-8"),
        (b"[]", "expected object, got array"),
        (b'"secret"', "expected object, got string"),
        (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"query": "\\ud800", "x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"query": "\\ud800", "x": ' + b"9" * 5_000 + b"}", "out of range"),
    ],
)
def test_what_is_not_our_json(body: bytes, words: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        parse_json(body, Message)
    assert words in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"{}", "query", "missing"),
        (b'{"query": 5}', "query", "expected string, got integer"),
        (b'{"query": "a", "documents": "secret"}', "documents", "expected array or null"),
        (b'{"query": "a", "documents": ["a", null]}', "documents[1]", "expected string, got null"),
        (rb'{"query": "\ud800", "documents": ["a", true]}', "documents[1]", "got boolean"),
        (b'{"query": "a", "options": {"top_n": "1"}}', "options.top_n", "integer or null"),
    ],
)
def test_errors_name_the_field_in_the_callers_words(body: bytes, field: str, words: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_json(body, Message)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")
    assert words in caught.value.message
    assert "secret" not in caught.value.message
