"""A prompt around a query and a document as tokens, cut so that its end always fits.

A tokenizer may join the last letters of a text with what the prompt says next. A text is therefore
tokenised together with the prompt around it, up to the nearest special token, which nothing joins.
Texts are tokenised without special tokens, so that none can end its own part of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from tokenizers import Encoding, Tokenizer

from rerank_sidecar.batching.tokenization import TokenIds, encodable
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.llm_prompt import PairPrompt
from rerank_sidecar.types import Window

_QUERY_SAMPLES = ("what is a test?", "a", "3 + 4 =", "城")
_DOCUMENT_SAMPLES = (
    "A test. Really?",
    "a",
    "(see below)\n",
    "42",
    "城市。",
    "“quoted”",
    " spaced ",
)

_NOTHING: TokenIds = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What is tokenised together with a text, and what stands alone before and behind that."""

    before: str
    after: str
    tokens_before: TokenIds
    tokens_after: TokenIds
    end: TokenIds
    """`after` tokenised by itself: what follows a text that was cut."""


class PromptText:
    """A text within its prompt: all tokens, and which of them are the text's own.

    `token_ids` are its own, int64 [tokens], with those that hold a part of it and of the prompt.
    """

    __slots__ = ("_encoding", "_first", "_shift", "_whole", "characters", "token_ids")

    def __init__(self, encoding: Encoding, text: str, around: _Surroundings) -> None:
        self._encoding = encoding
        self._shift = len(around.before)
        self._whole: TokenIds = np.array(encoding.ids, dtype=np.int64)
        self.characters = len(text)
        start, end = self._shift, self._shift + len(text)
        inside = [
            place
            for place, (first, last) in enumerate(encoding.offsets)
            if last > start and first < end
        ]
        self._first = inside[0] if inside else _count_before(encoding, start)
        self.token_ids = self._whole[self._first : inside[-1] + 1 if inside else self._first]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def whole(self) -> TokenIds:
        """Give the tokens of the text and of what it is tokenised with."""
        return self._whole

    @property
    def before(self) -> TokenIds:
        """Give the tokens that stand before the text's own."""
        return self._whole[: self._first]

    def window(self, start: int, end: int) -> Window:
        """Give the characters (code points) of the text that the tokens [start, end) came from."""
        if start == end:
            return Window(0, 0)
        first, _ = self._encoding.offsets[self._first + start]
        _, last = self._encoding.offsets[self._first + end - 1]
        inside = (min(max(0, place - self._shift), self.characters) for place in (first, last))
        return Window(*inside)


