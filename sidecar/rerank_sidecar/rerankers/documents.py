"""Documents of one late-interaction model: reading, keeping, recalling and scoring them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, islice

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.tokenization import EncodedText, TextTokenizer, TokenIds
from rerank_sidecar.batching.windows import WindowRules, most_tokens, plan_windows
from rerank_sidecar.rerankers.document_keys import document_keys
from rerank_sidecar.rerankers.estimates import TokenRatio, tokens_in_windows
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.maxsim import MaxSim
from rerank_sidecar.rerankers.reading import (
    DocumentReading,
    TooLong,
    WindowScore,
    best_of,
    read_windows,
)
from rerank_sidecar.rerankers.token_matrix import EncodedDocument, QueryMatrix, TokenMatrix
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, TruncationSide

_MOST_CHARACTERS_LOOKED_UP = 100_000
"""An estimate does not hash more of one text than this, which takes a tenth of a millisecond."""

_TIMES_FASTER_WHEN_KEPT = 32
"""Hashing, recalling and MaxSim of a kept document take about so much less than encoding it."""

KeyOf = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class DocumentModel:
    """How one model reads and scores documents; everything here computes, so call it in threads.

    `name` tells all that an encoding depends on besides the text and the rules of cutting it.
    `capacity` is how many tokens of a text a window holds. Vectors of `skipped_token_ids` take no
    part in MaxSim.
    """

    name: str
    tokenizer: TextTokenizer
    maxsim: MaxSim
    capacity: int
    cache: TokenMatrixCache | None
    skipped_token_ids: frozenset[int] = frozenset()
    ratio: TokenRatio = field(default_factory=TokenRatio)

    def key_of(self, rules: WindowRules) -> KeyOf:
        """Give the function from a text to its key in the cache."""
        return document_keys(self.name, rules)

    def recall(self, key_of: KeyOf, documents: Sequence[Document]) -> list[EncodedDocument | None]:
        """Take the vectors that came with documents, and look the others up in the cache."""
        found = [_given(document) for document in documents]
        if self.cache is None:
            return found
        asked = [place for place, document in enumerate(found) if document is None]
        known = self.cache.find([key_of(documents[place].text) for place in asked])
        for place, document in zip(asked, known, strict=True):
            found[place] = document
        return found

    def read(
        self, key_of: KeyOf, rules: WindowRules, texts: Sequence[str]
    ) -> list[DocumentReading | TooLong]:
        """Tokenise texts and cut them into windows whose matrices will be kept."""
        documents = self._encode(texts, rules)
        self.ratio.learn(documents)
        return [
            self._read(document, rules, None if self.cache is None else key_of(text))
            for text, document in zip(texts, documents, strict=True)
        ]

    def score_window(
        self, query: QueryMatrix, _position: int, hidden: npt.NDArray[np.float32]
    ) -> WindowScore:
        """Score one window that has just been encoded.

        Raises:
            NonFiniteScore: the model gave numbers that are not finite.
        """
        matrix = self.maxsim.encode_document(hidden)
        [score] = self.maxsim.scores(query, [matrix])
        return WindowScore(score, matrix)

    def score(self, query: QueryMatrix, documents: Sequence[EncodedDocument]) -> list[Score]:
        """Score documents that were encoded before, all in one pass."""
        windows = [matrix for document in documents for matrix in document.matrices]
        scores = iter(self.maxsim.scores(query, windows))
        return [
            best_of(
                list(islice(scores, len(document.matrices))),
                document.windows,
                truncated=document.truncated,
            )
            for document in documents
        ]

    def estimate_tokens(self, documents: Sequence[Document], rules: WindowRules) -> int:
        """Estimate how many tokens of documents will be read.

        Those kept in memory count a little, for what they still cost, and so do vectors that came
        with documents; those on disk alone count in full, because an estimate does not wait for
        the disk.
        """
        texts = [document.text for document in documents if document.vectors is None]
        rows = sum(len(each.vectors) for each in documents if each.vectors is not None)
        beside = self.tokenizer.single.count
        tokens = [
            tokens_in_windows(self.ratio.tokens(text), self.capacity, rules, beside)
            for text in texts
        ]
        kept = sum(compress(tokens, self._are_kept(texts, rules)))
        return sum(tokens) - kept + (kept + rows) // _TIMES_FASTER_WHEN_KEPT

    def _encode(self, texts: Sequence[str], rules: WindowRules) -> list[EncodedText]:
        if rules.side is TruncationSide.LEFT or rules.policy is LongDocumentPolicy.REJECT:
            return self.tokenizer.encode(texts)
        return self.tokenizer.encode_beginnings(texts, most_tokens(self.capacity, rules))

    def _are_kept(self, texts: Sequence[str], rules: WindowRules) -> list[bool]:
        if self.cache is None:
            return [False] * len(texts)
        key_of = self.key_of(rules)
        is_short = [len(text) <= _MOST_CHARACTERS_LOOKED_UP for text in texts]
        held = iter(self.cache.holds([key_of(text) for text in compress(texts, is_short)]))
        return [short and next(held) for short in is_short]

    def _read(
        self, document: EncodedText, rules: WindowRules, key: bytes | None
    ) -> DocumentReading | TooLong:
        if rules.refuses(len(document), self.capacity):
            return TooLong(rules.wanted(len(document)), self.capacity)
        reading = read_windows(
            document,
            plan_windows(len(document), self.capacity, rules),
            self._wrap,
        )
        return reading if key is None else replace(reading, keep=partial(self._keep, key, reading))

    def _wrap(self, token_ids: TokenIds) -> TokenSequence:
        sequence = self.tokenizer.single.wrap(token_ids)
        if not self.skipped_token_ids:
            return sequence
        skipped = np.isin(sequence.token_ids, list(self.skipped_token_ids))
        return replace(sequence, wanted=np.flatnonzero(~skipped))

    def _keep(self, key: bytes, reading: DocumentReading, scores: Sequence[WindowScore]) -> None:
        matrices = tuple(score.matrix for score in scores if score.matrix is not None)
        if self.cache is not None:
            self.cache.put(key, EncodedDocument(matrices, reading.windows, reading.truncated))


def _given(document: Document) -> EncodedDocument | None:
    if document.vectors is None:
        return None
    return EncodedDocument((TokenMatrix.of(document.vectors),))
