"""Shadows: `model = "shadow"` with two members, of which the first answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.members import check_members
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.members import joint_source
from rerank_sidecar.rerankers.shadow import ShadowConfig, ShadowReranker
from rerank_sidecar.settings import Settings

_DEFAULTS = ShadowConfig()


class ShadowOptions(BaseModel):
    """Which share of requests the second model scores, how many at once, for how long each."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: float = Field(_DEFAULTS.share, ge=0, le=1)
    max_running: PositiveInt = _DEFAULTS.max_running
    timeout_s: PositiveFloat = _DEFAULTS.timeout_s


class ShadowFamily:
    """One model answers and another is compared with it: `--model shadow` with two members."""

    name = "shadow"

    def claims(self, source: str) -> bool:
        """Tell whether a shadow is meant."""
        return source == self.name

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Put the members together."""
        first, second = check_members(loading, self.name, most=2)
        info = replace(
            first.info,
            name=loading.name,
            family=self.name,
            source=joint_source(self.name, [first.info, second.info]),
        )
        options = loading.options(ShadowOptions)
        reranker = ShadowReranker(info, first, second, ShadowConfig(**options.model_dump()))
        loading.stack.push_async_callback(reranker.close)
        return reranker
