"""Forms that several products took over from OpenAI's API: errors and lists of models."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from rerank_sidecar.api.dialects.base import Info, ServerState
from rerank_sidecar.types import ModelDescription

ModelCard = dict[str, Any]
"""What is told of one model."""


class OpenAIError(Struct, frozen=True):
    """What went wrong; `param` is the field at fault and `code` the HTTP status."""

    message: str
    type: str | None
    param: str | None
    code: int


def model_card(model: ModelDescription, owned_by: str, **more: object) -> ModelCard:
    """Describe a model; when it was made is not known, so that `created` is now.

    No product tells the last two; clients ignore what they do not know.
    """
    return {
        "id": model.model.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": owned_by,
        **more,
        "aliases": list(model.aliases),
        "is_loaded": model.is_loaded,
    }


def list_models(card: Callable[[ModelDescription], ModelCard]) -> Info:
    """Answer `GET /v1/models` with a card of each model that is served, the default first."""

    def tell(state: ServerState, _model: str | None) -> tuple[int, Any]:
        state.describe(None)  # an empty list would look like a server without models
        return 200, {"object": "list", "data": [card(each) for each in state.models]}

    return tell


def show_model(card: Callable[[ModelDescription], ModelCard]) -> Info:
    """Answer `GET /v1/models/{model}` with its card."""

    def tell(state: ServerState, model: str | None) -> tuple[int, Any]:
        return 200, card(state.describe(model))

    return tell
