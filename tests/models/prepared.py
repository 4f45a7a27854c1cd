"""Prepares the cross-encoder that settings name, as serving it would."""

from __future__ import annotations

from rerank_sidecar.models.prepare import prepare_cross_encoder
from rerank_sidecar.models.resolve import model_folder, source_of
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.settings import Settings


def prepared_model(settings: Settings) -> ServableModel:
    return prepare_cross_encoder(model_folder(settings), source_of(settings), settings)
