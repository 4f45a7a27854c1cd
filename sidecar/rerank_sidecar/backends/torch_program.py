"""A transformer on one device: laid-out batches in, a tensor out, without padding where it can."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.torch_batches import Staging, TorchBatch, padded_width
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.packed import Undo, can_pack_on, laid_out, pack, position_offset
from rerank_sidecar.models.torch_checkpoint import TorchModel, cast
from rerank_sidecar.models.torch_device import CPU, TorchDtype, TorchEngine

_LOG = logging.getLogger(__name__)

DTYPES = {
    TorchDtype.FLOAT32: torch.float32,
    TorchDtype.BF16: torch.bfloat16,
    TorchDtype.FP16: torch.float16,
}

_SAME = 1e-4
"""Rounding leaves less between two ways of computing the same in float32, relative to the scale."""

_SAME_IN_HALF = 0.1

_CHECKED_LENGTHS = (3, 150, 40, 300)
_CHECKED_IDS = range(5, 15)
"""Every vocabulary has these."""


class TorchProgram:
    """A model on a device, which lays batches out in its own way and runs them.

    Made by `programs_on`. May be run from several threads at once; `staging` belongs to one.
    """

    def __init__(self, model: TorchModel, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._undo: Undo | None = None
        self._position_offset = 0

    @property
    def device(self) -> torch.device:
        """Give the device that the model is on."""
        return self._device

    @property
    def is_packed(self) -> bool:
        """Tell whether batches are packed and so have no padding."""
        return self._undo is not None

    def cost_tokens(self, lengths: Sequence[int]) -> int:
        """Count the tokens of a batch as it is laid out, padding included."""
        if self.is_packed:
            return sum(lengths)
        return len(lengths) * padded_width(max(lengths), self._model.max_tokens)

    def run(self, batch: Sequence[TokenSequence], staging: Staging) -> torch.Tensor:
        """Give logits [batch, labels] or hidden states [batch or 1, tokens, dimension]."""
        laid = self._lay_out(batch, staging)
        inputs = {
            "input_ids": laid.token_ids,
            "attention_mask": laid.mask,
            "position_ids": laid.positions,
            "token_type_ids": laid.type_ids if self._model.takes_types else None,
        }
        given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        layout = nullcontext() if laid.packed is None else laid_out(laid.packed)
        with torch.inference_mode(), layout:
            return self._model.run(self._model.module, given)

    def try_to_pack(self, tolerance: float) -> bool:
        """Run packed from now on if the outputs stay what they are; tell whether they do."""
        transformer = self._model.transformer(self._model.module)
        if transformer is None:
            return False
        batch, staging = self._checked_batch(), Staging(self._device)
        expected = self._rows(batch, staging)
        self._undo = pack(transformer, first_tokens=self._model.output == "logits")
        if self._undo is None:
            return False
        self._position_offset = position_offset(transformer)
        try:
            same = _are_same(self._rows(batch, staging), expected, tolerance)
        except Exception as error:  # noqa: BLE001 - whatever a model says to it, there is padding
            _LOG.debug("a model cannot be run packed: %s", type(error).__name__)
            same = False
        if not same:
            self.unpack()
        return same

    def unpack(self) -> None:
        """Run padded from now on."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def _lay_out(self, batch: Sequence[TokenSequence], staging: Staging) -> TorchBatch:
        if self.is_packed:
            return staging.pack(batch, self._position_offset)
        width = padded_width(max(map(len, batch)), self._model.max_tokens)
        return staging.pad(batch, self._model.pad_token_id, width)

    def _checked_batch(self) -> list[TokenSequence]:
        random = np.random.default_rng(0)
        most = self._model.max_tokens
        sequences = []
        for length in _CHECKED_LENGTHS:
            ids = random.choice(_CHECKED_IDS, min(length, most))
            types = (np.arange(len(ids)) > len(ids) // 3).astype(np.int64)
            sequences.append(TokenSequence(ids, types))
        return sequences

    def _rows(self, batch: Sequence[TokenSequence], staging: Staging) -> list[torch.Tensor]:
        output = self.run(batch, staging).float().cpu()
        return split(output, [len(sequence) for sequence in batch])


def split(output: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """Cut what a program gave into a row for each sequence, without padding."""
    if output.ndim == 2:
        return list(output)
    if len(output) == 1:
        return list(torch.split(output[0, : sum(lengths)], list(lengths)))
    return [row[:length] for row, length in zip(output, lengths, strict=True)]


def programs_on(engine: TorchEngine, model: TorchModel) -> list[TorchProgram]:
    """Put a model on each device of an engine, packed where it can be; `model` is used up.

    Whether it bears that is seen in float32 on the CPU first, where rounding hides nothing, and
    then once more on a GPU, whose kernels are others.

    Raises:
        ModelNotServable: the memory of a device has no room for it.
    """
    dtype = DTYPES[engine.dtype]
    exact = TorchProgram(model, torch.device(CPU))
    bears_it = exact.try_to_pack(_SAME)
    if engine.devices == (CPU,) and dtype is torch.float32:
        return [exact]
    exact.unpack()
    programs = []
    for number, name in enumerate(engine.devices):
        is_last = number == len(engine.devices) - 1
        own = model if is_last else _copy(model)
        device = torch.device(name)
        cast(own.module, dtype)
        with in_memory_of(device):
            own.module.to(device)
            program = TorchProgram(own, device)
            if bears_it and can_pack_on(device, dtype):
                program.try_to_pack(_SAME_IN_HALF)
        _LOG.info("%s runs %s batches", name, "packed" if program.is_packed else "padded")
        programs.append(program)
    return programs


@contextmanager
def in_memory_of(device: torch.device) -> Iterator[None]:
    """Say in a sentence that a model does not fit onto a device.

    Raises:
        ModelNotServable: it does not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelNotServable(f"the memory of {device} has no room for the model") from error


def _copy(model: TorchModel) -> TorchModel:
    return replace(model, module=copy.deepcopy(model.module))


def _are_same(
    rows: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float
) -> bool:
    scale = max(1.0, *(float(each.abs().max()) for each in expected))
    return all(
        one.shape == other.shape and float((one - other).abs().max()) <= tolerance * scale
        for one, other in zip(rows, expected, strict=True)
    )
