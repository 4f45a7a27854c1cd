"""Makes a transformer's weights 8-bit integers, with nothing measured; needs the `convert` extra.

Activations are quantised by OpenVINO while it runs, token by token, so no sample input is needed
and scores stay closer to float32 than with ranges fixed beforehand (models/quantize.py), which are
about a fifth faster; docs/embedded-model.md has the figures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

Nncf: TypeAlias = Any

ACTIVATION_GROUP_SIZE = 128
"""How many neighbouring channels of one token share a scale when activations are quantised."""


def compress_weights_int8(model: OpenVinoModel) -> OpenVinoModel:
    """Store a model's weights as int8, with one scale per output channel.

    The model is changed and given back. It also carries the wish that OpenVINO quantise the
    inputs of its matrix products to 8 bits at run time, in groups of `ACTIVATION_GROUP_SIZE`
    channels of one token, which it does on CPUs with 8-bit dot products (AVX2-VNNI, AVX512-VNNI);
    others compute in float32. A token's result does not depend on its neighbours in the batch.

    Raises:
        MissingExtra: NNCF is not installed.
    """
    load_openvino()
    try:
        import nncf
    except ImportError as error:
        raise MissingExtra("convert", "compressing a model to int8") from error
    with _quiet(nncf):
        compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    compressed.set_rt_info(
        str(ACTIVATION_GROUP_SIZE), ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]
    )
    return compressed


@contextmanager
def _quiet(nncf: Nncf) -> Iterator[None]:
    """Silence NNCF's logger and the progress bars that it draws on rich's shared console."""
    import rich

    console = rich.get_console()
    level, was_quiet = logging.getLogger("nncf").level, console.quiet
    nncf.set_log_level(logging.ERROR)
    console.quiet = True
    try:
        yield
    finally:
        nncf.set_log_level(level)
        console.quiet = was_quiet
