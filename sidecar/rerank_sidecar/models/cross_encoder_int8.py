"""Quantises a cross-encoder to int8 with sample pairs in its own tokens; needs `convert`."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.models.calibration import read_calibration_pairs
from rerank_sidecar.models.checkpoint import Checkpoint
from rerank_sidecar.models.quantize import quantize_int8
from rerank_sidecar.models.runtime import OpenVinoModel

_LOG = logging.getLogger(__name__)

_PAIRS = 200
_MAX_TOKENS = 256


def quantize_cross_encoder(
    model: OpenVinoModel, tokenizer_path: Path, checkpoint: Checkpoint
) -> OpenVinoModel:
    """Store and multiply a model's weights as int8.

    The ranges of its activations are measured on pairs that are shipped with the package.

    Raises:
        MissingExtra: NNCF is not installed.
    """
    _LOG.info("quantising %s to int8", checkpoint.folder)
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(_MAX_TOKENS, checkpoint.max_tokens))
    names = {port.get_any_name() for port in model.inputs}
    return quantize_on(model, list(_sample_batches(tokenizer, names)), checkpoint.folder)


def quantize_on(
    model: OpenVinoModel, batches: Sequence[Mapping[str, npt.NDArray[np.int64]]], folder: Path
) -> OpenVinoModel:
    """Store and multiply a model's weights as int8, with ranges measured on batches of samples.

    Raises:
        MissingExtra: NNCF is not installed.
    """
    try:
        # NNCF draws its progress on standard output, which belongs to what the user asked for.
        with contextlib.redirect_stdout(sys.stderr):
            return quantize_int8(model, batches)
    except MissingExtra as error:
        purpose = f"quantising {folder} (it can be served exact with --quantize none)"
        raise MissingExtra("convert", purpose) from error


def _sample_batches(
    tokenizer: Tokenizer, names: set[str]
) -> Iterator[dict[str, npt.NDArray[np.int64]]]:
    """Make batches of one pair each, so that no padding distorts the measured ranges."""
    for query, document in islice(read_calibration_pairs(), _PAIRS):
        encoding = tokenizer.encode(query, document)
        arrays = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        yield {name: np.array([arrays[name]], dtype=np.int64) for name in sorted(names)}
