"""A causal model on one device that answers at the end of each sequence; what they share runs once.

The prompt and the query stand at the beginning of each of a request's sequences. A causal model's
states for a token depend on what comes before it alone, so keys and values of the common beginning
are computed for one row and then held against all rows. They are remembered for the batches that
follow.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.torch_batches import Staging, padded_width
from rerank_sidecar.backends.torch_program import in_memory_of
from rerank_sidecar.models.packed import HubModel
from rerank_sidecar.models.torch_causal import CausalModel, answer_with, reading_at
from rerank_sidecar.models.torch_device import TorchDtype, TorchEngine

Cache: TypeAlias = Any
"""A `transformers.Cache`."""

_LOG = logging.getLogger(__name__)

_LEAST_SHARED = 16
"""Fewer tokens are not worth a pass of their own."""

_MOSTLY = 0.75
"""A remembered beginning is used if it is at least this part of what the batch has in common."""

_SAME, _SAME_IN_HALF = 1e-3, 0.1
"""What rounding leaves between two ways of computing the same, relative to the scale."""

_CHECKED_LENGTHS = (70, 45, 90)
_CHECKED_SHARED = 40


@dataclass(frozen=True, slots=True, eq=False)
class _Beginning:
    """Tokens [tokens] and, for each layer, their keys and values [1, heads, tokens, size]."""

    token_ids: npt.NDArray[np.int64]
    states: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    def first(self, tokens: int) -> _Beginning:
        """Give its own beginning."""
        cut = tuple((key[:, :, :tokens], value[:, :, :tokens]) for key, value in self.states)
        return _Beginning(self.token_ids[:tokens], cut)


class CausalProgram:
    """A causal model made to answer (see `answer_with`) on the device that it is on.

    May be run from several threads at once; `staging` belongs to one.
    """

    def __init__(
        self, model: HubModel, device: torch.device, pad_token_id: int, max_tokens: int
    ) -> None:
        self._model = model
        self._device = device
        self._pad_token_id = pad_token_id
        self._max_tokens = max_tokens
        self._shares = False
        self._remembered: dict[int, _Beginning] = {}

    @property
    def device(self) -> torch.device:
        """Give the device that the model is on."""
        return self._device

    @property
    def is_packed(self) -> bool:
        """Batches are padded."""
        return False

    @property
    def shares(self) -> bool:
        """Tell whether a common beginning runs once."""
        return self._shares

    def cost_tokens(self, lengths: Sequence[int]) -> int:
        """Count the tokens of a batch as it is laid out if it has no common beginning."""
        return len(lengths) * padded_width(max(lengths), self._max_tokens)

    def run(self, batch: Sequence[TokenSequence], staging: Staging) -> torch.Tensor:
        """Give the logits of the answers [batch, answers]."""
        with torch.inference_mode():
            shared = self._shared(batch) if self._shares else None
            return self._answers(batch, shared, staging)

    def try_to_share(self, tolerance: float) -> bool:
        """Share beginnings from now on if answers stay what they are; tell whether they do."""
        batch, staging = _checked_batch(), Staging(self._device)
        expected = self.run(batch, staging).float().cpu()
        self._shares = True
        try:
            answers = self.run(batch, staging).float().cpu()
            scale = max(1.0, float(expected.abs().max()))
            self._shares = float((answers - expected).abs().max()) <= tolerance * scale
        except Exception as error:  # noqa: BLE001 - whatever a model says to it, it can do without
            _LOG.info("a model's beginnings cannot be shared: %s", type(error).__name__)
            self._shares = False
        self._remembered.clear()
        return self._shares

    def _answers(
        self, batch: Sequence[TokenSequence], shared: _Beginning | None, staging: Staging
    ) -> torch.Tensor:
        begun = 0 if shared is None else len(shared.token_ids)
        rest = [TokenSequence(each.token_ids[begun:], each.type_ids[begun:]) for each in batch]
        lengths = [len(each) for each in rest]
        width = padded_width(max(lengths), self._max_tokens - begun)
        # Padding stands behind what is read, where a causal model does not look.
        laid = staging.pad(rest, self._pad_token_id, width)
        ends = torch.tensor(lengths, device=self._device) - 1
        return self._run(laid.token_ids, ends, _cache(shared, len(batch)))

    def _run(
        self, token_ids: torch.Tensor, ends: torch.Tensor, cache: Cache | None
    ) -> torch.Tensor:
        with reading_at(ends):
            output = self._model(
                input_ids=token_ids, past_key_values=cache, use_cache=cache is not None
            )
        logits: torch.Tensor = output.logits[:, 0]
        return logits

    def _shared(self, batch: Sequence[TokenSequence]) -> _Beginning | None:
        common = _common_tokens([each.token_ids for each in batch])
        known = self._remembered.get(self._stream())
        if known is not None:
            same = _same_tokens(known.token_ids, batch[0].token_ids[:common])
            if same >= max(_LEAST_SHARED, _MOSTLY * common):
                return known.first(same)
        if len(batch) == 1 or common < _LEAST_SHARED:
            return None
        beginning = self._begin(batch[0].token_ids[:common])
        self._remembered[self._stream()] = beginning
        return beginning

    def _stream(self) -> int:
        """Name what orders this run's work: on a GPU no stream may use what another computes."""
        if self._device.type == "cpu":
            return 0
        return int(torch.cuda.current_stream(self._device).cuda_stream)

    def _begin(self, token_ids: npt.NDArray[np.int64]) -> _Beginning:
        from transformers import DynamicCache

        cache = DynamicCache()
        ids = torch.from_numpy(token_ids)[None].to(self._device)
        self._run(ids, torch.zeros(1, dtype=torch.int64, device=self._device), cache)
        states = tuple((layer.keys, layer.values) for layer in cache.layers)
        return _Beginning(token_ids.copy(), states)


