"""Text to tokens: what a model's own tokenizer gives, with offsets, ready to be cut in windows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.types import Window

TokenIds = npt.NDArray[np.int64]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_CHARACTERS_PER_TOKEN = 8
_TEXTS_BEHIND_PROMPTS = ("", "a", "the 0", "-s", "的", ".", " a", "(", "'s", "\n", "😀")
_PROBES = ("a", "the", "0", "的", ".")


class EncodedText:
    """A text's tokens without special ones, int64 of shape [tokens], and where each came from.

    `characters` is how much of the text was encoded, from its beginning. What was encoded begins
    with `shift` characters that are not the text's, and so many tokens as `first` says.
    """

    __slots__ = ("_encoding", "_first", "_shift", "characters", "token_ids")

    def __init__(self, encoding: Encoding, characters: int, first: int = 0, shift: int = 0) -> None:
        self._encoding = encoding
        self._first = first
        self._shift = shift
        self.characters = characters
        self.token_ids: TokenIds = np.array(encoding.ids[first:], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.token_ids)

    def window(self, start: int, end: int) -> Window:
        """Give the characters (code points) of the text that the tokens [start, end) came from."""
        if start == end:
            return Window(0, 0)
        first, _ = self._characters(start)
        _, last = self._characters(end - 1)
        return Window(first, max(first, last))

    def _characters(self, token: int) -> tuple[int, int]:
        characters = self._encoding.token_to_chars(self._first + token)
        if characters is None:
            raise IndexError(token)
        start, end = characters
        # A token may hold the end of what stands before the text.
        return max(0, start - self._shift), max(0, end - self._shift)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """How a model wraps one text or a pair in special tokens.

    `runs` are the special tokens before, between and after the texts, one run more than there
    are texts; `text_types` are the type ids of the texts.
    """

    runs: tuple[TokenSequence, ...]
    text_types: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many special tokens there are."""
        return sum(map(len, self.runs))

    def behind(self, prompt_ids: Sequence[int]) -> SpecialTokens:
        """Wrap a single text in the tokens of a prompt before it, too."""
        before, after = self.runs
        ids = np.concatenate([before.token_ids, np.array(prompt_ids, dtype=np.int64)])
        types = np.full_like(ids, self.text_types[0])
        types[: len(before)] = before.type_ids
        return SpecialTokens((TokenSequence(ids, types), after), self.text_types)

    def wrap(self, *texts: TokenIds) -> TokenSequence:
        """Make a sequence as the model reads it; as many texts as the wrapping is for."""
        types = map(np.full_like, texts, self.text_types)
        return TokenSequence(
            _interleave([run.token_ids for run in self.runs], texts),
            _interleave([run.type_ids for run in self.runs], types),
        )


