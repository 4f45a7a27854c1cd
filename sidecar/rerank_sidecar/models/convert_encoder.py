"""Exports encoders to OpenVINO; needs the `convert` extra.

The library's own modules are traced one behind the other, so that whatever they are the vectors are
its own.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind
from rerank_sidecar.models.export_check import TOLERANCE, TokenBatch, compiled
from rerank_sidecar.models.load_encoder import (
    DOCUMENT,
    QUERY,
    SAMPLE_TEXTS,
    LoadedEncoder,
    first_line,
    mask_of,
    places_read,
)
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_LOG = logging.getLogger(__name__)

_PADDING = 7


def convert_encoder(loaded: LoadedEncoder) -> OpenVinoModel:
    """Export an encoder to an OpenVINO model whose only output is its vectors.

    They are [batch, dimension] or, of each token, [batch, tokens, dimension].

    Raises:
        ModelNotServable: the export does not give the vectors that the library gives, or a text's
            depend on what else is in its batch.
    """
    _LOG.info("exporting an encoder to OpenVINO")
    samples = [*_samples(loaded, QUERY), *_samples(loaded, DOCUMENT)]
    converted = _trace(loaded)
    run = compiled(converted)
    for ids, attended, expected in samples:
        given = run(_beside_another(ids, attended, loaded.facts))[0]
        given = given if given.ndim == 1 else given[: len(ids)]
        if given.shape != expected.shape or not np.isfinite(given).all():
            raise ModelNotServable("the exported model does not give finite vectors")
        if not np.allclose(given, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ModelNotServable(
                "the exported model does not give the vectors that sentence-transformers gives"
            )
    return converted


def _samples(loaded: LoadedEncoder, task: str) -> Iterator[tuple[Ids, int, Vectors]]:
    """Give the tokens of each sample, how many of them are attended to, and the library's vectors.

    Vectors are of all these tokens, whether or not they take part in scores.
    """
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


def _trace(loaded: LoadedEncoder) -> OpenVinoModel:
    # With torch's fused attention a row that is mostly padding may come out as NaN.
    with suppress(AttributeError, ValueError):
        loaded.model[0].auto_model.set_attn_implementation("eager")
    example = loaded.inputs(SAMPLE_TEXTS, DOCUMENT)
    tensors = tuple(map(loaded.torch.from_numpy, example.values()))
    with warnings.catch_warnings(), loaded.torch.no_grad():
        # Tracing warns of every place that could go wrong; whether one did is checked afterwards.
        warnings.simplefilter("ignore")
        try:
            module = loaded.as_module(list(example))
            converted = load_openvino().convert_model(module, example_input=tensors)
        except Exception as error:
            reason = f"OpenVINO cannot convert the model: {first_line(error)}"
            raise ModelNotServable(reason) from error
    for port, name in zip(converted.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    converted.outputs[0].get_tensor().set_names({"vectors"})
    return converted
