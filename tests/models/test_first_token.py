"""The last layer is computed for the first token alone where only that one is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rerank_sidecar.models.checkpoint import read_checkpoint
from rerank_sidecar.models.convert import convert_checkpoint
from rerank_sidecar.models.export_check import CHECK_TOKENS, compiled, padded_batch
from rerank_sidecar.models.first_token import compute_first_token_only
from tests.models.tiny_models import save_tiny_model


def load(folder: Path) -> Any:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager"
    )
    return model.eval()


def logits(model: Any, folder: Path) -> Any:
    batch = padded_batch(read_checkpoint(folder), CHECK_TOKENS)
    names = ("input_ids", "attention_mask")
    with torch.no_grad():
        return model(**{name: torch.from_numpy(batch[name]) for name in names}).logits.numpy()


@pytest.mark.parametrize("architecture", ["bert", "electra", "xlm-roberta"])
def test_logits_stay_the_same(tmp_path: Path, architecture: str) -> None:
    save_tiny_model(tmp_path, architecture)
    model = load(tmp_path)
    expected = logits(model, tmp_path)
    seen: list[tuple[int, ...]] = []
    assert compute_first_token_only(torch, model)
    last = getattr(model, model.base_model_prefix).encoder.layer[-1]
    last.register_forward_hook(lambda _module, _given, hidden: seen.append(tuple(hidden.shape)))
    np.testing.assert_allclose(logits(model, tmp_path), expected, atol=1e-5)
    assert [shape[1] for shape in seen] == [1]


def test_a_layer_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, "modernbert")
    model = load(tmp_path)
    assert not compute_first_token_only(torch, model)


def test_a_classifier_that_reads_all_tokens_is_converted_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model(tmp_path, "bert")
    pooler = transformers.models.bert.modeling_bert.BertPooler

    def mean(self: Any, hidden: Any) -> Any:
        return self.activation(self.dense(hidden.mean(dim=1)))

    monkeypatch.setattr(pooler, "forward", mean)
    checkpoint = read_checkpoint(tmp_path)
    converted = compiled(convert_checkpoint(checkpoint, trust_remote_code=False))
    batch = padded_batch(checkpoint, CHECK_TOKENS)
    with torch.no_grad():
        expected = load(tmp_path)(**{k: torch.from_numpy(v) for k, v in batch.items()}).logits
    np.testing.assert_allclose(converted(batch), expected.numpy(), atol=1e-3)
