"""Encoded documents to be kept, and how tests look at them."""

from __future__ import annotations

import numpy as np

from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.token_matrix import EncodedDocument, TokenMatrix
from rerank_sidecar.types import Window

MEGABYTE = 1 << 20


def document(seed: int = 0, *tokens: int, dimension: int = 384) -> EncodedDocument:
    random = np.random.default_rng(seed)
    matrices = [
        TokenMatrix.of(random.normal(size=(count, dimension)).astype(np.float32))
        for count in tokens or (75,)
    ]
    windows = tuple(Window(9 * place, 9 * place + 14) for place in range(len(tokens)))
    return EncodedDocument(tuple(matrices), windows, truncated=bool(seed % 2))


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def same(one: EncodedDocument | None, other: EncodedDocument | None) -> bool:
    assert one is not None
    assert other is not None
    return (
        one.windows == other.windows
        and one.truncated == other.truncated
        and len(one.matrices) == len(other.matrices)
        and all(
            np.array_equal(a.levels, b.levels) and np.array_equal(a.scales, b.scales)
            for a, b in zip(one.matrices, other.matrices, strict=True)
        )
    )


def found(cache: TokenMatrixCache, numbers: range) -> list[int]:
    keys = [key(number) for number in numbers]
    return [n for n, each in zip(numbers, cache.find(keys), strict=True) if each is not None]