class TextTokenizer:
    """A model's own tokenizer. Its methods compute, so call them in threads.

    `single` and `pair` say how the model wraps one text and a pair. They are learnt from what the
    tokenizer does to sample texts, so that any architecture is assembled as Hugging Face's fast
    tokenizers assemble it. Truncation and padding that the file asks for are switched off.

    A `prompt` stands before each text and is tokenised together with it, as sentence-transformers
    does it. Its tokens count as special ones of `single`, but for those at its end that depend on
    the text: they are the text's own.

    Raises:
        ModelNotServable: the tokenizer does not wrap texts in fixed special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str = "") -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._is_word_by_word = _is_word_by_word(tokenizer)
        self._prompt = prompt
        self._prompt_ids = _prompt_ids(tokenizer, prompt)
        sample = _sample(tokenizer)
        self.single = _learn(tokenizer, (sample,)).behind(self._prompt_ids)
        self.pair = _learn(tokenizer, (sample, sample))

    @classmethod
    def from_file(cls, path: Path, prompt: str = "") -> Self:
        """Read a `tokenizer.json`.

        Raises:
            ModelNotServable: the file cannot be read as one.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelNotServable(f"cannot read the tokenizer {path}: {error}") from error
        return cls(tokenizer, prompt)

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode texts without special tokens; releases the interpreter lock.

        A lone surrogate, which has no encoding, counts as U+FFFD.
        """
        batch = [self._prompt + encodable(text) for text in texts]
        encodings = self._tokenizer.encode_batch(batch, add_special_tokens=False)
        if not self._prompt:
            return list(map(EncodedText, encodings, map(len, texts)))
        return list(map(self._behind_prompt, encodings, texts))

    def encode_beginnings(self, texts: Sequence[str], enough: int) -> list[EncodedText]:
        """Encode texts as `encode` does, but of a long one perhaps only the beginning.

        What is given of such a text are the first tokens of the whole, more than `enough` of them.
        """
        if not self._is_word_by_word:
            return self.encode(texts)
        beginnings = [_beginning(text, enough * _MOST_CHARACTERS_PER_TOKEN) for text in texts]
        encoded = self.encode(beginnings)
        for place, (text, beginning) in enumerate(zip(texts, beginnings, strict=True)):
            if len(beginning) < len(text) and len(encoded[place]) <= enough:
                [encoded[place]] = self.encode([text])
        return encoded

    def _behind_prompt(self, encoding: Encoding, text: str) -> EncodedText:
        first = len(self._prompt_ids)
        if encoding.ids[:first] == self._prompt_ids:
            return EncodedText(encoding, len(text), first, len(self._prompt))
        # The text begins so that the tokenizer joins it with the prompt's first tokens.
        alone = self._tokenizer.encode(encodable(text), add_special_tokens=False)
        return EncodedText(alone, len(text))


def _prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Give the tokens with which every text behind a prompt begins, whatever the text is."""
    if not prompt:
        return []
    encodings = [
        tokenizer.encode(prompt + text, add_special_tokens=False) for text in _TEXTS_BEHIND_PROMPTS
    ]
    within = min(sum(end <= len(prompt) for _, end in each.offsets) for each in encodings)
    columns = zip(*(each.ids[:within] for each in encodings), strict=True)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _is_word_by_word(tokenizer: Tokenizer) -> bool:
    """Tell whether what stands behind a space cannot change the tokens of what stands before it.

    BERT's is of this kind: its normalizer looks at single characters, and at accents that follow
    one, which a space parts; its pre-tokenizer splits at every space, and WordPiece looks at single
    words. Tokens that were added are searched in the whole text, but have no spaces here.
    """
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and all(map(_is_plain, tokenizer.get_added_tokens_decoder().values()))
    )


def _is_plain(token: AddedToken) -> bool:
    takes_neighbours = token.lstrip or token.rstrip or token.single_word
    has_space = any(map(str.isspace, token.content))
    return not (takes_neighbours or has_space or token.normalized)


def _beginning(text: str, characters: int) -> str:
    """Cut a text at a space, if there is one soon behind so many characters."""
    if len(text) <= 2 * characters:
        return text
    space = text.find(" ", characters, 2 * characters)
    return text if space < 0 else text[:space]


def encodable(text: str) -> str:
    """Give a text with U+FFFD for each lone surrogate, which has no encoding."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _interleave(runs: Sequence[TokenIds], texts: Iterable[TokenIds]) -> TokenIds:
    return np.concatenate([runs[0], *chain.from_iterable(zip(texts, runs[1:], strict=True))])


def _sample(tokenizer: Tokenizer) -> str:
    for probe in _PROBES:
        if tokenizer.encode(probe, add_special_tokens=False).ids:
            return probe
    raise ModelNotServable("the tokenizer gives no tokens for any sample text")


def _learn(tokenizer: Tokenizer, texts: tuple[str, ...]) -> SpecialTokens:
    encoding = tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
    token_ids, type_ids = np.array([encoding.ids, encoding.type_ids], dtype=np.int64)
    owners = encoding.sequence_ids
    spans = [_span(owners, text) for text in range(len(texts))]
    edges = [0, *chain.from_iterable(spans), len(token_ids)]
    learnt = SpecialTokens(
        runs=tuple(
            TokenSequence(token_ids[start:end], type_ids[start:end])
            for start, end in zip(edges[::2], edges[1::2], strict=True)
        ),
        text_types=tuple(int(type_ids[start]) for start, _ in spans),
    )
    _check(tokenizer, texts, learnt, encoding)
    return learnt


def _span(owners: Sequence[int | None], text: int) -> tuple[int, int]:
    if text not in owners:
        raise ModelNotServable("the tokenizer does not say which tokens belong to which text")
    start = owners.index(text)
    return start, start + owners.count(text)


def _check(
    tokenizer: Tokenizer, texts: tuple[str, ...], learnt: SpecialTokens, expected: Encoding
) -> None:
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    wrapped = learnt.wrap(*(np.array(ids, dtype=np.int64) for ids in plain))
    if (wrapped.token_ids.tolist(), wrapped.type_ids.tolist()) != (expected.ids, expected.type_ids):
        raise ModelNotServable("the tokenizer does not wrap texts in fixed special tokens")
