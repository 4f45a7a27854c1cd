"""Cascades of other models: `model = "cascade"` with members, cheap ones first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.members import check_members, listed
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.cascade import CascadeReranker
from rerank_sidecar.rerankers.members import joint_info
from rerank_sidecar.settings import Settings


class CascadeOptions(BaseModel):
    """`keep`: how many documents each member but the last hands on; one number stands for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: Annotated[tuple[PositiveInt, ...], BeforeValidator(listed)] = (50,)


class CascadeFamily:
    """A cheap model scores all, dearer ones the best: `--model cascade` with members."""

    name = "cascade"

    def claims(self, source: str) -> bool:
        """Tell whether a cascade is meant."""
        return source == self.name

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Put the members together."""
        members = check_members(loading, self.name)
        keep = _keep(loading.options(CascadeOptions).keep, len(members) - 1)
        return CascadeReranker(joint_info(loading.name, self.name, members, keep), members, keep)


def _keep(given: tuple[int, ...], wanted: int) -> tuple[int, ...]:
    keep = given * wanted if len(given) == 1 else given
    if len(keep) != wanted:
        raise InvalidSetting(
            f"family_options.keep: must be one number, or {wanted}, for each member but the last"
        )
    return keep
