"""What CUDA-only attention asks of torch, seen on the CPU from a stand-in for torch's kernel."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.attention.varlen

from tests.models.test_torch_cross_encoders import (
    ARCHITECTURES,
    IDENTITY,
    PADDED,
    backend_of,
    expected_scores,
    pairs_of,
    scores_of,
)
from tests.models.tiny_models import save_tiny_model


def varlen_attn(  # noqa: PLR0917 - as torch has it
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """Do what torch 2.11 documents of `torch.nn.attention.varlen.varlen_attn`, on the CPU."""
    for each in (query, key, value):
        assert each.ndim == 3
        assert each.stride(-1) == 1, "flash attention wants numbers of a head side by side"
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    starts_q, starts_k = cu_seq_q.tolist(), cu_seq_k.tolist()
    assert len(starts_q) == len(starts_k)
    assert (starts_q[-1], starts_k[-1]) == (len(query), len(key))
    assert (max_q, max_k) == (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max()))
    left, right = window_size
    parts = []
    for (from_q, to_q), (from_k, to_k) in zip(pairwise(starts_q), pairwise(starts_k), strict=True):
        products = torch.einsum("qhd,khd->hqk", query[from_q:to_q], key[from_k:to_k])
        scaled = products * (query.shape[-1] ** -0.5 if scale is None else scale)
        queries, keys = scaled.shape[1:]
        # Windows are aligned at the end of both.
        ahead = torch.arange(keys) - torch.arange(queries)[:, None] - (keys - queries)
        is_out = (ahead < -left if left >= 0 else False) | (ahead > right if right >= 0 else False)
        weights = torch.where(torch.as_tensor(is_out), -torch.inf, scaled).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, value[from_k:to_k]))
    return torch.cat(parts)


@pytest.mark.parametrize("architecture", [each for each in ARCHITECTURES if each not in PADDED])
def test_a_gpu_is_asked_for_attention_as_torch_documents_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    expected = expected_scores(folder)
    asked: list[None] = []

    def counting(*args: Any, **kwargs: Any) -> torch.Tensor:
        asked.append(None)
        return varlen_attn(*args, **kwargs)

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", counting)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    backend = backend_of(folder)
    assert not backend.info.is_padded
    asked.clear()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        scores_of(backend, pairs_of(folder)) / scale, expected / scale, atol=1e-5, rtol=0
    )
    assert len(asked) == 2, "once for each layer"