def _cache(shared: _Beginning | None, rows: int) -> Cache | None:
    if shared is None:
        return None
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    for key, value in shared.states:
        layer = DynamicLayer()
        layer.lazy_initialization(key, value)
        # Views, which are copied once, where the rows' own keys and values are put behind them.
        layer.keys, layer.values = key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1)
        cache.layers.append(layer)
    return cache


def _common_tokens(rows: Sequence[npt.NDArray[np.int64]]) -> int:
    """Count the tokens that all rows begin with, leaving at least one of each."""
    common = min(map(len, rows)) - 1
    for row in rows[1:]:
        common = _same_tokens(rows[0][:common], row[:common])
    return max(0, common)


def _same_tokens(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> int:
    most = min(len(one), len(other))
    differs = np.flatnonzero(one[:most] != other[:most])
    return int(differs[0]) if len(differs) else most


def _checked_batch() -> list[TokenSequence]:
    random = np.random.default_rng(0)
    shared = random.choice(range(5, 15), _CHECKED_SHARED)
    rows = [
        np.concatenate([shared, random.choice(range(5, 15), length - _CHECKED_SHARED)])
        for length in _CHECKED_LENGTHS
    ]
    return [TokenSequence(row, np.zeros_like(row)) for row in rows]


def causal_programs(
    engine: TorchEngine, model: CausalModel, token_ids: Sequence[int], *, max_tokens: int
) -> list[CausalProgram]:
    """Put a causal model on each device of an engine, made to answer; `model` is used up.

    Beginnings are shared where that is seen to leave the answers what they are.

    Raises:
        ModelNotServable: the memory of a device has no room for it.
    """
    module, padding = model.module, model.tokenizer.pad_token_id or 0
    answer_with(module, token_ids)
    same = _SAME if engine.dtype is TorchDtype.FLOAT32 else _SAME_IN_HALF
    programs = []
    for number, name in enumerate(engine.devices):
        is_last = number == len(engine.devices) - 1
        own = module if is_last else copy.deepcopy(module)
        device = torch.device(name)
        with in_memory_of(device):
            program = CausalProgram(own.to(device), device, padding, max_tokens)
            if not program.try_to_share(same):
                _LOG.info("%s: each sequence is read from its beginning", name)
        programs.append(program)
    return programs
