"""An engine for a command that is its only caller."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from rerank_sidecar.model_settings import LoadTime
from rerank_sidecar.settings import Settings

if TYPE_CHECKING:
    from rerank_sidecar.engine.engine import Engine

_A_WEEK_S = 604_800.0

# Nobody else waits, so nothing is refused or cut short; what is measured should be the model.
_ALONE = {
    "admission": False,
    "request_timeout_s": _A_WEEK_S,
    "score_cache_bytes": 0,
    "token_matrix_cache_bytes": 0,
    "token_matrix_cache_dir": None,
}


def own_engine(settings: Settings) -> AbstractAsyncContextManager[Engine]:
    """Load the default model and give an engine that takes its time and remembers nothing.

    Raises:
        StartupError: a setting is wrong or the model cannot be had.
    """
    from rerank_sidecar.app import build_engine

    table = settings.default_table
    if table is None:
        return build_engine(settings.model_copy(update=_ALONE))
    # Only the default one is loaded, and the members that it may have.
    others = [
        each if each is table else each.model_copy(update={"load": LoadTime.LAZY})
        for each in settings.models
    ]
    alone = {**_ALONE, "models": tuple(others), "model": table.name}
    return build_engine(settings.model_copy(update=alone))
