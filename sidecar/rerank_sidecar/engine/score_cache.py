"""Scores already computed, found again by what they depend on; no text is kept.

A score depends on the model and its version, the query, the document, how much of the document is
read and what becomes of the rest. It does not depend on what is done with it afterwards: top_n,
threshold, normalisation, priority.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from rerank_sidecar.rerankers.arrivals import in_parts
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import Score, Window

_DIGEST_BYTES = 16
"""Two of 2^32 documents share a digest with a chance of 2^-65."""

_TABLE_BYTES = 32 + 6 * 28
"""The most that one score takes of the table and its order: a node, and six places right after the
table has grown. Charged always, so that no growth drives out many scores at once."""

_HASHED_AT_ONCE = 65_536

_HITS = metrics.CACHE_LOOKUPS.labels(cache="score", result="hit")
_MISSES = metrics.CACHE_LOOKUPS.labels(cache="score", result="miss")

_Packed = float | tuple[float | int | None, ...]


class ScoreKeys:
    """Makes the keys of one request's documents; safe to be called from a thread."""

    def __init__(self, info: RerankerInfo, query: str, options: ScoreOptions) -> None:
        truncation = options.truncation
        policy = options.long_document_policy or info.default_long_document_policy
        parts = (
            info.name,
            info.version,
            info.max_windows,
            truncation.max_tokens_per_document,
            truncation.side.value,
            policy.value,
            len(query),
        )
        # The length of the query tells where it ends and the document begins.
        self._begun = blake2b(_encode(f"{parts!r}{query}"), digest_size=_DIGEST_BYTES)

    def of(self, texts: Sequence[str]) -> list[bytes]:
        """Give the key of each document, in order."""
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> bytes:
        digest = self._begun.copy()
        digest.update(_encode(text))
        return digest.digest()


class ScoreCache:
    """Scores by key; holds at most so many bytes and forgets those not asked for longest.

    Bytes are the most that Python uses, the largest share of the table that a score may have
    included. With `max_bytes` 0 nothing is kept. Belongs to one thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._scores: OrderedDict[bytes, _Packed] = OrderedDict()
        self._size_bytes = 0
        metrics.CACHE_BYTES.labels(cache="score").set_function(lambda: self.size_bytes)

    @property
    def is_on(self) -> bool:
        """Tell whether scores are kept at all."""
        return self._max_bytes > 0

    @property
    def size_bytes(self) -> int:
        """How much memory the cache takes at most."""
        return self._size_bytes

    def get(self, key: bytes) -> Score | None:
        """Find a score, on the model's own scale."""
        packed = self._scores.get(key)
        if packed is None:
            _MISSES.inc()
            return None
        self._scores.move_to_end(key)
        _HITS.inc()
        return _unpack(packed)

    def put(self, key: bytes, outcome: Outcome) -> None:
        """Keep a score; errors and numbers that are not finite are none."""
        if not isinstance(outcome, Score) or not math.isfinite(outcome.value):
            return
        self._forget(key)
        packed = _pack(outcome)
        self._scores[key] = packed
        self._size_bytes += _size(key, packed)
        while self._size_bytes > self._max_bytes:
            self._forget(next(iter(self._scores)))

    def _forget(self, key: bytes) -> None:
        packed = self._scores.pop(key, None)
        if packed is not None:
            self._size_bytes -= _size(key, packed)


class KnownScores:
    """One request's view of a score cache: what is known, and what it adds.

    Hashing some 64 thousand characters takes a tenth of a millisecond; more is done in a thread.
    """

    def __init__(
        self, cache: ScoreCache, reranker: Reranker, query: str, options: ScoreOptions
    ) -> None:
        self._cache = cache
        self._keys = _keys(reranker, query, options) if cache.is_on else None
        self._meter = options.meter
        self._awaited: dict[int, bytes] = {}

    async def look_up(self, documents: IndexedDocuments) -> list[Score | None]:
        """Find the score of each document, in order; None where it has to be computed."""
        if self._keys is None:
            return [None] * len(documents)
        found: list[Score | None] = []
        for part in in_parts(documents):
            texts = [document.text for _, document in part]
            if any(document.vectors is not None for _, document in part):
                found += [None] * len(part)
                continue
            if sum(map(len, texts)) > _HASHED_AT_ONCE:
                keys = await asyncio.to_thread(self._keys.of, texts)
            else:
                keys = self._keys.of(texts)
                await asyncio.sleep(0)
            found += [self._find(index, key) for (index, _), key in zip(part, keys, strict=True)]
        return found

    def learn(self, index: int, outcome: Outcome) -> None:
        """Keep what became of a document that was not known.

        Not if the query was cut: an answer from the cache could not tell that it was.
        """
        key = self._awaited.pop(index, None)
        if key is not None and not self._meter.query_truncated:
            self._cache.put(key, outcome)

    def _find(self, index: int, key: bytes) -> Score | None:
        score = self._cache.get(key)
        if score is None:
            self._awaited[index] = key
        else:
            self._meter.cache_hits += 1
        return score


def _keys(reranker: Reranker, query: str, options: ScoreOptions) -> ScoreKeys | None:
    # A score that depends on the other documents of its request is no good in another one.
    info = reranker.info
    is_kept = info.comparable_across_requests and info.keep_scores and options.query_vectors is None
    return ScoreKeys(info, query, options) if is_kept else None


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _pack(score: Score) -> _Packed:
    # Numbers, and tuples of nothing but numbers, cost the garbage collector nothing.
    if score == Score(score.value):
        return float(score.value)
    window = score.best_window
    ends = (None, None) if window is None else (window.start, window.end)
    return float(score.value), *ends, score.truncated, score.window_count


def _unpack(packed: _Packed) -> Score:
    if isinstance(packed, float):
        return Score(packed)
    value, start, end, truncated, count = packed
    window = None if start is None or end is None else Window(int(start), int(end))
    return Score(float(value or 0.0), window, bool(truncated), int(count or 0))


def _size(key: bytes, packed: _Packed) -> int:
    parts = packed if isinstance(packed, tuple) else ()
    numbers = (part for part in parts if part is not None and not isinstance(part, bool))
    return _TABLE_BYTES + sum(map(sys.getsizeof, (key, packed, *numbers)))
