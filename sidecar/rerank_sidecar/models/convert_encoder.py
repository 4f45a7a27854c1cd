"""Exports encoders to OpenVINO; needs the `convert` extra.

The library's own modules are traced one behind the other, so that whatever they are the vectors are
its own.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.encoder_check import require_vectors, samples
from rerank_sidecar.models.export_check import compiled
from rerank_sidecar.models.load_encoder import (
    DOCUMENT,
    SAMPLE_TEXTS,
    LoadedEncoder,
    first_line,
)
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

_LOG = logging.getLogger(__name__)


def convert_encoder(loaded: LoadedEncoder) -> OpenVinoModel:
    """Export an encoder to an OpenVINO model whose only output is its vectors.

    They are [batch, dimension] or, of each token, [batch, tokens, dimension].

    Raises:
        ModelNotServable: the export does not give the vectors that the library gives, or a text's
            depend on what else is in its batch.
    """
    _LOG.info("exporting an encoder to OpenVINO")
    expected = samples(loaded)
    converted = _trace(loaded)
    require_vectors(expected, compiled(converted), loaded.facts, "the exported model")
    return converted


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
