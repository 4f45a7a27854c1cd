"""`embedded` and `lexical` resolve at once, from the package alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_sidecar.errors import ModelUnavailable
from rerank_sidecar.models.builtin import embedded_model
from rerank_sidecar.models.resolve import resolve_model
from rerank_sidecar.settings import read_settings


def test_lexical_has_no_files() -> None:
    model = resolve_model(read_settings(model="lexical"))
    assert (model.name, model.family, model.model_path) == ("lexical", "lexical", None)
    assert model.version


def test_embedded_names_its_files_and_limits() -> None:
    model = resolve_model(read_settings())
    assert (model.name, model.family, model.quantization) == (
        "embedded",
        "late_interaction",
        "int8",
    )
    assert model.model_path is not None
    assert model.model_path.with_suffix(".bin").is_file()
    assert model.tokenizer_path is not None
    assert model.tokenizer_path.is_file()
    assert model.max_tokens is not None
    assert 0 < model.overlap_tokens < model.max_tokens
    assert len(model.version) == 12


def test_a_package_without_the_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"lacks model\.json"):
        embedded_model(tmp_path)
