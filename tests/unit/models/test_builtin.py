"""The embedded model comes with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_sidecar.errors import ModelUnavailable
from rerank_sidecar.models.builtin import embedded_model


def test_embedded_names_its_files_and_limits() -> None:
    model = embedded_model()
    assert (model.source, model.quantization) == ("built in", "int8")
    assert model.model_path.with_suffix(".bin").is_file()
    assert model.tokenizer_path.is_file()
    assert 0 < model.overlap_tokens < model.max_tokens
    assert len(model.version) == 12


def test_a_package_without_the_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"lacks model\.json"):
        embedded_model(tmp_path)
