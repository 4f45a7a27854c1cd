"""Post-training quantisation of a transformer to int8, with NNCF; needs the `convert` extra.

Activations with outlier channels are evened out first, by moving a part of their scale into the
weights (Xiao et al., "SmoothQuant", ICML 2023).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

SMOOTH_QUANT_ALPHA = 0.8
"""How much of an activation's scale is moved into the weights: the best of 0.5 to 0.95 here."""


def quantize_int8(
    model: OpenVinoModel, batches: Sequence[Mapping[str, npt.NDArray[np.int64]]]
) -> OpenVinoModel:
    """Store and multiply a model's weights as int8, with ranges measured on sample batches.

    A batch maps the model's inputs (input_ids, attention_mask, perhaps token_type_ids) to int64
    arrays [sequences, tokens]; padding distorts ranges, so batches of one are best. Scales are
    fixed here and not at run time, so a score does not depend on its neighbours in a batch. Weights
    use 7 of 8 bits, because CPUs without VNNI add products in 16 bits.

    Raises:
        MissingExtra: NNCF is not installed.
    """
    load_openvino()
    try:
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix
    except ImportError as error:
        raise MissingExtra("convert", "quantising a model to int8") from error
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset(list(batches)),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE,
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH_QUANT_ALPHA),
        ),
    )
