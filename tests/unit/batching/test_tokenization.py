from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import ModelNotServable
from tests.unit.rerankers.toy_models import TOKENIZERS, bert_tokenizer, xlm_roberta_tokenizer

TEXTS = [
    "",
    " ",
    "paris",
    "What is the CAPITAL of France?",
    "naïve über cafe\u0301 ﬁ",
    "東京の猫 😀👍🏽",
    "a [SEP] b </s> c",
    "x" * 300,
    "a\x00b\tc\n",
]

each_architecture = pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)


def hugging_face(make: Callable[[], Tokenizer], *texts: str) -> tuple[list[int], list[int]]:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    # In batches, as sentence-transformers: alone, an empty second text would count as none.
    encoded = tokenizer(*([text] for text in texts), return_token_type_ids=True)
    return encoded["input_ids"][0], encoded["token_type_ids"][0]


def as_lists(sequence: TokenSequence) -> tuple[list[int], list[int]]:
    assert sequence.token_ids.dtype == sequence.type_ids.dtype == np.int64
    return sequence.token_ids.tolist(), sequence.type_ids.tolist()


@each_architecture
@pytest.mark.parametrize("text", TEXTS)
def test_one_text_is_wrapped_as_hugging_face_does(make: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = TextTokenizer(make())
    [encoded] = tokenizer.encode([text])
    assert as_lists(tokenizer.single.wrap(encoded.token_ids)) == hugging_face(make, text)


@each_architecture
@pytest.mark.parametrize("document", TEXTS)
def test_a_pair_is_wrapped_as_hugging_face_does(
    make: Callable[[], Tokenizer], document: str
) -> None:
    tokenizer = TextTokenizer(make())
    query = "capital of 東京?"
    first, second = (encoded.token_ids for encoded in tokenizer.encode([query, document]))
    assert as_lists(tokenizer.pair.wrap(first, second)) == hugging_face(make, query, document)


@each_architecture
def test_special_tokens_are_counted(make: Callable[[], Tokenizer]) -> None:
    tokenizer = TextTokenizer(make())
    assert tokenizer.single.count == make().num_special_tokens_to_add(is_pair=False)
    assert tokenizer.pair.count == make().num_special_tokens_to_add(is_pair=True)


def test_a_tokenizer_may_have_no_special_tokens() -> None:
    plain = bert_tokenizer()
    plain.post_processor = processors.Sequence([])
    tokenizer = TextTokenizer(plain)
    [encoded] = tokenizer.encode(["paris city"])
    assert tokenizer.single.count == tokenizer.pair.count == 0
    assert as_lists(tokenizer.single.wrap(encoded.token_ids))[0] == encoded.token_ids.tolist()


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    cutting = bert_tokenizer()
    cutting.enable_truncation(4)
    cutting.enable_padding(length=32)
    path = tmp_path / "tokenizer.json"
    cutting.save(str(path))
    [encoded] = TextTokenizer.from_file(path).encode(["the capital of a city"])
    assert len(encoded) == 5


@pytest.mark.parametrize(
    ("text", "first", "last", "expected"),
    [
        ("the sea", 1, 2, "sea"),
        ("naïve über sea", 1, 3, "über sea"),
        ("nai\u0308ve u\u0308ber sea", 1, 3, "u\u0308ber sea"),
        ("東京 sea 猫", 1, 4, "京 sea 猫"),
        ("😀 sea 😀 city", 1, 4, "sea 😀 city"),
    ],
)
def test_windows_are_told_in_code_points(text: str, first: int, last: int, expected: str) -> None:
    [encoded] = TextTokenizer(bert_tokenizer()).encode([text])
    window = encoded.window(first, last)
    assert text[window.start : window.end] == expected


def test_a_letter_of_several_tokens_is_never_cut() -> None:
    text = "a😀b"
    [encoded] = TextTokenizer(TOKENIZERS["byte-level"]()).encode([text])
    window = encoded.window(2, 4)
    assert text[window.start : window.end] == "😀"


@each_architecture
@given(text=st.text(max_size=40))
def test_windows_lie_in_the_text_and_move_forward(make: Callable[[], Tokenizer], text: str) -> None:
    [encoded] = TextTokenizer(make()).encode([text])
    starts = []
    for token in range(len(encoded)):
        window = encoded.window(token, len(encoded))
        assert 0 <= window.start <= window.end <= len(text)
        starts.append(window.start)
    assert starts == sorted(starts)


def test_a_text_of_no_tokens_has_an_empty_window() -> None:
    [encoded] = TextTokenizer(bert_tokenizer()).encode([" "])
    assert len(encoded) == 0
    window = encoded.window(0, 0)
    assert (window.start, window.end) == (0, 0)


def test_a_lone_surrogate_counts_as_the_replacement_character() -> None:
    tokenizer = TextTokenizer(xlm_roberta_tokenizer())
    lone, replaced = tokenizer.encode(["sea \ud83d city", "sea \ufffd city"])
    assert lone.token_ids.tolist() == replaced.token_ids.tolist()
    assert lone.window(0, len(lone)) == replaced.window(0, len(replaced))


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}", "utf-8")
    with pytest.raises(ModelNotServable, match=r"tokenizer\.json"):
        TextTokenizer.from_file(path)


def test_a_tokenizer_that_gives_nothing_is_refused() -> None:
    with pytest.raises(ModelNotServable, match="no tokens"):
        TextTokenizer(Tokenizer(models.BPE(vocab={}, merges=[])))


WORDS = st.one_of(
    st.sampled_from(
        ["paris", "über", "東京", "[SEP]", "\u0301", "a\u0301", " ", "\n", "\u3000", "."]
    ),
    st.text(max_size=8),
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=60).map(" ".join), st.integers(0, 6))
@each_architecture
def test_a_beginning_has_the_tokens_of_the_whole(
    make: Callable[[], Tokenizer], text: str, enough: int
) -> None:
    tokenizer = TextTokenizer(make())
    [whole] = tokenizer.encode([text])
    [beginning] = tokenizer.encode_beginnings([text], enough)
    count = len(beginning)
    assert beginning.characters <= whole.characters == len(text)
    assert count == len(whole) or count > enough
    assert beginning.token_ids.tolist() == whole.token_ids[:count].tolist()
    for token in range(count):
        assert beginning.window(token, token + 1) == whole.window(token, token + 1)


def test_of_a_long_text_of_words_a_beginning_is_encoded() -> None:
    text = "paris city " * 10_000
    [beginning] = TextTokenizer(bert_tokenizer()).encode_beginnings([text], 50)
    assert 50 < len(beginning) < 200
    [whole] = TextTokenizer(bert_tokenizer()).encode_beginnings([" " * 10_000 + "sea"], 5)
    assert len(whole) == 1


@pytest.mark.parametrize(
    "token", [AddedToken("new york"), AddedToken("york", lstrip=True), AddedToken("york")]
)
def test_a_tokenizer_that_looks_beyond_spaces_reads_the_whole(token: AddedToken) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens([token])
    text = "paris city " * 1_000
    [encoded] = TextTokenizer(tokenizer).encode_beginnings([text], 5)
    assert len(encoded) == 2_000
