"""A prompt before a text: the tokens are those of both together, the windows those of the text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from rerank_sidecar.batching.tokenization import TextTokenizer
from tests.unit.rerankers.toy_models import TOKENIZERS, bert_tokenizer

PROMPTS = ("the capital: ", "paris", "What is it?\nbread:", "a ", "[X] ")
TEXTS = ("", " ", "paris", "the naïve über", "東京の猫 😀👍🏽", ", (a)", "ing", "x" * 60, " paris")

each_architecture = pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)


def read(tokenizer: TextTokenizer, text: str) -> tuple[list[int], list[int]]:
    [encoded] = tokenizer.encode([text])
    sequence = tokenizer.single.wrap(encoded.token_ids)
    return sequence.token_ids.tolist(), sequence.type_ids.tolist()


def hugging_face(make: Callable[[], Tokenizer], text: str) -> tuple[list[int], list[int]]:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    encoded = tokenizer([text], return_token_type_ids=True)
    return encoded["input_ids"][0], encoded["token_type_ids"][0]


@each_architecture
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_and_text_are_tokenised_together(make: Callable[[], Tokenizer], prompt: str) -> None:
    tokenizer = TextTokenizer(make(), prompt)
    for text in TEXTS:
        assert read(tokenizer, text) == hugging_face(make, prompt + text)


def test_a_text_that_joins_with_a_prompts_first_tokens_is_tokenised_alone() -> None:
    joining = bert_tokenizer()
    joining.add_tokens([AddedToken("what is<x>")])
    tokenizer = TextTokenizer(joining, "what is")
    wrapped = [joining.token_to_id(each) for each in ("[CLS]", "what")]
    alone = joining.encode("<x> city", add_special_tokens=False).ids
    assert read(tokenizer, "<x> city")[0] == [*wrapped, *alone, joining.token_to_id("[SEP]")]


@each_architecture
def test_the_prompts_tokens_are_counted_as_special_ones(make: Callable[[], Tokenizer]) -> None:
    with_prompt, without = TextTokenizer(make(), "the capital: "), TextTokenizer(make())
    assert with_prompt.single.count > without.single.count
    assert with_prompt.pair.count == without.pair.count
    [encoded], [plain] = (each.encode(["paris city"]) for each in (with_prompt, without))
    assert len(encoded) <= len(plain) + 1


@each_architecture
@given(text=st.text(max_size=40))
def test_windows_are_of_the_text_alone(make: Callable[[], Tokenizer], text: str) -> None:
    [encoded] = TextTokenizer(make(), "the capital: ").encode([text])
    assert encoded.characters == len(text)
    for end in range(len(encoded) + 1):
        window = encoded.window(0, end)
        assert 0 <= window.start <= window.end <= len(text)


def test_a_window_ends_where_its_words_end() -> None:
    text = "paris is the capital"
    [encoded] = TextTokenizer(bert_tokenizer(), "a river: ").encode([text])
    window = encoded.window(1, 3)
    assert text[window.start : window.end] == "is the"


def test_of_long_texts_behind_a_prompt_enough_is_read() -> None:
    tokenizer = TextTokenizer(bert_tokenizer(), "a river: ")
    text = "paris bread " * 500
    [whole], [beginning] = tokenizer.encode([text]), tokenizer.encode_beginnings([text], 20)
    assert len(beginning) < len(whole)
    assert np.array_equal(beginning.token_ids, whole.token_ids[: len(beginning)])


def test_a_marker_that_is_a_token_stands_before_each_text() -> None:
    marked = bert_tokenizer()
    marked.add_special_tokens([AddedToken("[unused0]", normalized=False)])
    marker = marked.token_to_id("[unused0]")
    tokenizer = TextTokenizer(marked, "[unused0] ")
    for text in TEXTS:
        ids, _ = read(tokenizer, text)
        assert ids[:2] == [marked.token_to_id("[CLS]"), marker]
        assert ids == marked.encode(f"[unused0] {text}").ids
