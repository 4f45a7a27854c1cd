"""Makes sure that an encoder gives the library's vectors, whatever else is in a text's batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind
from rerank_sidecar.models.export_check import TOLERANCE, TokenBatch
from rerank_sidecar.models.load_encoder import (
    DOCUMENT,
    QUERY,
    SAMPLE_TEXTS,
    LoadedEncoder,
    mask_of,
    places_read,
)

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_PADDING = 7


def samples(loaded: LoadedEncoder) -> list[tuple[Ids, int, Vectors]]:
    """Give the tokens of each sample, how many of them are attended to, and the library's vectors.

    Vectors are of all these tokens, whether or not they take part in scores.
    """
    return [*_samples(loaded, QUERY), *_samples(loaded, DOCUMENT)]


def require_vectors(
    expected: list[tuple[Ids, int, Vectors]],
    run: Callable[[TokenBatch], Vectors],
    facts: EncoderFacts,
    what: str,
) -> None:
    """Refuse `what` if `run` gives other vectors for samples that are padded beside other texts.

    Raises:
        ModelNotServable: it does, or they are not finite.
    """
    for ids, attended, vectors in expected:
        given = run(_beside_another(ids, attended, facts))[0]
        given = given if given.ndim == 1 else given[: len(ids)]
        if given.shape != vectors.shape or not np.isfinite(given).all():
            raise ModelNotServable(f"{what} does not give finite vectors")
        if not np.allclose(given, vectors, rtol=TOLERANCE, atol=TOLERANCE):
            raise ModelNotServable(
                f"{what} does not give the vectors that sentence-transformers gives"
            )


def _samples(loaded: LoadedEncoder, task: str) -> Iterator[tuple[Ids, int, Vectors]]:
    features = loaded.features(SAMPLE_TEXTS, task)
    mask, read = mask_of(features), places_read(features)
    with loaded.torch.no_grad():
        vectors = loaded.vectors(dict(features)).numpy()
    for row, ids in enumerate(features["input_ids"].numpy()):
        is_pooled = loaded.facts.kind is EncoderKind.BI_ENCODER
        expected = vectors[row] if is_pooled else vectors[row][read[row]]
        yield ids[read[row]], int(mask[row].sum()), expected


def _beside_another(ids: Ids, attended: int, facts: EncoderFacts) -> TokenBatch:
    """Make a batch of a sequence, padded, and of one that fills its row."""
    width = min(len(ids) + _PADDING, max(facts.max_tokens, facts.max_query_tokens))
    token_ids = np.full((2, width), facts.pad_token_id, dtype=np.int64)
    token_ids[0, : len(ids)], token_ids[1] = ids, np.resize(ids[::-1], width)
    attention_mask = np.ones_like(token_ids)
    attention_mask[0, attended:] = 0
    return {
        "input_ids": token_ids,
        "attention_mask": attention_mask,
        "token_type_ids": np.zeros_like(token_ids),
    }
