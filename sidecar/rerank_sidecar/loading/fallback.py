"""Fallbacks: `model = "fallback"` with members, the one that should answer first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat

from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.members import check_members
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.fallback import FallbackConfig, FallbackReranker
from rerank_sidecar.rerankers.members import joint_source, joint_version
from rerank_sidecar.settings import Settings

_DEFAULTS = FallbackConfig()


class FallbackOptions(BaseModel):
    """How long each member but the last may take, and for how long a failure is remembered."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    timeout_s: PositiveFloat = _DEFAULTS.timeout_s
    sticky_s: NonNegativeFloat = _DEFAULTS.sticky_s
    rest_s: NonNegativeFloat = _DEFAULTS.rest_s


class FallbackFamily:
    """The first model that can answers: `--model fallback` with members."""

    name = "fallback"

    def claims(self, source: str) -> bool:
        """Tell whether a fallback is meant."""
        return source == self.name

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Put the members together."""
        members = check_members(loading, self.name)
        infos = [member.info for member in members]
        info = replace(
            infos[0],
            name=loading.name,
            version=joint_version(infos),
            family=self.name,
            source=joint_source(self.name, infos),
            comparable_across_requests=all(each.comparable_across_requests for each in infos),
            scripts=_scripts_of_any(infos),
            keep_scores=False,
        )
        options = loading.options(FallbackOptions)
        return FallbackReranker(info, members, FallbackConfig(**options.model_dump()))


def _scripts_of_any(infos: Sequence[RerankerInfo]) -> frozenset[str] | None:
    limited = [info.scripts for info in infos if info.scripts is not None]
    return frozenset().union(*limited) if len(limited) == len(infos) else None