class PromptTokenizer:
    """Makes sequences of a prompt, a query and a document. Its methods compute: call in threads.

    Raises:
        ModelNotServable: the tokenizer joins texts across every place where this prompt can be
            taken apart.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: PairPrompt) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        # A tokenizer of its own, for the switch is the tokenizer's.
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._prompt = prompt
        self._query, self._document = self._take_apart()

    def encode_queries(self, texts: Sequence[str]) -> list[PromptText]:
        """Encode queries with the prompt around them."""
        return self._encode(texts, self._query)

    def encode_documents(self, texts: Sequence[str]) -> list[PromptText]:
        """Encode documents with the prompt around them; releases the interpreter lock."""
        return self._encode(texts, self._document)

    def head(self, query: PromptText, most: int) -> TokenIds:
        """Give all that comes before a document, with at most so many tokens of the query."""
        around = self._query
        kept = query.whole
        if len(query) > most:
            kept = np.concatenate([query.before, query.token_ids[:most], around.end])
        return np.concatenate([around.tokens_before, kept, around.tokens_after])

    def sequence(self, head: TokenIds, document: PromptText, start: int, end: int) -> TokenIds:
        """Give the whole sequence, with the document's own tokens [start, end)."""
        around = self._document
        kept = document.whole
        if (start, end) != (0, len(document)):
            kept = np.concatenate([document.before, document.token_ids[start:end], around.end])
        return np.concatenate([head, around.tokens_before, kept, around.tokens_after])

    def tokens_around_part(self, head: TokenIds, document: PromptText) -> int:
        """Count the tokens of a sequence that are not the document's own, if that is cut."""
        around = self._document
        parts = (head, around.tokens_before, document.before, around.end, around.tokens_after)
        return sum(map(len, parts))

    @property
    def tokens_around(self) -> int:
        """How many tokens the prompt has without query and document, or a few more."""
        texts = (self._query, self._document)
        fixed = sum(len(each.tokens_before) + len(each.tokens_after) for each in texts)
        return fixed + sum(len(self._ids(self._plain, each.before + each.after)) for each in texts)

    def _encode(self, texts: Sequence[str], around: _Surroundings) -> list[PromptText]:
        clean = [encodable(text) for text in texts]
        batch = [f"{around.before}{text}{around.after}" for text in clean]
        encodings = self._plain.encode_batch(batch, add_special_tokens=False)
        return [
            PromptText(encoding, text, around)
            for encoding, text in zip(encodings, clean, strict=True)
        ]

    def _take_apart(self) -> tuple[_Surroundings, _Surroundings]:
        fixed_first, query_before = self._at_last_special(self._prompt.before)
        document_after, fixed_last = self._at_first_special(self._prompt.after)
        for query_after, fixed, document_before in self._ways_between():
            query = self._surroundings(query_before, query_after, fixed_first, fixed)
            document = self._surroundings(document_before, document_after, "", fixed_last)
            if self._is_faithful(query, document):
                return query, document
        raise ModelNotServable(
            "the tokenizer joins a document's first letters with the text of the prompt before it; "
            "end that text with a special token"
        )

    def _ways_between(self) -> list[tuple[str, str, str]]:
        """List how the text between the two falls to the query, to nobody and to the document."""
        between = self._prompt.between
        query_after, rest = self._at_first_special(between)
        if rest:
            fixed, document_before = self._at_last_special(rest)
            return [(query_after, fixed, document_before)]
        bare = between.rstrip()
        return [(bare, "", between[len(bare) :]), (between, "", "")]

    def _surroundings(
        self, before: str, after: str, fixed_before: str, fixed_after: str
    ) -> _Surroundings:
        return _Surroundings(
            before,
            after,
            self._ids(self._tokenizer, fixed_before),
            self._ids(self._tokenizer, fixed_after),
            self._ids(self._plain, after),
        )

    def _is_faithful(self, query: _Surroundings, document: _Surroundings) -> bool:
        self._query, self._document = query, document
        return all(
            np.array_equal(
                self._ids(self._tokenizer, self._prompt.render(*texts)), self._assembled(*texts)
            )
            for texts in product(_QUERY_SAMPLES, _DOCUMENT_SAMPLES)
        )

    def _assembled(self, query_text: str, document_text: str) -> TokenIds:
        [query], [document] = (
            self.encode_queries([query_text]),
            self.encode_documents([document_text]),
        )
        head = self.head(query, len(query))
        return self.sequence(head, document, 0, len(document))

    def _ids(self, tokenizer: Tokenizer, text: str) -> TokenIds:
        if not text:
            return _NOTHING
        return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def _at_first_special(self, text: str) -> tuple[str, str]:
        found = self._specials(text)
        place = found[0].start() if found else len(text)
        return text[:place], text[place:]

    def _at_last_special(self, text: str) -> tuple[str, str]:
        found = self._specials(text)
        place = found[-1].end() if found else 0
        return text[:place], text[place:]

    def _specials(self, text: str) -> list[re.Match[str]]:
        added = self._tokenizer.get_added_tokens_decoder().values()
        names = sorted((token.content for token in added), key=len, reverse=True)
        return list(re.finditer("|".join(map(re.escape, names)), text)) if names else []


def _count_before(encoding: Encoding, start: int) -> int:
    return sum(last <= start for _, last in encoding.offsets)
