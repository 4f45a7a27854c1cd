"""A prompt in parts has the tokens that it has as a whole, and its end is never cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from rerank_sidecar.batching.prompt_tokens import PromptTokenizer
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.llm_prompt import PairPrompt

START, END = "<|start|>", "<|end|>"
TEXTS = [
    "the castle is in the valley?\n",
    "stone. river, winter",
    ">: (see below)",
    "query document",
]
TEMPLATES = (
    f"{START}user\n<Query>: {{query}}\n<Document>: {{document}}{END}\n",
    f"{START}user\nquery: {{query}}\ndocument:\n{{document}}\nRelevance:{END}\n",
    f"{START}system\n{{query}}{END}\n{START}user\n{{document}}{END}\n{START}answer\n",
    "{query} {document} ",
)


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = Regex(
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return tokenizer


TOKENIZER = byte_level()
PROMPTS = {
    template: PromptTokenizer(byte_level(), PairPrompt.from_template(template, ""))
    for template in TEMPLATES
}
ANY_TEXT = st.text(alphabet=st.sampled_from("aeo st.,?\n:(>é城🏰1"), max_size=30)


@pytest.mark.parametrize("template", TEMPLATES)
@given(query=ANY_TEXT.filter(str.strip), document=ANY_TEXT)
def test_parts_have_the_tokens_of_the_whole(template: str, query: str, document: str) -> None:
    prompts = PROMPTS[template]
    [asked], [read] = prompts.encode_queries([query.strip()]), prompts.encode_documents([document])
    tokens = prompts.sequence(prompts.head(asked, len(asked)), read, 0, len(read))
    text = template.format(query=query.strip(), document=document)
    assert tokens.tolist() == TOKENIZER.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("template", TEMPLATES)
@given(query=ANY_TEXT.filter(str.strip), document=ANY_TEXT, data=st.data())
def test_what_is_cut_is_the_documents_own(
    template: str, query: str, document: str, data: st.DataObject
) -> None:
    prompts = PROMPTS[template]
    [asked], [read] = prompts.encode_queries([query]), prompts.encode_documents([document])
    start = data.draw(st.integers(0, len(read)))
    end = data.draw(st.integers(start, len(read)))
    head = prompts.head(asked, 3)
    tokens = prompts.sequence(head, read, start, end)
    if (start, end) == (0, len(read)):
        return
    assert len(tokens) == prompts.tokens_around_part(head, read) + end - start
    after = template.partition("{document}")[2]
    assert TOKENIZER.decode(tokens.tolist(), skip_special_tokens=False).endswith(after)
    window = read.window(start, end)
    assert 0 <= window.start <= window.end <= len(document)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_window_is_the_text_of_its_tokens(template: str) -> None:
    document = "the castle is in the valley? stone. river"
    [read] = PROMPTS[template].encode_documents([document])
    assert read.window(0, len(read)).end == len(document)
    middle = len(read) // 2
    first, second = read.window(0, middle), read.window(middle, len(read))
    assert first.start == 0
    assert first.end <= second.start + 1


def test_special_tokens_in_texts_are_texts() -> None:
    prompts = PROMPTS[TEMPLATES[0]]
    [query], [document] = (
        prompts.encode_queries([f"a{END}"]),
        prompts.encode_documents([f"{START}b{END}"]),
    )
    tokens = prompts.sequence(prompts.head(query, 99), document, 0, len(document)).tolist()
    assert tokens.count(TOKENIZER.token_to_id(END)) == 1
    assert tokens.count(TOKENIZER.token_to_id(START)) == 1


def test_a_tokenizer_that_joins_everything_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=120))
    with pytest.raises(ModelNotServable, match="joins"):
        PromptTokenizer(tokenizer, PairPrompt.from_template("Q:{query}D:{document}", ""))


def test_the_document_stands_behind_the_query() -> None:
    for template in ("{document} {query}", "{query}", "{query} {document} {document}", "x"):
        with pytest.raises(ModelNotServable, match="behind it"):
            PairPrompt.from_template(template, "")


def test_braces_of_texts_are_no_places() -> None:
    prompt = PairPrompt.from_template("{instruction}: {query} | {document}", "be {strict}")
    assert prompt.render("{document}", "{query}") == "be {strict}: {document} | {query}"
