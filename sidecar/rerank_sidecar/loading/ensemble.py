"""Ensembles of other models: `model = "ensemble"` with members."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.members import check_members, listed
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.ensemble import EnsembleConfig, EnsembleReranker, Fusion
from rerank_sidecar.rerankers.members import joint_info
from rerank_sidecar.settings import Settings


class EnsembleOptions(BaseModel):
    """`weights`: one for each member, by default all alike; `fusion` and its constant."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: Annotated[tuple[PositiveFloat, ...], BeforeValidator(listed)] = ()
    fusion: Fusion = Fusion.RECIPROCAL_RANK
    rank_constant: int = Field(60, ge=0)


class EnsembleFamily:
    """Places in the orders of several models, added up: `--model ensemble` with members."""

    name = "ensemble"

    def claims(self, source: str) -> bool:
        """Tell whether an ensemble is meant."""
        return source == self.name

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Put the members together."""
        members, options = check_members(loading, self.name), loading.options(EnsembleOptions)
        weights = options.weights or (1.0,) * len(members)
        if len(weights) != len(members):
            raise InvalidSetting(
                f"family_options.weights: must be {len(members)}, one for each member"
            )
        config = EnsembleConfig(weights, options.fusion, options.rank_constant)
        info = joint_info(
            loading.name, self.name, members, weights, config.fusion.value, config.rank_constant
        )
        return EnsembleReranker(info, members, config)
