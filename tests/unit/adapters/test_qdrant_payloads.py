"""Payload selectors mean here what they mean to Qdrant: its client has them for local mode."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.local.payload_value_extractor import exclude_payload, include_payload

from rerank_adapters.qdrant.payloads import parse_key, select, text_field

NAMES = st.sampled_from(["a", "b", "c"])
PAYLOADS = st.dictionaries(
    NAMES,
    st.recursive(
        st.sampled_from(["x", "y", 1, None]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)
KEYS = st.builds(
    lambda first, more: first + "".join(more),
    NAMES,
    st.lists(st.sampled_from([".a", ".b", "[]", "[0]", "[1]"]), max_size=3),
)
SELECTIONS = st.lists(KEYS, max_size=3)


@given(PAYLOADS, SELECTIONS, KEYS)
def test_what_is_included_stays_so(payload: dict[str, Any], keys: list[str], prop: str) -> None:
    selection = select(keys, prop)
    assert isinstance(selection.asked, list)
    fetched = include_payload(payload, selection.asked)
    assert selection.keep(fetched) == include_payload(payload, keys)
    assert text_field(fetched, prop) == text_field(payload, prop)


@given(PAYLOADS, SELECTIONS, KEYS)
def test_what_is_excluded_stays_so(payload: dict[str, Any], keys: list[str], prop: str) -> None:
    selection = select(models.PayloadSelectorExclude(exclude=keys), prop)
    asked = selection.asked
    excluded = asked.exclude if isinstance(asked, models.PayloadSelectorExclude) else []
    fetched = exclude_payload(payload, excluded)
    assert selection.keep(fetched) == exclude_payload(payload, keys)
    assert text_field(fetched, prop) == text_field(payload, prop)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("body", ("body",)),
        ("book.title", ("book", "title")),
        ("chapters[].text", ("chapters", None, "text")),
        ("chapters[12][].text", ("chapters", 12, None, "text")),
        ('"a key"', ("a key",)),
        ('book."sub.title"[0]', ("book", "sub.title", 0)),
        ("Straße", ("Straße",)),
        ("a-b_1", ("a-b_1",)),
    ],
)
def test_keys(key: str, path: tuple[str | int | None, ...]) -> None:
    assert parse_key(key) == path


@pytest.mark.parametrize(
    "key", ["", "a key", ".a", "a.", "a..b", "[0]", 'a"b"', '"a', "a[x]", "a[]b"]
)
def test_what_is_no_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match="is no key of a payload"):
        select(True, key)


@pytest.mark.parametrize("with_payload", ["title", 7])
def test_what_selects_nothing_is_refused(with_payload: Any) -> None:
    with pytest.raises(TypeError, match="with_payload must be"):
        select(with_payload, "body")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("body", "one"),
        ("lines", "two\nthree"),
        ("chapters[].text", "four\nfive"),
        ("chapters[1].text", "five"),
        ("chapters[2].text", None),
        ("chapters.text", None),
        ("number", None),
        ("lines.body", None),
        ("nothing", None),
    ],
)
def test_texts(key: str, text: str | None) -> None:
    payload = {
        "body": "one",
        "lines": ["two", 7, "three"],
        "chapters": [{"text": "four"}, {"text": "five"}],
        "number": 5,
    }
    assert text_field(payload, key) == text
    assert text_field(None, key) is None
