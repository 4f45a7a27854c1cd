"""Lays a batch of token sequences out for torch: padded to a rectangle, or packed into one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.models.packed import PackedLayout

LENGTH_MULTIPLE = 8
"""Padded lengths are a multiple of this: tensor cores and vector registers want whole eights."""


@dataclass(frozen=True, slots=True, eq=False)
class TorchBatch:
    """A batch on a device.

    All but `packed` are int64: [batch, tokens] if padded, [1, tokens] if packed. `mask` is None
    where nothing is padding. `positions` count from 0 in each sequence; None if padded.
    """

    token_ids: torch.Tensor
    type_ids: torch.Tensor
    mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    packed: PackedLayout | None = None


class Staging:
    """Memory of the host from which batches are copied to a device, used for one at a time.

    For a GPU it is pinned, so that copies run beside the host's own work and it is made once: a
    batch must have arrived before the next is laid out. A CPU reads it where it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_pinned = device.type == "cuda"
        self._memory = torch.empty(0, dtype=torch.int64)

    def pad(self, batch: Sequence[TokenSequence], pad_token_id: int, width: int) -> TorchBatch:
        """Lay a batch out padded to a width."""
        rows = self._rows(3, len(batch) * width)
        shaped = rows.numpy().reshape(3, len(batch), width)
        shaped[0], shaped[1:] = pad_token_id, 0
        for row, sequence in enumerate(batch):
            shaped[0, row, : len(sequence)] = sequence.token_ids
            shaped[1, row, : len(sequence)] = sequence.type_ids
            shaped[2, row, : sequence.attended_tokens] = 1
        ids, types, mask = self._send(rows).view(3, len(batch), width)
        has_padding = any(sequence.attended_tokens < width for sequence in batch)
        return TorchBatch(ids, types, mask if has_padding else None)

    def pack(self, batch: Sequence[TokenSequence], position_offset: int) -> TorchBatch:
        """Lay a batch out as one row; positions begin at the offset."""
        lengths = [len(sequence) for sequence in batch]
        bounds = (0, *accumulate(lengths))
        rows = self._rows(4, max(bounds[-1], len(bounds)))
        laid = rows.numpy()
        tokens = bounds[-1]
        laid[0, :tokens] = np.concatenate([sequence.token_ids for sequence in batch])
        laid[1, :tokens] = np.concatenate([sequence.type_ids for sequence in batch])
        laid[2, :tokens] = _positions(lengths, bounds) + position_offset
        laid[3, : len(bounds)] = bounds
        sent = self._send(rows)
        layout = PackedLayout(bounds, sent[3, : len(bounds)].to(torch.int32), max(lengths))
        ids, types, positions = sent[:3, None, :tokens]
        return TorchBatch(ids, types, positions=positions, packed=layout)

    def _rows(self, count: int, width: int) -> torch.Tensor:
        size = count * width
        if len(self._memory) < size:
            self._memory = torch.empty(2 * size, dtype=torch.int64, pin_memory=self._is_pinned)
        return self._memory[:size].view(count, width)

    def _send(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self._device, non_blocking=True)


def _positions(lengths: Sequence[int], bounds: Sequence[int]) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = np.repeat(bounds[:-1], lengths)
    return np.arange(bounds[-1], dtype=np.int64) - starts


def padded_width(longest: int, max_tokens: int | None) -> int:
    """Round a batch's length up, but not beyond what the model reads."""
    whole = max(1, -(-longest // LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
    return whole if max_tokens is None else max(longest, min(whole, max_tokens))
