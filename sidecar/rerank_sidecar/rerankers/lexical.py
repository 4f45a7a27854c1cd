"""Lexical matching with no model: BM25 over words and character bigrams, for every script.

BM25 as in Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond",
Foundations and Trends in Information Retrieval 3(4), 2009, section 3, but with constants for the
average length and for the IDF of each kind of term. Nothing is taken from the request, so a score
means the same in all of them. Bigrams carry the scripts that put no spaces between words and the
languages that inflect them.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import unicodedata
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import add
from typing import Self

from rerank_sidecar.errors import DeadlineExceeded
from rerank_sidecar.rerankers.arrivals import closing, in_parts
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Meter,
    Outcome,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score, Truncation, TruncationSide, Window

_K1 = 1.2
_B = 0.75
_AVERAGE_LETTERS = 600
# Rare words are long (Zipf's law of abbreviation), so length stands in for what a corpus would say.
_IDF_PER_LETTER_OF_A_WORD = 0.25
_IDF_OF_A_BIGRAM = 0.5

_INFO = RerankerInfo(
    name="lexical",
    version="1",
    family="lexical",
    score_kind=ScoreKind.LEXICAL,
    engine="python",
    source="built in",
    keep_scores=False,  # computed about as fast as they are found
)


class LexicalReranker:
    """Scores by the words and character bigrams that query and document share.

    Texts are compared after NFKC and case folding. Scores are 0 or more and finite. A document is
    read whole, whatever its length; `max_tokens_per_document` counts its words, and a script
    without spaces has long ones. The meter counts words as tokens.
    """

    def __init__(self, name: str = _INFO.name) -> None:
        self._info = replace(_INFO, name=name)

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """No forward pass keeps anybody waiting: infinity."""
        return math.inf

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """There are no forward passes: 0."""
        return 0

    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        """Count the words that are read of each document."""
        read = (_cut(document.text, options.truncation)[0] for document in documents)
        return [len(_Text.of(text).words) for text in read]

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents as they arrive and yield each outcome once.

        Raises:
            DeadlineExceeded: the deadline passed before every score was known.
        """
        async with closing(documents):
            terms = await asyncio.to_thread(_QueryTerms.of, query)
            options.meter.tokens += terms.word_count
            async for group in documents:
                for part in in_parts(group):
                    _check_deadline(options)
                    scored = await asyncio.to_thread(
                        _score_documents, terms, part, options.truncation
                    )
                    scored.count(options.meter)
                    for outcome in scored.scores:
                        yield outcome


def _check_deadline(options: ScoreOptions) -> None:
    if options.deadline is not None and time.monotonic() >= options.deadline:
        raise DeadlineExceeded("the deadline passed before every score was known")


@dataclass(frozen=True, slots=True)
class _Text:
    """A text as it is compared: its words, and the same joined by spaces."""

    words: list[str]
    joined: str

    @classmethod
    def of(cls, text: str) -> Self:
        folded = _words_apart(unicodedata.normalize("NFKC", text).casefold())
        words = _word_pattern().findall(folded)
        return cls(words, " ".join(words))

    def bigrams(self) -> map[str]:
        """Give the pairs of neighbouring characters; those with a space match no query."""
        return map(add, self.joined, self.joined[1:])

    @property
    def letters(self) -> int:
        return len(self.joined) - max(0, len(self.words) - 1)


@dataclass(frozen=True, slots=True)
class _QueryTerms:
    """The IDF of each distinct word, ideograph and bigram of a query.

    An ideograph counts as a word of one letter wherever it stands, because it often is one.
    """

    words: Mapping[str, float]
    ideographs: Mapping[str, float]
    bigrams: Mapping[str, float]
    word_count: int

    @classmethod
    def of(cls, query: str) -> Self:
        text = _Text.of(query)
        ideographs = dict.fromkeys(_IDEOGRAPH.findall(text.joined), _IDF_PER_LETTER_OF_A_WORD)
        words = {
            word: _IDF_PER_LETTER_OF_A_WORD * len(word)
            for word in text.words
            if word not in ideographs
        }
        bigrams = {bigram: _IDF_OF_A_BIGRAM for bigram in text.bigrams() if " " not in bigram}
        return cls(words, ideographs, bigrams, len(text.words))

    def score(self, text: _Text) -> float:
        """Give the BM25 score of a document."""
        saturation = _K1 * (1 - _B + _B * text.letters / _AVERAGE_LETTERS)
        parts = (
            (self.words, text.words),
            (self.ideographs, text.joined),
            (self.bigrams, text.bigrams()),
        )
        return math.fsum(
            idf_of[term] * count * (_K1 + 1) / (count + saturation)
            for idf_of, terms in parts
            for term, count in Counter(filter(idf_of.__contains__, terms)).items()
        )


@dataclass(frozen=True, slots=True)
class _ScoredPart:
    scores: list[tuple[int, Score]]
    word_count: int
    seconds: float

    def count(self, meter: Meter) -> None:
        meter.tokens += self.word_count
        meter.pairs += len(self.scores)
        meter.infer_s += self.seconds


def _score_documents(
    terms: _QueryTerms, part: Sequence[tuple[int, Document]], truncation: Truncation
) -> _ScoredPart:
    started = time.perf_counter()
    scores = []
    word_count = 0
    for index, document in part:
        read, window = _cut(document.text, truncation)
        text = _Text.of(read)
        scores.append((index, Score(terms.score(text), window, truncated=window is not None)))
        word_count += len(text.words)
    return _ScoredPart(scores, word_count, time.perf_counter() - started)


def _cut(text: str, truncation: Truncation) -> tuple[str, Window | None]:
    """Keep as many words as are asked for; the window is None if nothing was cut."""
    most = truncation.max_tokens_per_document
    if most is None:
        return text, None
    spans = [match.span() for match in _word_pattern().finditer(_words_apart(text))]
    if len(spans) <= most:
        return text, None
    kept = spans[-most:] if truncation.side is TruncationSide.LEFT else spans[:most]
    window = Window(kept[0][0], kept[-1][1])
    return text[window.start : window.end], window


_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def _words_apart(text: str) -> str:
    return text.replace("_", " ")  # which `re` takes for a letter


@cache
def _word_pattern() -> re.Pattern[str]:
    # The standard library's \w lacks combining marks, which are the vowels of Hindi and Thai.
    # Those of the basic plane alone: `re` looks them up at once but searches any others one by one.
    marks = [chr(code) for code in range(0x10000) if unicodedata.category(chr(code))[0] == "M"]
    return re.compile(f"[\\w{''.join(marks)}]+")
