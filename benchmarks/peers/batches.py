"""For runtimes that run tensors and no more: tokenise, sort by length, a thread for each core."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from benchmarks.peers.protocol import Score

BATCH_SIZE = 8
MAX_TOKENS = 512

Logits = npt.NDArray[np.float32]
Forward = Callable[[list[Encoding]], Logits]
"""Gives the logits [sequences] of a batch."""


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def batched(model: str, forward: Forward) -> Score:
    """Score by batches of neighbours in length, as many at once as there are cores."""
    tokenizer = Tokenizer.from_file(str(Path(model, "tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    pool = ThreadPoolExecutor(cores())

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        encodings = tokenizer.encode_batch([(query, document) for document in documents])
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids), reverse=True)
        batches = [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]
        logits = np.empty(len(documents), dtype=np.float32)
        results = pool.map(lambda batch: forward([encodings[i] for i in batch]), batches)
        for batch, values in zip(batches, results, strict=True):
            logits[batch] = values
        return list(1 / (1 + np.exp(-logits)))

    return score


def padded(batch: Sequence[Encoding]) -> dict[str, npt.NDArray[np.int64]]:
    """Lay a batch out as tensors [sequences, tokens]."""
    shape = (len(batch), max(len(encoding.ids) for encoding in batch))
    tensors = {
        name: np.zeros(shape, dtype=np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    for row, encoding in enumerate(batch):
        tensors["input_ids"][row, : len(encoding.ids)] = encoding.ids
        tensors["attention_mask"][row, : len(encoding.ids)] = 1
        tensors["token_type_ids"][row, : len(encoding.ids)] = encoding.type_ids
    return tensors
